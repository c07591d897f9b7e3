"""What an archive lacks, which of its parts a restore needs, and which of them nobody needs any more."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_backup import (
    BackupError,
    Moment,
    Part,
    chain,
    full_for,
    outdated,
    reason_for_full,
    transactions,
    union_gtids,
    up_to,
)

A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"


def part(kind: str, day: int, gtids: str, before: str = "", **more: Any) -> Part:
    at = f"2026-11-{day:02}T03:00:00.000000+00:00"
    return Part(name=f"{kind}-{day}", kind=kind, node="db2", **({"began": at, "finished": at} | more), gtids=gtids,
                before=before, until=gtids)  # fmt: skip


FULL = part("full", 1, f"{A}:1-10")
LOGS = [
    part("binlog", 2, f"{A}:11-20", f"{A}:1-10"),
    part("binlog", 3, f"{A}:21-30", f"{A}:1-20"),
    part("binlog", 4, f"{A}:31-40", f"{A}:1-30"),
]


def names(parts: list[Part]) -> list[str]:
    return [p.name for p in parts]


def test_binary_logs_follow_by_their_gtids_whatever_wrote_them() -> None:
    # Another node's log that overlaps, and is the only one with 25 to 30.
    mixed = [LOGS[2], part("binlog", 5, f"{A}:15-30", f"{A}:1-14"), LOGS[0]]
    assert names(chain([FULL, *mixed], FULL, FULL.gtids)) == ["binlog-2", "binlog-5", "binlog-4"]


def test_the_chain_ends_at_a_gap() -> None:
    assert names(chain([LOGS[0], LOGS[2]], FULL, FULL.gtids)) == ["binlog-2"]


def test_what_the_full_backup_has_already_is_not_fetched() -> None:
    assert names(chain(LOGS, FULL, f"{A}:1-20")) == ["binlog-3", "binlog-4"]


def test_the_logs_of_a_site_that_was_set_up_anew_are_not_mixed_in() -> None:
    assert chain([part("binlog", 2, f"{B}:1-5")], FULL, FULL.gtids) == []


def test_a_site_that_counts_from_one_again_has_a_history_of_its_own() -> None:
    full = part("full", 5, "0-11:1-3", history="anew")
    logs = [part("binlog", 6, "0-11:4-9", "0-11:1-3", history="anew")]
    before = [part("full", 1, "0-11:1-10"), part("binlog", 2, "0-11:11-20", "0-11:1-10")]
    parts = [*before, full, *logs]
    assert names(chain(parts, full, full.gtids)) == ["binlog-6"]
    assert names(chain(parts, before[0], before[0].gtids)) == ["binlog-2"]
    # What the other history has under these numbers does not count.
    said = reason_for_full(parts, "0-11:1-20", "0-11:1-15")
    assert "lacks transactions whose binary logs are gone: 0-11:10-15" in said


def test_binary_logs_alone_go_on_where_the_archive_ends() -> None:
    assert "no full backup yet" in reason_for_full([], f"{A}:1-50", "")
    assert reason_for_full([FULL, *LOGS], f"{A}:1-50", f"{A}:1-40") == ""
    assert f"lacks transactions whose binary logs are gone: {A}:41-45" in reason_for_full(
        [FULL, *LOGS], f"{A}:1-50", f"{A}:1-45"
    )
    assert "that this site has not" in reason_for_full([FULL, *LOGS], f"{B}:1-5", "")


def test_a_full_backup_from_before_the_moment_is_taken() -> None:
    later = part("full", 3, f"{A}:1-30")
    assert full_for([FULL, later], Moment()).name == "full-3"
    assert full_for([FULL, later], Moment.parse("2026-11-03T02:59:59Z")).name == "full-1"
    assert full_for([FULL, later], Moment.parse("2026-11-03 04:00:00+01:00")).name == "full-3"
    assert full_for([FULL, later], Moment.parse(f"{A}:31")).name == "full-3"
    assert full_for([FULL, later], Moment.parse(f"{A}:30")).name == "full-1"
    with pytest.raises(BackupError, match="the oldest is full-1"):
        full_for([FULL], Moment.parse("2026-10-31"))


@pytest.mark.parametrize("text", ["yesterday", A, f"{A}:1-5", "2026-13-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(BackupError, match="is no moment"):
        Moment.parse(text)


MYSQLBINLOG = f"""\
# original_commit_timestamp=1795833655727288 (2026-11-28 02:40:55.727288 UTC)
# immediate_commit_timestamp=1795833657887273 (2026-11-28 02:40:57.887273 UTC)
SET @@SESSION.GTID_NEXT= '{A}:11'/*!*/;
SET TIMESTAMP=1795833655/*!*/;
# original_commit_timestamp=1795833895327729 (2026-11-28 02:44:55.327729 UTC)
SET @@SESSION.GTID_NEXT= '{A}:tag:1'/*!*/;
# original_commit_timestamp=1795833895336630 (2026-11-28 02:44:55.336630 UTC)
SET @@SESSION.GTID_NEXT= '{A}:12'/*!*/;
SET @@SESSION.GTID_NEXT= 'AUTOMATIC' /* added by mysqlbinlog */ /*!*/;
"""


@pytest.mark.parametrize(
    ("moment", "taken"),
    [
        ("2026-11-28T02:44:55.336630Z", f"{A}:11,{A}:tag:1"),
        ("2026-11-28T02:44:55.336631Z", f"{A}:11-12,{A}:tag:1"),
        ("2026-11-28T02:40:00Z", ""),
        (f"{A}:12", f"{A}:11,{A}:tag:1"),
        (f"{A}:tag:1", f"{A}:11"),
    ],
)
def test_what_was_committed_before_a_moment(moment: str, taken: str) -> None:
    assert up_to(transactions(MYSQLBINLOG.splitlines()), Moment.parse(moment)) == union_gtids(taken)


def test_a_transaction_that_the_archive_does_not_have_is_said() -> None:
    with pytest.raises(BackupError, match="is not in the archive"):
        up_to(transactions(MYSQLBINLOG.splitlines()), Moment.parse(f"{A}:99"))


def test_every_moment_of_the_days_to_keep_can_be_restored() -> None:
    fulls = [part("full", day, f"{A}:1-{day}") for day in (1, 5, 10, 15, 20)]
    logs = [part("binlog", day, f"{A}:{day}") for day in (2, 6, 9, 11, 16)]
    at = datetime(2026, 11, 22, tzinfo=timezone.utc)
    # The 12th is wanted: from the full backup of the 10th on.
    assert names(outdated([*fulls, *logs], 10, at)) == ["full-1", "full-5", "binlog-2", "binlog-6", "binlog-9"]
    assert outdated([*fulls, *logs], 0, at) == []
    # Without a new backup for years, the newest two are kept all the same.
    later = datetime(2029, 1, 1, tzinfo=timezone.utc)
    assert names([p for p in outdated(fulls, 10, later)]) == ["full-1", "full-5", "full-10"]
