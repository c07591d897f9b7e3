"""`./lab chaos [event ...]`: machines fail one after another under load, and a report says what visitors noticed.

The load is open: reads and writes begin at a constant rate through both virtual IPs, whether or not earlier ones were
answered; every answer and every acknowledged write is recorded. Each event is held against a bound of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "molecule" / "shared"), str(ROOT / "molecule" / "default" / "tests")]
from labtest import wait_for  # noqa: E402 - the path comes first
from load import Request, Result  # noqa: E402
from visiting import HOSTS, INVENTORY, lab, play, played, traffic, whole  # noqa: E402

SERVICES = {"lb": "haproxy", "web": "nginx", "app": "gunicorn-guestbook", "db": "mysql"}
# Seconds of load before an event, and after the site is whole again.
QUIET = 3.0


@dataclass
class Event:
    """One failure and its bound.

    :param outage: seconds for which reads may fail; 0: no read may fail.
    :param settle: seconds after which nothing may fail any more, for which writes may fail with what they were sent to.
    :param writes: whether a write may fail within ``settle``.
    :param back: seconds after its end within which what comes back may move a virtual IP once more.
    """

    name: str
    do: Callable[[], object]
    undo: Callable[[], object]
    outage: float = 0
    settle: float = 5
    writes: bool = True
    back: float = 0
    lasts: float = 10


@dataclass
class Outcome:
    """What came of an event."""

    event: Event
    began: float
    ended: float
    results: list[Result] = field(default_factory=list)
    lost: int = 0
    said: str = ""

    def failures(self, method: str) -> list[Result]:
        """The failed requests of one method, in their order."""
        return sorted((r for r in self.results if r.failed and r.method == method), key=lambda r: r.due)

    def outage(self, method: str) -> float:
        """Seconds from the first failed request of a method to the last that was due before the next success."""
        longest, since = 0.0, None
        for result in sorted((r for r in self.results if r.method == method), key=lambda r: r.due):
            if not result.failed:
                since = None
                continue
            since = result.due if since is None else since
            longest = max(longest, result.due - since + 0.05)
        return longest

    def wrong(self) -> list[str]:
        """Which bounds do not hold."""
        found = []
        reads, writes = self.failures("GET"), self.failures("POST")
        if self.event.outage == 0 and reads:
            found.append(f"{len(reads)} reads failed")
        if self.outage("GET") > self.event.outage > 0:
            found.append(f"reads failed for {self.outage('GET'):.2f} s, not {self.event.outage:g} s at most")
        if writes and not self.event.writes:
            found.append(f"{len(writes)} writes failed")
        allowed = ((self.began, self.began + self.event.settle), (self.ended, self.ended + self.event.back))
        # A request counts for when it began; one that was on its way at the beginning may be cut as well.
        if late := [r for r in reads + writes if not any(first - 1 <= r.due <= last for first, last in allowed)]:
            found.append(f"{len(late)} requests failed later than {self.event.settle:g} s after it")
        if self.lost:
            found.append(f"{self.lost} acknowledged writes are lost")
        return found


def service(host: str, signal: str) -> Callable[[], object]:
    """Send a signal to every process of a host's service."""
    unit = SERVICES[host.rstrip("0123456789")]
    return lambda: lab.host(host).run(f"systemctl kill --signal={signal} --kill-whom=all {unit}.service")


def restart(host: str) -> None:
    """Start a host's service, where it has not come back by itself."""
    lab.host(host).run(f"systemctl start {SERVICES[host.rstrip('0123456789')]}.service")


