"""What a host says of itself, from what its files and programs say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.modules import host_status_info as info

SHOWN = """\
Id=nginx.service
LoadState=loaded
ActiveState=active
ActiveEnterTimestampMonotonic=50000000
FragmentPath={fragment}
DropInPaths={drop_in}

Id=lost.service
LoadState=not-found
ActiveState=inactive
ActiveEnterTimestampMonotonic=0
"""


def test_units_have_a_state_and_unknown_ones_are_missing() -> None:
    shown = SHOWN.format(fragment="", drop_in="")
    assert info.unit_states(["nginx.service", "lost.service", "x.service"], shown) == {
        "nginx.service": "active",
        "lost.service": "missing",
        "x.service": "unknown",
    }


@pytest.mark.parametrize(("written", "waits"), [(1049, False), (1051, True)])
def test_a_service_waits_whose_unit_is_newer_than_its_process(tmp_path: Path, written: int, waits: bool) -> None:
    fragment, drop_in = tmp_path / "nginx.service", tmp_path / "webstack.conf"
    for path, at in ((fragment, 1), (drop_in, written)):
        path.write_text("")
        os.utime(path, (at, at))
    # The machine has booted at 1000, the service has begun 50 seconds after that.
    found = info.newer_units(["nginx.service"], SHOWN.format(fragment=fragment, drop_in=drop_in), 1100, 100)
    assert found == ({"nginx.service": f"{drop_in} is newer"} if waits else {})


@pytest.mark.parametrize(
    ("line", "unit", "waits"),
    [
        ("7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", "nginx.service", True),
        ("7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/x86_64-linux-gnu/libssl.so.3", "nginx.service", False),
        ("7f00-7f01 rw-p 00000000 00:01 12 /dev/zero (deleted)", "nginx.service", False),
        ("7f00-7f01 r-xp 00000000 08:01 12 /usr/sbin/nginx (deleted)", "session-1.scope", False),
    ],
)
def test_a_service_waits_that_uses_what_was_replaced(tmp_path: Path, line: str, unit: str, waits: bool) -> None:
    process = tmp_path / "17"
    process.mkdir()
    (process / "maps").write_text(f"5500-5501 r-xp 00000000 08:01 11 /usr/sbin/x\n{line}\n")
    (process / "cgroup").write_text(f"0::/system.slice/{unit}\n")
    assert list(info.outdated(str(tmp_path))) == ([unit] if waits else [])


@pytest.mark.parametrize(
    ("names", "idle"),
    [
        (("memory.max", "memory.current"), "inactive_file"),
        (("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"), "total_inactive_file"),
    ],
)
def test_a_container_has_what_its_group_may_have(tmp_path: Path, names: tuple[str, str], idle: str) -> None:
    assert info.group_memory_used(str(tmp_path)) == 0
    (tmp_path / "memory").mkdir()
    for name, text in zip(names, ("1000", "950"), strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / names[0]).with_name("memory.stat").write_text(f"cache 1\n{idle} 50\n")
    assert info.group_memory_used(str(tmp_path)) == 90
    (tmp_path / names[0]).write_text("max")
    assert info.group_memory_used(str(tmp_path)) == 0


def test_a_service_that_ends_again_and_again_is_found() -> None:
    def row(name: str, restarts: int, started: int, state: str = "active") -> str:
        return (
            f"Id={name}\nActiveState={state}\nNRestarts={restarts}\nExecMainStartTimestampMonotonic={started}000000\n"
        )

    shown = "\n".join(
        [
            row("a.service", 9, 990, "activating"),
            row("b.service", 2, 990),
            row("c.service", 9, 10),
            row("d.service", 0, 0),
        ]
    )
    assert info.crashing(shown, 1000) == {"a.service": 9}


def test_memory_in_use_is_what_could_not_be_given() -> None:
    assert info.memory_used("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\n") == 75.0


def test_only_disks_that_hold_data_count_and_each_once(tmp_path: Path) -> None:
    twice = f"/dev/a {tmp_path} ext4 rw 0 0\n" * 2
    text = f"{twice}proc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
    found = info.disks(text)
    assert [disk["path"] for disk in found] == [str(tmp_path)]
    assert 0 <= found[0]["used"] <= 100


def test_the_option_file_is_read_as_mysql_reads_it() -> None:
    text = '[mysqld]\nserver-id = 5\nloose_rpl_semi_sync_source_enabled=ON\n# port = 1\nssl_ca = "/etc/ca.pem"\n'
    assert info.options(text) == {
        "server_id": "5",
        "rpl_semi_sync_source_enabled": "ON",
        "ssl_ca": "/etc/ca.pem",
    }


@pytest.mark.parametrize(("content", "said"), [(None, None), ('{"ok": true}', {"ok": True}), ("no", "error")])
def test_a_backup_says_how_it_went(tmp_path: Path, content: str | None, said: Any) -> None:
    path = tmp_path / "status.json"
    if content is not None:
        path.write_text(content)
    found = info.read_json(str(path))
    assert said in found if said == "error" else found == said
