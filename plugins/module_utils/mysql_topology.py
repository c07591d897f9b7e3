# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the database nodes say about themselves to what should be done: plain logic, no I/O.

The health agent on the nodes uses this file as it is, so it imports the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Per "uuid" or "uuid:tag" the closed intervals of transaction numbers, sorted and apart.
GtidSet = dict[str, list[tuple[int, int]]]


def parse_gtids(text: str) -> GtidSet:
    """Read ``uuid:1-5:7,uuid:tag:1-3`` as MySQL writes it (tags since 8.3), or what mysql_dialect makes of MariaDB's.

    :raises ValueError: the text is no set of GTIDs.
    """
    result: GtidSet = {}
    for part in text.replace("\n", "").replace(" ", "").split(","):
        if not part:
            continue
        uuid, *words = part.lower().split(":")
        key = uuid
        for word in words:
            if not word[:1].isdigit():
                key = f"{uuid}:{word}"
                continue
            first, _, last = word.partition("-")
            result.setdefault(key, []).append((int(first), int(last or first)))
    return {key: _merge(intervals) for key, intervals in result.items()}


def _merge(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def format_gtids(gtids: GtidSet) -> str:
    """Write a set as MySQL reads it."""
    parts = []
    for key in sorted(gtids):
        numbers = ":".join(str(a) if a == b else f"{a}-{b}" for a, b in gtids[key])
        parts.append(f"{key}:{numbers}")
    return ",".join(parts)


def subtract_gtids(left: str, right: str) -> str:
    """What is in ``left`` and not in ``right``, as GTID_SUBTRACT() has it; empty when ``left`` is contained."""
    a, b = parse_gtids(left), parse_gtids(right)
    result: GtidSet = {}
    for key, intervals in a.items():
        rest: list[tuple[int, int]] = []
        for interval_first, last in intervals:
            first = interval_first
            for cut_first, cut_last in b.get(key, []):
                if cut_last < first or cut_first > last:
                    continue
                if cut_first > first:
                    rest.append((first, cut_first - 1))
                first = cut_last + 1
            if first <= last:
                rest.append((first, last))
        if rest:
            result[key] = rest
    return format_gtids(result)


def count_gtids(text: str) -> int:
    """How many transactions a set holds; the servers of a MariaDB domain share their numbers."""
    numbers: GtidSet = {}
    for key, intervals in parse_gtids(text).items():
        domain = key.partition("-")[0] if re.fullmatch(r"\d+-\d+", key) else key
        numbers.setdefault(domain, []).extend(intervals)
    return sum(last - first + 1 for intervals in numbers.values() for first, last in _merge(intervals))


@dataclass
class Replica:
    """Where a node replicates from; from SHOW REPLICA STATUS. ``lag`` in seconds, None when unknown."""

    source_host: str = ""
    source_port: int = 3306
    source_uuid: str = ""
    io_running: str = "No"
    sql_running: str = "No"
    io_error: str = ""
    sql_error: str = ""
    auto_position: bool = True
    retrieved: str = ""
    lag: int | None = None

    @property
    def running(self) -> bool:
        """Both threads do their work."""
        return self.io_running == "Yes" and self.sql_running == "Yes"


@dataclass
class Node:
    """A database server as it describes itself; ``error`` says why one that is not ``reachable`` is not."""

    name: str
    address: str
    port: int = 3306
    reachable: bool = True
    error: str = ""
    version: str = ""
    server_id: int = 0
    server_uuid: str = ""
    read_only: bool = True
    super_read_only: bool = True
    gtid_executed: str = ""
    gtid_purged: str = ""
    schemas: list[str] = field(default_factory=list)
    replica: Replica | None = None
    semi_sync: bool = False

    @classmethod
    def from_state(cls, name: str, address: str, port: int, state: dict[str, Any]) -> Node:
        """From the plain data that mysql_server.read_state() and the modules exchange."""
        values = dict(state)
        replica = values.pop("replica", None)
        return cls(name, address, port, replica=Replica(**replica) if replica else None, **values)

    @property
    def writable(self) -> bool:
        """Applications could write here."""
        return self.reachable and not self.read_only

    @property
    def fence(self) -> str:
        """What an operator types to fence it."""
        return f"SET GLOBAL {'read_only' if 'mariadb' in self.version.lower() else 'super_read_only'} = ON"

    @property
    def fresh(self) -> bool:
        """Newly installed: no transaction, no data, no source."""
        return self.reachable and not self.gtid_executed and not self.schemas and self.replica is None

    def follows(self, other: Node) -> bool:
        """It is configured to replicate from ``other``, whether or not the threads run."""
        if self.replica is None:
            return False
        if (self.replica.source_host, self.replica.source_port) == (other.address, other.port):
            return True
        return bool(other.server_uuid) and self.replica.source_uuid == other.server_uuid

    def wrote(self, key: str) -> bool:
        """Whether the transactions of a set under that key are this node's own."""
        if self.server_uuid:
            return key.split(":")[0] == self.server_uuid.lower()
        # MariaDB: DOMAIN-SERVER.
        return key.partition("-")[2] == str(self.server_id)

    def lacks(self, other: Node) -> str:
        """The transactions that ``other`` has executed or received and this node has not executed."""
        return subtract_gtids(_everything(other), self.gtid_executed)

    def describe(self) -> str:
        """One line for an operator."""
        where = f"{self.name} ({self.address}:{self.port})"
        if not self.reachable:
            return f"{where}: does not answer: {self.error}"
        words = ["writable" if self.writable else "read-only"]
        if self.fresh:
            words.append("newly installed, without data")
        else:
            words.append(f"{count_gtids(self.gtid_executed)} transactions")
        if self.replica:
            lag = "unknown" if self.replica.lag is None else f"{self.replica.lag} s"
            words.append(
                f"replica of {self.replica.source_host} (receiver {self.replica.io_running}, "
                f"applier {self.replica.sql_running}, lag {lag})"
            )
            words += [e for e in (self.replica.io_error, self.replica.sql_error) if e]
        else:
            words.append("no replica")
        return f"{where}: {', '.join(words)}"


@dataclass
class Verdict:
    """What the whole tier should become.

    ``actions`` by node: ``bootstrap``; ``resume`` (a restarted primary takes its place again); ``finish`` and
    ``promoted`` (complete a switchover that was interrupted before and after its candidate became writable); ``join``
    (become a replica of ``primary``); ``clone`` (the same, from a copy of its data); ``start`` (start the replication
    threads); or ``keep``. With ``problems`` nothing must be done anywhere.
    """

    primary: str = ""
    actions: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def judge(nodes: Iterable[Node], declared: str, bootstrap: str = "") -> Verdict:
    """Decide what each node has to do, from the state of all of them.

    :param declared: the inventory's first primary. It counts only as long as no node holds any data.
    :param bootstrap: the operator's word that this node may start an empty tier although others do not answer.
    """
    everyone = list(nodes)
    verdict = Verdict(facts=[n.describe() for n in everyone], actions={n.name: "keep" for n in everyone})
    answering = [n for n in everyone if n.reachable]
    _check_identities(answering, verdict)
    writable = [n for n in answering if n.writable]
    if len(writable) > 1:
        verdict.problems.append(
            f"{_names(writable)} are writable at once. Find out which one holds what the applications wrote, fence the "
            f"others ({writable[0].fence}) and bring them back with the playbook scaleup.webstack.rejoin."
        )
    elif writable:
        _judge_replicas(writable[0], answering, verdict)
    elif all(n.fresh for n in answering):
        _judge_new(everyone, declared, bootstrap, verdict)
    else:
        _judge_fenced(everyone, verdict)
    if verdict.problems:
        verdict.actions = {n.name: "keep" for n in everyone}
    return verdict


def may_resume(me: Node, others: Iterable[Node]) -> list[str]:
    """Why a fenced node that was the primary must not make itself writable; empty when it may (issue 7, point 4)."""
    reasons = []
    if me.replica is not None:
        reasons.append(f"{me.name} is a replica of {me.replica.source_host}")
    if me.fresh:
        reasons.append(f"{me.name} holds no data")
    for other in others:
        if not other.reachable:
            reasons.append(f"{other.name} does not answer: {other.error}")
        elif other.writable:
            reasons.append(f"{other.name} is writable: it took over; bring {me.name} back with scaleup.webstack.rejoin")
        elif missing := me.lacks(other):
            reasons.append(f"{other.name} has transactions that {me.name} lacks: {missing}")
        elif not other.fresh and not other.follows(me):
            reasons.append(f"{other.name} does not replicate from {me.name}")
    return reasons


def _names(nodes: Iterable[Node]) -> str:
    return " and ".join(sorted(n.name for n in nodes)) or "none"


def _check_identities(answering: list[Node], verdict: Verdict) -> None:
    for what, key in (("server_uuid", "server_uuid"), ("server_id", "server_id")):
        seen: dict[Any, str] = {}
        for node in answering:
            value = getattr(node, key)
            if not value:
                continue  # MariaDB has no uuid
            if value in seen:
                verdict.problems.append(
                    f"{seen[value]} and {node.name} have the same {what} ({value}). "
                    + (
                        "A copied data directory: stop the copy, delete its auto.cnf, start it."
                        if what == "server_uuid"
                        else "Give each a server_id of its own in the inventory."
                    )
                )
            seen.setdefault(value, node.name)


def _judge_replicas(primary: Node, answering: list[Node], verdict: Verdict) -> None:
    verdict.primary = primary.name
    if primary.replica is not None:
        verdict.actions[primary.name] = "promoted"
    for node in answering:
        if node is primary:
            continue
        if errant := primary.lacks(node):
            verdict.problems.append(
                f"{node.name} has transactions that the primary {primary.name} lacks: {errant}. They were never "
                f"replicated. Look at them with mysqlbinlog on {node.name}, apply what is wanted on {primary.name}, "
                f"then run scaleup.webstack.rejoin with -e mysql_replication_rejoin={node.name} "
                "-e mysql_replication_clone=true."
            )
        elif node.replica is not None and node.follows(primary):
            _judge_threads(node, node.replica, primary, verdict)
        elif subtract_gtids(primary.gtid_purged, node.gtid_executed):
            verdict.actions[node.name] = "clone"
        else:
            verdict.actions[node.name] = "join"


def _judge_threads(node: Node, replica: Replica, primary: Node, verdict: Verdict) -> None:
    if replica.sql_error or (replica.io_error and replica.io_running != "Yes"):
        verdict.problems.append(
            f"Replication from {primary.name} to {node.name} is broken: {replica.sql_error or replica.io_error} "
            f"Mend the cause and START REPLICA on {node.name}, or give it a fresh copy of the data: "
            f"scaleup.webstack.rejoin with -e mysql_replication_rejoin={node.name} -e mysql_replication_clone=true."
        )
    elif not replica.auto_position:
        verdict.actions[node.name] = "join"
    elif "No" in (replica.io_running, replica.sql_running):
        verdict.actions[node.name] = "start"


def _judge_new(everyone: list[Node], declared: str, bootstrap: str, verdict: Verdict) -> None:
    chosen = bootstrap or declared
    first = next((n for n in everyone if n.name == chosen), None)
    silent = [n for n in everyone if not n.reachable]
    if first is None or not first.reachable:
        verdict.problems.append(
            f"No node holds data, and {chosen or 'a first primary'} cannot start the tier: it "
            + ("does not answer." if first else "is no host of the group db. Put one host into the group db_primary.")
        )
    elif silent and not bootstrap:
        verdict.problems.append(
            f"{first.name} holds no data and {_names(silent)} does not answer: it may hold the site's data, so "
            f"{first.name} stays fenced. Start {_names(silent)} and run the play over the whole group db; only when it "
            f"is certain that no data exists anywhere, run once with -e mysql_replication_bootstrap={first.name}."
        )
    else:
        verdict.primary = first.name
        for node in everyone:
            if node.reachable:
                verdict.actions[node.name] = "bootstrap" if node is first else "join"


def _judge_fenced(everyone: list[Node], verdict: Verdict) -> None:
    """No node is writable, but there is data: a restarted primary may resume, anything else is the operator's."""
    holders = [n for n in everyone if n.reachable and not n.fresh]
    candidate = _interrupted(everyone)
    if candidate is not None:
        _judge_replicas(candidate, everyone, verdict)
        verdict.actions[candidate.name] = "finish"
        return
    former = [n for n in holders if n.replica is None]
    if len(former) == 1:
        me = former[0]
        reasons = may_resume(me, [n for n in everyone if n is not me])
        if not reasons:
            verdict.primary = me.name
            _judge_replicas(me, [n for n in everyone if n.reachable], verdict)
            verdict.actions[me.name] = "resume"
            return
        why = f"{me.name} stays fenced: {'; '.join(reasons)}."
    else:
        why = f"{_names(former)} could each be the former primary." if former else "Every node with data is a replica."
    best = max(holders, key=lambda n: (count_gtids(n.gtid_executed), n.replica is None))
    verdict.problems.append(
        f"No node is writable. {why} Bring the silent nodes back and run the play again, or promote the most advanced "
        f"node with scaleup.webstack.failover -e mysql_replication_candidate={best.name}."
    )


def _interrupted(everyone: list[Node]) -> Node | None:
    """The candidate of a switchover that ended between its last two steps: it and the old primary follow each other.

    Nothing can have been written since, as both are fenced; it has to hold all that any node has.
    """
    if not all(n.reachable for n in everyone):
        return None
    for node in everyone:
        others = [o for o in everyone if o is not node]
        stopped = node.replica is not None and node.replica.io_running == "No"
        mutual = any(o.follows(node) and node.follows(o) for o in others)
        if stopped and mutual and not any(node.lacks(o) for o in others):
            return node
    return None


def plan_switchover(nodes: Iterable[Node], candidate: str, max_lag: int) -> tuple[Node, Node, list[Node], list[str]]:
    """Who hands over to whom: the primary, the candidate, the other replicas, and why not.

    :param candidate: a node's name, or empty for the replica that is least behind.
    :param max_lag: seconds that a replica may be behind before anything is stopped.
    """
    everyone = list(nodes)
    problems = []
    primary = next((n for n in everyone if n.writable), None)
    if primary is None:
        raise ValueError("a switchover is planned only where one node is writable")
    replicas = [n for n in everyone if n is not primary]
    for node in replicas:
        if not node.reachable:
            problems.append(f"{node.name} does not answer: {node.error}")
        elif node.replica is None or not node.follows(primary):
            problems.append(f"{node.name} does not replicate from {primary.name}")
        elif not node.replica.running:
            reason = node.replica.sql_error or node.replica.io_error or "stopped"
            problems.append(f"replication does not run on {node.name}: {reason}")
        elif node.replica.lag is None or node.replica.lag > max_lag:
            lag = "an unknown time" if node.replica.lag is None else f"{node.replica.lag} s"
            problems.append(f"{node.name} is {lag} behind, the limit is {max_lag} s")
    chosen = next((n for n in replicas if n.name == candidate), None)
    if candidate and chosen is None and candidate != primary.name:
        problems.append(f"{candidate} is none of the nodes {', '.join(n.name for n in everyone)}")
    if not replicas:
        problems.append(f"{primary.name} has no replica to hand over to")
    if chosen is None:
        able = [n for n in replicas if n.replica is not None] or [primary]
        chosen = min(able, key=lambda n: (n.replica.lag or 0 if n.replica else 0, n.name))
    if candidate == primary.name:
        chosen = primary
    return primary, chosen, [n for n in replicas if n is not chosen], problems


def plan_failover(
    nodes: Iterable[Node], candidate: str, primary_is_dead: bool, accept_loss: bool
) -> tuple[Node | None, list[Node], list[str], list[str]]:
    """Who takes over from a primary that is gone: the new one, the other replicas, why not, and what was seen.

    :param candidate: a node's name, or empty for the most advanced replica.
    :param primary_is_dead: it was shown to be dead (its server was stopped), or the operator says so.
    :param accept_loss: the operator's word that transactions which only silent or passed-over nodes have may be lost.
    """
    everyone = list(nodes)
    problems: list[str] = []
    notes: list[str] = []
    answering = [n for n in everyone if n.reachable]
    silent = [n for n in everyone if not n.reachable]
    for node in answering:
        if node.writable:
            problems.append(f"{node.name} is writable: there is a primary. Use scaleup.webstack.switchover.")
    replicas = [n for n in answering if n.replica is not None]
    gone = [n for n in silent if any(r.follows(n) for r in replicas)]
    for node in replicas:
        if node.replica and node.replica.io_running == "Yes":
            problems.append(
                f"{node.name} still receives from {node.replica.source_host}: the primary is not gone for all."
            )
        if node.replica and node.replica.sql_error:
            problems.append(f"replication on {node.name} is broken: {node.replica.sql_error}")
    for node in answering:
        if node.replica is None and not node.fresh and any(r.follows(node) for r in replicas):
            problems.append(
                f"the former primary {node.name} answers (fenced). Run the site's play or restart mysql-resume.service "
                f"on it, or stop its server (systemctl stop mysql) and run this again."
            )
    if gone and not primary_is_dead:
        problems.append(
            f"the primary {_names(gone)} does not answer from here, but nothing shows that it is dead: it may still "
            "take writes from others. Power it off, then run this with -e mysql_replication_primary_is_dead=true."
        )
    others_silent = [n for n in silent if n not in gone]
    if others_silent and not accept_loss:
        problems.append(
            f"{_names(others_silent)} does not answer and may have transactions that no other node has. Bring it back, "
            "or run this with -e mysql_replication_accept_loss=true."
        )
    able = [n for n in replicas if not n.fresh]
    best = _most_advanced(able)
    if not able:
        problems.append("no replica with data answers")
    elif best is None:
        problems.append(
            f"{_names(able)} have each transactions that another lacks: none can take over without losing some. "
            "Compare their gtid_executed, and clone from the one that is right."
        )
    chosen = best
    if candidate:
        chosen = next((n for n in able if n.name == candidate), None)
        if chosen is None:
            problems.append(f"{candidate} is no replica that answers")
        elif best is not None and (missing := chosen.lacks(best)) and not accept_loss:
            problems.append(
                f"{candidate} lacks {count_gtids(missing)} transactions that {best.name} has: take {best.name}, or "
                "run this with -e mysql_replication_accept_loss=true."
            )
    if chosen is not None and best is not None and chosen is not best:
        notes.append(f"{chosen.name} was asked for; {best.name} is as advanced or more")
    return chosen, [n for n in replicas if n is not chosen], problems, notes


def plan_rejoin(nodes: Iterable[Node], name: str, clone: bool) -> tuple[Node | None, str, list[str]]:
    """How a node comes back: the primary that it follows, ``keep``, ``join`` or ``clone``, and why not."""
    everyone = list(nodes)
    primaries = [n for n in everyone if n.writable and n.name != name]
    mine = next((n for n in everyone if n.name == name), None)
    if mine is None or not mine.reachable:
        return None, "keep", [f"the server on {name} does not answer: start it first"]
    if mine.writable:
        return None, "keep", [f"{name} is writable. Fence it first: {mine.fence}"]
    if len(primaries) != 1:
        return None, "keep", [f"there has to be one primary to follow; writable: {_names(primaries)}"]
    primary = primaries[0]
    if clone:
        return primary, "clone", []
    if errant := primary.lacks(mine):
        return (
            primary,
            "keep",
            [
                f"{name} has {count_gtids(errant)} transactions that {primary.name} lacks ({errant}). It is never "
                f"forced. Look at them with mysqlbinlog on {name}; to throw them away and copy another node's data, "
                "run this again with -e mysql_replication_clone=true."
            ],
        )
    if mine.replica is not None and mine.follows(primary) and mine.replica.running:
        return primary, "keep", []
    if subtract_gtids(primary.gtid_purged, mine.gtid_executed):
        return (
            primary,
            "keep",
            [
                f"{primary.name} has purged the binary logs that {name} would need: run this again with "
                "-e mysql_replication_clone=true, which replaces its data by a copy."
            ],
        )
    return primary, "join", []


def _most_advanced(nodes: list[Node]) -> Node | None:
    """The node that lacks nothing that another has executed or received; None where they are incomparable."""
    complete = []
    for node in nodes:
        # What it has received it will have executed by the time it takes over.
        if not any(subtract_gtids(_everything(o), _everything(node)) for o in nodes if o is not node):
            complete.append(node)
    # Among equals the one with the least left to apply.
    return min(complete, key=lambda n: (-count_gtids(n.gtid_executed), n.name), default=None)


def _everything(node: Node) -> str:
    retrieved = node.replica.retrieved if node.replica else ""
    return f"{node.gtid_executed},{retrieved}" if node.gtid_executed and retrieved else node.gtid_executed or retrieved
