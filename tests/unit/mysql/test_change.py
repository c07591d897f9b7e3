"""Every statement of a switchover and a failover may fail, before or after it was executed: never two primaries."""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_change, mysql_server
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import Node, Replica

NAMES = ("db1", "db2", "db3")
ADDRESS = {name: f"10.0.0.{name[-1]}" for name in NAMES}
UUID = {name: f"{letter * 8}-0000-0000-0000-000000000000" for name, letter in zip(NAMES, "abc", strict=True)}
GTIDS = f"{UUID['db1']}:1-100"


class Crash(Exception):
    """The process that changes the roles is killed."""


class Server:
    """As much of a MySQL server as the statements of a change touch."""

    def __init__(self, name: str, writable: bool, source: str = "") -> None:
        self.name, self.read_only, self.super_read_only = name, not writable, not writable
        self.source, self.running = source, bool(source)
        self.dead = False

    def execute(self, statement: str, values: Any) -> list[dict[str, Any]]:
        """What the server would answer."""
        if statement == "SET GLOBAL super_read_only = ON":
            self.read_only = self.super_read_only = True
        elif statement == "SET GLOBAL super_read_only = OFF":
            self.super_read_only = False
        elif statement == "SET GLOBAL read_only = OFF":
            self.read_only = False
        elif statement.startswith("STOP REPLICA"):
            self.running = False
        elif statement.startswith("START REPLICA"):
            self.running = True
        elif statement == "RESET REPLICA ALL":
            self.source = ""
        elif statement.startswith("CHANGE REPLICATION SOURCE"):
            self.source = values[0]
        elif statement == "SHOW REPLICA STATUS":
            thread = "Yes" if self.running else "No"
            return [] if not self.source else [_replica_row(self.source, thread)]
        elif "gtid_executed" in statement:
            return [{"gtids": GTIDS}]
        elif "WAIT_FOR_EXECUTED_GTID_SET" in statement:
            return [{"late": 0}]
        elif "GTID_SUBTRACT" in statement:
            return [{"gtids": ""}]
        return []


def _replica_row(source: str, thread: str) -> dict[str, Any]:
    return {
        "Source_Host": source,
        "Source_Port": 3306,
        "Source_UUID": "",
        "Replica_IO_Running": thread,
        "Replica_SQL_Running": thread,
        "Last_IO_Error": "",
        "Last_SQL_Error": "",
        "Auto_Position": "1",
        "Retrieved_Gtid_Set": "",
        "Seconds_Behind_Source": 0,
    }


class World:
    """Three servers, and the statement at which something goes wrong."""

    def __init__(self, fail_at: int = -1, how: str = "refused") -> None:
        self.servers = {"db1": Server("db1", True), "db2": Server("db2", False, ADDRESS["db1"])}
        self.servers["db3"] = Server("db3", False, ADDRESS["db1"])
        self.fail_at, self.how, self.count = fail_at, how, 0
        # Some statements are sent to several servers side by side.
        self.lock = threading.Lock()

    def writable(self) -> list[str]:
        return [s.name for s in self.servers.values() if not s.read_only]

    def run(self, server: Server, statement: str, values: Any) -> list[dict[str, Any]]:
        with self.lock:
            return self.execute(server, statement, values)

    def execute(self, server: Server, statement: str, values: Any) -> list[dict[str, Any]]:
        self.count += 1
        now = self.count - 1 == self.fail_at
        if now and self.how == "killed":
            raise Crash
        if now and self.how == "dies":
            server.dead, server.read_only = True, True
        if server.dead or (now and self.how == "refused"):
            raise mysql_server.ServerError(f"{server.name}: {statement}")
        answer = server.execute(statement, values)
        assert len(self.writable()) <= 1, f"two primaries after {statement} on {server.name}"
        if now and self.how == "answer lost":
            raise mysql_server.ServerError(f"{server.name}: connection lost in {statement}")
        return answer

    def nodes(self) -> list[Node]:
        found = []
        for s in self.servers.values():
            replica = None
            if s.source:
                thread = "Yes" if s.running else "No"
                replica = Replica(source_host=s.source, io_running=thread, sql_running=thread, lag=0)
            found.append(
                Node(
                    s.name,
                    ADDRESS[s.name],
                    reachable=not s.dead,
                    server_id=int(s.name[-1]),
                    server_uuid=UUID[s.name],
                    read_only=s.read_only,
                    super_read_only=s.super_read_only,
                    gtid_executed=GTIDS,
                    schemas=["shop"],
                    replica=replica,
                )
            )
        return found


