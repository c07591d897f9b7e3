# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing which node is the primary, in one process that talks to all of them.

The order of the statements is that of MySQL Shell's ReplicaSet (replica_set_impl.cc: set_primary_instance,
force_primary_instance), with undo at every step before the candidate is writable.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import mysql_copy, mysql_dialect, mysql_server
from .mysql_survey import connection_to, survey
from .mysql_topology import Node, Verdict, judge, subtract_gtids

# Where the outcome is kept for an operator whose controller went away.
OUTCOME = Path("/run/webstack-mysql/last-change.json")


class Cluster:
    """Sessions to the nodes, entered with the parameters that all modules share."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self._nodes = {n["name"]: n for n in params["nodes"]}
        self._sessions: dict[str, mysql_server.Session] = {}
        self._silent: dict[str, str] = {}
        # Seconds that a node gets to accept a connection.
        self._timeout: float = params.get("timeout") or 3
        self.steps: list[str] = []
        self._began = time.monotonic()

    def connection(self, name: str) -> dict[str, Any]:
        """How to reach a node."""
        p = self.params
        return connection_to(self._nodes[name], p["user"], p["password"], p["ca"], p["me"], p["unix_socket"])

    def open(self, name: str, read_timeout: float = 60) -> mysql_server.Session:
        """A new session to a node."""
        return mysql_server.Session(name, self.connection(name), self._timeout, read_timeout)

    def __getitem__(self, name: str) -> mysql_server.Session:
        """The session to a node that is kept open.

        :raises mysql_server.ServerError: the node does not answer.
        """
        if name not in self._sessions:
            self._sessions[name] = self.open(name)
        return self._sessions[name]

    def close(self) -> None:
        """End all sessions; the locks go with them."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def survey(self, settle: float = 0) -> list[Node]:
        """The state of all nodes. One that did not answer lock() is not asked again."""
        p = self.params
        asked = [n for n in p["nodes"] if n["name"] not in self._silent]
        found = survey(asked, p["user"], p["password"], p["ca"], p["me"], p["unix_socket"], settle, self._timeout)
        return found + [
            Node(name, self._nodes[name]["address"], self._nodes[name]["port"], reachable=False, error=error)
            for name, error in self._silent.items()
        ]

    def judge(self, nodes: list[Node]) -> Verdict:
        """What each node has to do."""
        return judge(nodes, self.params["primary"], self.params["bootstrap"])

    def lock(self) -> None:
        """Keep every other process from changing roles, on all nodes that answer, until close().

        :raises mysql_server.ServerError: one is at it already.
        """

        def enter(name: str) -> None:
            try:
                self[name]
            except mysql_server.ServerError as error:
                self._silent[name] = str(error)  # whether it may be missing is judged by the caller

        with ThreadPoolExecutor(max(1, len(self._nodes))) as pool:
            list(pool.map(enter, self._nodes))
        # Always in the same order, so that of two processes one gets them all.
        for name in sorted(self._sessions):
            if not mysql_server.take_lock(self[name], 10):
                raise mysql_server.ServerError(f"another process is changing the roles of the nodes: {name} is locked")

    def follow(self, name: str, source: Node, seconds: float = 20) -> None:
        """Make a node a replica of ``source``, fenced, and wait until it replicates."""
        mysql_server.set_fenced(self[name])
        self.set_source(name, source)
        mysql_server.start_replica(self[name], seconds)

    def set_source(self, name: str, source: Node) -> None:
        """Configure a node's source."""
        p = self.params
        mysql_server.set_source(
            self[name], source.address, source.port, p["replication_user"], p["replication_password"], p["ca"]
        )

    def password_is_old(self, name: str, replication_password: str) -> bool:
        """Whether a replica still uses another password than the one that it should have."""
        return mysql_server.source_password(self[name]) != replication_password

    def say(self, text: str) -> None:
        """Note a step that is done, with the time since the beginning in seconds."""
        self.steps.append(f"{time.monotonic() - self._began:7.3f} s  {text}")
        # The tests end the process here, as a power cut would.
        if os.environ.get("WEBSTACK_DIE_AFTER") == str(len(self.steps)):
            os.kill(os.getpid(), signal.SIGKILL)


