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

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "tests" / "bench" / "web"
FILES = ROOT / ".lab" / "bench-web" / "files"
sys.path.insert(0, str(ROOT / "molecule" / "shared"))
from labtest import Lab, inventories  # noqa: E402 - the path comes first

WEB = "http://198.18.10.21"
CONNECTIONS = 16
lab = Lab("webstack-bench-web")
Measure = Callable[[], float]


def ansible(program: str, *words: str) -> str:
    """Run a program of Ansible over the site's inventory; returns what it prints.

    :raises SystemExit: it failed; with the end of what it printed.
    """
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_NOCOLOR": "1",
        "LAB_CHECKOUT": str(ROOT),
    }
    command = [program, *inventories(SITE / "inventory"), *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join([program, *words])} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done.stdout


def own_containers() -> None:
    """Nobody else's hosts are set up, or removed.

    :raises SystemExit: a host of the inventory is a container of another lab.
    """
    hosts = json.loads(ansible("ansible-inventory", "--list"))["_meta"]["hostvars"]
    for name, variables in hosts.items():
        found = variables.get("ansible_docker_host")
        # Core marks what a plugin composed as unsafe.
        found = found["__ansible_unsafe"] if isinstance(found, dict) else found
        if found != lab.container(name):
            raise SystemExit(f"{SITE}/inventory: {name} is the container {found}, not {lab.container(name)}")


def wrk(seconds: int, name: str, path: str = "/", port: int = 80) -> float:
    """Requests per second that the client gets answered; all of them have to be.

    :raises SystemExit: an answer was an error.
    """
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Host: {name}.test", f"{WEB}:{port}{path}"]
    text = lab.docker("exec", lab.container("client1"), *words)
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(f"{name}{path} did not answer every request:\n{text}")
    return float(re.search(r"Requests/sec: +([\d.]+)", text)[1])  # type: ignore[index]


def pairs(repeat: int, a: Measure, b: Measure) -> tuple[float, float, float]:
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=5, help="pairs per row (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts for another run")
    arguments = parser.parse_args()
    seconds, missed = arguments.seconds, 0

    def row(name: str, a: Measure, b: Measure, limit: float | None) -> None:
        nonlocal missed
        first, second, ratio = pairs(arguments.repeat, a, b)
        verdict = "-"
        if limit is not None:
            missed += ratio < limit
            verdict = f">= {limit:<4}  {'ok' if ratio >= limit else 'MISSED'}"
        print(f"{name:<62} {first:>8.0f} / {second:>8.0f} 1/s = {ratio:>5.2f}  {verdict}", flush=True)

    FILES.mkdir(parents=True, exist_ok=True)
    for kibibytes in (1, 100):
        # Nothing that is compressed at deployment: the same bytes for everybody.
        (FILES / f"{kibibytes}k.png").write_bytes(b"x" * kibibytes * 1024)
    shared = ROOT / "molecule" / "shared"
    own_containers()
    try:
        ansible("ansible-playbook", str(shared / "create.yml"))
        ansible("ansible-playbook", str(SITE / "converge.yml"))
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f}; medians of {arguments.repeat}, {seconds} s each", flush=True)
        for name in ("static", "kept", "closed", "cached"):
            wrk(1, name, "/1k.png" if name == "static" else "/")
        for path in ("/1k.png", "/100k.png"):
            size = path.strip("/").replace("k.png", " KiB")

            def role(path: str = path) -> float:
                return wrk(seconds, "static", path)

            for port, what, limit in ((8081, "minimal nginx", 0.95), (8082, "minimal, same headers and log", None)):
                row(f"static, {size}: role / {what}", role, lambda p=path, n=port: wrk(seconds, "static", p, n), limit)  # type: ignore[misc]
        row("proxied: upstream keep-alive / without", lambda: wrk(seconds, "kept"), lambda: wrk(seconds, "closed"), 1.3)
        row("proxied: micro-cache / no cache", lambda: wrk(seconds, "cached"), lambda: wrk(seconds, "kept"), 2)
    finally:
        if not arguments.keep:
            ansible("ansible-playbook", str(shared / "destroy.yml"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
