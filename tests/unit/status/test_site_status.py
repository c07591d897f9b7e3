"""What is wrong with a site, from what its hosts say: every finding names its host, and a whole site has none."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.plugin_utils.status import LIMITS, site_status, site_status_text
from ansible_collections.scaleup.webstack.plugins.plugin_utils.status_page import site_status_html

NOW = 1_800_000_000.0
GROUPS = {tier: [f"{tier}1", f"{tier}2"] for tier in ("lb", "web", "app", "db")} | {"other": ["x1"]}
ADDRESSES = {
    f"{tier}{number}": f"10.0.0.{row}{number}"
    for row, tier in enumerate(("lb", "web", "app", "db"), 1)
    for number in (1, 2)
}
HOSTVARS = {name: {"tier_address": address} for name, address in ADDRESSES.items()}
VIPS = [{"name": "public1", "address": "10.0.0.101"}, {"name": "internal", "address": "10.0.0.103"}]
UUID = "11111111-1111-1111-1111-111111111111"


def host(name: str) -> dict[str, Any]:
    return {
        "time": NOW + 1,
        "kernel": "6.12",
        "units": {"some.service": "active"},
        "failed_units": [],
        "addresses": [ADDRESSES[name], "127.0.0.1"],
        "disks": [{"path": "/", "used": 30.0, "inodes": 5.0}],
        "memory": 20.0,
        "resolves": None,
        "certificates": {"/etc/ssl/webstack/host.pem": NOW + 300 * 86400},
        "releases": {},
        "backup": None,
        "restart": {},
        "reboot": "",
    }


def server(backend: str, name: str, status: str = "UP", check: str = "Layer7 check passed") -> dict[str, str]:
    return {"backend": backend, "server": name, "status": status, "check": check, "sessions": "0"}


def database(number: int) -> dict[str, Any]:
    replica = {"source_host": ADDRESSES["db1"], "io_running": "Yes", "sql_running": "Yes", "lag": 0}
    return {
        "version": "9.7.4",
        "server_id": number,
        "server_uuid": UUID.replace("1111-", f"111{number}-", 1),
        "read_only": number == 2,
        "super_read_only": number == 2,
        "gtid_executed": f"{UUID}:1-9",
        "gtid_purged": "",
        "schemas": ["shop"],
        "replica": replica if number == 2 else None,
        "semi_sync": number == 1,
    }


def iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(NOW + seconds, datetime.timezone.utc).isoformat()


def backup(full: float = 3, binlogs: float = 0.1, verified: float = 100) -> dict[str, Any]:
    """What mysql_backup.py notes: hours since each."""
    return {
        "node": "db2",
        "full": {"name": "x", "finished": iso(-full * 3600), "bytes": 1, "seconds": 1.0},
        "binlogs": {"finished": iso(-binlogs * 3600), "executed": ""},
        "verified": {"at": iso(-verified * 3600), "backup": "x"},
        "full_error": None,
    }


@pytest.fixture
def site() -> dict[str, Any]:
    """A whole site."""
    found = {name: {"status": host(name)} for name in ADDRESSES}
    found["lb1"]["status"]["addresses"] += ["10.0.0.101"]
    found["lb2"]["status"]["addresses"] += ["10.0.0.103"]
    for name in ("lb1", "lb2"):
        found[name]["status"]["servers"] = [
            *(server("web", n) for n in GROUPS["web"]),
            *(server("app", n) for n in GROUPS["app"]),
            server("mysql_writer", "db1"),
            server("mysql_writer", "db2", "DOWN", "Layer7 wrong status"),
            server("mysql_reader", "db1", "DOWN", "Layer7 wrong status"),
            server("mysql_reader", "db2"),
            server("mysql_last", "db1"),
            server("mysql_last", "db2"),
        ]
    for name in GROUPS["app"]:
        found[name]["status"]["releases"] = {"shop": {"current": "abc123", "since": "", "beside": ""}}
    for number in (1, 2):
        found[f"db{number}"]["status"]["mysql"] = {"state": database(number), "settings": []}
    return found


def judged(site: dict[str, Any], **more: Any) -> dict[str, Any]:
    return site_status(copy.deepcopy(site), GROUPS, HOSTVARS, VIPS, NOW, **more)


def test_a_whole_site_has_no_problem(site: dict[str, Any]) -> None:
    status = judged(site)
    assert (status["ok"], status["problems"], status["notes"]) == (True, [], [])
    assert {row["name"] for row in status["hosts"]} == set(ADDRESSES)
    assert {row["name"]: row["seen"] for row in status["hosts"]}["db2"] == {"lb1": "up", "lb2": "up"}
    assert [(v["name"], v["holders"]) for v in status["vips"]] == [("public1", ["lb1"]), ("internal", ["lb2"])]
    assert status["database"]["primary"] == "db1"
    assert [n["lag"] for n in status["database"]["nodes"]] == [None, 0]


def of(name: str, *path: str) -> Callable[[dict[str, Any]], Any]:
    """The part of a host's facts at a path."""

    def find(site: dict[str, Any]) -> Any:
        part = site[name]["status"]
        for key in path:
            part = part[key]
        return part

    return find


