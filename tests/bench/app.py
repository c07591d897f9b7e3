#!/usr/bin/env python3
"""What the tiers cost an application, and what an unchanged set of dependencies saves a deployment.

Run it from the root of a checkout: `./lab bench app`. It makes a site of its own in containers (two balancers, two web
servers, two application servers, a client) and takes it away; about ten minutes. Every ratio is the median of
five pairs that are measured one right after the other, in changing order. All hosts share this machine's processors, so
that requests per second tell what a request costs. Exits with 1 when a ratio misses its limit.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _shared import ROOT, Site, Table, arguments, pairs

# What a site of some size depends on, with all that these need.
USUAL = "celery\ncryptography\ndjango\ndjangorestframework\nnumpy\npandas\npillow\nrequests\nsentry-sdk\nsqlalchemy\n"
VIP = "https://198.18.9.101"
DIRECT = ("http://198.18.9.31:8000", "http://198.18.9.32:8000")
CONNECTIONS = 16
site = Site(ROOT / "tests" / "bench" / "app")


def through(path: str, seconds: int) -> float:
    """Requests per second through balancer, web and application tier."""
    return site.wrk(VIP + path, CONNECTIONS, seconds)


def direct(path: str, seconds: int) -> float:
    """Requests per second of gunicorn alone, on the same two hosts with the same number of connections."""
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda url: site.wrk(url + path, CONNECTIONS // len(DIRECT), seconds), DIRECT))


class Deployments:
    """Releases of the application, each with another source; with the requirements of the last, or with others."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.source, self.number, self.more = folder / "load", 0, more
        shutil.copytree(site.folder / "load", self.source)

    def deploy(self, fresh: bool) -> float:
        """Seconds of one deployment."""
        self.number += 1
        mark = f"\n# {time.time_ns()}\n"
        with (self.source / "load.py").open("a") as file:
            file.write(mark)
        if fresh:
            # Another set for whoever compares sets; the packages are on the controller already.
            names = (site.folder / "load" / "requirements.txt").read_text()
            (self.source / "requirements.txt").write_text(names + self.more + f"markupsafe>=2.0.{self.number}\n")
        began = time.monotonic()
        site.ansible("ansible-playbook", ROOT / "playbooks" / "deploy.yml", "-e", f"load_src={self.source}")
        return time.monotonic() - began


def main() -> int:
    asked = arguments(__doc__, seconds=8)
    repeat, seconds = asked.repeat, asked.seconds
    try:
        site.up()
        table = Table(repeat, f"{seconds} s each")
        through("/", 2), direct("/", 2)
        for name, path, limit in (("trivial application", "/", ">= 0.5"), ("5 ms application", "/work", ">= 0.8")):
            values = pairs(repeat, lambda path=path: through(path, seconds), lambda path=path: direct(path, seconds))  # type: ignore[misc]
            table.row(f"{name}: through all tiers / gunicorn directly", "1/s", values, limit)
        for name, more in (("few packages", ""), ("many packages", USUAL)):
            with tempfile.TemporaryDirectory() as folder:
                deployments = Deployments(Path(folder), more)
                deployments.deploy(True)
                values = pairs(
                    repeat,
                    lambda made=deployments: made.deploy(False),  # type: ignore[misc]
                    lambda made=deployments: made.deploy(True),  # type: ignore[misc]
                )
                table.row(f"deployment, {name}: unchanged / a fresh environment", "s", values, "<= 0.5")
    finally:
        if not asked.keep:
            site.down()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
