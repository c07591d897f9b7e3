"""union(), difference() and intersect() of Ansible keep no order: what goes on with it sorts, counts or compares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SETS = re.compile(r"\|\s*(?:union|difference|intersect|symmetric_difference)\(")
# first: of what can have one member only. join: in a message.
FINE = re.compile(r"\s*(?:\|\s*(?:sort|length|first|join)\b|[!=]= \[\])")


def unordered(text: str) -> list[str]:
    """The ends of chains of filters, from the last such filter on, whose order is used."""
    found = []
    for match in SETS.finditer(text):
        depth, end = 1, match.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        rest = re.sub(r"^(?:\s*\|\s*map\([^()]*(?:\([^()]*\))?[^()]*\)|\s*\|\s*unique)+", "", text[end:])
        if not (FINE.match(rest) or SETS.match(rest.lstrip())):
            found.append(" ".join(text[match.start() : end + 60].split()))
    return found


def test_the_rule_finds_what_it_is_about() -> None:
    assert unordered("{{ a | union(b) }}") == ["| union(b) }}"]
    assert len(unordered("{{ a | difference(b | map('x')) | map('upper') | list }}")) == 1
    assert unordered("{{ a | union(b) | difference(c) | sort }}, {{ a | intersect(b) == [] }}") == []


@pytest.mark.parametrize("folder", ["roles", "playbooks", "molecule", "inventory"])
def test_no_order_is_expected_of_sets(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".yml", ".j2") and path.is_file()]
    found = {str(path.relative_to(ROOT)): lines for path in files if (lines := unordered(path.read_text()))}
    assert found == {}
