#!/usr/bin/env python3
"""Runs the tests of the inventory plugin on the newest ansible-core that a Python of this machine can have.

`python tests/compat.py` looks for Python 3.14, 3.13 and 3.12 (on PATH and among pyenv's), makes a virtual environment
below .lab/ with ansible-core from PyPI, and runs tests/unit/inventory in it. Without such a Python or without PyPI it
says so in one line and ends with 0, or with 1 when --required is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.14", "3.13", "3.12")
PACKAGES = ("ansible-core", "pytest", "hypothesis")


def interpreters() -> list[str]:
    """Python interpreters newer than 3.11, the newest first; each was started once, pyenv's shims may be empty."""
    found = []
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [str(path / "bin" / "python") for path in sorted(pyenv.glob(f"{version}.*"), reverse=True)]
        if on_path := shutil.which(f"python{version}"):
            candidates.append(on_path)
        for candidate in candidates:
            done = subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False)
            if done.returncode == 0:
                found.append(candidate)
                break
    return found


def environment(python: str, folder: Path) -> str | None:
    """A virtual environment with the packages, made once; gives its Python, or None when PyPI does not answer."""
    target = folder / "bin" / "python"
    if (folder / "complete").exists():
        return str(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    done = subprocess.run(
        [str(target), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(
            f"compat: skipped, pip could not install {', '.join(PACKAGES)}: {(done.stderr.splitlines() or ['?'])[-1]}"
        )
        return None
    (folder / "complete").touch()
    return str(target)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--required", action="store_true", help="fail instead of skip when it cannot run")
    parser.add_argument("--venv", type=Path, default=ROOT / ".lab" / "compat", help="where (default: %(default)s)")
    arguments = parser.parse_args()
    pythons = interpreters()
    if not pythons:
        print(f"compat: skipped, no Python {' or '.join(VERSIONS)} on this machine")
        return int(arguments.required)
    python = environment(pythons[0], arguments.venv)
    if python is None:
        return int(arguments.required)
    version = subprocess.run(
        [python, "-c", "import sys, ansible.release as r; print(r.__version__, 'on Python', sys.version.split()[0])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    print(f"compat: ansible-core {version}", flush=True)
    path = str(ROOT / ".ansible" / "collections")
    return subprocess.run(
        [python, "-m", "pytest", "-q", "tests/unit/inventory"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
