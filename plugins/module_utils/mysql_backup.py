# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive of backups: what is in it, what is missing in it, and the way from a full backup to a moment.

An archive is a folder of any kind that rclone can reach. Every part of it, a full backup or one binary log, is two
objects: NAME.zst.age, the data, and NAME.json, what is known about it. The second is written last: a part without it
was never finished. GTIDs alone say which part follows which, so it does not matter which node wrote them.

The program on the nodes uses this file as it is, so it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from .mysql_topology import format_gtids, parse_gtids, subtract_gtids

DATA, KNOWN = ".zst.age", ".json"
# The method of a full backup of MariaDB.
MARIADB_BACKUP = "mariadb-backup"
_CHUNK = 1 << 20  # bytes
_SECONDS = len("2026-11-28T03:00:00")


class BackupError(Exception):
    """It cannot be done; the text is for an operator."""


@dataclass(frozen=True)
class Part:
    """One part of the archive; times are UTC in ISO 8601.

    ``finished``: nothing in it was committed later.
    ``gtids``: of a full backup the transactions that it holds at least, of a binary log exactly those that it holds.
    ``before``: of a binary log the transactions that were executed before its first.
    ``until``: of a full backup the transactions that it holds at most.
    ``server``: settings without which a server cannot use the data.
    ``history``: what was written since a site began anew belongs together; see of_history().
    """

    name: str
    kind: str
    node: str
    began: str
    finished: str
    gtids: str
    before: str = ""
    until: str = ""
    method: str = ""
    size: int = 0
    sha256: str = ""
    server: dict[str, str] = field(default_factory=dict)
    history: str = ""

    def to_json(self) -> str:
        """As it is written into the archive."""
        return json.dumps(asdict(self), indent=1) + "\n"


def union_gtids(*sets: str) -> str:
    """All transactions that are in one of the sets."""
    return format_gtids(parse_gtids(",".join(s for s in sets if s)))


def now() -> str:
    """The time, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def full_backups(parts: Iterable[Part]) -> list[Part]:
    """The full backups, the oldest first."""
    return sorted((p for p in parts if p.kind == "full"), key=lambda p: p.finished)


def of_history(parts: Iterable[Part], history: str) -> list[Part]:
    """The parts of one history.

    A server of MariaDB that begins anew counts its transactions from 1 again, under the same id: by their GTIDs they
    would be those that the archive has already.
    """
    return [part for part in parts if part.history == history]


def archived(parts: Iterable[Part], full: Part) -> str:
    """The transactions that can be had from a full backup and all binary logs."""
    return union_gtids(full.gtids, *(p.gtids for p in parts if p.kind == "binlog"))


def reason_for_full(parts: Sequence[Part], executed: str, purged: str) -> str:
    """Why the archive cannot be continued by binary logs alone on a node; empty when it can."""
    fulls = full_backups(parts)
    if not fulls:
        return "the archive has no full backup yet"
    if other := subtract_gtids(fulls[-1].gtids, executed):
        return f"the newest full backup has transactions that this site has not: {other}"
    have = archived(of_history(parts, fulls[-1].history), fulls[-1])
    if missing := subtract_gtids(purged, have):
        return f"the archive lacks transactions whose binary logs are gone: {missing}"
    return ""


def outdated(parts: Sequence[Part], keep_days: int, at: datetime) -> list[Part]:
    """What no restore to a moment of the last ``keep_days`` days needs; nothing when that is 0.

    The newest two full backups are never outdated.
    """
    fulls = full_backups(parts)
    boundary = (at - timedelta(days=keep_days)).isoformat(timespec="microseconds")
    older = [p for p in fulls[:-2] if p.finished < boundary]
    if not keep_days or not older:
        return []
    # The newest of the older ones is where a restore to the boundary begins.
    gone = older if fulls[len(older)].finished < boundary else older[:-1]
    if not gone:
        return []
    first = fulls[len(gone)]
    return gone + [p for p in parts if p.kind == "binlog" and p.finished < first.began]


@dataclass(frozen=True)
class Moment:
    """Just before a time (UTC), just before a transaction, or the newest that there is when both are empty."""

    time: str = ""
    gtid: str = ""

    @classmethod
    def parse(cls, text: str) -> Moment:
        """From what the operator writes: nothing, a GTID, or a time in ISO 8601; UTC where it has no offset.

        :raises BackupError: it is none of these.
        """
        text = text.strip()
        if not text:
            return cls()
        if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(:[a-z_][a-z0-9_]*)?:[0-9]+", text):
            return cls(gtid=text.lower())
        # Of MariaDB, as the sets have it (mysql_dialect); a date is none.
        if found := re.fullmatch(r"(?!\d{4}-\d\d-\d\d$)(\d+-\d+)-(\d+)", text):
            return cls(gtid=f"{found.group(1)}:{found.group(2)}")
        try:
            time = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        except ValueError as error:
            raise BackupError(
                f"'{text}' is no moment: write a time such as 2026-11-28T03:00:00Z, or one GTID such as "
                "3e11fa47-71ca-11e1-9e33-c80aa9429562:23, of MariaDB 0-3232235521-23"
            ) from error
        time = time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)
        return cls(time=time.isoformat(timespec="microseconds"))

    def __str__(self) -> str:
        return f"just before {self.time or self.gtid}" if self.time or self.gtid else "the newest that the archive has"


def full_for(parts: Iterable[Part], moment: Moment) -> Part:
    """The newest full backup that holds nothing from after a moment.

    :raises BackupError: there is none.
    """
    fulls = full_backups(parts)
    able = [p for p in fulls if not moment.time or p.finished <= moment.time]
    if moment.gtid:
        able = [p for p in fulls if subtract_gtids(moment.gtid, p.until)]
    if not able:
        if not fulls:
            raise BackupError("the archive has no full backup")
        raise BackupError(
            f"no full backup is from {'before ' + moment.time if moment.time else str(moment)}: the oldest is "
            f"{fulls[0].name}, finished at {fulls[0].finished}"
        )
    return able[-1]


def chain(parts: Iterable[Part], full: Part, executed: str) -> list[Part]:
    """The binary logs that follow a full backup, in order, none twice.

    :param executed: the transactions that the server which was restored from it has.
    """
    # One of another history (a site that was set up anew) does not know the full backup's transactions.
    logs = [p for p in of_history(parts, full.history) if p.kind == "binlog"]
    left = sorted(
        (p for p in logs if not subtract_gtids(full.gtids, union_gtids(p.before, p.gtids))),
        key=lambda p: p.finished,
    )
    found: list[Part] = []
    have = executed
    while True:
        left = [p for p in left if subtract_gtids(p.gtids, have)]
        following = next((p for p in left if not subtract_gtids(p.before, have)), None)
        if following is None:
            return found
        found.append(following)
        have = union_gtids(have, following.gtids)


def transactions(text: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(GTID, the time at which the primary committed it) of all transactions in the output of mysqlbinlog, in order."""
    time = ""
    for line in text:
        if found := re.match(r"# original_commit_timestamp=(\d+)", line):
            seconds, micros = divmod(int(found.group(1)), 10**6)
            whole = datetime.fromtimestamp(seconds, timezone.utc)
            time = whole.replace(microsecond=micros).isoformat(timespec="microseconds")
        elif found := re.match(r"SET @@SESSION\.GTID_NEXT= '([0-9a-fA-F-]{36}(?::[a-z_]\w*)?:\d+)'", line):
            yield found.group(1).lower(), time


