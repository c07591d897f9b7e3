# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the two vendors say differently: each statement, variable and column once, a class per vendor.

A MariaDB GTID is DOMAIN-SERVER-NUMBER, and a position names the last one only. Here it becomes the set that the rest of
the collection reckons with: ``0-11-100,0-12-150`` (all that server 11 wrote up to 100, and 12 up to 150) is
``0-11:1-100,0-12:1-150``. In strict mode the numbers of a domain only grow, so a history that diverged shows as a
server's number that the other node does not know.

The health agent on the nodes uses this file as it is, so it imports the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


class MySQL:
    """MySQL 8.4 or later."""

    vendor = "mysql"
    # A writable node undoes these in this order; a fenced one has them.
    writable: tuple[str, ...] = ("SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")
    fenced: tuple[str, ...] = ("SET GLOBAL super_read_only = ON",)
    # Whether no client at all can write on a fenced node, whatever its privileges.
    fence_is_tight = True
    state = """
SELECT @@GLOBAL.version AS version, @@GLOBAL.server_id AS server_id, @@GLOBAL.server_uuid AS server_uuid,
       @@GLOBAL.read_only AS read_only, @@GLOBAL.super_read_only AS super_read_only,
       @@GLOBAL.gtid_executed AS gtid_executed, @@GLOBAL.gtid_purged AS gtid_purged
"""
    executed = "SELECT @@GLOBAL.gtid_executed AS gtids"
    # None where no server can wait: it is asked again and again.
    wait: str | None = "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s) AS late"
    replica: Mapping[str, str] = {
        "source_host": "Source_Host",
        "source_port": "Source_Port",
        "source_uuid": "Source_UUID",
        "io_running": "Replica_IO_Running",
        "sql_running": "Replica_SQL_Running",
        "io_error": "Last_IO_Error",
        "sql_error": "Last_SQL_Error",
        "auto_position": "Auto_Position",
        "retrieved": "Retrieved_Gtid_Set",
        "lag": "Seconds_Behind_Source",
    }
    semi_sync = "Rpl_semi_sync_source"
    source = (
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s, "
        "SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 1, SOURCE_SSL_CA = %s, SOURCE_SSL_VERIFY_SERVER_CERT = 1, "
        # A source that restarts is found again within a second, and a replica never gives up.
        "SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 0, GET_SOURCE_PUBLIC_KEY = 0"
    )
    clients = (
        "SELECT PROCESSLIST_ID AS id, PROCESSLIST_USER AS user FROM performance_schema.threads "
        "WHERE TYPE = 'FOREGROUND' AND PROCESSLIST_ID <> CONNECTION_ID() AND PROCESSLIST_USER IS NOT NULL"
    )
    # The first events of a binary log; one of them says what was executed before it.
    before_log = "Previous_gtids"

    def gtids(self, text: Any) -> str:
        """A set of transactions in the form that the collection reckons with."""
        return str(text or "").replace("\n", "")

    def auto_position(self, value: Any) -> bool:
        """Whether a replica asks for what it lacks by GTID."""
        return bool(int(value))


class MariaDB(MySQL):
    """MariaDB 10.11 or later."""

    vendor = "mariadb"
    writable = ("SET GLOBAL read_only = OFF",)
    fenced = ("SET GLOBAL read_only = ON",)
    # Accounts with READ_ONLY ADMIN, such as root, write all the same.
    fence_is_tight = False
    # What is gone from the binary logs is no variable; read_state() asks for it.
    state = """
SELECT @@GLOBAL.version AS version, @@GLOBAL.server_id AS server_id, '' AS server_uuid,
       @@GLOBAL.read_only AS read_only, @@GLOBAL.read_only AS super_read_only, @@GLOBAL.log_bin AS log_bin,
       CONCAT(@@GLOBAL.gtid_binlog_state, ',', @@GLOBAL.gtid_slave_pos) AS gtid_executed, '' AS gtid_purged
"""
    executed = "SELECT CONCAT(@@GLOBAL.gtid_binlog_state, ',', @@GLOBAL.gtid_slave_pos) AS gtids"
    # MASTER_GTID_WAIT() does not count what a node wrote itself.
    wait = None
    replica: Mapping[str, str] = {
        "source_host": "Master_Host",
        "source_port": "Master_Port",
        "source_uuid": "",
        "io_running": "Slave_IO_Running",
        "sql_running": "Slave_SQL_Running",
        "io_error": "Last_IO_Error",
        "sql_error": "Last_SQL_Error",
        "auto_position": "Using_Gtid",
        "retrieved": "Gtid_IO_Pos",
        "lag": "Seconds_Behind_Master",
    }
    semi_sync = "Rpl_semi_sync_master"
    source = (
        "CHANGE MASTER TO MASTER_HOST = %s, MASTER_PORT = %s, MASTER_USER = %s, MASTER_PASSWORD = %s, "
        # A former primary replicates on from what it wrote itself.
        "MASTER_USE_GTID = slave_pos, MASTER_DEMOTE_TO_SLAVE = 1, "
        "MASTER_SSL = 1, MASTER_SSL_CA = %s, MASTER_SSL_VERIFY_SERVER_CERT = 1, MASTER_CONNECT_RETRY = 1"
    )
    # The performance schema is off by default.
    clients = (
        "SELECT ID AS id, USER AS user FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() "
        "AND COMMAND NOT LIKE 'Binlog Dump%' AND USER NOT IN ('system user', 'event_scheduler', 'unauthenticated user')"
    )
    before_log = "Gtid_list"

    def gtids(self, text: Any) -> str:
        """From a position or a binary log's state, which may have line breaks and brackets."""
        last: dict[str, int] = {}
        for domain, server, number in re.findall(r"(\d+)-(\d+)-(\d+)", str(text or "")):
            key = f"{domain}-{server}"
            last[key] = max(last.get(key, 0), int(number))
        return ",".join(f"{key}:1-{number}" for key, number in sorted(last.items()))

    def auto_position(self, value: Any) -> bool:
        """Whether a replica asks for what it lacks by GTID."""
        return str(value) == "Slave_Pos"


MYSQL, MARIADB = MySQL(), MariaDB()


def dialect_of(version: str) -> MySQL:
    """The dialect of a server that gives its version so, as each does when a client connects."""
    return MARIADB if "mariadb" in version.lower() else MYSQL


def replica_state(dialect: MySQL, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of mysql_topology.Replica from a row of SHOW REPLICA STATUS; None where no source is configured."""
    names = dialect.replica
    if not row or not row.get(names["source_host"]):
        return None
    found = {field: row[name] if name else "" for field, name in names.items()}
    lag = found["lag"]
    return found | {
        "source_port": int(found["source_port"]),
        "auto_position": dialect.auto_position(found["auto_position"]),
        "retrieved": dialect.gtids(found["retrieved"]),
        "lag": None if lag is None else int(lag),
    }


def before_log(dialect: MySQL, events: Iterable[Mapping[str, Any]]) -> str | None:
    """The transactions that were executed before a binary log with these first events; None where none says so."""
    for row in events:
        if row["Event_type"] == dialect.before_log:
            return dialect.gtids(row["Info"])
    return None
