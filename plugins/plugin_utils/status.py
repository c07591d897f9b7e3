# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the hosts of a site say of themselves to what is wrong with it, and a table of it: plain logic, no I/O."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_topology

TIERS = ("lb", "web", "app", "db", "ops")
# What is still good: percent of a disk or of the memory in use, days until a certificate ends, seconds that a replica
# or a clock may be off, hours since the last backup and since the last binary logs, days since they were proven.
LIMITS: dict[str, float] = {
    "disk": 90,
    "memory": 95,
    "certificate_days": 14,
    "lag": 10,
    "clock": 30,
    "backup_hours": 26,
    "binlogs_hours": 1,
    "verified_days": 8,
}
DAY = 86400


def site_status(
    facts: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Any],
    vips: Iterable[Mapping[str, Any]] = (),
    now: float = 0,
    limits: Mapping[str, float] | None = None,
    semi_sync: bool = True,
) -> dict[str, Any]:
    """Judge a site.

    :param facts: what the module host_status_info returned, by host; without ``status`` where it could not be asked. A
        host that is not in it was not asked, and is not judged.
    :param groups: Ansible's groups; those named as a tier count.
    :param hostvars: Ansible's hostvars, for the hosts' addresses.
    :param vips: the virtual IPs, each with ``name`` and ``address``.
    :param now: the controller's clock when the hosts were asked, in seconds of the epoch.
    :param limits: replaces single values of LIMITS.
    :param semi_sync: whether a primary should wait for a replica.
    :returns: ``ok``, ``problems`` and ``notes`` (each with ``host``, ``what`` and both as ``text``), and what was seen:
        ``vips``, ``hosts``, ``database``, ``backups``. A problem makes the site degraded, a note says what waits.
    """
    bounds = LIMITS | dict(limits or {})
    hosts = {name: tier for tier in TIERS for name in groups.get(tier, []) if name in facts}
    found = {name: facts[name].get("status") for name in hosts}
    report = _Report()
    for name, status in found.items():
        if status is None:
            report.problem(name, f"could not be asked: {_why(facts[name])}")
    seen = _servers(groups.get("db", []), found, report)
    rows = []
    for name, tier in hosts.items():
        status, before = found[name], len(report.problems)
        if status is not None:
            _host(name, status, bounds, now, report)
        rows.append(
            {
                "name": name,
                "tier": tier,
                "address": str(hostvars[name].get("tier_address") or hostvars[name].get("ansible_host") or name),
                "seen": seen.get(name, {}),
                "what": [],
                **_figures(status, now),
                "degraded": status is None or len(report.problems) > before,
            }
        )
    by_name = {row["name"]: row for row in rows}
    # Of a part of a tier (--limit) nothing can be said that only the whole of it knows.
    whole = {tier: all(name in facts for name in groups.get(tier, [])) for tier in TIERS}
    held = _vips(vips, found, by_name, report) if whole["lb"] else []
    _releases(found, by_name, report)
    nothing: dict[str, Any] = {"primary": "", "working_replicas": 0, "nodes": []}
    data = _database(hosts, found, by_name, bounds, semi_sync, report) if whole["db"] else nothing
    backups = _backups(found, bounds, now, report)
    named = {entry["host"] for entry in report.problems}
    for row in rows:
        row["degraded"] = row["name"] in named
    return {
        "ok": not report.problems,
        "time": _utc(now),
        "problems": report.problems,
        "notes": report.notes,
        "vips": held,
        "hosts": rows,
        "database": data,
        "backups": backups,
    }


class _Report:
    """What is wrong, and what waits."""

    def __init__(self) -> None:
        self.problems: list[dict[str, str]] = []
        self.notes: list[dict[str, str]] = []

    def problem(self, host: str, what: str) -> None:
        self.problems.append(_entry(host, what))

    def note(self, host: str, what: str) -> None:
        self.notes.append(_entry(host, what))


def _entry(host: str, what: str) -> dict[str, str]:
    return {"host": host, "what": what, "text": f"{host}: {what}" if host else what}


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _why(answer: Mapping[str, Any]) -> str:
    """The last word of a host that could not be asked; what its connection said tells more than Ansible's own words."""
    text = str(answer.get("module_stderr") or answer.get("msg") or "no answer").strip()
    return text.splitlines()[-1][:300]


