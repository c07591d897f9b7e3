"""An application for the tests: it says which release each of its parts is of, and can be broken on purpose."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

# The tests write another number here and in part.txt; "import" and "health" break what they name.
PART = "0"
BROKEN = ""
FOLDER = pathlib.Path(__file__).parent
GROWN: list[bytearray] = []

if BROKEN == "import":
    raise RuntimeError("broken on purpose while it is imported")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path, status, kind = environ["PATH_INFO"], "200 OK", "application/json"
    answer: dict[str, Any] = {"release": os.environ["RELEASE"], "host": os.uname().nodename}
    if path == "/healthz":
        if BROKEN == "health":
            status, answer = "500 Internal Server Error", {"error": "broken on purpose when asked for its health"}
    elif path == "/parts":
        # What was imported, what is read from the disk now, and whose packages are in use.
        later = (FOLDER / "part.txt").read_text().strip()
        answer |= {"imported": PART, "read": later, "packages": pathlib.Path(sys.prefix).parent.name}
    elif path == "/slow":
        time.sleep(float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["1"])[0]))
    elif path == "/who":
        answer |= {"remote": environ["REMOTE_ADDR"], "scheme": environ["wsgi.url_scheme"], "pid": os.getpid()}
    elif path == "/grow":
        GROWN.append(bytearray(int(parse_qs(environ["QUERY_STRING"])["mb"][0]) << 20))
        answer["pid"] = os.getpid()
    elif path == "/setting":
        answer["setting"] = os.environ.get("SETTING")
        answer["awkward"] = os.environ.get("AWKWARD")
    elif path == "/echo" and environ["REQUEST_METHOD"] == "POST":
        answer["body"] = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    elif path == "/write":
        try:
            pathlib.Path(parse_qs(environ["QUERY_STRING"])["path"][0]).write_text("x")
            answer["written"] = True
        except OSError as error:
            answer["written"] = str(error)
    else:
        status, answer = "404 Not Found", {"error": "no such page"}
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
