"""What came of the events: kept in a file each, and shown together as a table and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from load import Result, outage

# Seconds of one column of the picture.
STEP = 0.25


@dataclass
class Outcome:
    """What came of an event. Times are seconds since the load began.

    :param group: under which heading it stands.
    :param requests: of each when it was due, how long it took, its method, its status (0: no answer), and the
        address that it was sent to.
    :param wrong: the promises that do not hold, a line each; empty when all do.
    :param note: what else is worth a word.
    :param reasons: why requests failed, each with how many.
    """

    name: str
    group: str
    promise: str
    began: float
    ended: float
    requests: list[tuple[float, float, str, int, str]] = field(default_factory=list)
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    note: str = ""
    reasons: dict[str, int] = field(default_factory=dict)

    def failed(self, method: str) -> list[tuple[float, float, str, int, str]]:
        """The failed requests of a method, in the order in which they were due."""
        return sorted(r for r in self.requests if r[2] == method and (r[3] == 0 or r[3] >= 500))

    def outage(self, method: str) -> float:
        """Seconds for which an address did not answer requests of a method; of the one that was away longest."""
        return outage(
            Result(due, took, m, status, target=to) for due, took, m, status, to in self.requests if m == method
        )

    def save(self, folder: Path) -> None:
        """Write it into a file of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in self.name)
        short = asdict(self) | {"requests": [(round(d, 3), round(t, 3), *more) for d, t, *more in self.requests]}
        (folder / f"{name}.json").write_text(json.dumps(short))


def load(folder: Path) -> dict[str, Outcome]:
    """All outcomes in a folder, by the events' names."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        values = json.loads(path.read_text())
        values["requests"] = [tuple(row) for row in values["requests"]]
        found[values["name"]] = Outcome(**values)
    return found


# --- the table --------------------------------------------------------------------------------------------------------


def table(outcomes: Iterable[Outcome]) -> str:
    """A row for each event, in Markdown."""
    lines = [
        "| event | requests | failed reads | longest | failed writes | longest | lost writes | the promise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for o in outcomes:
        verdict = f"**{'; '.join(o.wrong)}**" if o.wrong else "holds"
        more = f" ({o.note})" if o.note else ""
        lines.append(
            f"| {o.name.replace('|', ' and ')} | {len(o.requests)} | {len(o.failed('GET'))} | "
            f"{o.outage('GET'):.2f} s | {len(o.failed('POST'))} | {o.outage('POST'):.2f} s | {o.lost} | "
            f"{o.promise}: {verdict}{more} |"
        )
    return "\n".join(lines) + "\n"


# --- the picture ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, MARGIN = 860, 58, 190


def strip(outcome: Outcome, top: int) -> str:
    """One event: the slowest and the middle request of every quarter of a second, and how many failed in it."""
    first = max(outcome.began - 3, 0)
    span = max((r[0] for r in outcome.requests), default=first + 1) - first or 1

    def x(at: float) -> float:
        return MARGIN + min(max((at - first) / span, 0), 1) * (WIDTH - MARGIN - 10)

    def y(seconds: float) -> float:
        # From 5 ms at the bottom to 10 s at the top.
        share = math.log10(max(seconds, 0.005) / 0.005) / math.log10(10 / 0.005)
        return top + HEIGHT - 6 - min(share, 1) * (HEIGHT - 12)

    step = max(STEP, span / 400)
    columns: dict[int, list[tuple[float, bool]]] = {}
    for due, took, _, status, _ in outcome.requests:
        if due >= first:
            columns.setdefault(int((due - first) / step), []).append((took, status == 0 or status >= 500))
    slowest, middle, bars = [], [], []
    for number in sorted(columns):
        at = x(first + (number + 0.5) * step)
        times = sorted(took for took, _ in columns[number])
        slowest.append(f"{at:.1f} {y(times[-1]):.1f}")
        middle.append(f"{at:.1f} {y(times[len(times) // 2]):.1f}")
        if share := sum(bad for _, bad in columns[number]) / len(times):
            bars.append(f"M{at:.1f} {top + HEIGHT - 6}v-{max(share * (HEIGHT - 12), 2):.1f}")
    failed = len(outcome.failed("GET")) + len(outcome.failed("POST"))
    width = max(x(outcome.ended) - x(outcome.began), 1.5)
    return "\n".join(
        [
            f'<text x="8" y="{top + 24}">{outcome.name.replace("|", " and ")}</text>',
            f'<text x="8" y="{top + 40}" class="{"hard" if outcome.wrong else "soft"}">{failed} of '
            f"{len(outcome.requests)} failed{', not as promised' if outcome.wrong else ''}</text>",
            f'<rect x="{x(outcome.began):.1f}" y="{top + 4}" width="{width:.1f}" height="{HEIGHT - 8}" class="event"/>',
            f'<path class="slow" d="M{"L".join(slowest)}"/><path class="middle" d="M{"L".join(middle)}"/>'
            if slowest
            else "",
            f'<path class="bad" d="{"".join(bars)}"/>' if bars else "",
            f'<text x="{WIDTH - 10}" y="{top + HEIGHT - 1}" class="scale">{span:.0f} s</text>',
        ]
    )


def picture(outcomes: list[Outcome]) -> str:
    """All events, one below the other, as SVG."""
    style = (
        "text{font:12px sans-serif;fill:#24303f}.soft{font-size:10px;fill:#66727f}.hard{font-size:10px;fill:#c62828}"
        ".scale{font-size:8px;fill:#66727f;text-anchor:end}.event{fill:#f3e6c8}path{fill:none}"
        ".slow{stroke:#9dbfe0}.middle{stroke:#1d5a99;stroke-width:1.3}.bad{stroke:#c62828;stroke-width:2}"
    )
    words = (
        "Requests of each quarter of a second: dark the middle one, light the slowest, 5 ms to 10 s (logarithmic);",
        "red: the share of them that failed. The band is the event; at the right how many seconds are shown.",
    )
    legend = "\n".join(
        f'<text x="{MARGIN}" y="{14 + 14 * n}" class="soft">{line}</text>' for n, line in enumerate(words)
    )
    strips = "\n".join(strip(outcome, 36 + HEIGHT * number) for number, outcome in enumerate(outcomes))
    height = HEIGHT * len(outcomes) + 42
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f'<rect width="100%" height="100%" fill="#fff"/><style>{style}</style>\n{legend}\n{strips}\n</svg>\n'
    )


def write(outcomes: list[Outcome], folder: Path, head: str) -> Path:
    """Write `chaos.md` and `chaos.svg`; returns the path of the first."""
    text = [f"# What visitors notice\n\n{head}"]
    for group in dict.fromkeys(outcome.group for outcome in outcomes):
        text.append(f"\n## {group}\n\n{table(o for o in outcomes if o.group == group)}")
    text.append("\n![Latency and failures around every event](chaos.svg)\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaos.md").write_text("".join(text))
    (folder / "chaos.svg").write_text(picture(outcomes))
    return folder / "chaos.md"
