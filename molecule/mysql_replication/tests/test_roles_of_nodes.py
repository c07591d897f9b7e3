"""Switchover, failover and rejoin under a workload that remembers what was acknowledged to it."""

from __future__ import annotations

import contextlib
import re
import signal
import statistics
import subprocess
import threading
import time

import pymysql
import pytest
from conftest import ENVIRONMENT, INVENTORY, MARIADB, ROOT, Tier
from labtest import inventories, wait_for
from ledger import Ledger

pytestmark = pytest.mark.thorough


def stood_still(said: str) -> float:
    """Seconds, as the playbook printed them."""
    found = re.search(r"Writes stood still for ([0-9.]+) s", said)
    assert found, said[-3000:]
    return float(found.group(1))


def other(tier: Tier) -> str:
    """A replica."""
    return next(n for n in tier.nodes if n != tier.primary())


def test_a_dry_run_shows_the_plan_and_changes_nothing(tier: Tier) -> None:
    before = tier.primary()
    said = tier.play("switchover", "--check")
    assert "Plan:" in said and "Done:" not in said
    wait_for(lambda: tier.serving() == [before], 10)


def test_ten_switchovers_under_load_lose_nothing(tier: Tier) -> None:
    times = []
    with Ledger(tier) as ledger:
        for _ in range(10):
            old = tier.primary()
            times.append(stood_still(tier.play("switchover")))
            new = wait_for(tier.primary, 10)
            assert new != old
    wait_for(tier.settled, 30)
    ledger.check()
    print(f"\nwrites stood still: {sorted(times)}; clients saw {[round(g, 2) for g in ledger.gaps()[:10]]}")
    print(f"{len(ledger.acknowledged)} acknowledged, {len(ledger.unknown)} unknown")
    assert statistics.median(times) <= (3 if MARIADB else 1.5)


def test_a_run_of_the_role_keeps_the_new_primary_and_changes_nothing(tier: Tier) -> None:
    if tier.primary() == "db1":
        tier.play("switchover", mysql_replication_candidate="db2")
        wait_for(tier.settled, 20)
    before = tier.primary()
    said = tier.play("molecule/mysql_replication/converge.yml")
    assert set(re.findall(r"changed=(\d+)", said)) == {"0"}, said[-3000:]
    wait_for(lambda: tier.serving() == [before], 10)


def test_a_switchover_does_not_begin_while_a_replica_is_stopped(tier: Tier) -> None:
    primary, stopped = tier.primary(), other(tier)
    tier.sql(stopped, "STOP REPLICA SQL_THREAD")
    try:
        said = tier.play("switchover", check=False)
        assert "exit code 0" not in said and f"replication does not run on {stopped}" in said
        wait_for(lambda: tier.serving() == [primary], 10)
    finally:
        tier.sql(stopped, "START REPLICA")
        wait_for(tier.settled, 20)


def test_a_switchover_does_not_begin_while_a_replica_lags(tier: Tier) -> None:
    primary, late = tier.primary(), other(tier)
    host = tier.lab.host(late)
    # A reader keeps the applier from the table.
    client = "mariadb" if MARIADB else "mysql"
    host.check_output(f"systemd-run --unit=late {client} --execute 'LOCK TABLES shop.mark READ; SELECT SLEEP(90)'")
    try:
        time.sleep(1)
        with tier.client(primary) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO mark VALUES (REPLACE(UUID(), '-', ''))")
        # More than mysql_replication_switchover_max_lag.
        wait_for(lambda: (tier.status(late)["lag"] or 0) > 10, 30)
        said = tier.play("switchover", check=False)
        assert "exit code 0" not in said and re.search(rf"{late} is \d+ s behind", said), said[-3000:]
        wait_for(lambda: tier.serving() == [primary], 10)
    finally:
        host.run("systemctl stop late.service")
    wait_for(tier.settled, 30)


def test_a_switchover_that_cannot_stop_the_writes_is_undone(tier: Tier) -> None:
    primary = tier.primary()
    # A write, since MariaDB does not wait for reads; the application's, since it ends what administrators do.
    with tier.client(primary, timeout=60) as slow:

        def write() -> None:
            with contextlib.suppress(pymysql.MySQLError):
                slow.cursor().execute("INSERT INTO mark SELECT LEFT(UUID(), 32 - SLEEP(40))")

        slow.cursor().execute("CREATE TABLE IF NOT EXISTS mark (id CHAR(32) PRIMARY KEY)")
        number, writer = slow.thread_id(), threading.Thread(target=write)
        writer.start()
        time.sleep(1)
        try:
            said = tier.play("switchover", check=False)
            assert "exit code 0" not in said and "everything was undone" in said, said[-3000:]
            wait_for(lambda: tier.serving() == [primary], 10)
            with tier.client(primary) as connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO mark VALUES (REPLACE(UUID(), '-', ''))")
        finally:
            tier.sql(primary, f"KILL {number}")
            writer.join()
    wait_for(tier.settled, 20)


def test_errant_transactions_stop_every_play_until_the_node_is_cloned(tier: Tier) -> None:
    primary, errant = tier.primary(), other(tier)
    tier.write_beside(errant, "CREATE DATABASE errant")
    for playbook in ("switchover", "molecule/mysql_replication/converge.yml"):
        said = tier.play(playbook, check=False)
        assert "exit code 0" not in said
        assert f"{errant} has transactions that the primary {primary} lacks" in said
    assert "It is never forced" in tier.play("rejoin", check=False, mysql_replication_rejoin=errant)
    wait_for(lambda: tier.serving() == [primary], 10)
    said = tier.rejoin(errant, clone=True)
    assert "has copied the data" in said
    assert "errant" not in tier.sql(errant, "SHOW DATABASES").split()


