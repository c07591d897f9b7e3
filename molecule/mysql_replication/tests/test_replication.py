"""What holds after a converge, seen from outside."""

from __future__ import annotations

import re
import subprocess
import uuid

import pymysql
import pytest
from conftest import ADDRESSES, MARIADB, Tier
from labtest import wait_for
from testinfra.host import Host


def test_a_row_reaches_the_replicas(tier: Tier) -> None:
    mark = uuid.uuid4().hex
    with tier.client(tier.primary()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS mark (id CHAR(32) PRIMARY KEY)")
        cursor.execute("INSERT INTO mark VALUES (%s)", (mark,))
    for node in ADDRESSES:
        wait_for(lambda node=node: tier.sql(node, f"SELECT COUNT(*) FROM shop.mark WHERE id = '{mark}'") == "1", 10)


@pytest.mark.skipif(MARIADB, reason="its package makes the tables in another way")
def test_a_server_whose_first_tables_failed_has_made_them_again(tier: Tier) -> None:
    host = tier.lab.host("db3")
    assert not host.file("/usr/sbin/mysqld.distrib").exists
    assert "MY-010943" in host.check_output("cat /var/log/mysql/error.log")


def test_replicas_take_no_writes_not_even_from_root(tier: Tier) -> None:
    for node in set(ADDRESSES) - {tier.primary()}:
        if not MARIADB:  # its root writes all the same
            result = tier.lab.host(node).run("mysql --execute 'CREATE DATABASE nonsense'")
            assert result.rc != 0 and "read-only" in result.stderr
        with tier.client(node) as connection, connection.cursor() as cursor, pytest.raises(pymysql.MySQLError):
            cursor.execute("CREATE TABLE nonsense (id INT PRIMARY KEY)")


def test_nothing_enters_without_tls(tier: Tier) -> None:
    with pytest.raises(pymysql.MySQLError):
        tier.client(tier.primary(), tls=False)


def test_the_application_has_its_own_database_only(tier: Tier) -> None:
    with tier.client(tier.primary()) as connection, connection.cursor() as cursor:
        with pytest.raises(pymysql.MySQLError):
            cursor.execute("SELECT * FROM mysql.user")
        with pytest.raises(pymysql.MySQLError):
            cursor.execute("DROP DATABASE shop")


def test_root_and_strangers_do_not_come_in_over_the_network(tier: Tier) -> None:
    for user in ("root", "webstack_admin", "webstack_replication"):
        with pytest.raises(pymysql.MySQLError):
            tier.client(tier.primary(), user=user, password="guess")


def test_replication_is_encrypted_semi_synchronous_and_by_gtid(tier: Tier) -> None:
    for node in set(ADDRESSES) - {tier.primary()}:
        if MARIADB:
            status = tier.lab.host(node).check_output("mariadb --execute 'SHOW REPLICA STATUS\\G'")
            have = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in status.splitlines()}
            wanted = ("Master_SSL_Allowed", "Master_SSL_Verify_Server_Cert", "Using_Gtid", "Parallel_Mode")
            assert [have[name] for name in wanted] == ["Yes", "Yes", "Slave_Pos", "optimistic"]
            continue
        row = tier.sql(
            node,
            "SELECT SSL_ALLOWED, SSL_VERIFY_SERVER_CERTIFICATE, AUTO_POSITION "
            "FROM performance_schema.replication_connection_configuration",
        )
        assert row.split() == ["YES", "YES", "1"]
    assert tier.status(tier.primary())["semi_sync"] is True
    assert tier.status(tier.primary())["semi_sync_replicas"] == len(ADDRESSES) - 1


def test_one_node_is_served_for_writing_and_the_others_for_reading(tier: Tier) -> None:
    primary = tier.primary()
    assert tier.health(primary, "/replica?max_lag=10")[0] == 503
    for node in set(ADDRESSES) - {primary}:
        assert tier.health(node, "/primary") == (503, f"{node} is a replica")
        assert tier.health(node, "/replica?max_lag=10") == (200, "ok")
    assert tier.health(primary, "/nonsense")[0] == 404


def test_two_writable_nodes_are_both_refused(tier: Tier) -> None:
    primary = tier.primary()
    other = sorted(set(ADDRESSES) - {primary})[0]
    try:
        tier.unfence(other)
        wait_for(lambda: tier.health(primary, "/primary")[0] == 503, 5)
        assert "two nodes are writable" in tier.health(primary, "/primary")[1]
        wait_for(lambda: tier.health(other, "/primary")[0] == 503, 5)
    finally:
        tier.fence(other)
    wait_for(lambda: tier.health(primary, "/primary")[0] == 200, 5)


def test_a_stopped_replica_is_not_read_from(tier: Tier) -> None:
    node = sorted(set(ADDRESSES) - {tier.primary()})[0]
    try:
        tier.sql(node, "STOP REPLICA SQL_THREAD")
        assert tier.health(node, "/replica?max_lag=10")[0] == 503
    finally:
        tier.sql(node, "START REPLICA")
    wait_for(lambda: tier.health(node, "/replica?max_lag=10")[0] == 200, 10)


