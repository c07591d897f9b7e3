"""Backups as an operator needs them: everything acknowledged comes back, and whoever has the archive reads nothing."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import subtract_gtids
from conftest import MARIADB, Tier, mysql_only
from labtest import wait_for
from ledger import Ledger

SCRATCH = "/var/lib/webstack-scratch/mysqld.sock"


def taker(tier: Tier) -> str:
    """The node that takes the backups."""
    return str(tier.lab.host("db1").run("python3 /usr/local/lib/webstack-mysql/mysql_backup.py turn").stdout.strip())


def status(tier: Tier, node: str) -> dict[str, Any]:
    """What a node has noted about its backups."""
    return dict(json.loads(tier.lab.host(node).check_output("cat /var/lib/webstack-backup/status.json")))


def in_scratch(tier: Tier, node: str, statement: str) -> list[str]:
    """The rows of a query in the second server."""
    command = f"{'mariadb' if MARIADB else 'mysql'} --socket {SCRATCH} --batch --skip-column-names --execute %s"
    return tier.lab.host(node).check_output(command, statement).splitlines()


def first_since(tier: Tier, node: str, before: str) -> str:
    """The GTID of the first transaction that a node executed since then."""
    first = subtract_gtids(tier.executed(node), before).rsplit("-", 1)[0]
    return first.replace(":", "-") if MARIADB else first


def test_a_replica_takes_the_backups_and_the_others_do_not(tier: Tier) -> None:
    node = taker(tier)
    assert node != tier.primary()
    tier.play("backup")
    assert status(tier, node)["full"]["bytes"] > 0
    assert status(tier, node)["full_error"] is None


def test_every_acknowledged_row_is_back_after_a_table_was_dropped(tier: Tier) -> None:
    with Ledger(tier, writers=2) as ledger:
        wait_for(lambda: len(ledger.acknowledged) > 100, 20)
        tier.play("backup")
        count = len(ledger.acknowledged)
        wait_for(lambda: len(ledger.acknowledged) > count + 100, 20)
    primary, node = tier.primary(), taker(tier)
    if MARIADB:
        time.sleep(1.1)  # its binary logs have whole seconds
    before, moment = tier.executed(primary), datetime.now(timezone.utc).isoformat()
    tier.sql(primary, "DROP TABLE shop.ledger; CREATE TABLE shop.later (id INT PRIMARY KEY)")
    accident = first_since(tier, primary, before)

    # To look at, up to the transaction that dropped it.
    said = tier.play("restore", mysql_replication_restore_before=accident)
    assert "transactions of the binary logs are executed" in said
    assert set(ledger.acknowledged) <= set(in_scratch(tier, node, "SELECT entry FROM shop.ledger"))
    assert "later" not in in_scratch(tier, node, "SHOW TABLES IN shop")
    tier.play("restore", mysql_replication_restore_into="absent")
    assert not tier.lab.host(node).file(SCRATCH).exists

    # Into the site, up to the moment before.
    words = {"mysql_replication_restore_before": moment, "mysql_replication_restore_into": "site"}
    plan = tier.play("restore", "--check", **words)
    assert "lock the accounts of the applications and replace" in plan and "Done:" not in plan
    began = time.monotonic()
    tier.play("restore", **words)
    print(f"\n{len(ledger.acknowledged)} acknowledged writes; back in the site after {time.monotonic() - began:.1f} s")
    wait_for(tier.settled, 30)
    ledger.check()
    assert "later" not in tier.sql(primary, "SHOW TABLES IN shop").split()
    # The applications are let in again, on every node.
    for name in tier.nodes:
        with tier.client(name) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM ledger")


@pytest.mark.thorough
def test_another_node_goes_on_when_the_one_that_took_the_backups_is_gone(tier: Tier) -> None:
    first = taker(tier)
    tier.lab.host(first).check_output("systemctl stop mysql.service")
    try:
        second = wait_for(lambda: taker(tier) if taker(tier) != first else "", 10)
        assert second != tier.primary()
        with tier.client(tier.primary()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS handover (id INT AUTO_INCREMENT PRIMARY KEY)")
            cursor.execute("INSERT INTO handover VALUES ()")
        wait_for(lambda: tier.executed(second) == tier.executed(tier.primary()), 10)
        tier.lab.host(second).check_output("systemctl start mysql-binlogs.service")
        assert status(tier, second)["binlogs"]["executed"] == tier.executed(second)
    finally:
        tier.lab.host(first).check_output("systemctl start mysql.service")
    wait_for(tier.settled, 30)


def test_the_newest_backup_is_shown_to_hold_what_the_server_holds_while_it_works(tier: Tier) -> None:
    node = wait_for(lambda: taker(tier), 10)
    with Ledger(tier, writers=1) as ledger:
        wait_for(lambda: len(ledger.acknowledged) > 10, 20)
        said = tier.play("backup_verify")
        count = len(ledger.acknowledged)
        wait_for(lambda: len(ledger.acknowledged) > count, 5)
    assert re.search(r"[1-9]\d* tables have the checksums that they have here", said)
    shown = status(tier, node)["verified"]
    # It is an earlier state than that of now.
    assert subtract_gtids(shown["executed"], tier.executed(node)) == ""


@pytest.mark.thorough
def test_a_server_that_differs_from_its_backup_is_noticed(tier: Tier) -> None:
    node = taker(tier)
    with tier.client(tier.primary()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS handover (id INT AUTO_INCREMENT PRIMARY KEY)")
    wait_for(lambda: tier.executed(node) == tier.executed(tier.primary()), 10)
    tier.write_beside(node, "INSERT INTO shop.handover VALUES (999)", log=False)
    try:
        said = tier.play("backup_verify", check=False)
        assert "exit code 0" not in said and "tables differ from those of this server: `shop`.`handover`" in said
        assert "handover" in status(tier, node)["verify_error"]["text"]
    finally:
        tier.write_beside(node, "DELETE FROM shop.handover WHERE id = 999", log=False)


def test_nobody_reads_the_archive_without_the_key_which_no_database_host_has(tier: Tier) -> None:
    for node in tier.nodes:
        host = tier.lab.host(node)
        places = "/etc /home /root /run /tmp /usr/local /var/lib/webstack-backup /var/lib/webstack-scratch /var/tmp"
        assert (
            host.run(f"grep --recursive --text --devices=skip --files-with-matches AGE-SECRET-KEY {places}").stdout
            == ""
        )
        assert host.file("/etc/mysql/webstack/backup_ssh_key").mode == 0o640
    archive = tier.lab.host("ops1")
    assert archive.run("grep --recursive --text ledger /srv/backup/archive").rc == 1
    archive.check_output("head -c 21 $(ls /srv/backup/archive/*.age | head -n 1) | grep -q age-encryption.org/v1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"mysql_replication_backup_identity": "nothing"}, "is no private key of age or SSH"),
        ({"mysql_replication_restore_host": "db9"}, "'db9' is none of db1, db2, db3"),
    ],
)
def test_what_cannot_be_restored_is_said_before_anything_changes(tier: Tier, words: dict[str, str], said: str) -> None:
    assert said in tier.play("restore", "--check", check=False, **words)


def test_that_no_node_can_take_a_backup_is_a_failure(tier: Tier) -> None:
    for node in tier.nodes:
        tier.lab.host(node).check_output("systemctl stop mysql-health.socket")
    try:
        for playbook in ("backup", "backup_verify"):
            said = tier.play(playbook, check=False)
            assert "exit code 0" not in said and "no node can take a backup" in said
    finally:
        for node in tier.nodes:
            tier.lab.host(node).check_output("systemctl start mysql-health.socket")
    wait_for(lambda: taker(tier) in tier.nodes, 10)


@pytest.mark.thorough
def test_the_databases_come_back_when_all_nodes_are_lost(tier: Tier) -> None:
    with Ledger(tier, writers=2) as ledger:
        wait_for(lambda: len(ledger.acknowledged) > 100, 20)
    tier.lab.host(taker(tier)).check_output("systemctl start mysql-binlogs.service")
    moment = datetime.now(timezone.utc).isoformat()
    for node in tier.nodes:
        tier.empty(node)
    tier.play("molecule/mysql_replication/converge.yml")
    wait_for(tier.settled, 60)
    assert tier.sql(tier.primary(), "SHOW TABLES IN shop") == ""
    # The new site's own backups are in the same archive by now.
    tier.play("backup")
    tier.play("restore", mysql_replication_restore_before=moment, mysql_replication_restore_into="site")
    wait_for(tier.settled, 30)
    ledger.check()
    tier.play("backup_verify")


@mysql_only
@pytest.mark.thorough
def test_a_dump_restores_as_well(tier: Tier) -> None:
    tier.play("molecule/mysql_replication/converge.yml", mysql_replication_backup_method="dump")
    try:
        with Ledger(tier, writers=1) as ledger:
            wait_for(lambda: len(ledger.acknowledged) > 10, 20)
            tier.play("backup")
            said = tier.play("backup_verify")
        assert re.search(r"[1-9]\d* tables have the checksums that they have here", said)
    finally:
        tier.play("molecule/mysql_replication/converge.yml")
