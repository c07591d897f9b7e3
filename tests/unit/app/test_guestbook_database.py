"""The sample application's promise: no acknowledged write is lost or doubled, and reads go on without the replica."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pymysql = pytest.importorskip("pymysql")
sys.path.insert(0, str(Path(__file__).parents[3] / "molecule/shared/app/guestbook"))
import database  # noqa: E402

LOST = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")
REFUSED = pymysql.err.OperationalError(2003, "Can't connect to MySQL server")
READ_ONLY = pymysql.err.OperationalError(1290, "running with the --super-read-only option")


class Server:
    """Stands in for one endpoint: a table, and the errors that its next statements end with."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.away = False
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.connections = 0

    def execute(self, statement: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        if self.before:
            raise self.before.pop(0)
        if statement.startswith("INSERT"):
            if values[0] in self.rows:
                raise pymysql.err.IntegrityError(1062, "Duplicate entry")
            self.rows[values[0]] = len(self.rows) + 1
            if self.after:
                raise self.after.pop(0)
            return [{"id": self.rows[values[0]]}]
        if statement.startswith("SELECT id FROM"):
            return [{"id": self.rows[values[0]]}]
        if "@@hostname" in statement:
            return [{"name": "db"}]
        return [{"id": i, "token": t} for t, i in sorted(self.rows.items(), key=lambda r: -r[1])]


class Cursor:
    def __init__(self, server: Server) -> None:
        self.server, self.result, self.lastrowid = server, [], 0

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        self.result: list[dict[str, Any]] = self.server.execute(statement, values)
        if self.result and "id" in self.result[0]:
            self.lastrowid = self.result[0]["id"]

    def fetchone(self) -> dict[str, Any]:
        return self.result[0]

    def fetchall(self) -> list[dict[str, Any]]:
        return self.result


class FakeConnection:
    open = True

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect(self, sock: object) -> None:
        pass

    def cursor(self) -> Cursor:
        return Cursor(self.server)

    def _force_close(self) -> None:
        pass


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Server]:
    found = {"writer": Server(), "reader": Server()}

    def connect(host: str, **_: Any) -> FakeConnection:
        server = found[host]
        server.connections += 1
        if server.away:
            raise REFUSED
        return FakeConnection(server)

    monkeypatch.setattr(pymysql, "connect", connect)
    monkeypatch.setattr(database.Endpoint, "_open", lambda self: None)
    monkeypatch.setattr(database.time, "sleep", lambda seconds: None)
    for name in ("NAME", "USER", "PASSWORD"):
        monkeypatch.setenv(f"DATABASE_{name}", "x")
    monkeypatch.setenv("DATABASE_WRITER", "writer:3306")
    monkeypatch.setenv("DATABASE_READER", "reader:3306")
    return found


def add(book: database.Book, token: str) -> int:
    number: int = book.add(token, "me", "hello", "app1")[0]
    return number


@pytest.mark.parametrize("errors", [[LOST], [LOST, LOST], [READ_ONLY], [READ_ONLY, REFUSED, LOST]])
def test_a_write_is_repeated_until_a_primary_takes_it(servers: dict[str, Server], errors: list[Exception]) -> None:
    book = database.Book()
    assert add(book, "first") == 1
    servers["writer"].before = list(errors)
    assert add(book, "second") == 2
    assert servers["writer"].rows == {"first": 1, "second": 2}


def test_a_commit_that_was_not_heard_of_is_found_and_not_written_twice(servers: dict[str, Server]) -> None:
    servers["writer"].after = [LOST]
    assert add(database.Book(), "token") == 1
    assert servers["writer"].rows == {"token": 1}


def test_the_same_token_is_the_same_entry(servers: dict[str, Server]) -> None:
    book = database.Book()
    assert [add(book, "a"), add(book, "b"), add(book, "a")] == [1, 2, 1]


def test_nothing_is_acknowledged_without_a_primary(servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "KEEP_TRYING", 0)
    servers["writer"].away = True
    with pytest.raises(database.Away):
        add(database.Book(), "token")


