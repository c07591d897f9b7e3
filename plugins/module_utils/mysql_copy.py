# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of a MariaDB server replaced by a copy of another node's, by mariadb-backup; files/mysql_copy.py gives it.

Only the standard library is used on both sides: no password is on a command line, nothing goes over the wire in clear.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

from . import mysql_server

# Beside the data, so that taking it into use is renaming. The server takes no folder with a dot for a database.
INCOMING, OUTGOING = ".webstack-copy", ".webstack-old"
PATIENCE = 60  # seconds without a sign of the other side
# What the copy does not have and the package's scripts want to find.
_KEPT = re.compile(r"debian-.*\.flag")


def gtid_of(folder: Path) -> str:
    """The position of a prepared copy.

    :raises mysql_server.ServerError: it does not say.
    """
    for name in ("mariadb_backup_binlog_info", "xtrabackup_binlog_info"):
        if (folder / name).exists():
            words = (folder / name).read_text(encoding="utf-8").split()
            return words[2] if len(words) > 2 else ""
    raise mysql_server.ServerError("the copy does not say which transactions it has")


def state_with(state: str, position: str) -> str:
    """A binary log's state, brought to a later position; the last of each domain is named last.

    >>> state_with("0-1-100,0-2-140", "0-2-150")
    '0-1-100,0-2-150'
    """
    found = re.findall(r"(\d+-\d+)-(\d+)", position)
    newer = {key for key, _ in found}
    older = [f"{key}-{number}" for key, number in re.findall(r"(\d+-\d+)-(\d+)", state) if key not in newer]
    return ",".join([*older, *(f"{key}-{number}" for key, number in found)])


def fetch(address: str, params: dict[str, Any], folder: Path) -> str:
    """Receive the data of the node at that address; returns the state of its binary log from before.

    :raises mysql_server.ServerError: it did not come, or not all of it.
    """
    context = ssl.create_default_context(cafile=params["ca"])
    context.load_cert_chain(params["certificate"], params["key"])
    where = f"{address}:{params['copy_port']}"
    try:
        with (
            socket.create_connection((address, params["copy_port"]), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=address) as link,
            link.makefile("rb") as answer,
        ):
            asked = {"user": params["user"], "password": params["password"]}
            link.sendall(json.dumps(asked).encode() + b"\n")
            head = json.loads(answer.readline(1 << 20))
            if head.get("error"):
                raise mysql_server.ServerError(f"{where} gives no copy: {head['error']}")
            with subprocess.Popen(["mbstream", "-x", "-C", str(folder)], stdin=subprocess.PIPE) as writing:
                assert writing.stdin
                while size := int.from_bytes(_exactly(answer, 4), "big"):
                    writing.stdin.write(_exactly(answer, size))
                writing.stdin.close()
            tail = json.loads(answer.readline(1 << 20))
            if tail.get("error") or writing.returncode:
                raise mysql_server.ServerError(
                    f"the copy from {where} failed: {tail.get('error') or 'mbstream failed'}"
                )
    except (OSError, ValueError) as error:
        raise mysql_server.ServerError(f"the copy from {where} failed: {error}") from error
    return str(head["state"])


def _exactly(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) != size:
        raise OSError("the connection ended too early")
    return data


def prepare(folder: Path) -> None:
    """Make a copy usable.

    :raises mysql_server.ServerError: it is not whole.
    """
    run(["mariadb-backup", "--prepare", f"--target-dir={folder}"], "the copy cannot be prepared")


def run(command: list[str], what: str) -> None:
    """A command that has to succeed.

    :raises mysql_server.ServerError: it did not; with what it said last.
    """
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise mysql_server.ServerError(f"{what}: {(done.stderr or done.stdout).strip()[-600:]}")


def incoming(data: Path) -> Path:
    """An empty folder for a copy; what an earlier one left behind is removed."""
    for name in (INCOMING, OUTGOING):
        shutil.rmtree(data / name, ignore_errors=True)
    folder = data / INCOMING
    folder.mkdir(mode=0o700)
    return folder


def exchange(data: Path) -> None:
    """Take a copy into use, whose server is stopped; the old data waits in OUTGOING."""
    old = data / OUTGOING
    old.mkdir(mode=0o700)
    for path in data.iterdir():
        if path.name not in (INCOMING, OUTGOING) and not _KEPT.fullmatch(path.name):
            path.rename(old / path.name)
    for path in (data / INCOMING).iterdir():
        path.rename(data / path.name)
    (data / INCOMING).rmdir()
    give_to_server(data)


def give_to_server(data: Path) -> None:
    """The server's account owns its data."""
    for path in [p for p in data.rglob("*") if OUTGOING not in p.parts]:
        if not _KEPT.fullmatch(path.name):
            shutil.chown(path, "mysql", "mysql")


def forget_old(data: Path) -> None:
    """Remove the old data."""
    shutil.rmtree(data / OUTGOING, ignore_errors=True)
