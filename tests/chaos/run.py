"""`./lab chaos [event ...]`: machines fail and work is done under load, and a report says what visitors noticed.

The load is open: reads and writes begin at a constant rate through both virtual IPs, whether or not earlier ones were
answered; every answer and every acknowledged write is recorded. Each event is held against a bound of its own. What
comes of an event is kept until it is run again; the report shows all of them.

  ./lab chaos web1 'lb|web'     the events whose names begin so; --list says which there are
  ./lab chaos burst             a minute of ten times what the applications can serve
  ./lab chaos power 20          all machines off and on again, in twenty orders
  ./lab chaos --report          write the table and the picture into docs/, from what was kept
"""

from __future__ import annotations

import argparse
import json
import os
import random
import ssl
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from events import HOSTS, INVENTORY, ROOT, Event, events, lab, nothing, status, wait_for, written
from load import Load, Request
from load import Result as Answer
from report import Outcome, load, write
from visiting import AUTHORITY, PUBLIC, SITE, traffic, visitor, whole

KEPT = INVENTORY.parent / "chaos"
# Seconds of load before an event, and after the site is whole again.
QUIET = 3.0
# What is read: a page that comes without its entries when no database answers counts as read, the entries do not.
READS = ("/", "/entries?limit=10", "/")
BURST, POWER = "Overload", "Power"


def kept(answer: Answer, start: float) -> tuple[float, float, str, int, str]:
    """A request as the report has it."""
    return (answer.due - start, answer.took, answer.method, answer.status, answer.target)


def reasons(answers: list[Answer]) -> dict[str, int]:
    """Why requests failed, the most frequent first."""
    return dict(Counter(f"{a.method} {a.error or a.status}" for a in answers if a.failed).most_common())


def judge(event: Event, outcome: Outcome, done: float) -> list[str]:
    """Which bounds of an event do not hold; ``done`` is when its ``do`` returned."""
    found = []
    reads, writes = outcome.failed("GET"), outcome.failed("POST")
    if event.outage == 0 and reads:
        found.append(f"{len(reads)} reads failed")
    if outcome.outage("GET") > event.outage > 0:
        found.append(f"reads failed for {outcome.outage('GET'):.2f} s")
    if writes and not event.writes:
        found.append(f"{len(writes)} writes failed")
    allowed = (
        (outcome.began, outcome.began + event.settle),
        (outcome.ended, outcome.ended + event.back),
        (outcome.began, done + event.resume if event.resume else 0),
    )
    # A request counts for when it began; one that was on its way at the beginning may be cut as well.
    if late := [r for r in reads + writes if not any(first - 1 <= r[0] <= last for first, last in allowed)]:
        found.append(f"{len(late)} requests failed later than {event.settle:g} s after it")
    if outcome.lost:
        found.append(f"{outcome.lost} acknowledged writes are lost")
    return found


def named(event: Event, found: list[dict[str, str]]) -> list[str]:
    """What the status should have said and did not, or said and should not have."""
    if event.status is None:
        return []
    host, words = event.status
    wrong = [] if any(p["host"] == host and words in p["what"] for p in found) else [f"status does not say: {words}"]
    return wrong + [f"status says of another host: {p['text']}" for p in found if p["host"] != host]


def run(event: Event) -> Outcome:
    """Let one event happen under load."""
    wait_for(whole, 90)
    after = event.before() if event.before else nothing
    acknowledged: set[int] = set()
    wrong: list[str] = []

    def note(_: Request, answer: Answer) -> None:
        if answer.status == 201:
            acknowledged.add(json.loads(answer.body)["id"])

    try:
        wait_for(whole, 90)
        with traffic(READS, on_result=note) as visitors:
            start = visitors.started
            time.sleep(QUIET)
            began = time.monotonic()
            try:
                event.do()
                done = time.monotonic()
                time.sleep(event.lasts)
                if event.status:
                    wrong += named(event, status())
            except AssertionError as error:
                done = time.monotonic()
                wrong.append(str(error)[-300:])
            try:
                event.undo()
            except AssertionError as error:
                wrong.append(f"it could not be undone: {str(error)[-300:]}")
            ended = time.monotonic()
            try:
                wait_for(whole, 90)
            except AssertionError:
                wrong.append("the site is not whole after 90 s")
            time.sleep(QUIET)
    finally:
        after()
    outcome = Outcome(event.name, event.group, event.promise, began - start, ended - start)
    outcome.requests = [kept(answer, start) for answer in visitors.results]
    outcome.reasons = reasons(visitors.results)
    outcome.lost = len(acknowledged - written())
    outcome.wrong = judge(event, outcome, done - start) + wrong
    if event.resume:
        late = [r[0] for r in outcome.failed("POST")]
        outcome.note = (
            f"the last failed write began {max(late, default=began - start) - (began - start):.1f} s after it"
        )
    return outcome


