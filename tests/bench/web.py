#!/usr/bin/env python3
"""What the web tier's configuration costs, and what upstream keep-alive and the micro-cache save.

Run it from the root of a checkout: `./lab bench web`. It makes a web server, an application server and a client in
containers of its own and takes them away; about eight minutes. Every ratio is the median of five pairs that are
measured one right after the other, in the order A B, B A. All hosts share this machine's processors, so that requests
per second tell what a request costs. Static files are compared, on the same host, with a hand-tuned minimal nginx
(web/minimal.conf.j2), which has sendfile, an open file cache and a buffered access log; and, for information, with one
that also sends the same headers and logs the same fields. Plain HTTP throughout. Exits with 1 when a ratio misses.
"""

from __future__ import annotations

import sys

from _shared import ROOT, Site, Table, arguments, pairs

FILES = ROOT / ".lab" / "bench-web" / "files"
WEB = "http://198.18.10.21"
CONNECTIONS = 16
site = Site(ROOT / "tests" / "bench" / "web")


def ask(seconds: int, name: str, path: str = "/", port: int = 80) -> float:
    """Requests per second of one of the sites."""
    return site.wrk(f"{WEB}:{port}{path}", CONNECTIONS, seconds, f"{name}.test")


def main() -> int:
    asked = arguments(__doc__, seconds=5)
    repeat, seconds = asked.repeat, asked.seconds
    FILES.mkdir(parents=True, exist_ok=True)
    for kibibytes in (1, 100):
        # Nothing that is compressed at deployment: the same bytes for everybody.
        (FILES / f"{kibibytes}k.png").write_bytes(b"x" * kibibytes * 1024)
    try:
        site.up()
        table = Table(repeat, f"{seconds} s each")
        for name in ("static", "kept", "closed", "cached"):
            ask(1, name, "/1k.png" if name == "static" else "/")
        for size in ("1k", "100k"):
            for port, what, limit in ((8081, "minimal nginx", ">= 0.95"), (8082, "minimal, same headers and log", "")):
                path = f"/{size}.png"
                values = pairs(
                    repeat,
                    lambda p=path: ask(seconds, "static", p),  # type: ignore[misc]
                    lambda p=path, n=port: ask(seconds, "static", p, n),  # type: ignore[misc]
                )
                table.row(f"static, {size}: role / {what}", "1/s", values, limit)
        for title, a, b, limit in (
            ("proxied: upstream keep-alive / without", "kept", "closed", ">= 1.3"),
            ("proxied: micro-cache / no cache", "cached", "kept", ">= 2"),
        ):
            table.row(title, "1/s", pairs(repeat, lambda a=a: ask(seconds, a), lambda b=b: ask(seconds, b)), limit)  # type: ignore[misc]
    finally:
        if not asked.keep:
            site.down()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
