#!/usr/bin/env python3
"""What the tiers cost an application, and what an unchanged set of dependencies saves a deployment.

Run it from the root of a checkout: `./lab bench app`. It makes a site of its own in containers (two balancers, two web
servers, two application servers, a client) and takes it away; about ten minutes. Every ratio is the median of
five pairs that are measured one right after the other, in changing order. All hosts share this machine's processors, so
that requests per second tell what a request costs. Exits with 1 when a ratio misses its limit.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "bench" / "app"
sys.path.insert(0, str(ROOT / "molecule" / "shared"))
from labtest import Lab, inventories  # noqa: E402 - the path comes first

VIP = "https://198.18.9.101"
DIRECT = ("http://198.18.9.31:8000", "http://198.18.9.32:8000")
CONNECTIONS = 16
lab = Lab("webstack-bench-app")


def play(path: Path, *words: str) -> float:
    """Run a playbook over the site; returns the seconds that it took.

    :raises SystemExit: it failed; with the end of what it printed.
    """
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "LAB_CHECKOUT": str(ROOT),
    }
    began = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", *inventories(SITE / "inventory"), path, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{path.name} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return time.monotonic() - began


def wrk(url: str, connections: int, seconds: int) -> float:
    """Requests per second that the client gets answered; all of them have to be.

    :raises SystemExit: an answer was an error.
    """
    text = lab.docker("exec", lab.container("client1"), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", url)
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{url} did not answer every request:\n{text}")
    return float(re.search(r"Requests/sec: +([\d.]+)", text)[1])  # type: ignore[index]


def through(path: str, seconds: int) -> float:
    """Requests per second through balancer, web and application tier."""
    return wrk(VIP + path, CONNECTIONS, seconds)


def direct(path: str, seconds: int) -> float:
    """Requests per second of gunicorn alone, on the same two hosts with the same number of connections."""
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda url: wrk(url + path, CONNECTIONS // len(DIRECT), seconds), DIRECT))


def pairs(repeat: int, a: Callable[[], float], b: Callable[[], float]) -> tuple[float, float, float]:
    """Medians of `repeat` pairs, in the order A B, B A, A B: of a, of b, and of a / b."""
    found = []
    for number in range(repeat):
        if number % 2:
            second, first = b(), a()
        else:
            first, second = a(), b()
        found.append((first, second))
    return (
        statistics.median(first for first, _ in found),
        statistics.median(second for _, second in found),
        statistics.median(first / second for first, second in found),
    )


class Deployments:
    """Releases of the application, each with another source; with the requirements of the last, or with others."""

    def __init__(self, folder: Path) -> None:
        self.source, self.number = folder / "load", 0
        shutil.copytree(SITE / "load", self.source)

    def deploy(self, fresh: bool) -> float:
        """Seconds of one deployment."""
        self.number += 1
        mark = f"\n# {time.time_ns()}\n"
        with (self.source / "load.py").open("a") as file:
            file.write(mark)
        if fresh:
            # Another set for whoever compares sets; the packages are on the controller already.
            names = (SITE / "load" / "requirements.txt").read_text()
            (self.source / "requirements.txt").write_text(names + f"markupsafe>=2.0.{self.number}\n")
        return play(ROOT / "playbooks" / "deploy.yml", "-e", f"load_src={self.source}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=5, help="pairs per row (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts for another run")
    arguments = parser.parse_args()
    repeat, seconds = arguments.repeat, arguments.seconds
    missed = 0

    def row(name: str, unit: str, values: tuple[float, float, float], limit: str) -> None:
        nonlocal missed
        bound = float(limit.split()[1])
        ok = values[2] <= bound if limit.startswith("<=") else values[2] >= bound
        missed += not ok
        verdict = "ok" if ok else "MISSED"
        print(
            f"{name:<58} {values[0]:>8.1f} / {values[1]:>8.1f} {unit:<4} = {values[2]:>5.2f}  {limit}  {verdict}",
            flush=True,
        )

    shared = ROOT / "molecule" / "shared"
    try:
        play(shared / "create.yml")
        play(SITE / "converge.yml")
        print(
            f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {repeat}, {seconds} s each", flush=True
        )
        through("/", 2), direct("/", 2)
        for name, path, limit in (("trivial application", "/", ">= 0.5"), ("5 ms application", "/work", ">= 0.8")):
            values = pairs(repeat, lambda path=path: through(path, seconds), lambda path=path: direct(path, seconds))  # type: ignore[misc]
            row(f"{name}: through all tiers / gunicorn directly", "1/s", values, limit)
        with tempfile.TemporaryDirectory() as folder:
            deployments = Deployments(Path(folder))
            deployments.deploy(True)
            values = pairs(repeat, lambda: deployments.deploy(False), lambda: deployments.deploy(True))
            row("deployment: unchanged dependencies / a fresh environment", "s", values, "<= 0.5")
    finally:
        if not arguments.keep:
            play(shared / "destroy.yml")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
