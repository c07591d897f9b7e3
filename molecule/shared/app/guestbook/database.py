"""The guest book's tables: written on the primary, read from a replica, and what to do when one of them is away.

DATABASE_WRITER, DATABASE_READER   host:port; the reader is the writer where it is not set
DATABASE_NAME, DATABASE_USER, DATABASE_PASSWORD
DATABASE_TLS_CA                    path of the authority that signs the servers' certificates; empty: no TLS
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import pymysql
from pymysql.connections import Connection
from pymysql.constants import ER
from pymysql.cursors import DictCursor

T = TypeVar("T")

# Seconds. A server that is gone must not hold a worker for long; a semi-synchronous commit may take a moment.
CONNECT_TIMEOUT = 2
# (Checks find out in 4 to 6 s that a replica hangs. Until then, each read would be a thread that waits for it.)
READ_TIMEOUT = 1
WRITE_TIMEOUT = 10
# A connection that says nothing for a second is asked every second, and given up after three.
OPTIONS = {
    (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 3,
}
# How long a write is tried before the client is told, and how long a silent reader is not asked again.
KEEP_TRYING = 6
LEAVE_ALONE = 5
# How many threads of a process may wait for the writer at once: while the primary is gone, the others go on answering
# reads. Another one waits for its turn until they have been away for longer than a primary waits for a replica that is
# gone (2 s): then there is no primary, and it would only be one more thread that answers no reads.
WRITERS = 2
WAIT_FOR_TURN = 2.5
WAIT_WITHOUT_PRIMARY = 0.2
# How old the answer to "who is the primary" may be, and how long it may take.
PRIMARY_KNOWN_FOR = 1
PRIMARY_TIMEOUT = 1

# A server that says one of these is not the primary (any more), or is on its way down.
NOT_WRITABLE = {ER.OPTION_PREVENTS_STATEMENT, 1836, 3100, ER.SERVER_SHUTDOWN}


class Away(Exception):
    """No server did what was asked."""


class Endpoint:
    """One address of the database: a connection for each thread, made again when it has gone stale.

    :param shared: one connection for all threads, which take turns.
    """

    def __init__(self, address: str, timeout: float, shared: bool = False) -> None:
        self.host, _, port = address.rpartition(":")
        self.port, self.timeout = int(port), timeout
        self.name = ""
        self._local: Any = SimpleNamespace() if shared else threading.local()

    def connect(self) -> Connection:
        ca = os.environ.get("DATABASE_TLS_CA")
        # The name is not compared: behind the endpoint stands now this server, now that one.
        tls = {"ssl_ca": ca, "ssl_verify_cert": True, "ssl_verify_identity": False} if ca else {}
        connection: Connection = pymysql.connect(
            host=self.host,
            port=self.port,
            user=os.environ["DATABASE_USER"],
            password=os.environ["DATABASE_PASSWORD"],
            database=os.environ["DATABASE_NAME"],
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=self.timeout,
            write_timeout=self.timeout,
            charset="utf8mb4",
            # Every statement is a transaction: what is answered is committed, what is read is not an old snapshot.
            autocommit=True,
            cursorclass=DictCursor,
            defer_connect=True,
            **tls,
        )
        connection.connect(self._open())
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@hostname AS name")
            row = cursor.fetchone()
            assert row is not None
            self._local.name = self.name = row["name"]
        return connection

    def _open(self) -> socket.socket:
        """A connection on which the silence of the other end is noticed.

        The virtual IP may move while a greeting or an answer is waited for, and a balancer that hangs says no word of
        that. Asked for a sign of life, the one that has the address now resets the connection (RFC 9293, 3.5.2).

        :raises pymysql.err.OperationalError: there is no connection.
        """
        try:
            opened = socket.create_connection((self.host, self.port), CONNECT_TIMEOUT)
        except OSError as error:
            raise pymysql.err.OperationalError(2003, f"{self.host}:{self.port}: {error}") from error
        for option, value in OPTIONS.items():
            opened.setsockopt(*option, value)
        return opened

    def run(self, work: Callable[[DictCursor], T]) -> tuple[T, str]:
        """What `work` returns, and the server's name. A kept connection that turns out to be dead is replaced once; one
        on which nobody answers in time is not: a new one would wait for the same server.

        :raises pymysql.err.Error: the server is away, or refused.
        """
        kept: Connection | None = getattr(self._local, "connection", None)
        for connection in [kept, None] if kept else [None]:
            try:
                connection = connection or self.connect()
                self._local.connection = connection
                with connection.cursor() as cursor:
                    return work(cursor), self._local.name
            except (pymysql.err.OperationalError, pymysql.err.InterfaceError, pymysql.err.InternalError) as error:
                self.forget()
                if connection is not kept or kept is None or isinstance(error.__context__, TimeoutError):
                    raise
        raise AssertionError("not reached")

    def forget(self) -> None:
        """Close this thread's connection."""
        connection: Connection | None = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None and connection.open:
            connection._force_close()