class Session(mysql_server.Session):
    """A session to a server of the world."""

    def __init__(self, world: World, server: Server) -> None:
        self.where, self._world, self._server = server.name, world, server

    def close(self) -> None:
        pass

    def run(self, statement: str, values: Any = ()) -> list[dict[str, Any]]:
        return self._world.run(self._server, statement, values)


class Cluster(mysql_change.Cluster):
    """The cluster of the world."""

    def __init__(self, world: World) -> None:
        super().__init__(
            {
                "nodes": [{"name": n, "address": ADDRESS[n], "port": 3306} for n in NAMES],
                "primary": "db1",
                "bootstrap": "",
                "user": "admin",
                "replication_user": "replication",
                "replication_password": "secret",
                "ca": "/ca.pem",
                "sync_timeout": 1,
                "stop_timeout": 1,
                "keep_sessions": [],
                "accept_loss": False,
            }
        )
        self._world = world

    def open(self, name: str, read_timeout: float = 60) -> mysql_server.Session:
        return Session(self._world, self._world.servers[name])

    def survey(self, settle: float = 0) -> list[Node]:
        return self._world.nodes()


def switch(world: World) -> None:
    by_name = {n.name: n for n in world.nodes()}
    mysql_change.switch_over(Cluster(world), by_name["db1"], by_name["db2"], [by_name["db3"]])


def steps() -> int:
    world = World()
    switch(world)
    return world.count


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=5)
    monkeypatch.setattr(mysql_server.time, "sleep", lambda _: None)
    monkeypatch.setattr(mysql_server.time, "monotonic", lambda: next(ticks))


def test_a_switchover_makes_the_candidate_the_only_primary_and_all_others_follow_it() -> None:
    world = World()
    switch(world)
    assert world.writable() == ["db2"]
    assert {n: s.source for n, s in world.servers.items()} == {"db1": "10.0.0.2", "db2": "", "db3": "10.0.0.2"}
    assert world.servers["db1"].super_read_only


@pytest.mark.parametrize("how", ["refused", "answer lost"])
def test_a_statement_that_fails_leaves_one_primary(how: str) -> None:
    for number in range(steps()):
        world = World(number, how)
        try:
            switch(world)
        except mysql_server.ServerError as error:
            assert len(world.writable()) == 1, (number, str(error))
            if "everything was undone" in str(error):
                assert world.writable() == ["db1"]


@pytest.mark.parametrize("how", ["refused", "answer lost", "killed"])
def test_the_next_run_finishes_or_undoes_whatever_was_left(how: str) -> None:
    for number in range(steps()):
        world = World(number, how)
        with contextlib.suppress(mysql_server.ServerError, Crash):
            switch(world)
        assert len(world.writable()) <= 1
        world.fail_at = -1
        mysql_change.complete(Cluster(world))
        (primary,) = world.writable()
        sources = {s.source for n, s in world.servers.items() if n != primary}
        assert sources == {ADDRESS[primary]}, (number, how)
        assert world.servers[primary].source == ""
        assert all(s.running for n, s in world.servers.items() if n != primary)


def test_a_node_that_dies_at_any_statement_never_makes_two_primaries() -> None:
    for number in range(steps()):
        world = World(number, "dies")
        with contextlib.suppress(mysql_server.ServerError):
            switch(world)
        assert len(world.writable()) <= 1


def test_an_unknown_outcome_on_the_candidate_leaves_the_old_primary_fenced() -> None:
    """The candidate vanishes just as it becomes writable: nobody knows whether it did."""
    world = World()
    execute = world.run

    def run(server: Server, statement: str, values: Any) -> list[dict[str, Any]]:
        answer = execute(server, statement, values)
        if server.name == "db2" and statement == "SET GLOBAL read_only = OFF":
            server.dead = True
            raise mysql_server.ServerError("connection lost")
        return answer

    world.run = run  # type: ignore[method-assign]
    with pytest.raises(mysql_server.ServerError, match="no node was made writable"):
        switch(world)
    assert world.servers["db1"].read_only


def test_a_failover_that_fails_promotes_nobody_or_one() -> None:
    def fail(world: World) -> None:
        world.servers["db1"].dead, world.servers["db1"].read_only = True, True
        by_name = {n.name: n for n in world.nodes()}
        mysql_change.fail_over(Cluster(world), by_name["db2"], [by_name["db3"]])

    world = World()
    fail(world)
    assert world.writable() == ["db2"]
    assert world.servers["db3"].source == "10.0.0.2"
    for number in range(world.count):
        for how in ("refused", "answer lost"):
            broken = World(number, how)
            try:
                fail(broken)
            except mysql_server.ServerError as error:
                if "everything was undone" in str(error):
                    assert broken.writable() == []
                    assert all(broken.servers[n].running for n in ("db2", "db3"))
            assert set(broken.writable()) <= {"db2"}
