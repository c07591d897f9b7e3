"""A release is built whole or not at all, and an unchanged environment is taken over, not made again."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils import app_requirements
from ansible_collections.scaleup.webstack.plugins.modules import app_build, wheelhouse
from ansible_collections.scaleup.webstack.plugins.modules.app_release_info import wheel_platforms


def archive(path: Path, *members: tarfile.TarInfo) -> str:
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return str(path)


def member(name: str, size: int = 1, **attributes: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def test_unpacks_with_plain_modes(tmp_path: Path) -> None:
    source = archive(
        tmp_path / "a.tar",
        member("run", mode=0o4700),
        member("d/secret", mode=0o666),
        member("l", 0, type=tarfile.SYMTYPE, linkname="run"),
    )
    app_build.unpack(source, str(tmp_path / "out"))
    assert oct((tmp_path / "out/run").stat().st_mode & 0o7777) == "0o755"
    assert oct((tmp_path / "out/d/secret").stat().st_mode & 0o7777) == "0o644"
    assert os.readlink(tmp_path / "out/l") == "run"


@pytest.mark.parametrize(
    "bad",
    [
        member("../out-of-it"),
        member("/etc/out-of-it"),
        member("d/../../out-of-it"),
        member("link", 0, type=tarfile.SYMTYPE, linkname="../../etc/passwd"),
        member("link", 0, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("device", 0, type=tarfile.CHRTYPE),
        member("hard", 0, type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    ],
    ids=lambda m: f"{m.name} {m.linkname}",
)
def test_an_archive_that_leads_elsewhere_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    with pytest.raises(app_build.ReleaseError, match=bad.name):
        app_build.unpack(archive(tmp_path / "a.tar", bad), str(tmp_path / "deep/in/out"))
    assert not list(tmp_path.rglob("out-of-it"))


def test_a_cloned_environment_is_independent(tmp_path: Path) -> None:
    old, new = tmp_path / "old/venv", tmp_path / "new/venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", old], check=True)
    script, library = old / "bin/tool", old / "lib/module.py"
    script.write_text(f"#!{old}/bin/python\nimport sys\nprint(sys.prefix)\n")
    script.chmod(0o755)
    library.write_text("1")
    new.parent.mkdir()
    app_build.clone(str(old), str(new))
    assert subprocess.run([new / "bin/tool"], capture_output=True, text=True, check=True).stdout == f"{new}\n"
    assert subprocess.run([script], capture_output=True, text=True, check=True).stdout == f"{old}\n"
    assert (new / "lib/module.py").stat().st_ino == library.stat().st_ino, "shared, not copied"
    assert str(old) not in (new / "pyvenv.cfg").read_text()


REQUIREMENTS = "Flask==3.1.3 \\\n    --hash=sha256:00\n# gunicorn is not here\nPy_MySQL>=1 ; python_version > '3'\n"


def test_what_the_requirements_lack() -> None:
    assert app_requirements.missing(["gunicorn==27.0.1", "flask==1", "py.mysql"], REQUIREMENTS) == ["gunicorn==27.0.1"]
    assert app_requirements.missing(["gunicorn==27.0.1"], "gunicorn[gthread]==1\n") == []
    assert app_requirements.has_hashes(REQUIREMENTS) and not app_requirements.has_hashes("flask==3\n")


def test_requirements_are_found_in_a_folder_and_in_an_archive(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/requirements.txt").write_text("flask==3\n")
    with tarfile.open(tmp_path / "app.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "app/requirements.txt", "./requirements.txt")
    for source in ("app", "app.tar.gz"):
        assert app_requirements.read_requirements(str(tmp_path / source), "requirements.txt") == "flask==3\n"
        assert app_requirements.read_requirements(str(tmp_path / source), "other.txt") == ""
    (tmp_path / "app/requirements.txt").write_text("-r base.txt\n")
    with pytest.raises(ValueError, match="includes another file"):
        app_requirements.read_requirements(str(tmp_path / "app"), "requirements.txt")


def test_an_environment_is_told_by_everything_that_makes_it() -> None:
    ids = {
        app_requirements.environment_id(*words)
        for words in (("a", ["b"], "3.11"), ("a", ["b"], "3.13"), ("a", [], "3.11"), ("c", ["b"], "3.11"))
    }
    assert len(ids) == 4


def test_platforms_of_wheels_are_the_hosts_own_and_older() -> None:
    tags = wheel_platforms("x86_64", "2.36")
    assert tags[0] == "manylinux_2_36_x86_64" and "manylinux_2_37_x86_64" not in tags
    assert {"manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64"} <= set(tags)
    assert "manylinux1_aarch64" not in wheel_platforms("aarch64", "2.41")


def test_a_missing_wheel_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(wheelhouse.WheelhouseError, match=r"Python 3.13 on linux_x86_64.*no-such-package"):
        wheelhouse.download(str(tmp_path), "", ["no-such-package==1"], "3.13", ["linux_x86_64"])


def test_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "links/thing-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        file.writestr(
            "thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("thing-1.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    (tmp_path / "wheels").mkdir()
    with pytest.raises(wheelhouse.WheelhouseError, match="hash"):
        wheelhouse.download(
            str(tmp_path / "wheels"), f"thing==1 --hash=sha256:{'0' * 64}\n", [], "3.13", ["linux_x86_64"]
        )
