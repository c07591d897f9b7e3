"""Clients that write all the time and remember every write that was acknowledged to them."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pymysql
from labtest import wait_for

if TYPE_CHECKING:
    from conftest import Tier


class Ledger:
    """Writers that follow the primary as HAProxy would: by the agents' answers.

    A write whose outcome is unknown is never repeated, so every entry may exist at most once.
    """

    def __init__(self, tier: Tier, writers: int = 4, pause: float = 0.005) -> None:
        self.tier, self.pause = tier, pause
        self.acknowledged: dict[str, float] = {}
        self.unknown: set[str] = set()
        self._halt, self._lock = threading.Event(), threading.Lock()
        self._primary: str | None = None
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(writers)]
        self._run = f"{time.time_ns():x}"

    def __enter__(self) -> Ledger:
        with self.tier.client(self.tier.primary()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS ledger (id BIGINT AUTO_INCREMENT PRIMARY KEY, entry VARCHAR(64) NOT NULL)"
            )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        for thread in [*self._threads, self._watcher]:
            thread.join()

    def gaps(self) -> list[float]:
        """Seconds between one acknowledged write and the next, the longest first."""
        times = sorted(self.acknowledged.values())
        return sorted((b - a for a, b in itertools.pairwise(times)), reverse=True)

    def check(self) -> None:
        """Every acknowledged write is on every node, none twice, and the nodes are equal.

        :raises AssertionError: with the numbers.
        """
        # A lag of less than a second is none for the agents.
        wait_for(self.tier.caught_up, 20)
        sums = set()
        for node in self.tier.nodes:
            rows = self.tier.sql(node, "SELECT entry FROM shop.ledger").split()
            lost = set(self.acknowledged) - set(rows)
            assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged writes are not on {node}"
            assert len(rows) == len(set(rows)), f"{len(rows) - len(set(rows))} writes are doubled on {node}"
            sums.add(self.tier.sql(node, "CHECKSUM TABLE shop.ledger").split()[-1])
        assert len(sums) == 1, f"the nodes differ: {sums}"

    def _watch(self) -> None:
        while not self._halt.is_set():
            for node in self.tier.nodes:
                try:
                    if self.tier.health(node, "/primary", 0.5)[0] == 200:
                        self._primary = node
                        break
                except OSError:
                    continue
            time.sleep(0.1)

    def _write(self, number: int) -> None:
        connection: Any = None
        connected_to: str | None = None
        for count in itertools.count():
            if self._halt.is_set():
                break
            if connection is None or connected_to != self._primary:
                if connection is not None:
                    connection.close()
                connection, connected_to = None, self._primary
                if connected_to is None:
                    time.sleep(0.02)
                    continue
                try:
                    connection = self.tier.client(connected_to, timeout=2)
                except (pymysql.MySQLError, OSError):
                    time.sleep(0.02)
                    continue
            entry = f"{self._run}-{number}-{count}"
            try:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO ledger (entry) VALUES (%s)", (entry,))
                with self._lock:
                    self.acknowledged[entry] = time.monotonic()
                time.sleep(self.pause)
            except (pymysql.MySQLError, OSError):
                self.unknown.add(entry)
                connection.close()
                connection = None
                time.sleep(0.02)
        if connection is not None:
            connection.close()