def left_behind(verdict: Verdict) -> dict[str, str]:
    """What an interrupted change left to do. A replica that somebody merely stopped is not part of it."""
    todo = {name: action for name, action in verdict.actions.items() if action != "keep"}
    if verdict.primary not in todo:
        todo = {name: action for name, action in todo.items() if action != "start"}
    return todo


def complete(cluster: Cluster) -> list[Node]:
    """Finish or undo what an interrupted change left behind, and return the state of all nodes.

    :raises mysql_server.ServerError: the nodes contradict each other; carries the facts.
    """
    nodes = cluster.survey()
    verdict = cluster.judge(nodes)
    if verdict.problems:
        raise mysql_server.ServerError("\n".join([*verdict.problems, "Found:", *verdict.facts]))
    todo = left_behind(verdict)
    if not todo:
        return nodes
    blocked = sorted(f"{name} ({action})" for name, action in todo.items() if action in ("clone", "bootstrap"))
    if blocked:
        raise mysql_server.ServerError(f"the site's play has not given every node its place yet: {', '.join(blocked)}")
    primary = next(n for n in nodes if n.name == verdict.primary)
    action = todo.pop(primary.name, "keep")
    if action in ("resume", "finish"):
        mysql_server.set_writable(cluster[primary.name])
    if action in ("promoted", "finish"):
        mysql_server.forget_source(cluster[primary.name])
    for name, wanted in todo.items():
        if wanted == "start":
            mysql_server.start_replica(cluster[name])
        else:
            cluster.follow(name, primary)
    words = {"resume": "undone", "finish": "finished", "promoted": "finished", "keep": "completed"}
    cluster.say(f"an interrupted change was {words[action]}: {primary.name} is the primary")
    return cluster.survey()


def switch_over(cluster: Cluster, primary: Node, candidate: Node, others: list[Node]) -> float:
    """Hand the primary's role over, and return the seconds for which writes stood still.

    :raises mysql_server.ServerError: it was undone; the old primary is writable again.
    """
    params = cluster.params
    old, new = cluster[primary.name], cluster[candidate.name]
    replicas = [candidate, *others]
    own = [params["user"], params["replication_user"], "root", *params["keep_sessions"]]
    # Before anything is stopped: whoever is far behind would hold up the writes.
    target = mysql_server.read_executed(old)
    for node in replicas:
        if not mysql_server.wait_for_gtids(cluster[node.name], target, params["sync_timeout"]):
            raise mysql_server.ServerError(
                f"{node.name} did not catch up within {params['sync_timeout']} s; nothing was changed"
            )
    cluster.say("all replicas have caught up; writes are stopped now")
    with Undo() as undo:
        began = time.monotonic()
        undo(lambda: mysql_server.set_writable(old))
        with cluster.open(primary.name, params["stop_timeout"] + 5) as fence:
            fence.run("SET SESSION lock_wait_timeout = %s", (params["stop_timeout"],))
            fence.run("FLUSH TABLES WITH READ LOCK")
            mysql_server.set_fenced(old)
        mysql_server.end_unfenced(old, own)
        cluster.say(f"{primary.name} is fenced")
        old.run("FLUSH BINARY LOGS")
        target = mysql_server.read_executed(old)
        for node in replicas:
            if not mysql_server.wait_for_gtids(cluster[node.name], target, params["stop_timeout"]):
                raise mysql_server.ServerError(
                    f"{node.name} did not apply the last writes within {params['stop_timeout']} s"
                )
        cluster.say("all replicas have the last write")
        undo(lambda: new.run("START REPLICA"))
        new.run("STOP REPLICA")
        cluster.say(f"{candidate.name} has stopped replicating")
        undo(lambda: mysql_server.forget_source(old))
        cluster.set_source(primary.name, candidate)
        cluster.say(f"{primary.name} has {candidate.name} as its source")
        # Waited for: it shows that the way back works, and the first write finds a replica that acknowledges it.
        mysql_server.start_replica(old, params["stop_timeout"])
        cluster.say(f"{primary.name} replicates from {candidate.name}")
        undo(lambda: mysql_server.set_fenced(new), must=True)
        mysql_server.set_writable(new)
    stood_still = time.monotonic() - began
    cluster.say(f"{candidate.name} is writable; writes stood still for {stood_still:.3f} s")
    # The old primary's clients would meet a read-only server until they reconnect.
    for number, _ in mysql_server.application_sessions(old, own):
        with contextlib.suppress(mysql_server.ServerError):  # it has gone by itself
            old.run(f"KILL {number}")
    for node in others:
        cluster.follow(node.name, candidate)
        cluster.say(f"{node.name} replicates from {candidate.name}")
    mysql_server.forget_source(new)
    cluster.say(f"{candidate.name} has forgotten its old source")
    return stood_still


