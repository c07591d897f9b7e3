"""What the open load counts as an outage, on which the bounds of failovers rest."""

from __future__ import annotations

import pytest
from load import Result, outage


def answers(*rows: tuple[float, str, float, int]) -> list[Result]:
    """Requests as (due, target, took, status)."""
    return [Result(due, took, "GET", status, target=target) for due, target, took, status in rows]


def test_one_target_is_away_while_another_answers() -> None:
    found = answers(*((n / 10, "ab"[n % 2], 0.01, 0 if n % 2 and 10 <= n < 30 else 200) for n in range(60)))
    assert outage(found) == pytest.approx(2.0)


def test_a_connection_that_came_about_at_the_second_attempt_was_not_answered() -> None:
    found = answers((0, "a", 0.01, 200), (0.1, "a", 1.02, 200), (0.6, "a", 1.02, 200), (0.9, "a", 0.01, 200))
    assert outage(found) == pytest.approx(0.8)


def test_a_kept_connection_that_was_answered_late_ends_nothing() -> None:
    kept = Result(0.3, 0.4, "GET", 200, target="a", fresh=False)
    found = [*answers((0.1, "a", 1.02, 200), (0.6, "a", 1.02, 200), (0.8, "a", 0.01, 200)), kept]
    assert outage(found) == pytest.approx(0.7)


def test_all_is_well() -> None:
    assert outage(answers((0, "a", 0.01, 200), (0.1, "b", 0.5, 200))) == 0