def apart(one: str, other: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Cut the network between two tiers, and mend it."""
    addresses = ", ".join(str(HOSTS[name]["tier_address"]) for name in HOSTS if name.startswith(other))
    chain = f"chain input {{ type filter hook input priority -10; ip saddr {{ {addresses} }} drop; }};"
    table = f"table inet chaos {{ {chain} }}"
    hosts = [name for name in HOSTS if name.startswith(one)]

    def do() -> None:
        for name in hosts:
            lab.host(name).check_output(f"echo '{table}' | nft -f -")

    def undo() -> None:
        for name in hosts:
            lab.host(name).run("nft delete table inet chaos")

    return do, undo


def events() -> list[Event]:
    """The table of failures, with the bounds that are promised."""
    found = []
    for host in ("lb1", "lb2", "web1", "web2", "app1", "app2", "db2"):
        tier = host.rstrip("0123456789")
        bound: dict[str, Any] = {"outage": 1.0, "settle": 3.0, "back": 12.0} if tier == "lb" else {}
        more: dict[str, Any] = {"writes": False} if tier == "db" else {}
        hung = bound | ({"outage": 3.0, "settle": 5.0} if tier == "lb" else {"settle": 12.0})
        found += [
            Event(f"{host} killed", service(host, "KILL"), partial(restart, host), **bound, **more),
            Event(f"{host} hung", service(host, "STOP"), service(host, "CONT"), **hung, **more),
            Event(f"{host} off", partial(lab.kill, host), partial(lab.start, host), **bound, **more),
            Event(f"{host} cut", partial(lab.cut, host), partial(lab.mend, host), **bound, **more),
        ]
    for one, other in (("app", "web"), ("db", "lb"), ("web", "lb")):
        do, undo = apart(one, other)
        # Nobody can answer meanwhile; it heals by itself.
        found.append(Event(f"{other}|{one} parted", do, undo, outage=15, settle=20, lasts=10))

    def fail_over() -> None:
        lab.kill("db1")
        time.sleep(2)
        # Its exit code tells of the host that is off.
        done = play("failover", "-e", "mysql_replication_primary_is_dead=true")
        assert "is writable" in done.stdout, done.stdout[-2000:]

    def rejoin() -> None:
        lab.start("db1")
        played("rejoin", "-e", "mysql_replication_rejoin=db1")
        played("switchover", "-e", "mysql_replication_candidate=db1")

    found.append(Event("db1 off, failover", fail_over, rejoin, outage=0, settle=30, lasts=5))
    return found


def written() -> set[int]:
    """The entries that the primary has."""
    for name in ("db1", "db2"):
        query = "SELECT IF(@@read_only, '', GROUP_CONCAT(id)) FROM guestbook.entries"
        done = lab.host(name).run(f'mysql --batch --skip-column-names -e "SET group_concat_max_len = 1 << 30; {query}"')
        if done.rc == 0 and done.stdout.strip():
            return {int(number) for number in done.stdout.strip().split(",")}
    raise SystemExit("chaos: no writable database answers")


def run(event: Event) -> Outcome:
    """Let one event happen under load."""
    wait_for(whole, 90)
    acknowledged: set[int] = set()

    def note(_: Request, result: Result) -> None:
        if result.status == 201:
            acknowledged.add(json.loads(result.body)["id"])

    with traffic(on_result=note) as visitors:
        time.sleep(QUIET)
        began = time.monotonic()
        event.do()
        time.sleep(event.lasts)
        event.undo()
        ended = time.monotonic()
        said = ""
        try:
            wait_for(whole, 90)
        except AssertionError:
            said = "the site is not whole after 90 s"
        time.sleep(QUIET)
    outcome = Outcome(event, began, ended, visitors.results, said=said)
    outcome.lost = len(acknowledged - written())
    return outcome


# --- the report -------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, MARGIN = 760, 84, 150


def strip(outcome: Outcome, top: int) -> str:
    """One event as a strip: every request a dot, the later in time the further right, the slower the higher."""
    first = outcome.began - QUIET
    span = max(r.due for r in outcome.results) - first or 1

    def x(at: float) -> float:
        return MARGIN + (at - first) / span * (WIDTH - MARGIN - 10)

    def y(seconds: float) -> float:
        # From 5 ms at the bottom to 10 s at the top.
        share = math.log10(max(seconds, 0.005) / 0.005) / math.log10(10 / 0.005)
        return top + HEIGHT - 12 - min(share, 1) * (HEIGHT - 24)

    parts = [
        f'<text x="8" y="{top + 30}">{outcome.event.name.replace("|", " and ")}</text>',
        f'<text x="8" y="{top + 48}" class="soft">{len(outcome.failures("GET")) + len(outcome.failures("POST"))} of '
        f"{len(outcome.results)} failed</text>",
        f'<rect x="{x(outcome.began):.1f}" y="{top + 6}" width="{x(outcome.ended) - x(outcome.began):.1f}" '
        f'height="{HEIGHT - 12}" class="event"/>',
    ]
    for result in outcome.results:
        kind = "bad" if result.failed else "write" if result.method == "POST" else "read"
        where = f'cx="{x(result.due):.1f}" cy="{y(result.took):.1f}"'
        parts.append(f'<circle {where} r="{2.5 if kind == "bad" else 1}" class="{kind}"/>')
    return "\n".join(parts)


def plot(outcomes: list[Outcome]) -> str:
    """All events, one below the other, as SVG."""
    style = (
        "text{font:13px sans-serif;fill:#24303f}.soft{font-size:11px;fill:#66727f}.event{fill:#f3e6c8}"
        ".read{fill:#3a7bbf}.write{fill:#3f9a63}.bad{fill:#c62828}"
    )
    height = HEIGHT * len(outcomes) + 26
    legend = (
        f'<text x="{MARGIN}" y="16" class="soft">every dot is a request: blue read, green write, red failed; '
        "height: 5 ms to 10 s, logarithmic; the band is the event</text>"
    )
    strips = "\n".join(strip(outcome, 22 + HEIGHT * number) for number, outcome in enumerate(outcomes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<rect width="100%" height="100%" fill="#fff"/><style>{style}</style>\n{legend}\n{strips}\n</svg>\n'
    )


def table(outcomes: Iterable[Outcome]) -> str:
    """The report, in Markdown."""
    lines = [
        "| event | requests | failed reads | longest | failed writes | longest | lost writes | promise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        wrong = [*o.wrong(), *([o.said] if o.said else [])]
        lines.append(
            f"| {o.event.name.replace('|', ' and ')} | {len(o.results)} | {len(o.failures('GET'))} | "
            f"{o.outage('GET'):.2f} s | {len(o.failures('POST'))} | {o.outage('POST'):.2f} s | {o.lost} | "
            f"{'; '.join(wrong) if wrong else 'holds'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line; returns the exit code."""
    known = {event.name: event for event in events()}
    parser = argparse.ArgumentParser(prog="./lab chaos", description=__doc__)
    parser.add_argument("event", nargs="*", help="names or their beginnings, as lb1 or 'web1 hung'; without one, all")
    parser.add_argument("--list", action="store_true", help="say which events there are")
    parser.add_argument("--to", type=Path, default=INVENTORY.parent / "chaos", help="folder of the report")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(known))
        return 0
    chosen = [e for name, e in known.items() if not arguments.event or name.startswith(tuple(arguments.event))]
    if not chosen:
        print(f"lab: there is no such event; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    outcomes = []
    for event in chosen:
        outcomes.append(run(event))
        print(table(outcomes[-1:]).splitlines()[-1], flush=True)
    arguments.to.mkdir(parents=True, exist_ok=True)
    (arguments.to / "chaos.svg").write_text(plot(outcomes))
    report = f"# What visitors notice\n\n{__doc__}\n{table(outcomes)}\n![Every request around every event](chaos.svg)\n"
    (arguments.to / "chaos.md").write_text(report)
    print(f"The report: {arguments.to}/chaos.md")
    return 1 if any(outcome.wrong() or outcome.said for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
