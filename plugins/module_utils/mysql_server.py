# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to MySQL servers: sessions, their state as plain data, and the few statements that change a node's role.

The health agent on the nodes uses this file as it is, so it imports the standard library and PyMySQL only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

try:
    import pymysql
    import pymysql.cursors

    PYMYSQL_ERROR: ImportError | None = None
except ImportError as import_error:
    PYMYSQL_ERROR = import_error

SOCKET = "/run/mysqld/mysqld.sock"
# Whoever changes the roles of nodes holds this lock on every node that answers; it goes with the session.
LOCK = "scaleup.webstack.topology"


class ServerError(Exception):
    """A server did not answer or refused; the text is for an operator."""


class Session:
    """One connection. ``where`` is what messages call the server.

    :raises ServerError: the server does not answer, or does not let us in.
    """

    def __init__(self, where: str, connection: Mapping[str, Any], timeout: float = 5, read_timeout: float = 60) -> None:
        self.where = where
        try:
            self._connection = pymysql.connect(
                connect_timeout=timeout,
                read_timeout=read_timeout,
                write_timeout=read_timeout,
                autocommit=True,
                charset="utf8mb4",
                cursorclass=pymysql.cursors.DictCursor,
                **connection,
            )
        except (pymysql.MySQLError, OSError) as error:
            raise ServerError(_text(error)) from error

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, whatever state it is in."""
        with contextlib.suppress(pymysql.MySQLError, OSError):
            self._connection.close()

    def run(self, statement: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Execute one statement and return its rows.

        :raises ServerError: with the server's number and text.
        """
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement, tuple(values) or None)
                return list(cursor.fetchall())
        except (pymysql.MySQLError, OSError) as error:
            raise ServerError(_text(error)) from error

    def one(self, statement: str, values: Sequence[Any] = ()) -> dict[str, Any]:
        """The first row, empty when there is none."""
        rows = self.run(statement, values)
        return rows[0] if rows else {}


def _text(error: Exception) -> str:
    if len(error.args) >= 2:
        return f"{error.args[1]} (MySQL error {error.args[0]})"
    return str(error) or type(error).__name__


def by_socket(user: str = "root", path: str = SOCKET) -> dict[str, Any]:
    """The local server, as the operating system's user of that name."""
    return {"unix_socket": path, "user": user}


def by_network(address: str, port: int, user: str, password: str, ca: str) -> dict[str, Any]:
    """A server over TLS; its certificate has to be of that authority and for that address."""
    tls = {"ca": ca, "check_hostname": True}
    return {"host": address, "port": port, "user": user, "password": password, "ssl": tls}


_STATE = """
SELECT @@GLOBAL.version AS version, @@GLOBAL.server_id AS server_id, @@GLOBAL.server_uuid AS server_uuid,
       @@GLOBAL.read_only AS read_only, @@GLOBAL.super_read_only AS super_read_only,
       @@GLOBAL.gtid_executed AS gtid_executed, @@GLOBAL.gtid_purged AS gtid_purged
"""
_OWN_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")


def read_state(session: Session) -> dict[str, Any]:
    """What a node says about itself: the fields of mysql_topology.Node, ``replica`` as a dictionary or None.

    The replica's part is read first, so that a busy source never seems to lack what its replica has.
    """
    replica = read_replica(session)
    row = session.one(_STATE)
    schemas = [str(next(iter(r.values()))) for r in session.run("SHOW DATABASES")]
    semi_sync = session.one("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_status'").get("Value") == "ON"
    return {
        "version": str(row["version"]),
        "server_id": int(row["server_id"]),
        "server_uuid": str(row["server_uuid"]),
        "read_only": bool(row["read_only"]),
        "super_read_only": bool(row["super_read_only"]),
        "gtid_executed": row["gtid_executed"].replace("\n", ""),
        "gtid_purged": row["gtid_purged"].replace("\n", ""),
        "schemas": sorted(s for s in schemas if s not in _OWN_SCHEMAS),
        "replica": replica,
        "semi_sync": semi_sync,
    }


