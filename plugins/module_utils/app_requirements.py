# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application's requirements file: where it is, whether it is a lock with hashes, what it lacks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile

_NAME = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


def normalised(name: str) -> str:
    """A project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements(src: str, name: str) -> str:
    """The text of a requirements file in a source, a folder or an archive; empty when the source has none.

    :raises ValueError: the file includes others, or the archive is not one that Python's tarfile reads.
    """
    text = ""
    if os.path.isdir(src):
        path = os.path.join(src, name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read()
    else:
        try:
            with tarfile.open(src) as tar:
                for member in tar:
                    if os.path.normpath(member.name) == os.path.normpath(name) and (found := tar.extractfile(member)):
                        text = found.read().decode()
        except tarfile.TarError as error:
            raise ValueError(f"{src}: not a tar archive ({error})") from error
    if re.search(r"^\s*(-r|-c|--requirement|--constraint)\b", text, re.MULTILINE):
        raise ValueError(
            f"{src}: {name} includes another file; give one that holds everything (pip-compile, uv pip compile)"
        )
    return text


def has_hashes(requirements: str) -> bool:
    """Whether a requirements file pins by hash."""
    return "--hash=" in requirements


def missing(extra: list[str], requirements: str) -> list[str]:
    """Those of `extra` whose project `requirements` does not name."""
    named = {normalised(n) for n in _NAME.findall(requirements)}
    return [e for e in extra if (match := _NAME.match(e)) and normalised(match.group(1)) not in named]


def environment_id(requirements: str, extra: list[str], python: str) -> str:
    """What tells one virtual environment from another, apart from the machine."""
    return hashlib.sha256(json.dumps([requirements, sorted(extra), python]).encode()).hexdigest()
