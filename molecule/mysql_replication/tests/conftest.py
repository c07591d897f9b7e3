"""The tier as the tests see it: containers, SQL as root on a node, SQL as a client of the site."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors
import pytest
from labtest import Lab, wait_for

INVENTORY = Path(__file__).parents[1] / "inventory"
ADDRESSES = {"db1": "198.18.4.41", "db2": "198.18.4.42", "db3": "198.18.4.43"}


class Tier:
    """The three nodes."""

    def __init__(self) -> None:
        self.lab = Lab("webstack-mysql")

    def sql(self, node: str, statement: str) -> str:
        """Run a statement as root over a node's socket; its output without the header."""
        return str(self.lab.host(node).check_output("mysql --batch --skip-column-names --execute %s", statement))

    def health(self, node: str, path: str) -> tuple[int, str]:
        """What a node's agent answers: status and text."""
        try:
            with urllib.request.urlopen(f"http://{ADDRESSES[node]}:9200{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def status(self, node: str) -> dict[str, Any]:
        """What a node's agent knows."""
        return dict(json.loads(self.health(node, "/status")[1]))

    def client(self, node: str, tls: bool = True, user: str = "shop", password: str | None = None) -> Any:
        """A connection as the application has it."""
        secret = password or (INVENTORY / ".secrets" / "shop").read_text(encoding="utf-8").split()[0]
        context = ssl.create_default_context(cafile=str(INVENTORY / ".pki" / "ca.pem")) if tls else None
        return pymysql.connect(
            host=ADDRESSES[node],
            user=user,
            password=secret,
            database="shop",
            autocommit=True,
            connect_timeout=3,
            read_timeout=15,
            ssl=context,
            ssl_disabled=not tls,
        )

    def primary(self) -> str:
        """The one node that the agents serve as the primary."""
        serving = [n for n in ADDRESSES if self.health(n, "/primary")[0] == 200]
        assert len(serving) == 1, serving
        return serving[0]

    def settled(self) -> bool:
        """One primary, and every other node a replica that keeps up."""
        primary = self.primary()
        return all(self.health(n, "/replica?max_lag=1")[0] == 200 for n in ADDRESSES if n != primary)


@pytest.fixture(scope="session")
def tier() -> Iterator[Tier]:
    """The tier, in order before the tests begin."""
    found = Tier()
    wait_for(found.settled, 60)
    yield found