# --- overload ---------------------------------------------------------------------------------------------------------


def capacity(seconds: float = 8) -> float:
    """Pages per second that the applications serve to twenty visitors who wait for each answer."""
    done, counts = time.monotonic() + seconds, []

    def visit(vip: str) -> None:
        session, count = visitor(vip), 0
        while time.monotonic() < done:
            count += session.get(f"https://{SITE}/", timeout=10).status_code == 200
        counts.append(count)

    threads = [threading.Thread(target=visit, args=(PUBLIC[n % 2],)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def burst(seconds: float = 60, share: float = 0.04) -> Outcome:
    """Ten times the rate that the application servers can serve, for a minute.

    They get a twenty-fifth of a processor each: neither the balancers nor this client is what is overloaded.
    """
    wait_for(whole, 90)
    hosts = [name for name in HOSTS if name.startswith("app")]
    for host in hosts:
        lab.docker("update", f"--cpus={share}", lab.container(host))
    context = ssl.create_default_context(cafile=AUTHORITY)
    try:
        most = capacity()
        files = [Request(f"https://{SITE}/static/style.css", connect_to=vip) for vip in PUBLIC]
        pages = [Request(f"https://{SITE}/", connect_to=vip) for vip in PUBLIC]
        with Load(files, rate=5, context=context) as static, Load(pages, rate=most / 4, context=context) as usual:
            start = static.started
            time.sleep(QUIET)
            began = time.monotonic()
            # As many at once as come in two seconds: a refusal may take one, and this client must not be what waits.
            with Load(pages, rate=10 * most, keep_alive=1, context=context, workers=int(20 * most)) as extra:
                time.sleep(seconds)
            ended = began + seconds
            time.sleep(15)
    finally:
        for host in hosts:
            # (0 would leave the limit as it is.)
            lab.docker("update", f"--cpus={os.cpu_count()}", lab.container(host))
    outcome = Outcome("burst", BURST, "static files go on, the excess gets 503 or 429 within 1 s, normal after 5 s",
                      began - start, ended - start)  # fmt: skip
    outcome.requests = [kept(answer, start) for answer in static.results + usual.results + extra.results]
    flood = [r for r in usual.results + extra.results if began <= r.due <= ended]
    refused = [r for r in flood if r.status in (429, 503)]
    odd = [r for r in flood if r.status not in (200, 429, 503)]
    slow = [r for r in refused if r.took > 1]
    served = sorted(r.took for r in flood if r.status == 200)
    late = [r for r in usual.results if r.due > ended + 5 and (r.failed or r.took > 1)]
    if static.failures:
        outcome.wrong.append(f"{len(static.failures)} static files failed")
    if odd:
        kinds = {r.error or str(r.status) for r in odd}
        outcome.wrong.append(f"{len(odd)} got neither 200 nor 429 nor 503: {', '.join(sorted(kinds))[:200]}")
    if slow:
        outcome.wrong.append(f"{len(slow)} were refused later than 1 s, at most {max(r.took for r in slow):.1f} s")
    if late:
        outcome.wrong.append(f"{len(late)} failed or took longer than 1 s later than 5 s after it")
    waited = sorted(r.took for r in refused)
    outcome.note = (
        f"the applications serve {most:.0f}/s, {len(flood) / seconds:.0f}/s came; {len(served) / seconds:.0f}/s were "
        f"served, half of them within {statistics.median(served or [0]):.2f} s; {len(refused)} were refused, 99 % of "
        f"them within {waited[int(len(waited) * 0.99)] if waited else 0:.2f} s"
    )
    return outcome


# --- power ------------------------------------------------------------------------------------------------------------


def powered(seed: int) -> Outcome:
    """Every machine off at once and on again in an order that the number decides, under load."""
    wait_for(whole, 120)
    chance = random.Random(seed)
    names = list(HOSTS)
    off, on = chance.sample(names, len(names)), chance.sample(names, len(names))
    gap = chance.choice((0.0, 0.5, 2.0))
    acknowledged: set[int] = set()

    def note(_: Request, answer: Answer) -> None:
        if answer.status == 201:
            acknowledged.add(json.loads(answer.body)["id"])

    said = ""
    wrong: list[str] = []
    # No visitor waits for long where there is nobody.
    with traffic(READS, on_result=note) as visitors:
        start = visitors.started
        time.sleep(QUIET)
        began = time.monotonic()
        for name in off:
            lab.kill(name)
            time.sleep(gap / 4)
        for name in on:
            lab.docker("start", lab.container(name))
            time.sleep(gap)
        ended = time.monotonic()
        try:
            wait_for(whole, 90)
            took = time.monotonic() - ended
        except AssertionError:
            took = 0.0
            found = [problem["text"] for problem in status()]
            said = "; ".join(text for text in found if "scaleup.webstack." in text or "Run " in text)
            wrong.append(f"it does not come up by itself: {said or found}")
        time.sleep(QUIET)
    outcome = Outcome(f"power {seed}", POWER, "comes up by itself", began - start, ended - start)
    outcome.requests = [kept(answer, start) for answer in visitors.results]
    outcome.reasons = reasons(visitors.results)
    outcome.lost = len(acknowledged - written()) if not wrong else 0
    if outcome.lost:
        wrong.append(f"{outcome.lost} acknowledged writes are lost")
    outcome.wrong = wrong
    outcome.note = f"on: {' '.join(on)}, {gap:g} s apart; whole {took:.0f} s after the last"
    return outcome


# --- the command ------------------------------------------------------------------------------------------------------

HEAD = """Written by `./lab chaos --report`, from events that happened to the lab: nine hosts in containers on one
machine of two processors. Forty requests a second come through both virtual IPs, reads, writes and static files, half
of them on kept-alive connections, at a constant rate whether or not earlier ones were answered. A request has failed
when no answer came, or one of 500 and more. "Longest" is for how long one address did not answer, from a failed or late
request to the next good one. An acknowledged write that the primary does not have at the end is lost. `./lab chaos
--list` names the events, `./lab chaos NAME` lets one happen again. An event that is not here has not been run for this
report.
"""


def one(name: str) -> Outcome:
    """Let what a name stands for happen."""
    if name == "burst":
        return burst()
    return powered(int(name.partition(" ")[2])) if name.startswith("power ") else run(known()[name])


def known() -> dict[str, Event]:
    """The events by their names."""
    return {event.name: event for event in events()}


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="./lab chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("event", nargs="*", help="names or their beginnings; without one, all but burst and power")
    parser.add_argument("--list", action="store_true", help="say which events there are")
    parser.add_argument("--report", action="store_true", help="write docs/chaos.md and docs/chaos.svg")
    parser.add_argument("--to", type=Path, default=ROOT / "docs", help="another folder for them")
    parser.add_argument("--first", type=int, default=1, help="the number of the first order of `power`")
    arguments = parser.parse_args()
    names = [*known(), "burst"]
    if arguments.list:
        print("\n".join([*names, "power [orders]"]))
        return 0
    order = [*names, *(f"power {number}" for number in range(1, 1000))]
    if arguments.report:
        outcomes = load(KEPT)
        if not outcomes:
            print("lab: nothing has happened yet: ./lab chaos", file=sys.stderr)
            return 2
        path = write(sorted(outcomes.values(), key=lambda o: order.index(o.name)), arguments.to, HEAD)
        print(f"The report: {path}")
        return 0
    asked = list(arguments.event)
    orders = 0
    if "power" in asked:
        place = asked.index("power")
        more = asked[place + 1] if asked[place + 1 : place + 2] and asked[place + 1].isdigit() else ""
        orders = int(more or 20)
        del asked[place : place + (2 if more else 1)]
    chosen = [n for n in names if (not arguments.event and n != "burst") or (asked and n.startswith(tuple(asked)))]
    chosen += [f"power {number}" for number in range(arguments.first, arguments.first + orders)]
    if not chosen:
        print(f"lab: there is no such event; there are: {', '.join(names)}, power", file=sys.stderr)
        return 2
    wrong = 0
    for name in chosen:
        outcome = one(name)
        outcome.save(KEPT)
        wrong += bool(outcome.wrong)
        reads, writes = (outcome.failed(method) for method in ("GET", "POST"))
        print(
            f"{name}: {len(reads)} reads ({outcome.outage('GET'):.2f} s) and {len(writes)} writes "
            f"({outcome.outage('POST'):.2f} s) of {len(outcome.requests)} failed, {outcome.lost} writes lost: "
            f"{'; '.join(outcome.wrong) or 'holds'} {outcome.note} {outcome.reasons or ''}".rstrip(),
            flush=True,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
