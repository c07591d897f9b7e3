#!/usr/bin/python3
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of the database tier, taken on one node: the first replica that keeps up, else the primary.

``mysql_backup.py full``: all data, by CLONE, mariadb-backup or as a dump, compressed and encrypted, into the archive;
    then what is older than the archive shall keep is removed.
``mysql_backup.py binlogs``: the binary logs that the archive does not have; a full backup first where they would not
    continue it.
``mysql_backup.py turn``: says which node's turn it is; exit code 0 on that node, 3 on the others.

The other nodes do nothing and say so. Unprivileged; with the public keys that it has nothing archived can be read.
"""

from __future__ import annotations

import fcntl
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from module_utils import mysql_backup, mysql_dialect, mysql_server
from module_utils.mysql_topology import subtract_gtids

CONFIGURATION = Path("/etc/mysql/webstack/backup.json")
# The backup of a replica that is further behind would begin with old data.
MAX_LAG = 300  # seconds


def answers(node: dict[str, Any], path: str) -> bool:
    """Whether a node's health agent says yes."""
    address = f"[{node['address']}]" if ":" in node["address"] else node["address"]
    try:
        with urllib.request.urlopen(f"http://{address}:{node['health_port']}{path}", timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def turn(nodes: list[dict[str, Any]]) -> str:
    """The node whose turn it is; empty when no node can."""
    for path in (f"/replica?max_lag={MAX_LAG}", "/primary"):
        for node in nodes:
            if answers(node, path):
                return str(node["name"])
    return ""


class Backup:
    """One run on the node whose turn it is."""

    def __init__(self, settings: dict[str, Any], command: str) -> None:
        self.settings, self.me = settings, str(settings["me"])
        self.state = Path(settings["state"])
        # The service of each command removes its own copy, also after a failure.
        self.copy = self.state / "copy" / command
        self.archive = mysql_backup.Archive(settings["target"], settings["rclone"])
        self.session = mysql_server.Session(
            "this node", mysql_server.by_socket(settings["user"], settings["unix_socket"]), read_timeout=24 * 3600
        )
        self.mirror = self.state / "parts"
        self._lock: Any = None
        self.parts = self.archive.parts(self.mirror)

    def one(self, expression: str) -> str:
        """A value of the server."""
        return str(self.session.one(f"SELECT {expression} AS value")["value"]).replace("\n", "")

    def name(self, what: str) -> str:
        """A part's name: sorted by time, unlike any other's."""
        return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%fZ}-{what}-{self.me}"

    def client(self, program: str) -> list[str]:
        """A client of the server as a command."""
        return [program, f"--socket={self.settings['unix_socket']}", f"--user={self.settings['user']}"]

    def history(self) -> str:
        """The history that this site goes on with: that of the newest full backup, or a new one (see of_history())."""
        fulls = mysql_backup.full_backups(self.parts)
        deadline = time.monotonic() + MAX_LAG
        while fulls and subtract_gtids(fulls[-1].gtids, mysql_server.read_executed(self.session)):
            replica = mysql_server.read_replica(self.session)
            # One that is behind will have it; a site that began anew never will.
            if replica is None or replica["lag"] == 0 or time.monotonic() > deadline:
                return self.name("history")
            time.sleep(1)
        return fulls[-1].history if fulls else ""

    def seen(self, part: mysql_backup.Part) -> mysql_backup.Part:
        """A full backup whose data was read until now."""
        return replace(part, until=mysql_server.read_executed(self.session), finished=mysql_backup.now())

    def full(self) -> None:
        """A full backup, after the one that another process takes."""
        self.lock(wait=True)
        began, watch = mysql_backup.now(), time.monotonic()
        server = ["version", "lower_case_table_names", "innodb_page_size", "innodb_data_file_path"]
        mariadb = self.session.dialect is mysql_dialect.MARIADB
        if mariadb:
            server.append("innodb_undo_tablespaces")
        part = mysql_backup.Part(
            name=self.name("full"),
            kind="full",
            node=self.me,
            began=began,
            finished="",
            gtids=mysql_server.read_executed(self.session),
            method=mysql_backup.MARIADB_BACKUP if mariadb else self.settings["method"],
            server={name: self.one(f"@@GLOBAL.{name}") for name in server},
            history=self.history(),
        )
        if part.method == "clone":
            self.session.run("CLONE LOCAL DATA DIRECTORY = %s", (str(self.copy),))
            part = self.seen(part)
            command = ["tar", "-C", str(self.copy), "-cf", "-", "."]
        elif mariadb:
            # Nothing of the data comes there.
            command = [*self.client("mariadb-backup"), "--backup", "--stream=mbstream", f"--target-dir={self.mirror}"]
        else:
            command = [*self.client("mysqldump"), "--all-databases", "--single-transaction", "--set-gtid-purged=ON"]
            command += ["--routines", "--events", "--triggers", "--hex-blob", "--no-tablespaces", "--flush-privileges"]
            command += ["--max-allowed-packet=1G"]
        done = self.archive.put(part, self.settings["recipients"], command)
        # When a dump saw the data is not known, only that it was not later.
        done = done if done.finished else self.seen(done)
        self.archive.tell(done)
        self.parts.append(done)
        gone = mysql_backup.outdated(self.parts, self.settings["keep_days"], datetime.now(timezone.utc))
        self.archive.remove(gone)
        took = round(time.monotonic() - watch, 1)
        print(f"{done.name}: {done.size} bytes in {took} s; {len(gone)} outdated parts removed", flush=True)
        told = {"name": done.name, "finished": done.finished, "bytes": done.size, "seconds": took}
        mysql_backup.note(self.state / "status.json", full=told)

    def lock(self, wait: bool) -> bool:
        """Whether no other process takes a full backup; none can until this one ends."""
        if self._lock is None:
            self._lock = (self.state / "full.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def previous(self, log: str) -> str:
        """The transactions that were executed before a binary log began."""
        before = mysql_server.executed_before(self.session, log)
        if before is None:
            raise mysql_backup.BackupError(f"{log} does not begin with the GTIDs before it")
        # MySQL's log names those of the logs before it only, not what came with a copy of another node's data.
        return mysql_backup.union_gtids(before, mysql_server.read_purged(self.session))

    def binlogs(self) -> None:
        """What is new in the binary logs."""
        if reason := mysql_backup.reason_for_full(
            self.parts, mysql_server.read_executed(self.session), mysql_server.read_purged(self.session)
        ):
            if not self.lock(wait=False):
                print(f"a full backup is being taken, the binary logs follow: {reason}", flush=True)
                return
            print(f"a full backup first: {reason}", flush=True)
            self.full()
        logs = [str(row["Log_name"]) for row in self.session.run("SHOW BINARY LOGS")]
        if subtract_gtids(mysql_server.read_executed(self.session), self.previous(logs[-1])):
            # Only a log that is closed does not grow any more.
            self.session.run("FLUSH BINARY LOGS")
            logs = [str(row["Log_name"]) for row in self.session.run("SHOW BINARY LOGS")]
        closed = mysql_backup.now()
        history = mysql_backup.full_backups(self.parts)[-1].history
        parts = mysql_backup.of_history(self.parts, history)
        have = mysql_backup.archived(parts, mysql_backup.full_backups(parts)[0])
        missing: list[tuple[str, str, str]] = []
        executed = after = self.previous(logs[-1])
        for log in reversed(logs[:-1]):
            before = self.previous(log)
            gtids = subtract_gtids(after, before)
            if subtract_gtids(gtids, have):
                missing.append((log, before, gtids))
            if not subtract_gtids(before, have):
                break
            after = before
        for log, before, gtids in reversed(missing):
            self.put(log, before, gtids, closed, history)
        mysql_backup.note(self.state / "status.json", binlogs={"finished": closed, "executed": executed})

    def put(self, log: str, before: str, gtids: str, closed: str, history: str) -> None:
        """One binary log into the archive."""
        with tempfile.TemporaryDirectory(dir=self.state) as folder:
            program = "mariadb-binlog" if self.session.dialect is mysql_dialect.MARIADB else "mysqlbinlog"
            reader = [*self.client(program), "--read-from-remote-server", "--raw", f"--result-file={folder}/"]
            mysql_backup.pipe([*reader, log])
            part = mysql_backup.Part(
                name=f"{self.name('binlog')}-{log}",
                kind="binlog",
                node=self.me,
                began=closed,
                finished=closed,
                gtids=gtids,
                before=before,
                history=history,
            )
            part = self.archive.put(part, self.settings["recipients"], ["cat", f"{folder}/{log}"])
            self.archive.tell(part)
            self.parts.append(part)
            print(f"{part.name}: {gtids}", flush=True)


def main() -> None:
    """Entry point."""
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in ("full", "binlogs", "turn"):
        sys.exit("usage: mysql_backup.py full|binlogs|turn")
    settings = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    chosen = turn(settings["nodes"])
    if chosen != settings["me"] or command == "turn":
        other = chosen if command == "turn" else f"{chosen} takes the backups"
        print(other if chosen else "no node can take a backup: no health agent names a replica or a primary")
        sys.exit(0 if chosen == settings["me"] else 3 if command == "turn" or not chosen else 0)
    status = Path(settings["state"]) / "status.json"
    try:
        backup = Backup(settings, command)
        backup.full() if command == "full" else backup.binlogs()
    except (mysql_backup.BackupError, mysql_server.ServerError, OSError) as error:
        mysql_backup.note(status, **{f"{command}_error": {"at": mysql_backup.now(), "text": str(error)}})
        sys.exit(str(error))
    mysql_backup.note(status, node=settings["me"], **{f"{command}_error": None})


if __name__ == "__main__":
    main()
