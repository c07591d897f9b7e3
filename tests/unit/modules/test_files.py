"""Several files in one call: all are checked before one is replaced, and a second call changes nothing."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).parents[3] / "plugins/modules/files.py"
OWN = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


def run(*files: dict[str, Any], check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does, and return its answer."""
    words = {"ANSIBLE_MODULE_ARGS": {"files": files, **OWN, **arguments, "_ansible_check_mode": check}}
    done = subprocess.run([sys.executable, MODULE], input=json.dumps(words), capture_output=True, text=True)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o7777)


def test_folders_and_files_are_made_once(tmp_path: Path) -> None:
    source = tmp_path / "key"
    source.write_text("secret\n")
    entries = [
        {"path": str(tmp_path / "a/b"), "state": "directory"},
        {"path": str(tmp_path / "a/b/one"), "content": "1\n"},
        {"path": str(tmp_path / "a/key"), "src": str(source), "mode": "0400"},
    ]
    foretold = run(*entries, check=True)
    assert foretold["changed"] and not (tmp_path / "a").exists()
    made = run(*entries)
    assert made["changed_paths"] == foretold["changed_paths"]
    assert sorted(made["changed_paths"]) == sorted(entry["path"] for entry in entries)
    assert (tmp_path / "a/b/one").read_text() == "1\n" and mode(tmp_path / "a/b/one") == "0o644"
    assert (tmp_path / "a/key").read_text() == "secret\n" and mode(tmp_path / "a/key") == "0o400"
    assert mode(tmp_path / "a/b") == "0o755"
    for check in (True, False):
        assert run(*entries, check=check)["changed"] is False


def test_only_what_changed_is_told_and_shown(tmp_path: Path) -> None:
    one, two = ({"path": str(tmp_path / name), "content": "old\n"} for name in ("one", "two"))
    run(one, two)
    again = run(one, two | {"content": "new\n"})
    assert again["changed_paths"] == [two["path"]]
    assert [(diff["before"], diff["after"]) for diff in again["diff"]] == [("old\n", "new\n")]
    assert run(one | {"mode": "0600"}, two | {"content": "new\n"})["changed_paths"] == [one["path"]]
    assert mode(tmp_path / "one") == "0o600"


def test_one_refused_file_leaves_them_all(tmp_path: Path) -> None:
    good = {"path": str(tmp_path / "good"), "content": "old\n"}
    bad = {"path": str(tmp_path / "bad"), "content": "fine\n", "validate": "grep -q fine %s"}
    run(good, bad)
    for check in (True, False):
        refused = run(good | {"content": "new\n"}, bad | {"content": "broken\n"}, check=check)
        assert refused["failed"] and f"{bad['path']} is refused, nothing is replaced" in refused["msg"]
        assert (tmp_path / "good").read_text() == "old\n" and (tmp_path / "bad").read_text() == "fine\n"


def test_what_is_absent_goes(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("")
    gone = [{"path": str(tmp_path / name), "state": "absent"} for name in ("folder", "nothing")]
    assert run(*gone)["changed_paths"] == [gone[0]["path"]]
    assert not (tmp_path / "folder").exists() and not run(*gone)["changed"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"content": "x", "src": "/etc/hostname"}, "a file needs content or src, one of the two"),
        ({"src": "/nowhere/at/all"}, "its source /nowhere/at/all cannot be read: No such file or directory"),
        ({"content": "x", "validate": "true"}, "validate must contain %s: true"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    answer = run({"path": str(tmp_path / "file"), **entry})
    assert answer["failed"] and said in answer["msg"] and str(tmp_path / "file") in answer["msg"]
    assert not (tmp_path / "file").exists()


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    answer = run({"path": str(tmp_path), "content": "x"})
    assert answer["failed"] and f"{tmp_path} is no file" in answer["msg"]
    answer = run({"path": str(tmp_path / "no/such/folder"), "content": "x"})
    assert answer["failed"] and "its folder is not there" in answer["msg"]


def test_in_check_mode_a_user_may_be_one_to_come(tmp_path: Path) -> None:
    entry = {"path": str(tmp_path / "file"), "content": "x", "owner": "nobody-has-this-name"}
    assert run(entry, check=True)["changed"]
