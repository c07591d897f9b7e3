# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to MySQL and MariaDB servers: sessions, their state as plain data, and what changes a node's role.

The health agent on the nodes uses this file as it is, so it imports the standard library and PyMySQL only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

# Relative: the health agent has these files in a folder of their own.
from . import mysql_dialect, mysql_topology

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

    # What the server speaks; known when it has answered.
    dialect: mysql_dialect.MySQL = mysql_dialect.MYSQL

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
        self.dialect = mysql_dialect.dialect_of(self._connection.get_server_info())

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


_OWN_SCHEMAS = ("mysql", "information_schema", "performance_schema", "sys")


def read_state(session: Session) -> dict[str, Any]:
    """What a node says about itself: the fields of mysql_topology.Node, ``replica`` as a dictionary or None.

    The replica's part is read first, so that a busy source never seems to lack what its replica has.
    """
    replica = read_replica(session)
    dialect = session.dialect
    row = session.one(dialect.state)
    schemas = [str(next(iter(r.values()))) for r in session.run("SHOW DATABASES")]
    semi_sync = session.one(f"SHOW GLOBAL STATUS LIKE '{dialect.semi_sync}_status'").get("Value") == "ON"
    return {
        "version": str(row["version"]),
        "server_id": int(row["server_id"]),
        "server_uuid": str(row["server_uuid"]),
        "read_only": bool(row["read_only"]),
        "super_read_only": bool(row["super_read_only"]),
        "gtid_executed": dialect.gtids(row["gtid_executed"]),
        "gtid_purged": read_purged(session) if row.get("log_bin") else dialect.gtids(row["gtid_purged"]),
        "schemas": sorted(s for s in schemas if s not in _OWN_SCHEMAS),
        "replica": replica,
        "semi_sync": semi_sync,
    }


def read_purged(session: Session) -> str:
    """The transactions that a node has executed and whose binary logs are gone."""
    if session.dialect is mysql_dialect.MYSQL:
        return session.dialect.gtids(session.one("SELECT @@GLOBAL.gtid_purged AS gtids")["gtids"])
    # What was executed before the oldest one that is there.
    logs = session.run("SHOW BINARY LOGS")
    return executed_before(session, str(logs[0]["Log_name"])) or "" if logs else ""


def executed_before(session: Session, log: str) -> str | None:
    """The transactions that were executed before a binary log began; None where it does not say so."""
    return mysql_dialect.before_log(session.dialect, session.run(f"SHOW BINLOG EVENTS IN '{log}' LIMIT 3"))


def read_replica(session: Session) -> dict[str, Any] | None:
    """The fields of mysql_topology.Replica, or None where no source is configured."""
    return mysql_dialect.replica_state(session.dialect, session.one("SHOW REPLICA STATUS"))


def read_semi_sync(session: Session) -> tuple[bool, int]:
    """Whether a primary waits for its replicas, and how many acknowledge."""
    names = f"SHOW GLOBAL STATUS LIKE '{session.dialect.semi_sync}_%'"
    have = {str(r["Variable_name"]).rpartition("_")[2]: r["Value"] for r in session.run(names)}
    return have.get("status") == "ON", int(have.get("clients") or 0)


def source_password(session: Session) -> str:
    """The password that a replica uses; only root may read it."""
    if session.dialect is mysql_dialect.MARIADB:
        path = Path(str(session.one("SELECT @@GLOBAL.datadir AS folder")["folder"])) / "master.info"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        # How many lines, log, position, host, user, password.
        return lines[5] if len(lines) > 5 else ""
    row = session.one("SELECT User_password AS secret FROM mysql.slave_master_info WHERE Channel_name = ''")
    return str(row.get("secret") or "")


def read_executed(session: Session) -> str:
    """The transactions that a node has executed."""
    return session.dialect.gtids(session.one(session.dialect.executed)["gtids"])


def set_writable(session: Session) -> None:
    """Never persisted: a node that crashes has to come back fenced."""
    for statement in session.dialect.writable:
        session.run(statement)


def set_fenced(session: Session) -> None:
    """No client may write, whatever its privileges; on MariaDB none without READ_ONLY ADMIN."""
    for statement in session.dialect.fenced:
        session.run(statement)


def set_source(session: Session, address: str, port: int, user: str, password: str, ca: str) -> None:
    """Configure the source by GTID over TLS; the threads are started by start_replica()."""
    session.run("STOP REPLICA")
    session.run(session.dialect.source, (address, port, user, password, ca))


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
    if session.dialect.wait:
        return bool(session.one(session.dialect.wait, (gtids, seconds))["late"] == 0)
    deadline = time.monotonic() + seconds
    while mysql_topology.subtract_gtids(gtids, read_executed(session)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def application_sessions(session: Session, except_users: Sequence[str]) -> list[tuple[int, str]]:
    """(id, user) of the remote clients that are connected."""
    rows = session.run(session.dialect.clients)
    return [(int(r["id"]), str(r["user"])) for r in rows if r["user"] not in except_users]


def end_unfenced(session: Session, except_users: Sequence[str]) -> None:
    """End the sessions that could write on a fenced node."""
    if session.dialect.fence_is_tight:
        return
    rows = session.run(
        "SELECT DISTINCT GRANTEE AS account FROM information_schema.USER_PRIVILEGES "
        "WHERE PRIVILEGE_TYPE IN ('READ_ONLY ADMIN', 'READ ONLY ADMIN')"
    )
    able = {str(r["account"]).rpartition("@")[0].strip("'") for r in rows}
    for number, user in application_sessions(session, except_users):
        if user in able:
            with contextlib.suppress(ServerError):  # it has gone by itself
                session.run(f"KILL {number}")