def fail_over(cluster: Cluster, candidate: Node, others: list[Node]) -> float:
    """Make a replica the primary after the old one is gone; returns the seconds that it took.

    :raises mysql_server.ServerError: nothing was promoted, and the replicas are as they were.
    """
    began = time.monotonic()
    new = cluster[candidate.name]
    with Undo() as undo:
        received: list[str] = []
        sessions = [cluster[node.name] for node in [candidate, *others]]
        for session in sessions:
            undo(lambda session=session: session.run("START REPLICA IO_THREAD"))  # type: ignore[misc]
        # Side by side: one that is just calling the dead primary stops only when that ends.
        with ThreadPoolExecutor(len(sessions)) as pool:
            list(pool.map(lambda session: session.run("STOP REPLICA IO_THREAD"), sessions))
        for session in sessions:
            received.append((mysql_server.read_replica(session) or {}).get("retrieved", ""))
            received.append(mysql_server.read_executed(session))
        cluster.say("no replica receives any more")
        own = (mysql_server.read_replica(new) or {}).get("retrieved", "")
        if own and not mysql_server.wait_for_gtids(new, own, cluster.params["sync_timeout"]):
            raise mysql_server.ServerError(
                f"{candidate.name} did not apply what it had received within {cluster.params['sync_timeout']} s"
            )
        cluster.say(f"{candidate.name} has applied all that it had received")
        if not cluster.params["accept_loss"]:
            executed = mysql_server.read_executed(new)
            for gtids in filter(None, received):
                if missing := subtract_gtids(gtids, executed):
                    raise mysql_server.ServerError(f"{candidate.name} lacks transactions of another replica: {missing}")
        undo(lambda: new.run("START REPLICA"))
        new.run("STOP REPLICA")
        undo(lambda: mysql_server.set_fenced(new), must=True)
        mysql_server.set_writable(new)
    took = time.monotonic() - began
    cluster.say(f"{candidate.name} is writable")
    mysql_server.forget_source(new)
    for node in others:
        cluster.follow(node.name, candidate)
        cluster.say(f"{node.name} replicates from {candidate.name}")
    return took


def donor_for(nodes: list[Node], name: str, primary: Node) -> Node:
    """Whose data to copy: a replica that keeps up, so that the primary is not disturbed, else the primary."""
    able = [n for n in nodes if n.name != name and n.replica is not None and n.follows(primary) and n.replica.running]
    return min(able, key=lambda n: (n.replica.lag or 0 if n.replica else 0, n.name), default=primary)


def clone(cluster: Cluster, name: str, donor: Node) -> None:
    """Replace a node's data by a copy of another node's; its server restarts. Runs on that node.

    :raises mysql_server.ServerError: the copy failed.
    """
    session = cluster.open(name, 24 * 3600)
    if session.dialect is mysql_dialect.MARIADB:
        _copy_by_backup(cluster, name, donor, session)
    else:
        _clone_by_server(cluster, name, donor, session)