@pytest.mark.parametrize("step", range(1, 10))
def test_a_switchover_that_dies_is_finished_or_undone_by_the_next(tier: Tier, step: int) -> None:
    tier.play("molecule/mysql_replication/tests/die.yml", check=False, die_after=str(step))
    assert len(tier.writable()) <= 1
    tier.play("switchover")
    wait_for(tier.settled, 30)
    assert tier.writable() == [tier.primary()]


def test_a_switchover_survives_its_controller(tier: Tier) -> None:
    old = tier.primary()
    command = ["ansible-playbook", *inventories(INVENTORY)]
    controller = subprocess.Popen(
        [*command, str(ROOT / "playbooks/switchover.yml")],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert controller.stdout
    for line in controller.stdout:
        if "The candidate is the primary" in line:
            break
    # The module's process has begun on the primary when it holds the lock there.
    lock = "SELECT IS_USED_LOCK('scaleup.webstack.topology') IS NOT NULL"
    wait_for(lambda: tier.sql(old, lock) == "1", 20, 0.02)
    subprocess.run(["kill", f"-{signal.SIGKILL}", "--", f"-{controller.pid}"], check=True)
    wait_for(lambda: tier.settled() and tier.primary() != old, 30)


def test_a_killed_primary_comes_back_under_load_without_loss(tier: Tier) -> None:
    primary = tier.primary()
    with Ledger(tier) as ledger:
        wait_for(lambda: len(ledger.acknowledged) > 200, 20)
        assert tier.status(primary)["semi_sync"]
        tier.lab.host(primary).check_output("systemctl kill --signal=KILL mysql.service")
        killed = time.monotonic()
        wait_for(lambda: tier.serving() == [], 5, 0.02)
        wait_for(lambda: tier.serving() == [primary], 20)
        took = time.monotonic() - killed
        count = len(ledger.acknowledged)
        wait_for(lambda: len(ledger.acknowledged) > count + 100, 20)
    wait_for(tier.settled, 30)
    ledger.check()
    print(f"\nwritable again after {took:.1f} s; {len(ledger.acknowledged)} acknowledged writes")
    assert took <= 10


def test_failover_loses_nothing_and_the_old_primary_stays_fenced(tier: Tier) -> None:
    old = tier.primary()
    assert "is writable: there is a primary" in tier.play("failover", check=False)
    with Ledger(tier) as ledger:
        wait_for(lambda: len(ledger.acknowledged) > 200, 20)
        tier.lab.kill(old)
        said = tier.play("failover", check=False)
        assert "nothing shows that it is dead" in said
        began = time.monotonic()
        tier.play("failover", mysql_replication_primary_is_dead=True)
        new = wait_for(tier.serving, 10)
        took = time.monotonic() - began
        count = len(ledger.acknowledged)
        wait_for(lambda: len(ledger.acknowledged) > count + 100, 20)
        tier.lab.start(old)
        # It is never served, neither at once nor later.
        until = time.monotonic() + 8
        while time.monotonic() < until:
            assert old not in tier.serving()
        assert "it took over" in tier.health(old, "/primary")[1]
    assert new == tier.serving()
    said = tier.play("rejoin", check=False, mysql_replication_rejoin=old)
    if "exit code 0" not in said:
        # A transaction that nobody acknowledged was on its disk only: it is thrown away on the operator's word.
        assert "It is never forced" in said
        tier.rejoin(old, clone=True)
    wait_for(tier.settled, 30)
    ledger.check()
    print(f"\nfrom the command to a served primary {took:.1f} s; {len(ledger.acknowledged)} acknowledged writes")
    # The bound is for a machine of its own.
    assert took <= 15


def test_a_failover_without_any_server_says_so(tier: Tier) -> None:
    primary = tier.primary()
    for node in tier.nodes:
        tier.lab.kill(node)
    said = tier.play("failover", check=False, mysql_replication_primary_is_dead=True)
    assert "exit code 0" not in said and "none can take over" in said, said[-3000:]
    for node in tier.nodes:
        tier.lab.start(node)
    wait_for(tier.settled, 60)
    assert tier.primary() == primary


def test_all_nodes_restart_one_after_the_other_under_load(tier: Tier) -> None:
    old = tier.primary()
    since = {node: started(tier, node) for node in tier.nodes}
    with Ledger(tier) as ledger:
        said = tier.play("rolling_update", update_packages="none", update_restart="always")
        assert stood_still(said) <= (3 if MARIADB else 1.5)
    wait_for(tier.settled, 30)
    ledger.check()
    assert tier.primary() != old
    assert all(started(tier, node) > since[node] for node in tier.nodes)


def started(tier: Tier, node: str) -> int:
    """When a node's server began, in microseconds since its boot."""
    unit = "mariadb.service" if MARIADB else "mysql.service"
    shown = tier.lab.host(node).check_output(f"systemctl show --property=ActiveEnterTimestampMonotonic --value {unit}")
    return int(shown)


def test_an_emptied_node_joins_by_a_copy_when_the_binary_logs_are_purged(tier: Tier) -> None:
    primary, emptied = tier.primary(), other(tier)
    tier.sql(primary, "FLUSH BINARY LOGS; PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
    tier.empty(emptied)
    with Ledger(tier, writers=2) as ledger:
        tier.play("molecule/mysql_replication/converge.yml", "--limit", emptied)
        wait_for(tier.settled, 60)
    ledger.check()
    wait_for(lambda: tier.serving() == [primary], 10)
    assert max(ledger.gaps()) < 5
