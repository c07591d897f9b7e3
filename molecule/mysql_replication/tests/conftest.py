"""The tier as the tests see it: containers, SQL as root on a node, SQL as a client of the site."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors
import pytest
import yaml
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_dialect, mysql_topology
from labtest import Lab, inventories, wait_for

ROOT = Path(__file__).parents[3]
# The scenario of either vendor.
SCENARIO = Path(os.environ.get("MOLECULE_SCENARIO_DIRECTORY") or Path(__file__).parents[1])
INVENTORY = SCENARIO / "inventory"
ENVIRONMENT = os.environ | {
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
}
_SITE = yaml.safe_load((INVENTORY / "hosts.yml").read_text(encoding="utf-8"))["webstack"]
_GROUPS = _SITE["children"]["db"]["children"]
ADDRESSES = {name: host["tier_address"] for group in _GROUPS.values() for name, host in sorted(group["hosts"].items())}
_VARIABLES = (INVENTORY / "group_vars" / "db.yml").read_text(encoding="utf-8")
MARIADB = "mysql_replication_vendor: mariadb" in _VARIABLES
# Where the tests come from: the machine that the containers run on.
HERE = _SITE["vars"]["webstack_network"].replace(".0/24", ".1")
mysql_only = pytest.mark.skipif(MARIADB, reason="MySQL has it, MariaDB has not")


class Tier:
    """The three nodes."""

    nodes = tuple(ADDRESSES)

    def __init__(self) -> None:
        self.lab = Lab(_SITE["vars"]["lab_name"])

    def sql(self, node: str, statement: str) -> str:
        """Run a statement as root over a node's socket; its output without the header."""
        client = "mariadb" if MARIADB else "mysql"
        return str(self.lab.host(node).check_output(f"{client} --batch --skip-column-names --execute %s", statement))

    def executed(self, node: str) -> str:
        """The transactions that a node has executed."""
        if MARIADB:
            return mysql_dialect.MARIADB.gtids(self.sql(node, "SELECT @@GLOBAL.gtid_binlog_state"))
        return self.sql(node, "SELECT @@GLOBAL.gtid_executed").replace("\\n", "").replace("\n", "")

    def caught_up(self) -> bool:
        """No node lacks what another has executed."""
        found = [self.executed(node) for node in ADDRESSES]
        return not any(mysql_topology.subtract_gtids(a, b) for a in found for b in found)

    def fence(self, node: str) -> None:
        """Nobody writes on a node."""
        self.sql(node, f"SET GLOBAL {'read_only' if MARIADB else 'super_read_only'} = ON")

    def unfence(self, node: str) -> None:
        """Everybody may write on a node."""
        self.sql(node, f"{'' if MARIADB else 'SET GLOBAL super_read_only = OFF; '}SET GLOBAL read_only = OFF")

    def write_beside(self, node: str, statement: str, log: bool = True) -> None:
        """Run a statement on a fenced node."""
        lift, fence = ("", "") if MARIADB else ("SET GLOBAL super_read_only = OFF", "SET GLOBAL super_read_only = ON")
        self.sql(node, f"SET SESSION sql_log_bin = {int(log)}; {lift}; {statement}; {fence}".replace("; ; ", "; "))

    def empty(self, node: str) -> None:
        """Take the server off a node, with its data."""
        packages = "mariadb-server mariadb-server-core" if MARIADB else "mysql-server mysql-server-core"
        self.lab.host(node).check_output(
            f"systemctl stop mysql.service; apt-get -y -qq purge {packages}; rm -rf /var/lib/mysql"
        )

    def health(self, node: str, path: str, timeout: float = 5) -> tuple[int, str]:
        """What a node's agent answers: status and text."""
        try:
            with urllib.request.urlopen(f"http://{ADDRESSES[node]}:9200{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode().strip()

    def status(self, node: str) -> dict[str, Any]:
        """What a node's agent knows."""
        return dict(json.loads(self.health(node, "/status")[1]))

    def client(
        self, node: str, tls: bool = True, user: str = "shop", password: str | None = None, timeout: float = 15
    ) -> Any:
        """A connection as the application has it."""
        secret = password or (INVENTORY / ".secrets" / "shop").read_text(encoding="utf-8").split()[0]
        context = ssl.create_default_context(cafile=str(INVENTORY / ".pki" / "ca.pem")) if tls else None
        return pymysql.connect(
            host=ADDRESSES[node],
            user=user,
            password=secret,
            database="shop",
            autocommit=True,
            connect_timeout=min(3, timeout),
            read_timeout=timeout,
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

    def serving(self) -> list[str]:
        """The nodes whose agents say that they may be written to; a host that is down says nothing."""
        found = []
        for node in ADDRESSES:
            try:
                if self.health(node, "/primary", 1)[0] == 200:
                    found.append(node)
            except OSError:
                continue
        return found

    def writable(self) -> list[str]:
        """The nodes that are not read-only, whatever their agents say."""
        running = [n for n in ADDRESSES if self.lab.host(n).run("systemctl is-active mysql.service").rc == 0]
        return [n for n in running if self.sql(n, "SELECT @@GLOBAL.read_only") == "0"]

    def play(self, playbook: str, *words: str, check: bool = True, **variables: Any) -> str:
        """Run a playbook of the collection on this scenario's hosts; what it printed, on one line."""
        command = ["ansible-playbook", *inventories(INVENTORY)]
        path = ROOT / "playbooks" / f"{playbook}.yml" if "/" not in playbook else ROOT / playbook
        command += [str(path), "--extra-vars", json.dumps(variables), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT)
        assert not check or done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        # Ansible breaks long lines anywhere between two words.
        return " ".join(f"{done.stdout} exit code {done.returncode}".split())

    def rejoin(self, node: str, clone: bool = False) -> str:
        """Bring a node back, and wait until the tier is in order."""
        said = self.play("rejoin", mysql_replication_rejoin=node, mysql_replication_clone=clone)
        wait_for(self.settled, 30)
        return said


@pytest.fixture(scope="session")
def tier() -> Iterator[Tier]:
    """The tier, in order before the tests begin."""
    found = Tier()
    wait_for(found.settled, 60)
    yield found