def _copy_by_backup(cluster: Cluster, name: str, donor: Node, session: mysql_server.Session) -> None:
    data = Path(str(session.one("SELECT @@GLOBAL.datadir AS folder")["folder"]))
    session.close()
    folder = mysql_copy.incoming(data)
    try:
        state = mysql_copy.fetch(donor.address, cluster.params, folder)
        cluster.say(f"{name} has the data of {donor.name}")
        mysql_copy.prepare(folder)
        position = mysql_copy.gtid_of(folder)
    except mysql_server.ServerError:
        mysql_copy.incoming(data).rmdir()
        raise
    # No session of this process may hold up the end of the server.
    cluster.close()
    mysql_copy.run(["systemctl", "stop", "mariadb.service"], f"the server on {name} does not stop")
    mysql_copy.exchange(data)
    mysql_copy.run(["systemctl", "start", "mariadb.service"], f"the server on {name} does not start on the copy")
    with cluster.open(name, 600) as after:
        for statement in ("STOP REPLICA", "RESET REPLICA ALL", "RESET MASTER"):
            after.run(statement)
        after.run("SET GLOBAL gtid_binlog_state = %s", (mysql_copy.state_with(state, position),))
        after.run("SET GLOBAL gtid_slave_pos = %s", (position,))
    mysql_copy.forget_old(data)
    cluster.say(f"{name} has copied the data of {donor.name} and runs on it")


def _clone_by_server(cluster: Cluster, name: str, donor: Node, session: mysql_server.Session) -> None:
    params = cluster.params
    for statement in ("STOP REPLICA", "RESET REPLICA ALL"):
        session.run(statement)
    session.run("SET GLOBAL clone_valid_donor_list = %s", (f"{donor.address}:{donor.port}",))
    session.run("SET GLOBAL clone_ssl_ca = %s", (params["ca"],))
    # The data is replaced while the server runs: no client may write, but the copy itself must.
    session.run("SET GLOBAL super_read_only = OFF")
    session.run("SET GLOBAL read_only = ON")
    try:
        session.run(
            "CLONE INSTANCE FROM %s@%s:%s IDENTIFIED BY %s REQUIRE SSL",
            (params["user"], donor.address, donor.port, params["password"]),
        )
    except mysql_server.ServerError as error:
        # 2013 and 2006: the server restarts into the copy; 3707: it stops, and its supervisor starts it.
        if not any(f"(MySQL error {number})" in str(error) for number in (2013, 2006, 3707)):
            with contextlib.suppress(mysql_server.ServerError):
                mysql_server.set_fenced(session)
            raise
    finally:
        session.close()
        cluster.close()
    cluster.say(f"{name} has copied the data of {donor.name} and restarts")
    deadline = time.monotonic() + params["restart_timeout"]
    while True:
        time.sleep(0.5)
        try:
            with cluster.open(name) as after:
                row = after.one("SELECT STATE AS state, ERROR_MESSAGE AS text FROM performance_schema.clone_status")
                if row.get("state") == "Completed":
                    return
                if row.get("state") == "Failed":
                    raise mysql_server.ServerError(f"the copy failed: {row['text']}")
        except mysql_server.ServerError as error:
            if "the copy failed" in str(error):
                raise
        if time.monotonic() > deadline:
            raise mysql_server.ServerError(f"{name} did not come back within {params['restart_timeout']} s")


class Undo:
    """Steps that take back what was done, run in reverse when the block fails with a ServerError.

    After a step that ``must`` succeed and did not, the earlier ones are left: making the old primary writable while
    nobody knows about the new one would be worse than standing still.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[[], Any], bool]] = []

    def __call__(self, step: Callable[[], Any], must: bool = False) -> None:
        """Register a step, before what it takes back is done."""
        self._steps.append((step, must))

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, mysql_server.ServerError):
            return
        outcome = "everything was undone"
        for step, must in reversed(self._steps):
            try:
                step()
            except mysql_server.ServerError as failure:
                outcome = f"undoing failed: {failure}"
                if must:
                    outcome += "; no node was made writable"
                    break
        raise mysql_server.ServerError(f"{error}; {outcome}") from error


def detached(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do ``work`` in a process that goes on when the controller, or the connection to it, goes away.

    Its result is returned, and kept in OUTCOME. An ``error`` in it is the reason of a failure.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        try:
            result = work()
        except mysql_server.ServerError as error:
            result = {"error": str(error)}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        text = json.dumps(result)
        with contextlib.suppress(OSError):
            OUTCOME.parent.mkdir(mode=0o755, exist_ok=True)
            OUTCOME.write_text(text + "\n", encoding="utf-8")
        with contextlib.suppress(OSError):
            os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    if not data:
        return {"error": "the process was killed; run this again: it finishes or undoes the change"}
    result_read: dict[str, Any] = json.loads(data)
    return result_read
