"""Passwords change while clients are connected and come anew with the old one."""

from __future__ import annotations

import threading
import time
from typing import Any

import pymysql
import pytest
from conftest import HERE, Tier
from labtest import wait_for
from ledger import Ledger

pytestmark = pytest.mark.thorough
NEW = "a password of another season"


def shop(**account: Any) -> list[dict[str, Any]]:
    """The application's account as a variable of the role."""
    privileges = {"shop.*": ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE"]}
    return [{"name": "shop", "privileges": privileges, "hosts": [HERE]} | account]


def converge(tier: Tier, *words: str, **variables: Any) -> str:
    return tier.play("molecule/mysql_replication/converge.yml", *words, **variables)


def test_no_client_is_refused_while_the_password_of_its_account_changes(tier: Tier) -> None:
    primary = tier.primary()
    refused: list[str] = []
    halt = threading.Event()

    def come_anew() -> None:
        while not halt.is_set():
            try:
                tier.client(primary).close()
            except pymysql.MySQLError as error:
                refused.append(str(error))
            time.sleep(0.02)

    client = threading.Thread(target=come_anew)
    client.start()
    try:
        converge(tier, "--limit", primary, mysql_replication_users=shop(password=NEW))
        tier.client(primary, password=NEW).close()
    finally:
        halt.set()
        client.join()
    assert refused == []
    try:
        words = {"mysql_replication_users": shop(password=NEW), "mysql_replication_discard_old_passwords": True}
        converge(tier, "--limit", primary, **words)
        with pytest.raises(pymysql.MySQLError):
            tier.client(primary)
        tier.client(primary, password=NEW).close()
    finally:
        converge(tier, "--limit", primary)
    tier.client(primary).close()


def test_the_passwords_between_the_nodes_change_under_load(tier: Tier) -> None:
    with Ledger(tier, writers=2) as ledger:
        converge(tier, mysql_replication_replication_password="another-password-of-the-replicas")
        wait_for(tier.settled, 30)
        count = len(ledger.acknowledged)
        wait_for(lambda: len(ledger.acknowledged) > count + 20, 20)
    ledger.check()
    assert ledger.unknown == set()
    converge(tier)
    wait_for(tier.settled, 30)
