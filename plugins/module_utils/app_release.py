# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The releases of one application on this host: where they are, which one runs, and whether it answers.

<root>/releases/<id>/app      the source
<root>/releases/<id>/venv     its virtual environment
<root>/releases/<id>/.built   written last: the release is whole
<root>/current                link to the release that runs
<root>/releases.json          what ran, what runs, what must not run again, and why
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_VARIABLE = re.compile(r'^([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"$', re.MULTILINE | re.DOTALL)
HISTORY = 100
# What a release does that has not been switched to.
BESIDE = ("beside", "ended")
# Of the host, for whose sake the modules run there.
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


class ReleaseError(Exception):
    """A release cannot be built or does not come up; the text says which, and why."""


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_environment(path: str) -> dict[str, str]:
    """The variables of a systemd EnvironmentFile in which every value stands in double quotes; {} without a file."""
    try:
        with open(path, encoding="utf-8") as file:
            return {
                name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in _VARIABLE.findall(file.read())
            }
    except FileNotFoundError:
        return {}


def digest(paths: list[str]) -> str:
    """SHA-256 over the contents of files; a missing one counts as empty."""
    total = hashlib.sha256()
    for path in paths:
        content = b""
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            content = file.read()
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def systemctl(*words: str, check: bool = True) -> str:
    """Run systemctl and return what it prints.

    :raises ReleaseError: it failed and `check` is set.
    """
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if check and done.returncode:
        raise ReleaseError(f"systemctl {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def journal(unit: str, since: float, lines: int = 20) -> str:
    """The last lines that a unit wrote since a time (seconds of the epoch)."""
    done = subprocess.run(
        [
            "journalctl",
            "--unit",
            unit,
            "--since",
            f"@{since:.3f}",
            "--lines",
            str(lines),
            "--no-pager",
            "--output",
            "cat",
        ],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


class Releases:
    """The releases of one application."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.link = os.path.join(root, "current")
        self.record = os.path.join(root, "releases.json")

    def path(self, release: str, *below: str) -> str:
        """A path in a release."""
        return os.path.join(self.root, "releases", release, *below)

    def environments(self) -> dict[str, str]:
        """The releases that are whole, the oldest first, and the id of the environment of each.

        One that was built for another Python (before the host's upgrade) is not whole any more.
        """
        found = []
        with contextlib.suppress(FileNotFoundError):
            for release in os.listdir(self.path("")):
                with (
                    contextlib.suppress(OSError, ValueError),
                    open(self.path(release, ".built"), encoding="utf-8") as file,
                ):
                    mark = json.load(file)
                    if mark.get("python") == PYTHON:
                        found.append((os.fstat(file.fileno()).st_mtime_ns, release, mark["environment"]))
        return {release: environment for _, release, environment in sorted(found)}

    def built(self) -> list[str]:
        """The releases that are whole, the oldest first."""
        return list(self.environments())

    def current(self) -> str:
        """The release that the link names; empty when there is none."""
        with contextlib.suppress(OSError):
            return os.path.basename(os.readlink(self.link))
        return ""

    def switch(self, release: str) -> None:
        """Let the link name another release, in one step; with an empty id, remove it."""
        if not release:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.link)
            return
        new = f"{self.link}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(os.path.join("releases", release), new)
        os.replace(new, self.link)

    def load(self) -> dict[str, Any]:
        """What is recorded: `history` (the oldest first), `void` (id to when and why), `applied` (digests), `beside`.

        :raises ReleaseError: the record is not readable JSON.
        """
        state: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError), open(self.record, encoding="utf-8") as file:
            try:
                state = json.load(file)
            except ValueError as error:
                raise ReleaseError(
                    f"{self.record} is damaged ({error}): mend it, or remove it to start afresh"
                ) from error
        for key, empty in (("history", []), ("void", {}), ("applied", {}), ("beside", "")):
            state.setdefault(key, empty)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write the record, all of it or nothing; everyone who may enter the folder may read it."""
        state["current"] = self.current()
        state["history"] = state["history"][-HISTORY:]
        handle, partial = tempfile.mkstemp(dir=self.root, prefix=".releases-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(state, file, indent=2, sort_keys=True)
            file.write("\n")
            os.fchmod(file.fileno(), 0o644)
        os.replace(partial, self.record)

    def demand(self, release: str, state: dict[str, Any], retry_void: bool) -> None:
        """Whether a release may run on this host.

        :raises ReleaseError: it is void, or not on the host.
        """
        void = state["void"].get(release)
        if void and not retry_void and release != self.current():
            raise ReleaseError(
                f"release {release} is void since {void['at']}: {void['reason'].splitlines()[0]}"
                " - change the source, or say gunicorn_app_retry_void: true to try it again"
            )
        if release not in self.built():
            raise ReleaseError(
                f"release {release} is not on this host: {self.root} has {', '.join(self.built()) or 'none'}"
            )

    def previous(self, state: dict[str, Any]) -> str:
        """The release that ran last before the current one and can still run; empty when there is none."""
        current, built = self.current(), self.built()
        for event in reversed(state["history"]):
            release = event["release"]
            ran = event["ok"] and event["action"] not in BESIDE
            if ran and release != current and release in built and release not in state["void"]:
                return str(release)
        return ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_health(address: str, path: str, release: str, timeout: float = 5) -> str:
    """What is wrong with an instance; empty when it answers 200 and says that it is `release` (unless that is empty).

    :param address: host:port, or the path of a Unix socket.
    """
    host, _, port = address.rpartition(":")
    connection = (
        _UnixConnection(address, timeout)
        if address.startswith("/")
        else http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)
    )
    try:
        connection.request(
            "GET", path, headers={"Host": "localhost", "Connection": "close", "X-Forwarded-Proto": "https"}
        )
        answer = connection.getresponse()
        text = answer.read(65536).decode("utf-8", "replace") + str(answer.headers)
    except (OSError, http.client.HTTPException) as error:
        return f"{path} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    if answer.status != 200:
        return f"{path} answers {answer.status}: {' '.join(text.split())[:200]}"
    if release and release not in text:
        return f"{path} answers 200, but names another release than {release}"
    return ""


def wait_for_health(address: str, path: str, release: str, unit: str, seconds: float) -> str:
    """Poll until an instance is healthy; return what is wrong with it when it is not within `seconds`, or has died."""
    deadline = time.monotonic() + seconds
    while True:
        wrong = ask_health(address, path, release, timeout=min(5.0, max(1.0, seconds)))
        if not wrong:
            return ""
        if systemctl("is-active", unit, check=False) in ("failed", "inactive"):
            return f"{unit} has stopped"
        if time.monotonic() > deadline:
            return f"{wrong} (waited {seconds:g} s)"
        time.sleep(0.2)
