"""An open-loop HTTP(S) load: requests start at a constant rate whether or not earlier ones were answered.

A closed loop stops asking while the service stands still, and so hides an outage; this one does not.
"""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Result:
    """One request. Times are seconds on time.monotonic()'s clock; ``status`` is 0 where no answer came."""

    due: float
    took: float
    method: str
    status: int
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    # Where it was sent to, and whether over a connection of its own.
    target: str = ""
    fresh: bool = True

    @property
    def failed(self) -> bool:
        """No answer, or the server's fault."""
        return self.status == 0 or self.status >= 500


@dataclass(frozen=True)
class Request:
    """What to send: to the URL's host, unless ``connect_to`` names another address for the connection."""

    url: str
    method: str = "GET"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    connect_to: str | None = None


def outage(results: Iterable[Result], slow: float = 0.9) -> float:
    """Seconds for which a target did not answer: of the one that was away longest; 0 where all answered.

    From the first request that failed or took long to the next one to the same target that did not. (To an address that
    is nowhere a connection is asked for again after a second (RFC 6298, 2.1), and so succeeds later.)

    :param slow: seconds; what took longer was not answered when it was sent.
    """
    longest = 0.0
    since: dict[str, float] = {}
    for result in sorted(results, key=lambda r: r.due):
        if result.failed or result.took >= slow:
            since.setdefault(result.target, result.due)
            longest = max(longest, result.due - since[result.target])
        # A kept-alive connection sends again sooner: what it got a little later says nothing of when it was sent.
        elif result.target in since and (result.fresh or result.took < 0.1):
            longest = max(longest, result.due - since.pop(result.target))
    return longest


class _Connections(threading.local):
    def __init__(self) -> None:
        self.open: dict[tuple[str, str, int], http.client.HTTPConnection] = {}


def _target(request: Request) -> str:
    return request.connect_to or urlsplit(request.url).netloc


def _was_closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed a connection that waits: clients watch for that (RFC 9112, 9.5)."""
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return bool(readable)


class Load:
    """Send ``requests`` in turn at ``rate`` per second until ``stop`` or the end of the ``with`` block.

    Every second request uses a kept-alive connection, the others a new one each (``keep_alive``: the share, 0 to 1).

    :param rate: requests per second, in all.
    :param timeout: seconds until a request counts as failed.
    :param context: TLS settings; None accepts the system's authorities only.
    :param on_result: called with each result, in the sending thread (a ledger of acknowledged writes).
    """

    def __init__(
        self,
        requests: Sequence[Request],
        rate: float = 200,
        timeout: float = 10,
        keep_alive: float = 0.5,
        context: ssl.SSLContext | None = None,
        on_result: Callable[[Request, Result], None] | None = None,
        workers: int = 200,
    ) -> None:
        self.requests, self.rate, self.timeout, self.keep_alive = list(requests), rate, timeout, keep_alive
        self.context, self.on_result, self.workers = context, on_result, workers
        self.results: list[Result] = []
        self._lock, self._halt, self._local = threading.Lock(), threading.Event(), _Connections()
        self._thread = threading.Thread(target=self._pace, daemon=True)

    def __enter__(self) -> Load:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more; wait for the answers that are due."""
        self._halt.set()
        self._thread.join()

    @property
    def failures(self) -> list[Result]:
        """The failed requests, in the order in which they were due."""
        with self._lock:
            return sorted((r for r in self.results if r.failed), key=lambda r: r.due)

    def outage(self) -> float:
        """Seconds for which the target that was away longest did not answer; see :func:`outage`."""
        with self._lock:
            return outage(self.results)

    def summary(self) -> str:
        """One line for an assertion's message."""
        failures = self.failures
        kinds: dict[str, int] = {}
        for result in failures:
            key = result.error or str(result.status)
            kinds[key] = kinds.get(key, 0) + 1
        return f"{len(failures)} of {len(self.results)} failed {kinds}, longest outage {self.outage():.3f} s"

    def _pace(self) -> None:
        with ThreadPoolExecutor(self.workers) as pool:
            number = 0
            while not self._halt.is_set():
                due = self.started + number / self.rate
                if (ahead := due - time.monotonic()) > 0 and self._halt.wait(ahead):
                    break
                request = self.requests[number % len(self.requests)]
                # Spread the share evenly: with 0.5 every second request is kept alive, whatever the list's length.
                kept = int((number + 1) * self.keep_alive) > int(number * self.keep_alive)
                pool.submit(self._one, request, due, kept)
                number += 1

    def _one(self, request: Request, due: float, kept: bool) -> None:
        try:
            result = self._send(request, due, kept)
        except (OSError, http.client.HTTPException) as error:
            took, text = time.monotonic() - due, f"{type(error).__name__}: {error}"
            result = Result(due, took, request.method, 0, text, target=_target(request))
        with self._lock:
            self.results.append(result)
        if self.on_result:
            self.on_result(request, result)

    def _connect(self, request: Request) -> http.client.HTTPConnection:
        parts = urlsplit(request.url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        connection.sock = socket.create_connection((request.connect_to or host, port), self.timeout)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = self.context or ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        return connection

    def _send(self, request: Request, due: float, kept: bool) -> Result:
        parts = urlsplit(request.url)
        key = (request.connect_to or "", parts.hostname or "", parts.port or 0)
        waiting = self._local.open.pop(key, None) if kept else None
        if waiting and _was_closed(waiting):
            waiting.close()
            waiting = None
        reused, connection = waiting is not None, waiting or self._connect(request)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Connection": "keep-alive" if kept else "close"} | request.headers
        sent = False
        try:
            connection.request(request.method, target, request.body, headers)
            sent = True
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            # RFC 9110, 9.2.2: a client may repeat a request when a kept-alive connection was closed, if it is
            # idempotent or was not processed; one that could not be sent to its end was not.
            if reused and (request.method in ("GET", "HEAD") or not sent):
                return self._send(request, due, False)
            raise
        if kept and not response.will_close:
            self._local.open[key] = connection
        else:
            connection.close()
        took, answer = time.monotonic() - due, dict(response.headers)
        return Result(due, took, request.method, response.status, "", answer, body, _target(request), not reused)