def mariadb_transactions(text: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The same from the output of mariadb-binlog in UTC: its times are whole seconds."""
    for line in text:
        if found := re.match(r"#(\d{6} +\d+:\d\d:\d\d) server id \d+ .*\bGTID (\d+-\d+)-(\d+)\b", line):
            moment = datetime.strptime(found.group(1), "%y%m%d %H:%M:%S").replace(tzinfo=timezone.utc)
            yield f"{found.group(2)}:{found.group(3)}", moment.isoformat(timespec="microseconds")


def up_to(found: Iterable[tuple[str, str]], moment: Moment, whole_seconds: bool = False) -> str:
    """The transactions of an ordered list that a restore to a moment executes.

    :param whole_seconds: the list has only the second of each: what is of the moment's own second may be later than
        it, and it ends there.
    :raises BackupError: the moment is a transaction that the archive does not have.
    """
    taken: list[str] = []
    for gtid, time in found:
        if moment.gtid == gtid:
            break
        if whole_seconds and moment.time and time[:_SECONDS] >= moment.time[:_SECONDS]:
            break
        if not moment.time or time < moment.time:
            taken.append(gtid)
    else:
        if moment.gtid:
            raise BackupError(f"{moment.gtid} is not in the archive's binary logs after the full backup")
    return union_gtids(*taken)


def check_codes(commands: Sequence[Sequence[str]], processes: Sequence[subprocess.Popen[bytes]], errors: Any) -> None:
    """Wait for all commands of a pipe.

    :raises BackupError: one failed; names the last one, whose failure ended the others.
    """
    codes = [process.wait() for process in processes]
    failed = [command[0] for command, code in zip(commands, codes, strict=True) if code]
    if failed:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()[-600:]
        if "Failed to load config file" in said:
            said = "its configuration cannot be read"  # it would show the line
        raise BackupError(f"{' and '.join(failed)} failed: {said or 'it gave no reason'}")


def pipe(*commands: Sequence[str], pass_fds: Sequence[int] = (), to: int | None = None) -> None:
    """Run commands, the output of each into the next, that of the last to a file descriptor or nowhere.

    :raises BackupError: one of them failed.
    """
    with tempfile.TemporaryFile() as errors:
        processes: list[subprocess.Popen[bytes]] = []
        for command in commands:
            last = len(processes) == len(commands) - 1
            processes.append(
                subprocess.Popen(
                    list(command),
                    stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                    stdout=(subprocess.DEVNULL if to is None else to) if last else subprocess.PIPE,
                    stderr=errors,
                    pass_fds=pass_fds,
                )
            )
        for process in processes[:-1]:
            assert process.stdout
            process.stdout.close()
        check_codes(commands, processes, errors)


class Archive:
    """The archive, by rclone. ``target`` is a path of this machine, or REMOTE:PATH of the configuration."""

    def __init__(self, target: str, configuration: str) -> None:
        self.target = target.rstrip("/")
        self._rclone = ["rclone", "--config", configuration, "--retries", "3", "--low-level-retries", "3"]

    def parts(self, mirror: Path) -> list[Part]:
        """What the archive has.

        :param mirror: folder for what is known about the parts, so that only what is new has to be fetched.
        :raises BackupError: the archive does not answer.
        """
        pipe([*self._rclone, "mkdir", self.target])
        pipe([*self._rclone, "sync", "--include", f"/*{KNOWN}", self.target, str(mirror)])
        return [Part(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(mirror.glob(f"*{KNOWN}"))]

    def put(self, part: Part, recipients: str, *commands: Sequence[str]) -> Part:
        """Write a part's data: what the commands say, compressed and encrypted; returns it with its size and digest.

        It does not count before tell().

        :param recipients: file with the public keys.
        :raises BackupError: it could not be read or written.
        """
        producers = [*commands, ["zstd", "-q", "-T0", "-c"], ["age", "-e", "-R", recipients]]
        upload = [*self._rclone, "rcat", f"{self.target}/{part.name}{DATA}"]
        digest, size = hashlib.sha256(), 0
        reader, writer = os.pipe()
        with tempfile.TemporaryFile() as errors, os.fdopen(reader, "rb") as encrypted:
            processes: list[subprocess.Popen[bytes]] = []
            for command in producers:
                last = command is producers[-1]
                processes.append(
                    subprocess.Popen(
                        list(command),
                        stdin=processes[-1].stdout if processes else subprocess.DEVNULL,
                        stdout=writer if last else subprocess.PIPE,
                        stderr=errors,
                    )
                )
            os.close(writer)
            for process in processes[:-1]:
                assert process.stdout
                process.stdout.close()
            sending = subprocess.Popen(upload, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
            assert sending.stdin
            with contextlib.suppress(BrokenPipeError):
                while chunk := encrypted.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    sending.stdin.write(chunk)
                sending.stdin.close()
            encrypted.close()
            check_codes([*producers, upload], [*processes, sending], errors)
        return replace(part, size=size, sha256=digest.hexdigest())

    def tell(self, part: Part) -> None:
        """Write what is known about a part, whose data is there.

        :raises BackupError: the archive refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{part.name}{KNOWN}"
            path.write_text(part.to_json(), encoding="utf-8")
            pipe([*self._rclone, "copyto", str(path), f"{self.target}/{path.name}"])

    def get(self, part: Part, identity: str, *commands: Sequence[str], to: int | None = None) -> None:
        """Read a part: decrypted and unpacked into the first command, or to a file descriptor.

        :param identity: the private key; it is handed on through a pipe and never written down.
        :raises BackupError: it cannot be read, or not with this key.
        """
        reader, writer = os.pipe()
        try:
            os.write(writer, identity.strip().encode() + b"\n")
            os.close(writer)
            pipe(
                [*self._rclone, "cat", f"{self.target}/{part.name}{DATA}"],
                ["age", "-d", "-i", f"/dev/fd/{reader}"],
                ["zstd", "-q", "-d", "-c"],
                *commands,
                pass_fds=(reader,),
                to=to,
            )
        except BackupError as error:
            raise BackupError(f"{part.name} cannot be read: {error}") from error
        finally:
            os.close(reader)

    def remove(self, parts: Sequence[Part]) -> None:
        """Remove parts.

        :raises BackupError: the archive refuses.
        """
        if not parts:
            return
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as names:
            # What is known goes first: a part without it does not count.
            for end in (KNOWN, DATA):
                names.seek(0)
                names.truncate()
                names.write("".join(f"{part.name}{end}\n" for part in parts))
                names.flush()
                pipe([*self._rclone, "delete", "--files-from", names.name, self.target])


def note(path: Path, **entries: Any) -> None:
    """Write entries into the status file, which others read; the other entries stay."""
    status: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        status = json.loads(path.read_text(encoding="utf-8"))
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(status | entries, indent=1) + "\n", encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)