def read_replica(session: Session) -> dict[str, Any] | None:
    """The fields of mysql_topology.Replica, or None where no source is configured."""
    row = session.one("SHOW REPLICA STATUS")
    if not row or not row.get("Source_Host"):
        return None
    lag = row["Seconds_Behind_Source"]
    return {
        "source_host": row["Source_Host"],
        "source_port": int(row["Source_Port"]),
        "source_uuid": row["Source_UUID"],
        "io_running": row["Replica_IO_Running"],
        "sql_running": row["Replica_SQL_Running"],
        "io_error": row["Last_IO_Error"],
        "sql_error": row["Last_SQL_Error"],
        "auto_position": bool(int(row["Auto_Position"])),
        "retrieved": row["Retrieved_Gtid_Set"].replace("\n", ""),
        "lag": None if lag is None else int(lag),
    }


def source_password(session: Session) -> str:
    """The password that a replica uses; only root may read it."""
    row = session.one("SELECT User_password AS secret FROM mysql.slave_master_info WHERE Channel_name = ''")
    return str(row.get("secret") or "")


def read_executed(session: Session) -> str:
    """The transactions that a node has executed."""
    return str(session.one("SELECT @@GLOBAL.gtid_executed AS gtids")["gtids"]).replace("\n", "")


def set_writable(session: Session) -> None:
    """Never persisted: a node that crashes has to come back fenced."""
    session.run("SET GLOBAL super_read_only = OFF")
    session.run("SET GLOBAL read_only = OFF")


def set_fenced(session: Session) -> None:
    """No client may write, whatever its privileges."""
    session.run("SET GLOBAL super_read_only = ON")


def set_source(session: Session, address: str, port: int, user: str, password: str, ca: str) -> None:
    """Configure the source by GTID over TLS; the threads are started by start_replica()."""
    session.run("STOP REPLICA")
    session.run(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s, "
        "SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_SSL_CA = %s, SOURCE_SSL_VERIFY_SERVER_CERT = 1, "
        # A source that restarts is found again within a second, and a replica never gives up.
        "SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 0, GET_SOURCE_PUBLIC_KEY = 0",
        (address, port, user, password, ca),
    )


def start_replica(session: Session, seconds: float = 20) -> None:
    """Start the threads and wait until both work.

    :raises ServerError: they do not; carries the server's reason.
    """
    session.run("START REPLICA")
    deadline = time.monotonic() + seconds
    while True:
        replica = read_replica(session) or {}
        if replica.get("io_running") == "Yes" and replica.get("sql_running") == "Yes":
            return
        reason = replica.get("sql_error") or replica.get("io_error")
        if replica.get("sql_error") or time.monotonic() > deadline:
            raise ServerError(
                f"replication from {replica.get('source_host')} does not start: {reason or 'no reason given'}"
            )
        time.sleep(0.05)


def forget_source(session: Session) -> None:
    """A node that was a replica is none any more."""
    session.run("STOP REPLICA")
    session.run("RESET REPLICA ALL")


def take_lock(session: Session, seconds: float = 0) -> bool:
    """Hold the topology lock of a node for as long as the session lives."""
    return bool(session.one("SELECT GET_LOCK(%s, %s) AS ok", (LOCK, seconds))["ok"])


def wait_for_gtids(session: Session, gtids: str, seconds: float) -> bool:
    """Whether a node has executed a set within that time."""
    return bool(session.one("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS late", (gtids, seconds))["late"] == 0)


def application_sessions(session: Session, except_users: Sequence[str]) -> list[tuple[int, str]]:
    """(id, user) of the remote clients that are connected."""
    rows = session.run(
        "SELECT PROCESSLIST_ID AS id, PROCESSLIST_USER AS user FROM performance_schema.threads "
        "WHERE TYPE = 'FOREGROUND' AND PROCESSLIST_ID <> CONNECTION_ID() AND PROCESSLIST_USER IS NOT NULL"
    )
    return [(int(r["id"]), str(r["user"])) for r in rows if r["user"] not in except_users]
