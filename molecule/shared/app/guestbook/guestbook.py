"""A guest book, made to be watched: every answer says which machine of each tier had a part in it.

Settings are environment variables: RELEASE, and those of database.py.
"""

from __future__ import annotations

import os
import socket
import uuid
from typing import Any

from database import Away, Book
from flask import Flask, Response, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

app = Flask(__name__)
app.json.sort_keys = False  # type: ignore[attr-defined]
RELEASE = os.environ.get("RELEASE", "none")
HOST = socket.gethostname()
book = Book()


@app.after_request
def say_who_answered(response: Response) -> Response:
    response.headers["X-Served-By-App"] = HOST
    response.headers["X-Release"] = RELEASE
    return response


@app.errorhandler(Away)
def database_away(error: Away) -> tuple[Response, int, dict[str, str]]:
    """No database would take it: the client may try again, nothing was half done."""
    app.logger.error("%s", error)
    return jsonify(error="the database does not answer, try again"), 503, {"Retry-After": "1"}


@app.get("/")
def page() -> tuple[str, int, dict[str, str]]:
    entries, reader, notice = [], "", ""
    try:
        entries, reader = book.entries(limit=10, at_least=_number("after"))
    except Away as error:
        app.logger.error("%s", error)
        notice = "The database does not answer at the moment. Nothing that was written is lost; please come back soon."
    served_by = {
        "Balancer": request.headers.get("X-Served-By-LB", "none"),
        "Web server": request.headers.get("X-Served-By-Web", "none"),
        "Application": HOST,
        "Database, writes": book.writer_host() or "none",
        "Database, reads": reader or "none",
    }
    text = render_template("index.html", served_by=served_by, entries=entries, notice=notice, release=RELEASE)
    return text, 200, {"Cache-Control": "no-cache"}


@app.get("/entries")
def entries() -> Response:
    found, reader = book.entries(limit=min(_number("limit") or 50, 1000), at_least=_number("after"))
    return jsonify(entries=found, database=reader, release=RELEASE)


@app.post("/entries")
def add() -> AnyResponse | tuple[Response, int]:
    values: Any = request.get_json(silent=True) if request.is_json else request.form
    if not hasattr(values, "get"):
        return jsonify(error="send an object with author, message and, if you may repeat the request, token"), 400
    author = str(values.get("author") or "").strip() or "somebody"
    message = str(values.get("message") or "").strip()
    token = str(values.get("token") or uuid.uuid4())
    if not message or len(message) > 500 or len(author) > 80:
        return jsonify(error="message: 1 to 500 characters; author: up to 80"), 400
    if len(token) > 64 or not token.isascii():
        return jsonify(error="token: up to 64 ASCII characters"), 400
    number, database = book.add(token, author, message, f"{HOST} {RELEASE}")
    if request.is_json:
        return jsonify(id=number, token=token, database=database, release=RELEASE), 201
    return redirect(url_for("page", after=number), 303)


@app.get("/healthz")
def healthz() -> Response:
    """Whether this process works; it does not ask the database, whose loss must not empty the whole tier."""
    return jsonify(status="ok", application="guestbook", host=HOST, release=RELEASE)


@app.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Whether the database can be read and written; for people and for monitoring."""
    state = book.state()
    ready = all("error" not in part for part in state.values())
    return jsonify(status="ok" if ready else "degraded", database=state, release=RELEASE), 200 if ready else 503


def _number(name: str) -> int:
    return max(0, request.args.get(name, 0, type=int))
