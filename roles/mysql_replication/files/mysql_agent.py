#!/usr/bin/python3
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on a database node.

``mysql_agent.py health``: answers HAProxy over HTTP, on the socket that systemd passes. Unprivileged.
    /primary            200 when this node is writable and no other node is known to be
    /replica?max_lag=N  200 when this node is a replica that is at most N seconds behind (default 10), also for so
                        long after its source fell silent
    /status             200 and what is known, as JSON
    Everything else is 503 (404 for other paths) with the reason in one line.
``mysql_agent.py resume``: runs once after each start of the server, as root. A primary that only restarted takes its
    place again when every other node answers, is read-only, replicates from it and has nothing that it lacks; until
    then it stays fenced, tries again every second, and says why.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from module_utils import mysql_server
from module_utils.mysql_survey import connection_to, survey
from module_utils.mysql_topology import may_resume

T = TypeVar("T")
CONFIGURATION = Path("/etc/mysql/webstack/agent.json")
# Why the server is fenced, for those who ask the health agent.
REASON = Path("/run/webstack-mysql/fenced")
# A statement's time limit in seconds: HAProxy has given up by then.
LIMIT = 2


class Link:
    """One connection that is kept open, and opened again when it broke."""

    def __init__(self, where: str, connection: dict[str, Any]) -> None:
        self._where, self._connection = where, connection
        self._session: mysql_server.Session | None = None
        self._lock = threading.Lock()

    def ask(self, statement: str) -> dict[str, Any]:
        """The first row of the answer.

        :raises mysql_server.ServerError: there is none.
        """
        return self.do(lambda session: session.one(statement))

    def do(self, question: Callable[[mysql_server.Session], T]) -> T:
        """The answer to a question.

        :raises mysql_server.ServerError: there is none.
        """
        with self._lock:
            for attempt in (1, 2):
                fresh = self._session is None
                try:
                    if self._session is None:
                        self._session = mysql_server.Session(self._where, self._connection, LIMIT, LIMIT)
                    return question(self._session)
                except mysql_server.ServerError:
                    if self._session is not None:
                        self._session.close()
                        self._session = None
                    if fresh or attempt == 2:
                        raise
        raise AssertionError("not reached")


