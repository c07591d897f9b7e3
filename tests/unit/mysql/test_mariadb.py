"""What MariaDB says otherwise, and what the collection makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils import (
    mysql_access,
    mysql_backup,
    mysql_copy,
    mysql_server,
)
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_dialect import (
    MARIADB,
    MYSQL,
    before_log,
    dialect_of,
    replica_state,
)
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import (
    Node,
    Replica,
    count_gtids,
    judge,
    subtract_gtids,
)


def test_a_server_is_known_by_how_it_answers() -> None:
    # As 10.11, 11.8 and MySQL 9.7 do.
    assert dialect_of("5.5.5-10.11.19-MariaDB-0+deb12u1-log") is MARIADB
    assert dialect_of("11.8.9-MariaDB-0+deb13u1 from Debian-log") is MARIADB
    assert dialect_of("9.7.4-1") is MYSQL


def test_a_position_becomes_the_set_of_all_before_it() -> None:
    assert MARIADB.gtids("0-11-100,0-12-150,,0-12-150") == "0-11:1-100,0-12:1-150"
    assert MARIADB.gtids("[0-11-100,\n1-12-7]") == "0-11:1-100,1-12:1-7"
    assert MARIADB.gtids("") == MARIADB.gtids(",") == MARIADB.gtids(None) == ""


def test_the_servers_of_a_domain_share_their_numbers() -> None:
    assert count_gtids("0-11:1-100,0-12:1-150,3-12:1-5") == 155
    assert count_gtids("0-11:101-103") == 3


def test_a_history_that_diverged_shows_although_the_number_is_lower() -> None:
    new, old = MARIADB.gtids("0-11-100,0-12-150"), MARIADB.gtids("0-11-101")
    assert subtract_gtids(old, new) == "0-11:101"
    assert subtract_gtids(MARIADB.gtids("0-11-99"), new) == ""


def test_the_first_events_of_a_binary_log_say_what_was_before_it() -> None:
    rows = [{"Event_type": "Format_desc", "Info": "Server ver: 11.8"}, {"Event_type": "Gtid_list", "Info": "[0-1-3]"}]
    assert before_log(MARIADB, rows) == "0-1:1-3"
    assert before_log(MARIADB, rows[:1]) is None
    assert before_log(MYSQL, [{"Event_type": "Previous_gtids", "Info": "a:1-3,\nb:1"}]) == "a:1-3,b:1"


def test_a_replica_is_the_same_for_both() -> None:
    row = {
        "Master_Host": "10.0.0.1",
        "Master_Port": 3306,
        "Slave_IO_Running": "Yes",
        "Slave_SQL_Running": "No",
        "Last_IO_Error": "",
        "Last_SQL_Error": "broken",
        "Using_Gtid": "Slave_Pos",
        "Gtid_IO_Pos": "0-1-7",
        "Seconds_Behind_Master": None,
    }
    found = replica_state(MARIADB, row)
    assert found is not None
    assert Replica(**found) == Replica("10.0.0.1", 3306, "", "Yes", "No", "", "broken", True, "0-1:1-7", None)
    assert replica_state(MARIADB, row | {"Using_Gtid": "No"})["auto_position"] is False  # type: ignore[index]
    assert replica_state(MARIADB, {}) is None


class Session(mysql_server.Session):
    """A MariaDB server that answers from a list."""

    dialect = MARIADB

    def __init__(self, answers: dict[str, list[dict[str, Any]]]) -> None:
        self.where, self.answers, self.said = "db1", answers, list[str]()

    def run(self, statement: str, values: Any = ()) -> list[dict[str, Any]]:
        self.said.append(statement)
        return next((rows for start, rows in self.answers.items() if statement.strip().startswith(start)), [])


def test_what_is_gone_from_the_binary_logs_is_read_from_the_oldest() -> None:
    state = {"version": "11.8.9-MariaDB", "server_id": 1, "server_uuid": "", "read_only": 1, "super_read_only": 1}
    state |= {"log_bin": 1, "gtid_executed": "0-1-9,0-1-9", "gtid_purged": ""}
    session = Session(
        {
            "SELECT @@GLOBAL.version": [state],
            "SHOW BINARY LOGS": [{"Log_name": "binlog.000007"}, {"Log_name": "binlog.000008"}],
            "SHOW BINLOG EVENTS IN 'binlog.000007'": [{"Event_type": "Gtid_list", "Info": "[0-1-5]"}],
            "SHOW DATABASES": [{"Database": "mysql"}, {"Database": "shop"}],
        }
    )
    found = mysql_server.read_state(session)
    assert (found["gtid_executed"], found["gtid_purged"], found["schemas"]) == ("0-1:1-9", "0-1:1-5", ["shop"])


def test_nodes_without_a_uuid_are_told_apart_by_their_server_id() -> None:
    nodes = [Node("db1", "10.0.0.1", server_id=1), Node("db2", "10.0.0.2", server_id=2)]
    assert judge(nodes, "db1").problems == []
    nodes[1].server_id = 1
    assert "the same server_id" in judge(nodes, "db1").problems[0]


def test_only_sessions_that_pass_the_fence_are_ended() -> None:
    session = Session(
        {
            "SELECT DISTINCT GRANTEE": [{"account": "'boss'@'10.0.0.9'"}],
            "SELECT ID AS id": [{"id": 4, "user": "boss"}, {"id": 5, "user": "shop"}],
        }
    )
    mysql_server.end_unfenced(session, ["root"])
    assert [s for s in session.said if s.startswith("KILL")] == ["KILL 4"]


def test_passwords_are_compared_and_retained() -> None:
    vendor = mysql_access.VENDORS["mariadb"]
    account = {"name": "shop", "socket_user": None, "password": "secret"}
    stored = b"*14E65567ABDB5135D0CFD9A70B3032C179A49EE7"
    assert vendor.matches(account, stored) and not vendor.matches(account | {"password": "other"}, stored)
    how, values = vendor.way(account)
    assert "secret" not in how + "".join(values)
    again, both = vendor.retain(how, values, b"*OLD")
    assert again.count("%s") == len(both) == 2 and both[1] == "*OLD"
    with pytest.raises(ValueError, match="own name"):
        vendor.way({"name": "a", "socket_user": "b", "password": None})


def test_privileges_have_the_name_that_the_server_shows() -> None:
    names = mysql_access.VENDORS["mariadb"].other_names
    wanted = mysql_access.wanted_grants({"*.*": ["replication client", "REPLICA MONITOR"]}, names)
    shown = ["GRANT BINLOG MONITOR, SLAVE MONITOR ON *.* TO `a`@`10.0.0.1` IDENTIFIED BY PASSWORD '*0' REQUIRE SSL"]
    assert mysql_access.parse_grants(shown) == wanted


def test_a_copy_goes_on_from_its_own_position_and_knows_the_history_before() -> None:
    assert mysql_copy.state_with("0-1-100,0-2-140", "0-2-150") == "0-1-100,0-2-150"
    assert mysql_copy.state_with("0-2-140,0-1-150", "0-2-160") == "0-1-150,0-2-160"
    assert mysql_copy.state_with("", "0-1-3,1-2-4") == "0-1-3,1-2-4"


@pytest.mark.parametrize("name", ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"])
def test_a_copy_says_where_it_stands(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("binlog.000003\t1234\t0-1-100\n")
    assert mysql_copy.gtid_of(tmp_path) == "0-1-100"


def test_the_old_data_waits_until_the_copy_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql_copy.shutil, "chown", lambda *_: None)
    (tmp_path / "ibdata1").write_text("old")
    (tmp_path / "debian-11.8.flag").write_text("")
    folder = mysql_copy.incoming(tmp_path)
    (folder / "ibdata1").write_text("new")
    mysql_copy.exchange(tmp_path)
    assert (tmp_path / "ibdata1").read_text() == "new"
    assert (tmp_path / mysql_copy.OUTGOING / "ibdata1").read_text() == "old"
    assert (tmp_path / "debian-11.8.flag").exists() and not folder.exists()
    mysql_copy.forget_old(tmp_path)
    assert not (tmp_path / mysql_copy.OUTGOING).exists()


LOG = """\
#261128  7:00:01 server id 11  end_log_pos 299 CRC32 0x1 \tGtid list [0-11-100]
#261128  7:00:02 server id 11  end_log_pos 381 CRC32 0x2 \tGTID 0-11-101 trans
#261128  7:00:04 server id 12  end_log_pos 481 CRC32 0x3 \tGTID 0-12-102 ddl
#261128 17:00:03 server id 12  end_log_pos 581 CRC32 0x4 \tGTID 0-12-103 trans
"""


def test_a_restore_ends_before_a_second_or_a_transaction() -> None:
    found = list(mysql_backup.mariadb_transactions(LOG.splitlines()))
    assert [gtid for gtid, _ in found] == ["0-11:101", "0-12:102", "0-12:103"]
    assert found[0][1] == "2026-11-28T07:00:02.000000+00:00"
    accident = mysql_backup.Moment.parse("0-12-103")
    assert mysql_backup.up_to(found, accident, True) == "0-11:101,0-12:102"
    # What has the second of the moment may be later than it.
    for text in ("2026-11-28T07:00:03Z", "2026-11-28T07:00:04.999Z"):
        assert mysql_backup.up_to(found, mysql_backup.Moment.parse(text), True) == "0-11:101"
    assert mysql_backup.up_to(found, mysql_backup.Moment.parse("2026-11-28T07:00:05Z"), True) == "0-11:101,0-12:102"