def test_a_replica_whose_source_is_silent_is_read_from_while_its_data_is_recent_enough(tier: Tier) -> None:
    primary = tier.primary()
    node = sorted(set(ADDRESSES) - {primary})[0]
    tier.lab.host(node).check_output(f"ip route add unreachable {ADDRESSES[primary]}")
    try:
        assert tier.health(node, "/replica?max_lag=10")[0] == 200
        tier.sql(node, "STOP REPLICA IO_THREAD; START REPLICA IO_THREAD")
        wait_for(lambda: tier.health(node, "/replica?max_lag=0")[0] == 503, 5)
        assert tier.health(node, "/replica?max_lag=10") == (200, "ok")
        wait_for(lambda: tier.health(node, "/replica?max_lag=5")[0] == 503, 10)
        assert tier.health(node, "/replica?max_lag=60") == (200, "ok")
    finally:
        tier.lab.host(node).check_output(f"ip route del unreachable {ADDRESSES[primary]}")
    wait_for(lambda: tier.health(node, "/replica?max_lag=5")[0] == 200, 10)


def test_no_secret_is_readable_by_others_or_on_a_command_line(tier: Tier) -> None:
    for node in ADDRESSES:
        host = tier.lab.host(node)
        assert host.file("/etc/mysql/webstack/agent.json").mode == 0o640
        assert host.file("/etc/mysql/webstack/host.pem.key").mode == 0o400
        secret = host.check_output('grep -oP \'"password": "\\K[^"]+\' /etc/mysql/webstack/agent.json')
        assert secret not in host.check_output("ps -eo args")


def test_a_port_scan_finds_the_server_and_its_agent_only(tier: Tier) -> None:
    for node in ADDRESSES:
        listening = tier.lab.host(node).check_output("ss -Hlnt")
        ports = {line.split()[3] for line in listening.splitlines()}
        wanted = (3306, 9200, 9201) if MARIADB else (3306, 9200)
        assert {p for p in ports if not p.startswith("127.")} == {f"{ADDRESSES[node]}:{port}" for port in wanted}


def test_a_primary_that_is_killed_takes_its_place_again(tier: Tier) -> None:
    primary = tier.primary()
    tier.lab.host(primary).check_output("systemctl kill --signal=KILL mysql.service")
    wait_for(lambda: tier.health(primary, "/primary")[0] != 200, 5, 0.02)
    wait_for(lambda: tier.health(primary, "/primary")[0] == 200, 20)
    wait_for(tier.settled, 30)


def test_a_primary_stays_fenced_while_a_replica_is_silent(tier: Tier) -> None:
    primary = tier.primary()
    silent = sorted(set(ADDRESSES) - {primary})[0]
    try:
        tier.lab.host(silent).check_output("systemctl stop mysql.service")
        tier.lab.host(primary).check_output("systemctl restart mysql.service")
        wait_for(lambda: f"{silent} does not answer" in tier.health(primary, "/primary")[1], 20)
        assert tier.health(primary, "/primary")[0] == 503
    finally:
        tier.lab.host(silent).check_output("systemctl start mysql.service")
    wait_for(lambda: tier.health(primary, "/primary")[0] == 200, 20)
    wait_for(tier.settled, 30)


def test_after_a_power_cut_of_all_hosts_the_tier_comes_back_by_itself(tier: Tier) -> None:
    primary = tier.primary()
    subprocess.run(["docker", "kill", *(tier.lab.container(n) for n in ADDRESSES)], check=True, capture_output=True)
    for node in ADDRESSES:
        tier.lab.start(node)
    wait_for(tier.settled, 60)
    assert tier.primary() == primary


def sessions(host: Host) -> dict[str, str]:
    """Connections to the server: the other end, and the timer, as "timer:(keepalive,59sec,0)"."""
    shown = host.check_output("ss --no-header --tcp --numeric --options state established '( sport = :3306 )'")
    return {words[3]: words[4] for line in shown.splitlines() if len(words := line.split()) > 4}


def test_a_client_that_is_gone_without_a_word_does_not_keep_its_session_for_hours(tier: Tier) -> None:
    host = tier.lab.host(tier.primary())
    # In a container the kernel's settings are read-only, here for once they are not; those of its network are its own.
    host.check_output("mount -o remount,bind,rw /proc/sys")
    try:
        host.check_output("/usr/lib/systemd/systemd-sysctl /etc/sysctl.d/60-mysql_replication.conf")
    finally:
        host.check_output("mount -o remount,bind,ro /proc/sys")
    before = sessions(host)

    def probed() -> bool:
        # Older sessions keep the settings that they began with.
        timers = [timer for peer, timer in sessions(host).items() if peer not in before]
        assert timers and all(re.match(r"timer:\(keepalive,(\d+sec|1min)", timer) for timer in timers), timers
        return True

    with tier.client(tier.primary()):
        # The kernel's own would be two hours. (While something is on its way, it shows the timer of that.)
        wait_for(probed, 5)