def _figures(status: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    """The numbers of one host's row; None where they are not known."""
    if status is None:
        return {"disk": None, "memory": None, "certificate_days": None, "waiting": []}
    ends = [end for end in status["certificates"].values() if end is not None]
    waiting = [f"restart of {unit.removesuffix('.service')}" for unit in sorted(status["restart"])]
    return {
        "disk": max((disk["used"] for disk in status["disks"]), default=None),
        "memory": status["memory"],
        "certificate_days": int((min(ends) - now) // DAY) if ends else None,
        "waiting": waiting + (["reboot"] if status["reboot"] else []),
    }


def _host(name: str, status: Mapping[str, Any], bounds: Mapping[str, float], now: float, report: _Report) -> None:
    """What is wrong with one host, by itself."""
    for unit, state in status["units"].items():
        if state != "active":
            report.problem(name, f"{unit} is {state}: journalctl -u {unit}")
    for unit in status["failed_units"]:
        if unit not in status["units"]:
            report.problem(name, f"{unit} has failed: journalctl -u {unit}")
    for unit, times in status.get("crashing", {}).items():
        report.problem(name, f"{unit} ends again and again, {times} times by now: journalctl -u {unit}")
    for disk in status["disks"]:
        for what, percent in (("", disk["used"]), ("'s inodes", disk["inodes"])):
            if percent >= bounds["disk"]:
                report.problem(name, f"the disk {disk['path']}{what} is full to {percent:.0f} %")
    if status["memory"] >= bounds["memory"]:
        report.problem(name, f"{status['memory']:.0f} % of the memory is in use")
    if abs(status["time"] - now) > bounds["clock"]:
        report.problem(name, f"its clock is {status['time'] - now:+.0f} s off the controller's")
    if status["resolves"] is False:
        report.problem(name, "it resolves no names (DNS): see /etc/resolv.conf")
    for path, end in status["certificates"].items():
        if end is None:
            report.problem(name, f"{path} is no certificate")
        elif end < now:
            report.problem(name, f"the certificate {path} has ended on {_utc(end)}")
        elif end - now < bounds["certificate_days"] * DAY:
            report.problem(name, f"the certificate {path} ends on {_utc(end)}, in {(end - now) / DAY:.0f} days")
    for unit, why in sorted(status["restart"].items()):
        report.note(name, f"{unit} waits for a restart: {why}")
    if status["reboot"]:
        report.note(name, f"waits for a reboot: {status['reboot']}")
    if status.get("upgrades"):
        security = sum(entry["security"] for entry in status["upgrades"])
        report.note(name, f"{len(status['upgrades'])} packages can be upgraded, {security} of them for security")


def _servers(databases: Sequence[str], found: Mapping[str, Any], report: _Report) -> dict[str, dict[str, str]]:
    """Host to balancer to how it sees the host: up, out or down."""
    seen: dict[str, dict[str, str]] = {}
    views: dict[tuple[str, str], list[str]] = {}
    for balancer, status in found.items():
        if status is None or "servers" not in status:
            continue
        if status["servers"] is None:
            report.problem(balancer, "HAProxy does not say what is behind it: haproxy-servers show")
            continue
        for name in dict.fromkeys(row["server"] for row in status["servers"]):
            # Any database that answers is a last resort for reads; that says nothing of its role.
            mine = [row for row in status["servers"] if row["server"] == name and row["backend"] != "mysql_last"]
            bad = [row for row in mine if not row["status"].startswith(("UP", "no check"))]
            # A database is a writer or a reader, as its role has it: one of the backends is enough.
            if not bad or (name in databases and len(bad) < len(mine)):
                seen.setdefault(name, {})[balancer] = "up"
                continue
            drained = all(row["status"].startswith("DRAIN") for row in bad)
            seen.setdefault(name, {})[balancer] = "out" if drained else "down"
            words = (
                f"{row['backend']} {row['status']}" + (f" ({row['check']})" if row["check"] else "") for row in bad
            )
            views.setdefault((name, ", ".join(words)), []).append(balancer)
    for (name, said), balancers in views.items():
        report.problem(name, f"nothing is sent to it by {' and '.join(balancers)}: {said}")
    return seen


def _vips(
    vips: Iterable[Mapping[str, Any]], found: Mapping[str, Any], rows: Mapping[str, Any], report: _Report
) -> list[dict[str, Any]]:
    """Each virtual IP and who holds it."""
    held = []
    for vip in vips:
        holders = [n for n, s in found.items() if s is not None and str(vip["address"]) in s["addresses"]]
        held.append({"name": str(vip["name"]), "address": str(vip["address"]), "holders": holders})
        if len(holders) != 1:
            who = " and ".join(holders) or "nobody that answers"
            report.problem(holders[0] if holders else "", f"the virtual IP {vip['name']} is held by {who}")
        for holder in holders:
            rows[holder]["what"].append(str(vip["name"]))
    return held


def _releases(found: Mapping[str, Any], rows: Mapping[str, Any], report: _Report) -> None:
    """What the application servers run; all of them the same."""
    current: dict[str, dict[str, list[str]]] = {}
    for host, status in found.items():
        for application, release in (status or {}).get("releases", {}).items():
            rows[host]["what"].append(f"{application} {release['current'] or 'none'}")
            current.setdefault(application, {}).setdefault(release["current"], []).append(host)
            if "error" in release:
                report.problem(host, release["error"])
            if release.get("beside"):
                report.note(host, f"{application} {release['beside']} runs beside it: blue_green finish or back")
    for application, by_release in current.items():
        if len(by_release) > 1:
            words = "; ".join(f"{release or 'none'} on {', '.join(on)}" for release, on in by_release.items())
            fewest = min(by_release.values(), key=len)
            report.problem(fewest[0], f"{application} runs in different releases: {words}")


def _database(
    hosts: Mapping[str, str],
    found: Mapping[str, Any],
    rows: Mapping[str, Any],
    bounds: Mapping[str, float],
    semi_sync: bool,
    report: _Report,
) -> dict[str, Any]:
    """The replication's topology, judged as the roles of the servers are when they are changed."""
    nodes = []
    for name in (n for n, tier in hosts.items() if tier == "db"):
        mysql = (found[name] or {}).get("mysql", {"error": "the host could not be asked"})
        if "state" in mysql:
            nodes.append(mysql_topology.Node.from_state(name, rows[name]["address"], 3306, mysql["state"]))
        else:
            if found[name] is not None:
                report.problem(name, f"the database server does not answer: {mysql['error']}")
            nodes.append(mysql_topology.Node(name, rows[name]["address"], reachable=False, error=str(mysql["error"])))
    if not nodes:
        return {"primary": "", "working_replicas": 0, "nodes": []}
    _at_one_time(nodes)
    verdict = mysql_topology.judge(nodes, "")
    for text in verdict.problems:
        report.problem(verdict.primary, f"the databases: {text}")
    if not verdict.problems and not any(node.writable for node in nodes):
        report.problem(verdict.primary, "the databases: No node is writable. Run the site play over the group db")
    table = []
    replicas = 0
    for node in nodes:
        role = "primary" if node.writable else "replica" if node.replica else "fenced" if node.reachable else "silent"
        replica = node.replica
        if role == "replica" and replica is not None:
            broken = replica.sql_error or replica.io_error
            if not replica.running:
                report.problem(node.name, f"replication does not run: {broken or 'it is stopped'}")
            elif replica.lag is None or replica.lag > bounds["lag"]:
                lag = "an unknown time" if replica.lag is None else f"{replica.lag} s"
                report.problem(node.name, f"is {lag} behind {replica.source_host}")
            else:
                replicas += 1
            lag = "?" if replica.lag is None else str(replica.lag)
            rows[node.name]["what"].append(f"replica of {_name(nodes, replica)}, {lag} s behind")
        else:
            if role == "fenced" and any(other.writable for other in nodes):
                report.problem(node.name, "it is neither the primary nor a replica: run scaleup.webstack.rejoin")
            rows[node.name]["what"].append(role + (", semi-sync" if node.writable and node.semi_sync else ""))
        table.append(
            {
                "name": node.name,
                "role": role,
                "source": _name(nodes, replica) if replica else "",
                "lag": replica.lag if replica else None,
                "semi_sync": node.semi_sync,
                "transactions": mysql_topology.count_gtids(node.gtid_executed),
            }
        )
    primary = next((n for n in nodes if n.name == verdict.primary and n.writable), None)
    if primary is not None and semi_sync and not primary.semi_sync and len(nodes) > 1:
        ailing = {problem["host"] for problem in report.problems}
        others = [node.name for node in nodes if node is not primary]
        # The cause is what is to be mended, where it is known.
        if ailing.issuperset(others):
            report.problem(others[0], f"{primary.name} commits without waiting for a replica (semi-sync is off)")
        else:
            report.problem(primary.name, "it commits without waiting for a replica (semi-sync is off)")
    return {"primary": verdict.primary, "working_replicas": replicas, "nodes": table}


def _at_one_time(nodes: Iterable[mysql_topology.Node]) -> None:
    """A replica that was asked a moment later has what its primary wrote meanwhile: no more than the primary has.

    One that really has more of its primary's own transactions is refused by it, and does not run.
    """
    writable = [node for node in nodes if node.writable]
    if len(writable) != 1:
        return
    primary = writable[0]
    for node in nodes:
        if node is primary or node.replica is None or not node.replica.running or not node.follows(primary):
            continue
        newer = mysql_topology.parse_gtids(primary.lacks(node))
        own = {key: value for key, value in newer.items() if primary.wrote(key)}
        if own:
            primary.gtid_executed = f"{primary.gtid_executed},{mysql_topology.format_gtids(own)}".strip(",")


def _name(nodes: Iterable[mysql_topology.Node], replica: mysql_topology.Replica) -> str:
    return next((n.name for n in nodes if n.address == replica.source_host), replica.source_host)


def _seconds(text: Any) -> float:
    """A time in ISO 8601 as seconds of the epoch; 0 where it is none."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0


def _backups(
    found: Mapping[str, Any], bounds: Mapping[str, float], now: float, report: _Report
) -> list[dict[str, Any]]:
    """The newest of each kind, whichever node took it, as mysql_backup.py notes them; empty where there are none."""
    notes = {host: status["backup"] for host, status in found.items() if status and isinstance(status["backup"], dict)}
    for host, note in notes.items():
        if "error" in note:
            report.problem(host, f"the backups: {note['error']}")
    newest: dict[str, dict[str, Any]] = {}
    for kind, key in (("full", "finished"), ("binlogs", "finished"), ("verified", "at")):
        times = [(_seconds(note[kind][key]), host) for host, note in notes.items() if note.get(kind)]
        if times:
            at, host = max(times)
            newest[kind] = {"kind": kind, "host": host, "at": _utc(at), "seconds": now - at}
    for host, note in notes.items():
        for kind, key in (("full", "full_error"), ("binlogs", "binlogs_error"), ("verified", "verify_error")):
            error = note.get(key)
            if error and (kind not in newest or now - _seconds(error["at"]) < newest[kind]["seconds"]):
                report.problem(host, f"the backup ({key.removesuffix('_error')}) failed: {error['text']}")
    taker = next(iter(notes), "")
    for kind, hours in (("full", bounds["backup_hours"]), ("binlogs", bounds["binlogs_hours"])):
        if notes and kind not in newest:
            report.problem(taker, f"there is no backup ({kind}) yet")
        elif notes and newest[kind]["seconds"] > hours * 3600:
            hours_old = newest[kind]["seconds"] / 3600
            report.problem(newest[kind]["host"], f"the last backup ({kind}) is {hours_old:.1f} hours old")
    if notes and newest.get("verified", {"seconds": float("inf")})["seconds"] > bounds["verified_days"] * DAY:
        last = newest["verified"]["at"] if "verified" in newest else "never"
        report.note(taker, f"the backups were last proven: {last}")
    return list(newest.values())


# --- as text ----------------------------------------------------------------------------------------------------------

COLUMNS = ("HOST", "TIER", "ADDRESS", "STATE", "BALANCERS", "WHAT", "DISK", "MEMORY", "CERTIFICATE")


def verdict(status: Mapping[str, Any]) -> str:
    """The first line: whether the site is whole."""
    count = len(status["problems"])
    return "The site is whole." if not count else f"The site is degraded: {count} problem{'s' if count > 1 else ''}."


def cells(row: Mapping[str, Any]) -> list[str]:
    """One host as the words of COLUMNS."""
    states = set(row["seen"].values())
    seen = next(iter(states), "") if len(states) <= 1 else ", ".join(f"{b} {s}" for b, s in row["seen"].items())
    days = row["certificate_days"]
    return [
        row["name"],
        row["tier"],
        row["address"],
        "degraded" if row["degraded"] else "ok",
        seen or "-",
        "; ".join(row["what"]) or "-",
        "-" if row["disk"] is None else f"{row['disk']:.0f} %",
        "-" if row["memory"] is None else f"{row['memory']:.0f} %",
        "-" if days is None else f"{days} days",
    ]


def site_status_text(status: Mapping[str, Any]) -> str:
    """The status for people: a table, and below it what is wrong and what waits."""
    table = [list(COLUMNS), *(cells(row) for row in status["hosts"])]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    text = [f"{verdict(status)} ({status['time']})", ""]
    text += ["  ".join(w.ljust(n) for w, n in zip(row, widths, strict=True)).rstrip() for row in table]
    text += [""] + [
        f"{vip['name']} {vip['address']} is held by {' and '.join(vip['holders']) or 'nobody'}"
        for vip in status["vips"]
    ]
    text += [f"backup: {b['kind']} {b['at']} on {b['host']}" for b in status["backups"]]
    for title, entries in (("Wrong:", status["problems"]), ("Waiting:", status["notes"])):
        if entries:
            text += ["", title, *(f"  - {entry['text']}" for entry in entries)]
    return "\n".join(text)