def test_reads_come_from_the_reader_and_without_it_from_the_writer(servers: dict[str, Server]) -> None:
    servers["writer"].rows, servers["reader"].rows = {"w": 1}, {"r": 1}
    book = database.Book()
    assert book.entries(5)[0][0]["token"] == "r"
    servers["reader"].before = [LOST, LOST]
    assert book.entries(5)[0][0]["token"] == "w"
    # It is left alone for a while: a host that is gone must not cost every request a timeout.
    asked = servers["reader"].connections
    assert book.entries(5)[0][0]["token"] == "w"
    assert servers["reader"].connections == asked


def test_a_stale_connection_is_replaced(servers: dict[str, Server]) -> None:
    servers["reader"].rows = {"r": 1}
    book = database.Book()
    book.entries(5)
    servers["reader"].before = [LOST]
    assert book.entries(5)[0][0]["token"] == "r"
    assert servers["reader"].connections == 2


def test_who_wrote_an_entry_sees_it_although_the_reader_lags(servers: dict[str, Server]) -> None:
    servers["writer"].rows, servers["reader"].rows = {"a": 1, "b": 2}, {"a": 1}
    book = database.Book()
    assert book.entries(5, at_least=2)[0][0]["token"] == "b"
    assert book.entries(5)[0][0]["token"] == "a"


def test_without_any_server_a_read_says_so(servers: dict[str, Server]) -> None:
    for server in servers.values():
        server.away = True
    with pytest.raises(database.Away):
        database.Book().entries(5)
    state = database.Book().state()
    assert all("error" in part for part in state.values())


def test_without_a_primary_some_threads_are_left_for_reads(
    servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers wait for a primary, but not all threads do."""
    monkeypatch.setattr(database, "WAIT_FOR_TURN", 0.01)
    monkeypatch.setattr(database, "KEEP_TRYING", 2)
    servers["writer"].away = True
    book, ended = database.Book(), threading.Event()
    monkeypatch.setattr(database.time, "sleep", lambda seconds: ended.wait(seconds))

    def write() -> None:
        with pytest.raises(database.Away):
            add(book, "token")

    waiting = [threading.Thread(target=write) for _ in range(database.WRITERS)]
    for thread in waiting:
        thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    with pytest.raises(database.Away, match="others wait"):
        add(book, "other")
    assert time.monotonic() - began < 1
    assert book.entries(5)[0] == [] and book.writer_host() == ""
    for thread in waiting:
        thread.join()


@pytest.mark.parametrize(("stalls", "written"), [(0.3, True), (1.2, False)])
def test_a_write_waits_for_those_that_a_replica_holds_up_and_not_for_a_primary_that_is_gone(
    servers: dict[str, Server], monkeypatch: pytest.MonkeyPatch, stalls: float, written: bool
) -> None:
    """Whoever comes late waits only for what is left of the time that a primary waits for its replica."""
    monkeypatch.setattr(database, "WAIT_FOR_TURN", 0.6)
    book, go = database.Book(), threading.Event()
    plain = servers["writer"].execute

    def commit(statement: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        if statement.startswith("INSERT"):
            go.wait(stalls)
        return plain(statement, values)

    monkeypatch.setattr(servers["writer"], "execute", commit)
    holding = [threading.Thread(target=add, args=(book, str(number))) for number in range(database.WRITERS)]
    for thread in holding:
        thread.start()
    began = time.monotonic()
    if written:
        assert add(book, "late")
    else:
        # Half of the patience is spent.
        threading.Event().wait(0.4)
        with pytest.raises(database.Away, match="others wait"):
            add(book, "late")
        assert 0.55 < time.monotonic() - began < 0.9
    go.set()
    for thread in holding:
        thread.join()


def test_who_the_primary_is_is_asked_once_in_a_while(servers: dict[str, Server]) -> None:
    book = database.Book()
    assert [book.writer_host() for _ in range(20)] == ["db"] * 20
    assert servers["writer"].connections == 1