class Health:
    """What this node knows about itself and, once a second, about the others."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.me = settings["me"]
        self.local = Link("this node", mysql_server.by_socket(settings["health_user"], settings["unix_socket"]))
        self.peers = {
            node["name"]: Link(
                node["name"], connection_to(node, settings["user"], settings["password"], settings["ca"])
            )
            for node in settings["nodes"]
            if node["name"] != self.me
        }
        self.writable: dict[str, bool | None] = {}
        # When the source was last heard, on the monotonic clock, and how many seconds this replica was behind it then.
        self._heard: tuple[float, int] | None = None
        for name in self.peers:
            threading.Thread(target=self._watch, args=(name,), daemon=True).start()

    def _watch(self, name: str) -> None:
        while True:
            self._look(name)
            time.sleep(1)

    def _look(self, name: str) -> None:
        try:
            self.writable[name] = not self.peers[name].ask("SELECT @@GLOBAL.read_only AS value")["value"]
        except mysql_server.ServerError:
            self.writable[name] = None

    def primary(self) -> str:
        """Why this node must not be used as the primary; empty when it may."""
        if self.local.ask("SELECT @@GLOBAL.read_only AS value")["value"]:
            if self.local.do(mysql_server.read_replica):
                return f"{self.me} is a replica"
            reason = REASON.read_text(encoding="utf-8").strip() if REASON.exists() else ""
            return f"{self.me} is read-only" + (f": {reason}" if reason else "")
        for name in self.peers:
            if self.writable.get(name):
                self._look(name)  # it may have been demoted within the last second
            if self.writable.get(name):
                return f"two nodes are writable: {self.me} and {name}"
        return ""

    def replica(self, max_lag: int) -> str:
        """Why this node must not be read from; empty when it may."""
        row = self.local.do(mysql_server.read_replica)
        if row is None:
            return f"{self.me} is no replica"
        lag = row["lag"]
        if row["io_running"] == "Connecting" and row["sql_running"] == "Yes" and self._heard:
            # The source is silent. Until more than max_lag has gone by, what this node has is not older than that:
            # meanwhile HAProxy finds out whether the source is gone, or only the way to it.
            since, behind = self._heard
            lag = behind + int(time.monotonic() - since) + 1
            if lag <= max_lag:
                return ""
        if row["io_running"] != "Yes" or row["sql_running"] != "Yes":
            reason = row["sql_error"] or row["io_error"]
            return f"replication does not run on {self.me}" + (f": {reason}" if reason else "")
        if lag is not None:
            self._heard = time.monotonic(), lag
        if lag is None or lag > max_lag:
            return f"{self.me} is {'an unknown time' if lag is None else f'{lag} s'} behind, the limit is {max_lag} s"
        return ""

    def status(self) -> dict[str, Any]:
        """Everything, for people and for monitoring."""
        row = self.local.do(mysql_server.read_replica) or {}
        semi_sync, clients = self.local.do(mysql_server.read_semi_sync)
        return {
            "node": self.me,
            "writable": not self.local.ask("SELECT @@GLOBAL.read_only AS value")["value"],
            "source": row.get("source_host"),
            "lag": row.get("lag"),
            "semi_sync": semi_sync,
            "semi_sync_replicas": clients,
            "primary": self.primary() or "ok",
            "peers_writable": self.writable,
        }


class Handler(BaseHTTPRequestHandler):
    """One check."""

    protocol_version = "HTTP/1.1"
    health: Health

    def do_GET(self) -> None:
        """Answer a check; never an exception's text of more than one line."""
        url = urlsplit(self.path)
        try:
            if url.path == "/primary":
                self._say(self.health.primary())
            elif url.path == "/replica":
                limit = parse_qs(url.query).get("max_lag", ["10"])[0]
                self._say(self.health.replica(int(limit)) if limit.isdigit() else "max_lag is a number of seconds")
            elif url.path == "/status":
                self._answer(200, json.dumps(self.health.status()), "application/json")
            else:
                self._answer(404, "ask for /primary, /replica?max_lag=N or /status")
        except mysql_server.ServerError as error:
            self._say(f"the server on {self.health.me} does not answer: {error}")

    do_HEAD = do_OPTIONS = do_GET

    def _say(self, reason: str) -> None:
        self._answer(503 if reason else 200, " ".join(reason.split()) or "ok")

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.close_connection = True
        # HAProxy hangs up when it has read the status.
        with suppress(ConnectionError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Checks come several times a second: none is worth a line."""


class Server(ThreadingHTTPServer):
    """A server on the socket that systemd listens on (sd_listen_fds(3): the first is descriptor 3)."""

    daemon_threads = True

    def __init__(self, handler: type[Handler]) -> None:
        super().__init__(("", 0), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=3)


def serve(settings: dict[str, Any]) -> None:
    """Answer checks for ever."""
    Handler.health = Health(settings)
    Server(Handler).serve_forever()


def resume(settings: dict[str, Any]) -> None:
    """Wait until this node may be the primary again, or until it is clear that it is not."""
    said = ""
    while True:
        said = _say_once(reason := _try_to_resume(settings), said)
        if not reason:
            REASON.unlink(missing_ok=True)
            return
        time.sleep(1)


def _say_once(reason: str, said: str) -> str:
    if reason and reason != said:
        print(f"this node stays fenced: {reason}", flush=True)
        REASON.parent.mkdir(exist_ok=True)
        REASON.write_text(reason + "\n", encoding="utf-8")
    return reason


def _try_to_resume(settings: dict[str, Any]) -> str:
    """Why not yet; empty when there is nothing left to do."""
    me = settings["me"]
    access = (settings["user"], settings["password"], settings["ca"], me, settings["unix_socket"])

    def look() -> tuple[bool, str]:
        nodes = survey(settings["nodes"], *access)
        mine = next(n for n in nodes if n.name == me)
        if not mine.reachable:
            return False, mine.error
        if mine.writable or mine.replica is not None or mine.fresh:
            return True, ""
        return False, "; ".join(may_resume(mine, [n for n in nodes if n is not mine]))

    settled, reason = look()
    if settled or reason:
        return reason
    with ExitStack() as stack:
        try:
            # Held on every node: nobody can promote another one meanwhile.
            for node in settings["nodes"]:
                session = stack.enter_context(mysql_server.Session(node["name"], connection_to(node, *access), LIMIT))
                if not mysql_server.take_lock(session, 1):
                    return f"another process is changing the roles of the nodes: {node['name']} is locked"
            settled, reason = look()
            if not settled and not reason:
                with mysql_server.Session(me, mysql_server.by_socket("root", settings["unix_socket"])) as session:
                    mysql_server.set_writable(session)
                print(
                    "every other node answers, is read-only and has nothing that this one lacks: writable again",
                    flush=True,
                )
        except mysql_server.ServerError as error:
            return str(error)
    return reason


def main() -> None:
    """Entry point."""
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in ("health", "resume"):
        sys.exit("usage: mysql_agent.py health|resume")
    if mysql_server.PYMYSQL_ERROR:
        sys.exit(f"PyMySQL is missing: {mysql_server.PYMYSQL_ERROR}")
    if command == "health" and os.environ.get("LISTEN_FDS") != "1":
        sys.exit("started by hand: systemctl start mysql-health.socket does it")
    settings = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    (serve if command == "health" else resume)(settings)


if __name__ == "__main__":
    main()
