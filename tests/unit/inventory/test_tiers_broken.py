"""Broken configurations: each is answered by exactly the message that stands beside it, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CORPUS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "broken.yml").read_text(encoding="utf-8"))
CASES = CORPUS["cases"]
# Words of Python's and Ansible's insides; an operator should see none of them.
INTERNAL = (
    "Traceback",
    "ansible_collections",
    "Error(",
    "NoneType",
    "<class",
    "_Ansible",
    "object at 0x",
    "'dict'",
    "'str'",
)


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case["name"].replace(" ", "-") for case in CASES])
def test_broken(case: dict[str, Any], site: Any) -> None:
    config = case["config"]
    for word, tier in CORPUS["short"].items():
        config = config.replace(word, tier)
    lines = case["says"].rstrip("\n").split("\n")
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    expected = [f"{count} in site.tiers.yml, nothing of it was added to the inventory:"]
    expected += [f"site.tiers.yml:{line}" for line in lines]
    error = site.error(config, case.get("sources"))
    assert error.split("\n") == expected
    assert not [word for word in INTERNAL if word in error]