class Turns:
    """Who may use the writer: WRITERS threads at once; others wait for a while."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._since: list[float] = []
        self._away = False

    def take(self) -> float:
        """Wait for a turn; what it returns gives it back.

        :raises Away: no other thread gave its turn back in time.
        """
        began = time.monotonic()
        with self._free:
            while len(self._since) >= WRITERS:
                patience = began if self._away else min(min(self._since), began) + WAIT_FOR_TURN
                left = max(patience, began + WAIT_WITHOUT_PRIMARY) - time.monotonic()
                if left <= 0:
                    raise Away("no server takes a write: others wait for one already")
                self._free.wait(left)
            now = time.monotonic()
            self._since.append(now)
        return now

    def give(self, turn: float, away: bool) -> None:
        """The turn is over; whether there was no primary."""
        with self._free:
            self._since.remove(turn)
            self._away = away
            self._free.notify()


class Book:
    """The entries."""

    def __init__(self) -> None:
        writer = os.environ.get("DATABASE_WRITER", "127.0.0.1:3306")
        self.writer = Endpoint(writer, WRITE_TIMEOUT)
        self.reader = Endpoint(os.environ.get("DATABASE_READER") or writer, READ_TIMEOUT)
        self._reader_away_until = 0.0
        self._turns = Turns()
        # Apart from the writer, whose timeout is that of a commit: who only looks is not kept for so long.
        self._asker = Endpoint(writer, PRIMARY_TIMEOUT, shared=True)
        self._asking = threading.Lock()
        self._primary, self._primary_until = "", 0.0

    def entries(self, limit: int, at_least: int = 0) -> tuple[list[dict[str, Any]], str]:
        """The newest entries first, and the name of the server that they came from.

        From the reader; from the writer when the reader is away, or has not yet got entry `at_least` (somebody who
        wrote an entry sees it at once).

        :raises Away: neither answers.
        """

        def read(cursor: DictCursor) -> list[dict[str, Any]]:
            cursor.execute(
                "SELECT id, token, author, message, served_by,"
                " DATE_FORMAT(created_at, '%%Y-%%m-%%d %%H:%%i:%%s') AS created_at"
                " FROM entries ORDER BY id DESC LIMIT %s",
                (limit,),
            )
            return list(cursor.fetchall())

        if time.monotonic() >= self._reader_away_until:
            try:
                rows, name = self.reader.run(read)
                if not at_least or (rows and rows[0]["id"] >= at_least):
                    return rows, name
            except pymysql.err.Error:
                self._reader_away_until = time.monotonic() + LEAVE_ALONE
        try:
            try:
                return self.writer.run(read)
            except pymysql.err.OperationalError:
                # Broken off by the balancer that took the address over from one that hung.
                return self.writer.run(read)
        except pymysql.err.Error as error:
            raise Away(f"no server answers a read: {error}") from error

    def add(self, token: str, author: str, message: str, served_by: str) -> tuple[int, str]:
        """Write an entry; return its number and the server's name. When this returns, the entry is committed.

        Tried again when the connection breaks or the primary has moved: the token is unique, so an entry whose
        commit was not heard of is found and not written twice.

        :raises Away: no primary took it within KEEP_TRYING seconds. It may be there all the same: repeat it with the
            same token.
        """

        def write(cursor: DictCursor) -> int:
            try:
                cursor.execute(
                    "INSERT INTO entries (token, author, message, served_by) VALUES (%s, %s, %s, %s)",
                    (token, author, message, served_by),
                )
                return int(cursor.lastrowid or 0)
            except pymysql.err.IntegrityError as error:
                if error.args[0] != ER.DUP_ENTRY:
                    raise
            cursor.execute("SELECT id FROM entries WHERE token = %s", (token,))
            row = cursor.fetchone()
            assert row is not None
            return int(row["id"])

        turn, away = self._turns.take(), True
        try:
            done = self._write(write)
            away = False
            return done
        finally:
            self._turns.give(turn, away)

    def _write(self, write: Callable[[DictCursor], int]) -> tuple[int, str]:
        """Try until a primary takes it.

        :raises Away: none took it within KEEP_TRYING seconds.
        """
        deadline = time.monotonic() + KEEP_TRYING
        while True:
            try:
                return self.writer.run(write)
            except pymysql.err.Error as error:
                # Client-side numbers (2000 up) are lost connections; anything else is a refusal that will not change.
                lost = isinstance(error, pymysql.err.InterfaceError) or error.args[0] in NOT_WRITABLE | {
                    2003,
                    2006,
                    2013,
                }
                if not lost or time.monotonic() > deadline:
                    raise Away(f"no server takes a write: {error}") from error
                self.writer.forget()
                time.sleep(0.2)

    def writer_host(self) -> str:
        """The name of the server that writes go to; empty when it is away. One thread asks now and then for all."""
        first = not self._primary_until
        if time.monotonic() >= self._primary_until and self._asking.acquire(blocking=first):
            try:
                if first and self._primary_until:
                    return self._primary
                self._primary = self._asker.run(lambda cursor: cursor.execute("SELECT 1"))[1]
            except pymysql.err.Error:
                self._primary = ""
            finally:
                self._primary_until = time.monotonic() + PRIMARY_KNOWN_FOR
                self._asking.release()
        return self._primary

    def state(self) -> dict[str, dict[str, Any]]:
        """For each endpoint, the server and whether it is writable, or the error."""

        def ask(cursor: DictCursor) -> bool:
            cursor.execute("SELECT @@read_only AS read_only")
            row = cursor.fetchone()
            return row is not None and not row["read_only"]

        state: dict[str, dict[str, Any]] = {}
        for role, endpoint in (("writer", self.writer), ("reader", self.reader)):
            try:
                writable, name = endpoint.run(ask)
                state[role] = {"host": name, "writable": writable}
                if role == "writer" and not writable:
                    state[role]["error"] = "read-only"
            except pymysql.err.Error as error:
                state[role] = {"error": str(error)}
        return state