def change(name: str, *path: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda site: of(name, *path)(site).update(values)


def sees(name: str, status: str, check: str = "") -> Callable[[dict[str, Any]], None]:
    def do(site: dict[str, Any]) -> None:
        for balancer in GROUPS["lb"]:
            for row in of(balancer, "servers")(site):
                if row["server"] == name:
                    row.update(status=status, check=check)

    return do


@pytest.mark.parametrize(
    ("event", "host", "said"),
    [
        (lambda site: site.update(web1={"msg": "Failed to connect"}), "web1", "could not be asked: Failed to connect"),
        (change("web1", "units", **{"some.service": "failed"}), "web1", "some.service is failed"),
        (change("web1", failed_units=["other.service"]), "web1", "other.service has failed"),
        (change("web1", crashing={"other.service": 7}), "web1", "other.service ends again and again, 7 times"),
        (
            change("db2", "mysql", "state", gtid_executed=f"{UUID}:1-9,22222222-1111-1111-1111-111111111111:1"),
            "db1",
            "db2 has transactions that the primary db1 lacks: 22222222",
        ),
        (sees("web1", "DOWN", "Layer4 timeout"), "web1", "sent to it by lb1 and lb2: web DOWN (Layer4 timeout)"),
        (sees("web1", "DRAIN"), "web1", "web DRAIN"),
        (sees("db2", "DOWN"), "db2", "mysql_writer DOWN, mysql_reader DOWN"),
        (change("lb1", servers=None), "lb1", "HAProxy does not say"),
        (lambda site: of("lb1", "addresses")(site).remove("10.0.0.101"), "", "public1 is held by nobody"),
        (lambda site: of("lb2", "addresses")(site).append("10.0.0.101"), "lb1", "public1 is held by lb1 and lb2"),
        (change("app2", "releases", "shop", current="def456"), "app1", "abc123 on app1; def456 on app2"),
        (change("db2", "mysql", "state", "replica", lag=60), "db2", "60 s behind"),
        (change("db2", "mysql", "state", "replica", lag=None), "db2", "an unknown time behind"),
        (change("db2", "mysql", "state", "replica", sql_running="No", sql_error="bad row"), "db2", "bad row"),
        (change("db1", "mysql", "state", semi_sync=False), "db1", "semi-sync is off"),
        (change("db2", "mysql", "state", read_only=False), "", "db1 and db2 are writable at once"),
        (change("db1", "mysql", "state", read_only=True), "db1", "No node is writable"),
        (change("db2", "mysql", "state", replica=None), "db2", "neither the primary nor a replica"),
        (lambda site: of("db2")(site).update(mysql={"error": "no socket"}), "db2", "does not answer: no socket"),
        (change("web1", disks=[{"path": "/var", "used": 97.0, "inodes": 1.0}]), "web1", "/var is full to 97 %"),
        (
            change("web1", disks=[{"path": "/var", "used": 7.0, "inodes": 99.0}]),
            "web1",
            "/var's inodes is full to 99 %",
        ),
        (change("web1", memory=99.0), "web1", "99 % of the memory"),
        (change("web1", time=NOW + 3600), "web1", "its clock is +3600 s off"),
        (change("web1", resolves=False), "web1", "resolves no names"),
        (change("web1", certificates={"/c.pem": NOW + 3 * 86400}), "web1", "/c.pem ends on 2027-01-18T08:00:00Z, in 3"),
        (change("web1", certificates={"/c.pem": NOW - 1}), "web1", "/c.pem has ended"),
        (change("web1", certificates={"/c.pem": None}), "web1", "/c.pem is no certificate"),
        (change("db2", backup=backup() | {"full_error": {"at": iso(-60), "text": "disk full"}}), "db2", "disk full"),
        (change("db2", backup=backup(full=90)), "db2", "(full) is 90.0 hours old"),
        (change("db2", backup=backup(binlogs=2)), "db2", "(binlogs) is 2.0 hours old"),
        (change("db2", backup={"binlogs_error": {"at": iso(0), "text": "no server"}}), "db2", "failed: no server"),
        (change("db2", backup={"error": "no JSON"}), "db2", "the backups: no JSON"),
    ],
)
def test_what_is_wrong_is_said_of_its_host(site: dict[str, Any], event: Any, host: str, said: str) -> None:
    event(site)
    status = judged(site)
    assert not status["ok"]
    assert any(p["host"] == host and said in p["what"] for p in status["problems"]), status["problems"]
    assert "degraded" in site_status_text(status).splitlines()[0]
    assert all(p["text"] in site_status_text(status) for p in status["problems"])
    if host:
        assert {row["name"] for row in status["hosts"] if row["degraded"]} == {p["host"] for p in status["problems"]}


@pytest.mark.parametrize("vendor", ["mysql", "mariadb"])
def test_a_replica_that_was_asked_a_moment_later_is_no_contradiction(site: dict[str, Any], vendor: str) -> None:
    own = of("db1", "mysql", "state")(site)["server_uuid"]
    if vendor == "mariadb":
        own = f"0-{of('db1', 'mysql', 'state')(site)['server_id']}"
        for name in ("db1", "db2"):
            change(name, "mysql", "state", server_uuid="", version="11.8.6-MariaDB")(site)
    change("db1", "mysql", "state", gtid_executed=f"{own}:1-9")(site)
    change("db2", "mysql", "state", gtid_executed=f"{own}:1-12")(site)
    assert judged(site)["ok"]
    # A replica that its primary refuses is one.
    change("db2", "mysql", "state", "replica", io_running="No", io_error="has more GTIDs than the source")(site)
    assert any("transactions that the primary db1 lacks" in p["text"] for p in judged(site)["problems"])


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (change("web1", restart={"nginx.service": "libssl was replaced"}), "nginx.service waits for a restart: libssl"),
        (change("web1", reboot="the kernel 7 is installed"), "waits for a reboot: the kernel 7"),
        (change("web1", upgrades=[{"name": "a", "security": True}]), "1 packages can be upgraded, 1 of them"),
        (change("db1", backup=backup(verified=24 * 30)), "the backups were last proven: 2026-12-16T08:00:00Z"),
        (lambda site: change("app1", "releases", "shop", beside="new1")(site), "shop new1 runs beside it"),
    ],
)
def test_what_waits_does_not_degrade_the_site(site: dict[str, Any], event: Any, said: str) -> None:
    event(site)
    status = judged(site)
    assert status["ok"]
    assert said in status["notes"][0]["what"]
    assert said in site_status_text(status)


