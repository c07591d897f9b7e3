#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore the archive of backups to a moment: to look at, into the site, or to show that it works."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_restore
short_description: Restore MySQL databases from the archive of backups
version_added: 0.1.0
description:
  - Restores the newest full backup from before a moment into a second server of the host, with a data directory and a
    socket of its own and no network, and executes from the binary logs what was committed before that moment.
  - Everything is planned from GTIDs and the times at which the primary committed.
author: The scaleup.webstack maintainers (@scaleup)
options:
  target: {description: The archive as rclone has it., type: str, required: true}
  rclone: {description: File on the host with rclone's configuration., type: path, required: true}
  identity:
    description: The private key of age or SSH. It is handed on through a pipe, and not written down on the host.
    type: str
    required: true
  before:
    description: >-
      Restore what was committed before this time (ISO 8601, UTC without an offset), or before the transaction with this
      GTID. Empty for all that the archive has.
    type: str
    default: ""
  into:
    description:
      - V(scratch) leaves the second server running.
      - V(site) replaces databases of the host's own server, the primary, by the restored ones; meanwhile all accounts
        but O(keep_accounts) are locked.
      - V(verify) compares the checksums of all tables with those of the host's own server, at the same transaction,
        and records the outcome. O(before) does not count.
      - V(absent) removes the second server.
    type: str
    choices: [scratch, site, verify, absent]
    default: scratch
  databases:
    description: For V(site), the databases to replace; all in the backup when it is empty.
    type: list
    elements: str
    default: []
  keep_accounts:
    description: Names of accounts that are not locked.
    type: list
    elements: str
    default: []
  scratch: {description: Folder of the second server., type: path, default: /var/lib/webstack-scratch}
  state: {description: Folder with the status of the backups., type: path, default: /var/lib/webstack-backup}
  unix_socket:
    description: Socket of the host's own server, entered as root.
    type: path
    default: /run/mysqld/mysqld.sock
requirements: [PyMySQL, age, rclone, zstd]
attributes:
  check_mode: {description: "Can run in check mode, and shows the plan", support: full}
  diff_mode: {description: Has no changes to show, support: none}
"""

EXAMPLES = r"""
- name: The databases as they were before the accident are to be looked at
  scaleup.webstack.mysql_restore:
    target: ops:/srv/backup
    rclone: /etc/mysql/webstack/rclone.conf
    identity: "{{ lookup('ansible.builtin.file', '/root/webstack-backup.key') }}"
    before: "2026-11-28T03:00:00Z"
"""

RETURN = r"""
plan: {description: "What is, or would be, done.", returned: always, type: list, elements: str}
steps: {description: What was done and when., returned: always, type: list, elements: str}
executed: {description: The transactions that the restored data has., returned: when restored, type: str}
"""

import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils import (  # noqa: E402
    mysql_access,
    mysql_backup,
    mysql_copy,
    mysql_server,
)
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_backup import (  # noqa: E402
    Archive,
    BackupError,
    Moment,
    Part,
    pipe,
)
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_change import detached  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import count_gtids, subtract_gtids  # noqa: E402

UNIT = "mysql-scratch.service"
_DAY = 24 * 3600  # seconds


class Scratch:
    """The second server: a data directory and a socket of its own, no network, nothing of the site's configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.socket = folder, folder / "data", folder / "mysqld.sock"
        self.log = folder / "error.log"
        self.program = ["/usr/sbin/mysqld", "--no-defaults", f"--datadir={self.data}"]
        # Known when there is a backup in it.
        self.mariadb = False
        self.client = ["mysql", f"--socket={self.socket}", "--binary-mode", "--max-allowed-packet=1G"]

    def remove(self) -> bool:
        """Stop it and remove its data; whether there was any."""
        # Not there is no error.
        subprocess.run(["systemctl", "stop", UNIT], capture_output=True, check=False)
        there = self.folder.exists()
        shutil.rmtree(self.folder, ignore_errors=True)
        return there

    def fill(self, archive: Archive, full: Part, identity: str) -> None:
        """Run it on a full backup.

        :raises BackupError: the backup cannot be read, or the server does not start on it.
        """
        self.data.mkdir(parents=True)
        for folder in (self.folder, self.data):
            shutil.chown(folder, "mysql", "mysql")
            folder.chmod(0o700)
        # Without these the data cannot be used.
        needed = [f"--{key.replace('_', '-')}={value}" for key, value in full.server.items() if key != "version"]
        self.mariadb = full.method == mysql_backup.MARIADB_BACKUP
        if self.mariadb:
            self.fill_mariadb(archive, full, identity, needed)
        elif full.method == "clone":
            archive.get(full, identity, ["tar", "-C", str(self.data), "-xf", "-"])
            self.start(needed)
        else:
            create = [*self.program, "--initialize-insecure", "--user=mysql", f"--log-error={self.log}", *needed]
            if subprocess.run(create, capture_output=True, check=False).returncode:
                raise BackupError(f"the second server cannot be made: {self.reason()}")
            self.start(needed)
            archive.get(full, identity, self.client)

    def fill_mariadb(self, archive: Archive, full: Part, identity: str, needed: Sequence[str]) -> None:
        """The same with a copy of mariadb-backup.

        :raises BackupError: the backup cannot be read, or the server does not start on it.
        """
        archive.get(full, identity, ["mbstream", "-x", "-C", str(self.data)])
        mysql_copy.prepare(self.data)
        position = mysql_copy.gtid_of(self.data)
        mysql_copy.give_to_server(self.data)
        self.program[0] = "/usr/sbin/mariadbd"
        self.start(needed)
        with self.session() as session:
            session.run("RESET MASTER")
            state = ",".join(part.replace(":1-", "-") for part in full.gtids.split(",") if part)
            session.run("SET GLOBAL gtid_binlog_state = %s", (mysql_copy.state_with(state, position),))

    def reason(self) -> str:
        """What it says last."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-600:] if self.log.exists() else "it wrote no log"

    def start(self, needed: Sequence[str]) -> None:
        """Start it.

        :raises BackupError: it does not start; with the end of its log.
        """
        command = ["systemd-run", f"--unit={UNIT}", "--collect", "--quiet", "--property=User=mysql"]
        command += ["--property=Type=notify", "--property=TimeoutStartSec=3600", "--property=Nice=10"]
        command += [*self.program, f"--socket={self.socket}", f"--pid-file={self.folder}/mysqld.pid"]
        command += [f"--log-error={self.log}", "--skip-networking", "--server-id=1", "--event-scheduler=OFF"]
        command.append("--max-allowed-packet=1G")
        if self.mariadb:
            # Without a binary log it would not know what it has executed.
            command += [f"--log-bin={self.data}/restored", "--gtid-strict-mode=ON", "--skip-slave-start"]
        else:
            command += ["--mysqlx=OFF", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--skip-log-bin"]
            command += ["--skip-replica-start", "--plugin-load-add=auth_socket.so"]
        if subprocess.run([*command, *needed], capture_output=True, check=False).returncode:
            raise BackupError(f"the second server does not start on the restored data: {self.reason()}")

    def session(self) -> mysql_server.Session:
        """A session of root."""
        connection = mysql_server.by_socket("root", str(self.socket))
        return mysql_server.Session("the second server", connection, read_timeout=_DAY)

    def executed(self) -> str:
        """The transactions that it has."""
        with self.session() as session:
            return mysql_server.read_executed(session)


class Restore:
    """One call of the module."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        # rclone as root would write what it finds out about a remote into its configuration.
        self._folder = Path(tempfile.mkdtemp())
        shutil.copy(params["rclone"], self._folder / "rclone.conf")
        self.archive = Archive(params["target"], str(self._folder / "rclone.conf"))
        self.scratch = Scratch(Path(params["scratch"]))
        self.steps: list[str] = []
        self.plan: list[str] = []
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Note a step that is done, with the time since the beginning in seconds."""
        self.steps.append(f"{time.monotonic() - self._began:7.1f} s  {text}")

    def close(self) -> None:
        """Leave nothing but the second server behind."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def parts(self) -> list[Part]:
        """What the archive has."""
        mirror = self._folder / "parts"
        mirror.mkdir(exist_ok=True)
        return self.archive.parts(mirror)

    def local(self) -> mysql_server.Session:
        """A session of root at the host's own server."""
        return mysql_server.Session(
            "this host", mysql_server.by_socket("root", self.params["unix_socket"]), read_timeout=_DAY
        )

    def to_moment(self, check: bool) -> str:
        """Restore to the moment that is wanted; returns the transactions that the second server has then.

        :raises BackupError: the archive does not have it.
        """
        moment, parts = Moment.parse(self.params["before"]), self.parts()
        full = mysql_backup.full_for(parts, moment)
        logs = mysql_backup.chain(parts, full, full.gtids)
        self.plan.append(f"restore {full.name} ({full.size} bytes), finished at {full.finished}")
        self.plan.append(f"execute what is committed in {len(logs)} binary logs after it, up to {moment}")
        if into := {"scratch": f"leave it in a second server, socket {self.scratch.socket}"}.get(self.params["into"]):
            self.plan.append(into)
        if self.params["into"] == "site":
            names = ", ".join(self.params["databases"]) or "all databases that it has"
            self.plan.append(f"lock the accounts of the applications and replace {names} on this primary")
            with self.local() as session:
                if session.one("SELECT @@GLOBAL.read_only AS fenced")["fenced"]:
                    raise BackupError("this host is not the primary: the site's databases are restored on the primary")
        if check:
            return ""
        self.fill(full)
        files = self.fetch(mysql_backup.chain(parts, full, self.scratch.executed()))
        include = ""
        if files and (moment.time or moment.gtid):
            include = self.gtids_before(files, moment)
        if files and (include or not (moment.time or moment.gtid)):
            self.execute(files, include)
        return self.scratch.executed()

    def fill(self, full: Part) -> None:
        """A second server with a full backup."""
        self.scratch.remove()
        self.scratch.fill(self.archive, full, self.params["identity"])
        self.say(f"a second server runs on {full.name}")

    def fetch(self, logs: Sequence[Part]) -> list[str]:
        """Binary logs, in order, as files."""
        folder = self.scratch.folder / "binlogs"
        folder.mkdir()
        files = []
        for part in logs:
            files.append(str(folder / part.name))
            with open(files[-1], "wb") as file:
                self.archive.get(part, self.params["identity"], ["cat"], to=file.fileno())
        self.say(f"{len(files)} binary logs are fetched")
        return files

    def gtids_before(self, files: Sequence[str], moment: Moment) -> str:
        """The transactions in binary logs before a moment."""
        if self.scratch.mariadb:
            return mysql_backup.up_to([found for file in files for found in self.mariadb_log(file)], moment, True)
        command = ["mysqlbinlog", "--base64-output=decode-rows", *files]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as reading:
            assert reading.stdout
            found = list(mysql_backup.transactions(reading.stdout))
        if reading.returncode:
            raise BackupError("mysqlbinlog cannot read the binary logs")
        return mysql_backup.up_to(found, moment)

    def execute(self, files: Sequence[str], gtids: str) -> None:
        """Execute transactions of binary logs, all when none are named; the server skips those that it has."""
        if self.scratch.mariadb:
            self.execute_mariadb(files, gtids)
            return
        wanted = [f"--include-gtids={gtids}"] if gtids else []
        before = self.scratch.executed()
        pipe(["mysqlbinlog", *wanted, *files], self.scratch.client)
        added = count_gtids(subtract_gtids(self.scratch.executed(), before))
        self.say(f"{added} transactions of the binary logs are executed")

    def mariadb_log(self, file: str) -> list[tuple[str, str]]:
        """The transactions of a binary log of MariaDB, in order, with their times."""
        command = ["mariadb-binlog", "--base64-output=decode-rows", file]
        zone = os.environ | {"TZ": "UTC"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", env=zone) as reading:
            assert reading.stdout
            found = list(mysql_backup.mariadb_transactions(reading.stdout))
        if reading.returncode:
            raise BackupError("mariadb-binlog cannot read the binary logs")
        return found

    def execute_mariadb(self, files: Sequence[str], gtids: str) -> None:
        """The same on MariaDB, which skips nothing by itself: each log from where the server stands."""
        before = self.scratch.executed()
        for file in files:
            have = self.scratch.executed()
            todo = [g for g, _ in self.mariadb_log(file) if subtract_gtids(g, have)]
            if gtids:
                todo = [g for g in todo if not subtract_gtids(g, gtids)]
            if not todo:
                continue
            with self.scratch.session() as session:
                start = str(session.one("SELECT @@GLOBAL.gtid_binlog_pos AS gtid")["gtid"])
            last = {g.partition("-")[0]: g.replace(":", "-") for g in todo}
            command = ["mariadb-binlog", f"--stop-position={','.join(last.values())}"]
            if start:
                command.append(f"--start-position={start}")
            pipe([*command, file], self.scratch.client)
        added = count_gtids(subtract_gtids(self.scratch.executed(), before))
        self.say(f"{added} transactions of the binary logs are executed")

    def into_site(self) -> None:
        """Replace databases of the site by the restored ones.

        :raises BackupError: the backup does not have them, or they could not be loaded; the accounts stay locked then.
        """
        with self.scratch.session() as session:
            there = mysql_server.read_state(session)["schemas"]
        wanted = self.params["databases"] or there
        if missing := sorted(set(wanted) - set(there)):
            raise BackupError(f"the backup has no {', '.join(missing)}; it has {', '.join(there) or 'no databases'}")
        with self.local() as session:
            locked = self.lock_accounts(session)
            self.say(f"{len(locked)} accounts are locked")
            dump = ["mysqldump", "--socket", str(self.scratch.socket), "--single-transaction", "--routines", "--events"]
            dump += ["--triggers", "--hex-blob", "--no-tablespaces", "--add-drop-database"]
            if self.scratch.mariadb:
                dump[0] = "mariadb-dump"
            else:
                dump.append("--set-gtid-purged=OFF")
            load = ["mysql", "--socket", self.params["unix_socket"], "--binary-mode", "--max-allowed-packet=1G"]
            try:
                pipe([*dump, "--max-allowed-packet=1G", "--databases", *wanted], load)
            except BackupError as error:
                raise BackupError(
                    f"{error}. The databases are half restored, the accounts stay locked: mend the cause, run it again"
                ) from error
            # What comes from a replica's copy is disabled there.
            for row in session.run(
                "SELECT EVENT_SCHEMA AS d, EVENT_NAME AS e FROM information_schema.EVENTS "
                "WHERE STATUS LIKE '%%SIDE_DISABLED' AND EVENT_SCHEMA IN %s",
                (tuple(wanted),),
            ):
                session.run(f"ALTER EVENT {_quoted(row['d'])}.{_quoted(row['e'])} ENABLE")
            self.say(f"restored into the site: {', '.join(wanted)}")
            self.unlock_accounts(session, locked)
        self.scratch.remove()
        self.say("the accounts are open again, the second server is removed")

    def lock_accounts(self, session: mysql_server.Session) -> list[list[str]]:
        """Lock out the applications; the list is kept on disk until they are let in again."""
        record = Path(self.params["state"]) / "locked.json"
        locked: list[list[str]] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
        rows = session.run(mysql_access.VENDORS[session.dialect.vendor].users)
        keep = ["root", *self.params["keep_accounts"]]
        now = [
            [r["name"], r["host"]]
            for r in rows
            if not int(r["locked"])
            and r["name"] not in keep
            # What the servers make for themselves; on MariaDB it is mysql@localhost, entered by the socket.
            and not r["name"].startswith(("mysql.", "mariadb."))
            and (r["name"], r["host"]) != ("mysql", "localhost")
        ]
        locked += now
        record.parent.mkdir(exist_ok=True)
        record.write_text(json.dumps(locked), encoding="utf-8")
        for user, host in now:
            session.run("ALTER USER %s@%s ACCOUNT LOCK", (user, host))
        for number, _ in mysql_server.application_sessions(session, keep):
            try:
                session.run(f"KILL {number}")
            except mysql_server.ServerError:
                continue  # it has gone by itself
        return locked

    def unlock_accounts(self, session: mysql_server.Session, locked: list[list[str]]) -> None:
        """Let them in again."""
        for user, host in locked:
            session.run("ALTER USER IF EXISTS %s@%s ACCOUNT UNLOCK", (user, host))
        (Path(self.params["state"]) / "locked.json").unlink()

    def verify(self) -> str:
        """Restore the newest full backup and all that follows, and compare it with this host's server.

        :raises BackupError: they differ, or the archive lacks something.
        """
        with ExitStack() as stack:
            live = stack.enter_context(self.local())
            executed = snapshot(live, stack.enter_context(self.local()))
            # What was committed since the timer's last run.
            pipe(["systemctl", "start", "mysql-binlogs.service"])
            parts = self.parts()
            fulls = [p for p in mysql_backup.full_backups(parts) if not subtract_gtids(p.until, executed)]
            if not fulls:
                raise BackupError("the archive has no full backup from before now: run the playbook backup")
            self.fill(fulls[-1])
            files = self.fetch(mysql_backup.chain(parts, fulls[-1], self.scratch.executed()))
            if files:
                self.execute(files, executed)
            if missing := subtract_gtids(executed, self.scratch.executed()):
                raise BackupError(f"the archive lacks transactions: {missing}")
            with self.scratch.session() as restored:
                tables = names(live)
                if tables != names(restored):
                    differ = sorted(set(tables) ^ set(names(restored)))
                    raise BackupError(f"the restored server has other tables than this one: {', '.join(differ)}")
                if differ := [t for t in tables if checksum(live, t) != checksum(restored, t)]:
                    raise BackupError(f"tables differ from those of this server: {', '.join(differ)}")
        self.say(f"{len(tables)} tables have the checksums that they have here")
        self.scratch.remove()
        told = {"at": mysql_backup.now(), "backup": fulls[-1].name, "executed": executed, "tables": len(tables)}
        told["seconds"] = round(time.monotonic() - self._began, 1)
        mysql_backup.note(Path(self.params["state"]) / "status.json", verified=told)
        return executed


def snapshot(session: mysql_server.Session, control: mysql_server.Session) -> str:
    """Begin a transaction in which a session sees one state of the data; the transactions that this state has."""
    follows = mysql_server.read_replica(control) is not None
    control.run("SET SESSION lock_wait_timeout = 10")
    control.run("STOP REPLICA SQL_THREAD" if follows else "FLUSH TABLES WITH READ LOCK")
    try:
        executed = mysql_server.read_executed(control)
        session.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    finally:
        control.run("START REPLICA SQL_THREAD" if follows else "UNLOCK TABLES")
    return executed


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def names(session: mysql_server.Session) -> list[str]:
    """The tables of the applications, quoted."""
    rows = session.run(
        "SELECT TABLE_SCHEMA AS d, TABLE_NAME AS t FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' "
        "AND TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')"
    )
    return sorted(f"{_quoted(r['d'])}.{_quoted(r['t'])}" for r in rows)


def checksum(session: mysql_server.Session, table: str) -> int:
    """The checksum of a table.

    :raises BackupError: its definition was changed meanwhile.
    """
    value = session.one(f"CHECKSUM TABLE {table}").get("Checksum")
    if value is None:
        raise BackupError(f"{table} was changed in its definition while it was compared: run it again")
    return int(value)


def _change(params: dict[str, Any], check: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"changed": False}
    try:
        restore = Restore(params)
    except OSError as error:
        return {"error": f"{error.filename}: {error.strerror}: run the site's play first"}
    try:
        if params["into"] == "absent":
            restore.plan.append("remove the second server")
            result["changed"] = restore.scratch.folder.exists() if check else restore.scratch.remove()
        elif params["into"] == "verify":
            restore.plan.append(
                "restore the newest full backup and its binary logs, compare all tables with this server's"
            )
            if not check:
                result["executed"] = restore.verify()
        else:
            result["executed"] = restore.to_moment(check)
            result["changed"] = True
            if params["into"] == "site" and not check:
                restore.into_site()
    except (BackupError, mysql_server.ServerError, OSError) as error:
        result["error"] = str(error)
    finally:
        restore.close()
    result["plan"], result["steps"] = restore.plan, restore.steps
    if params["into"] == "verify" and "error" in result:
        restore.scratch.remove()
        told = {"at": mysql_backup.now(), "text": result["error"]}
        mysql_backup.note(Path(params["state"]) / "status.json", verify_error=told)
    elif params["into"] == "verify" and not check:
        mysql_backup.note(Path(params["state"]) / "status.json", verify_error=None)
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "target": {"type": "str", "required": True},
            "rclone": {"type": "path", "required": True},
            "identity": {"type": "str", "required": True, "no_log": True},
            "before": {"type": "str", "default": ""},
            "into": {"type": "str", "default": "scratch", "choices": ["scratch", "site", "verify", "absent"]},
            "databases": {"type": "list", "elements": "str", "default": []},
            "keep_accounts": {"type": "list", "elements": "str", "default": []},
            "scratch": {"type": "path", "default": "/var/lib/webstack-scratch"},
            "state": {"type": "path", "default": "/var/lib/webstack-backup"},
            "unix_socket": {"type": "path", "default": mysql_server.SOCKET},
        },
        supports_check_mode=True,
    )
    if mysql_server.PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=str(mysql_server.PYMYSQL_ERROR))
    params, check = module.params, module.check_mode
    result = _change(params, check) if check else detached(lambda: _change(params, check))
    if error := result.pop("error", ""):
        module.fail_json(msg=error, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
