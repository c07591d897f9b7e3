"""What the benchmarks on containers share: a site of their own, a load from a client, and ratios of pairs."""

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
sys.path.insert(0, str(ROOT / "molecule" / "shared"))
from labtest import Lab, inventories  # noqa: E402 - the path comes first


def arguments(doc: str | None, seconds: int) -> argparse.Namespace:
    """What a benchmark on containers takes: `repeat`, `seconds` (of each measurement) and `keep`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument("--repeat", type=int, default=5, help="pairs per row (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=seconds, help="of each measurement (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts for another run")
    return parser.parse_args()


class Site:
    """A site of containers for one benchmark: `inventory/` and `converge.yml` of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lab = folder, Lab(f"webstack-bench-{folder.name}")

    def ansible(self, program: str, *words: str | Path) -> str:
        """Run a program of Ansible over the site's inventory; returns what it prints.

        :raises SystemExit: it failed; with the end of what it printed.
        """
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "LAB_CHECKOUT": str(ROOT),
        }
        command = [program, *inventories(self.folder / "inventory"), *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return done.stdout

    def up(self) -> None:
        """Make the hosts and converge them.

        :raises SystemExit: a host of the inventory would be the container of another lab.
        """
        hosts = json.loads(self.ansible("ansible-inventory", "--list"))["_meta"]["hostvars"]
        for name, variables in hosts.items():
            found = variables.get("ansible_docker_host")
            # Core marks what a plugin composed as unsafe.
            found = found["__ansible_unsafe"] if isinstance(found, dict) else found
            if found != self.lab.container(name):
                raise SystemExit(
                    f"{self.folder}/inventory: {name} is the container {found}: lab_name belongs to a group"
                )
        self.ansible("ansible-playbook", ROOT / "molecule" / "shared" / "create.yml")
        self.ansible("ansible-playbook", self.folder / "converge.yml")

    def down(self) -> None:
        """Remove the hosts."""
        self.ansible("ansible-playbook", ROOT / "molecule" / "shared" / "destroy.yml")

    def wrk(self, url: str, connections: int, seconds: int, name: str = "") -> float:
        """Requests per second that client1 gets answered with success, on kept-alive connections.

        :raises SystemExit: an answer was an error.
        """
        host = ["-H", f"Host: {name}"] if name else []
        call = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *host, url]
        said = self.lab.docker("exec", self.lab.container("client1"), *call)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        if not rate or "Non-2xx" in said or "Socket errors" in said:
            raise SystemExit(f"{url} did not answer every request:\n{said}")
        return float(rate[1])


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


class Table:
    """The rows of a benchmark; counts those that miss their limit."""

    def __init__(self, repeat: int, what: str) -> None:
        self.missed = 0
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {repeat}, {what}", flush=True)

    def row(self, title: str, unit: str, values: tuple[float, float, float], limit: str = "") -> None:
        """Print one: a, b, a / b, and whether that keeps a limit such as ">= 0.95"."""
        verdict = "-"
        if limit:
            bound = float(limit.split()[1])
            ok = values[2] <= bound if limit.startswith("<=") else values[2] >= bound
            self.missed += not ok
            verdict = f"{limit}  {'ok' if ok else 'MISSED'}"
        print(f"{title:<58} {values[0]:>8.1f} / {values[1]:>8.1f} {unit:<3} = {values[2]:>5.2f}  {verdict}", flush=True)