@pytest.mark.parametrize("limit", [("web1", "web2"), ("lb1",), ("db2",)])
def test_a_part_of_the_site_is_judged_by_itself(site: dict[str, Any], limit: tuple[str, ...]) -> None:
    status = judged({name: site[name] for name in limit})
    assert (status["problems"], [row["name"] for row in status["hosts"]]) == ([], list(limit))


def test_whichever_node_took_the_last_backup_counts(site: dict[str, Any]) -> None:
    old = backup(full=300) | {"full_error": {"at": iso(-300 * 3600), "text": "old"}}
    change("db1", backup=old)(site)
    change("db2", backup=backup())(site)
    status = judged(site)
    assert status["ok"], status["problems"]
    assert {b["kind"]: b["host"] for b in status["backups"]}["full"] == "db2"
    assert f"backup: full {iso(-3 * 3600)[:19]}Z on db2" in site_status_text(status)


def test_limits_and_semi_sync_are_the_operators(site: dict[str, Any]) -> None:
    assert not judged(site, limits={"disk": 20})["ok"]
    change("db1", "mysql", "state", semi_sync=False)(site)
    assert judged(site, semi_sync=False)["ok"]


def test_the_playbook_documents_every_limit() -> None:
    text = (Path(__file__).parents[3] / "playbooks" / "status.yml").read_text()
    shown = dict(re.findall(r"(\w+): (\d+)", re.search(r"status_limits .*\{([^}]*)\}", text)[1]))  # type: ignore[index]
    assert {name: int(value) for name, value in shown.items()} == LIMITS


class Page(HTMLParser):
    """The words of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.fetches: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.fetches += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_says_the_same_needs_nothing_else_and_escapes(site: dict[str, Any]) -> None:
    site["web1"] = {"msg": "<script>alert(1)</script>"}
    status = judged(site)
    page = Page()
    page.feed(html := site_status_html(status, "Shop"))
    words = " ".join(page.words)
    assert page.fetches == [] and "url(" not in html and "<script" not in html
    assert all(problem["text"] in words for problem in status["problems"])
    assert all(name in words for name in ADDRESSES)


def test_a_replica_that_ails_is_why_its_primary_does_not_wait_for_it(site: dict[str, Any]) -> None:
    change("db1", "mysql", "state", semi_sync=False)(site)
    change("db2", disks=[{"path": "/var", "used": 100.0, "inodes": 1.0}])(site)
    said = {(p["host"], p["what"]) for p in judged(site)["problems"]}
    assert ("db2", "db1 commits without waiting for a replica (semi-sync is off)") in said
    assert {host for host, _ in said} == {"db2"}
