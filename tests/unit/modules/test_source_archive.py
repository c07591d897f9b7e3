"""The archive of an application: the same source is the same release, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).parents[3] / "plugins/modules/source_archive.py"


def run(check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run the module as Ansible does, and return its answer."""
    words = {"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}}
    done = subprocess.run([sys.executable, MODULE], input=json.dumps(words), capture_output=True, text=True)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "static").mkdir(parents=True)
    (root / "app.py").write_text("print(1)\n")
    (root / "static/style.css").write_text("body {}\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o700)
    (root / "latest").symlink_to("app.py")
    return root


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_packs_a_folder_once(source: Path, dest: Path) -> None:
    first = run(src=str(source), dest=str(dest))
    assert first["changed"] is True
    assert first["release"] == first["sha256"][:12]
    assert first["archive"] == str(dest / f"app-{first['release']}.tar.gz")
    assert dest.stat().st_mode & 0o777 == 0o700
    again = run(src=str(source), dest=str(dest))
    assert again["changed"] is False
    assert {k: again[k] for k in ("archive", "sha256")} == {k: first[k] for k in ("archive", "sha256")}
    assert os.listdir(dest) == [Path(first["archive"]).name], "no partial file stays behind"


def test_the_archive_holds_the_source_with_plain_owners_modes_and_times(source: Path, dest: Path) -> None:
    with tarfile.open(run(src=str(source), dest=str(dest))["archive"]) as tar:
        entries = {m.name: m for m in tar.getmembers()}
        body = tar.extractfile("app.py")
        assert body is not None and body.read() == b"print(1)\n"
    assert list(entries) == ["app.py", "latest", "run.sh", "static", "static/style.css"]
    assert {n: oct(m.mode) for n, m in entries.items() if not m.issym()} == {
        "app.py": "0o644", "run.sh": "0o755", "static": "0o755", "static/style.css": "0o644"
    }  # fmt: skip
    assert entries["latest"].linkname == "app.py"
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in entries.values()} == {(0, 0, "", "", 0)}


def test_the_id_depends_on_nothing_but_the_content(source: Path, dest: Path, tmp_path: Path) -> None:
    first = run(src=str(source), dest=str(dest))
    other = tmp_path / "elsewhere" / "app"
    other.parent.mkdir()
    # Made in another order, with other times, modes and umask.
    other.mkdir(mode=0o700)
    for path in sorted(source.rglob("*"), reverse=True):
        target = other / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        elif path.is_file():
            shutil.copyfile(path, target)
            target.chmod(0o750 if path.name == "run.sh" else 0o600)
            os.utime(target, (1, 1))
    second = run(src=str(other), dest=str(dest / "2"))
    assert second["sha256"] == first["sha256"]
    assert Path(second["archive"]).read_bytes() == Path(first["archive"]).read_bytes()


@pytest.mark.parametrize("change", ["content", "name", "executable", "link", "added"])
def test_every_change_of_the_content_is_another_release(source: Path, dest: Path, change: str) -> None:
    before = run(src=str(source), dest=str(dest))["release"]
    if change == "content":
        (source / "app.py").write_text("print(2)\n")
    elif change == "name":
        (source / "app.py").rename(source / "main.py")
    elif change == "executable":
        (source / "run.sh").chmod(0o644)
    elif change == "link":
        (source / "latest").unlink()
        (source / "latest").symlink_to("run.sh")
    else:
        (source / "empty").mkdir()
    assert run(src=str(source), dest=str(dest))["release"] != before


def test_what_is_excluded_changes_nothing(source: Path, dest: Path) -> None:
    before = run(src=str(source), dest=str(dest))["sha256"]
    for path in (".git/HEAD", "static/__pycache__/x.pyc", "y.pyc", ".venv/bin/python"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("x")
    assert run(src=str(source), dest=str(dest))["sha256"] == before
    (source / "tests").mkdir()
    (source / "tests/test_app.py").write_text("x")
    (source / "static/tests.css").write_text("x")
    without = run(
        src=str(source), dest=str(dest), exclude=[".git", "*.pyc", "__pycache__", ".venv", "tests", "static/t*"]
    )
    assert without["sha256"] == before


def test_a_recipe_is_part_of_the_id_and_not_of_the_archive(source: Path, dest: Path) -> None:
    plain = run(src=str(source), dest=str(dest))
    one = run(src=str(source), dest=str(dest), recipe={"gunicorn": "1", "python": "3"})
    same = run(src=str(source), dest=str(dest), recipe={"python": "3", "gunicorn": "1"})
    two = run(src=str(source), dest=str(dest), recipe={"gunicorn": "2", "python": "3"})
    assert one["sha256"] == same["sha256"]
    assert len({plain["release"], one["release"], two["release"]}) == 3
    assert Path(one["archive"]).read_bytes() == Path(plain["archive"]).read_bytes()


def test_check_mode_knows_the_id_and_writes_nothing(source: Path, dest: Path) -> None:
    foretold = run(check=True, src=str(source), dest=str(dest))
    assert foretold["changed"] is True
    assert not dest.exists()
    made = run(src=str(source), dest=str(dest))
    assert made["archive"] == foretold["archive"]
    assert run(check=True, src=str(source), dest=str(dest))["changed"] is False


def test_an_archive_is_taken_as_it_is(source: Path, dest: Path) -> None:
    archive = run(src=str(source), dest=str(dest))["archive"]
    taken = run(src=archive, dest=str(dest / "2"))
    assert taken["changed"] is False
    assert taken["archive"] == archive
    assert taken["sha256"] == subprocess.run(["sha256sum", archive], capture_output=True, text=True).stdout.split()[0]
    assert not (dest / "2").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "static/../../outside"])
def test_a_link_out_of_the_source_is_refused(source: Path, dest: Path, target: str) -> None:
    (source / "secret").symlink_to(target)
    result = run(src=str(source), dest=str(dest))
    assert result["failed"] is True
    assert "secret" in result["msg"] and target in result["msg"]
    assert run(src=str(source), dest=str(dest), exclude=["secret"]).get("failed") is None


def test_what_cannot_be_packed_is_named(source: Path, dest: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe")
    assert f"{source}/pipe: neither" in run(src=str(source), dest=str(dest))["msg"]
    assert f"{tmp_path}/nowhere" in run(src=f"{tmp_path}/nowhere", dest=str(dest))["msg"]
    assert "nothing to pack" in run(src=str(source), dest=str(dest), exclude=["*"])["msg"]
    assert not dest.exists()


def test_a_folder_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(src=str(source), dest=str(tmp_path / "file/cache"))
    assert result["failed"] is True and str(tmp_path / "file") in result["msg"]
