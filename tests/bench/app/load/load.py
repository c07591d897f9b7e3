"""What the benchmark asks: / answers at once, /work after 5 ms of computing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application (PEP 3333)."""
    body = b"ok\n"
    if environ["PATH_INFO"] == "/work":
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            pass
    elif environ["PATH_INFO"] == "/healthz":
        body = os.environ["RELEASE"].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
