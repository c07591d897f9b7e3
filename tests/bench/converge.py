#!/usr/bin/env python3
"""What Ansible costs over what has to be done: a run that changes nothing, the first one, and one for a new host.

Run it from the root of a checkout: `./lab bench converge`. It makes two sites of nine containers, one for the
playbooks and one for plain shells, and takes them away; about ten minutes on two cores. Exits with 1 when a ratio
misses its limit.

again   site.yml over a site that is as it should be, against a playbook that pings all nine hosts once for every play
        of site.yml; and against one that pings in each play only the hosts of that play
first   site.yml over fresh hosts, against a shell on each of as many fresh hosts, all at once, in which apt-get
        installs the packages that the roles have asked for
add     `./lab scale web=3`, against making all nine hosts and the first converge
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from _shared import ROOT, Table, inventories, pairs

PROGRAMS = Path(sys.executable).parent
SITE, SHELLS = ("webstack-bench-converge", "198.18.21.0/24"), ("webstack-bench-shells", "198.18.22.0/24")
PARTS = ("first", "again", "add")
# What the role for the databases gives apt to find them by.
SOURCES = ("/etc/apt/sources.list.d/mysql-replication.sources", "/etc/apt/preferences.d/mysql-replication")


class Lab:
    """The lab of a name, by `./lab` and by Ansible as `./lab` calls it."""

    def __init__(self, name: str, network: str) -> None:
        self.name, self.inventory = name, ROOT / ".lab" / name / "inventory"
        self.environment = os.environ | {
            "LAB_NAME": name,
            "LAB_NETWORK": network,
            "LAB_CHECKOUT": str(ROOT),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(ROOT / ".lab" / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, *words: str | Path) -> str:
        """Run a command with the lab's environment; returns what it prints.

        :raises SystemExit: it failed; with the end of what it printed.
        """
        command = [str(word) for word in words]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return done.stdout

    def play(self, path: Path, *options: str) -> str:
        """Run a playbook over the lab; returns what it prints."""
        return self.run(PROGRAMS / "ansible-playbook", *inventories(self.inventory), *options, path)

    def make(self) -> None:
        """Make the hosts anew; nothing is installed on them."""
        self.down()
        self.run(ROOT / "lab", "inventory")
        self.play(ROOT / "molecule" / "shared" / "create.yml")

    def down(self) -> None:
        """Remove the hosts."""
        self.run(ROOT / "lab", "down", "--keep-image")

    def hosts(self) -> list[str]:
        """The names of the hosts."""
        listed = self.run("docker", "ps", "--filter", f"label=scaleup.webstack.lab={self.name}", "--format={{.Names}}")
        return sorted(name.removeprefix(f"{self.name}-") for name in listed.split())

    def shell(self, host: str, script: str, text: str = "") -> str:
        """Run a script on a host, with a text as its input.

        :raises SystemExit: it failed.
        """
        words = ["docker", "exec", "--interactive", f"{self.name}-{host}", "sh", "-ec", script]
        done = subprocess.run(words, input=text, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name}-{host}: {script} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
        return done.stdout


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def plays(path: Path) -> list[dict[str, object]]:
    """The plays of a playbook and of those that it imports, in their order."""
    found: list[dict[str, object]] = []
    for play in yaml.safe_load(path.read_text()):
        imported = play.get("ansible.builtin.import_playbook")
        found += plays(path.parent / imported) if imported else [play]
    return found


def pings(hosts: str | None) -> Path:
    """A playbook that pings a pattern's hosts (each play's own without one), once for every play of site.yml."""
    task = {"name": "The host answers", "ansible.builtin.ping": None}
    found = [
        {"name": play["name"], "hosts": hosts or play["hosts"], "gather_facts": False, "tasks": [task]}
        for play in plays(ROOT / "playbooks" / "site.yml")
        # The inventory's check connects to nobody.
        if hosts or "preflight_problems" not in dict(play.get("vars") or {})  # type: ignore[call-overload]
    ]
    path = ROOT / ".lab" / SITE[0] / f"pings-{'all' if hosts else 'own'}.yml"
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    return path


def converge(lab: Lab, change: bool) -> None:
    """Run site.yml.

    :raises SystemExit: it changes what it should not.
    """
    told = lab.play(ROOT / "playbooks" / "site.yml")
    changed = re.findall(r"^(\S+) +: ok=\d+ +changed=([1-9]\d*)", told, re.MULTILINE)
    if changed and not change:
        raise SystemExit(f"the site was not as it should be, the measurement says nothing: {changed}")


def asked_for(lab: Lab, before: dict[str, set[str]]) -> dict[str, list[str]]:
    """Host to the packages that the roles have asked apt for, and not those that came with them."""
    return {host: sorted(marked(lab, host) - before[host]) for host in lab.hosts()}


def marked(lab: Lab, host: str) -> set[str]:
    """The packages that somebody has asked apt for."""
    return set(lab.shell(host, "apt-mark showmanual").split())


def install(lab: Lab, packages: dict[str, list[str]], sources: dict[str, str]) -> None:
    """Install packages on all hosts at once, as somebody with a shell on each of them would."""

    def one(host: str) -> None:
        words, more = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends", ""
        if host.startswith("db"):
            lab.shell(host, "apt-get update")
            more = "--target-release sid "
        lab.shell(host, f"{words} {more}{' '.join(packages[host])}")

    for host in lab.hosts():
        for path, text in sources.items() if host.startswith("db") else ():
            lab.shell(host, f"cat > {path}", text)
    with ThreadPoolExecutor(len(lab.hosts())) as pool:
        list(pool.map(one, lab.hosts()))


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; without one, all")
    parser.add_argument("--repeat", type=int, default=3, help="pairs of `again` (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the hosts for another run")
    asked = parser.parse_args()
    chosen = asked.part or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are: {', '.join(PARTS)}")
    site, shells = Lab(*SITE), Lab(*SHELLS)
    table = Table(asked.repeat, "of `first` and `add` one")
    whole = 0.0
    try:
        if "first" in chosen or not site.hosts():
            whole = seconds(site.make)
            before = {host: marked(site, host) for host in site.hosts()}
            first = seconds(lambda: converge(site, True))
            whole += first
            if "first" in chosen:
                packages = asked_for(site, before)
                sources = {path: site.shell("db1", f"cat {path}") for path in SOURCES}
                shells.make()
                plain = seconds(lambda: install(shells, packages, sources))
                table.row("first: site.yml / apt-get in parallel shells", "s", (first, plain, first / plain), "<= 1.6")
                shells.down()
        if "again" in chosen:
            everybody, own = pings("all"), pings(None)
            converge(site, False)
            values = pairs(
                asked.repeat,
                lambda: seconds(lambda: converge(site, False)),
                lambda: seconds(lambda: site.play(everybody)),
            )
            table.row("again: site.yml / all hosts pinged once per play", "s", values, "<= 8")
            less = seconds(lambda: site.play(own))
            table.row(
                "again: site.yml / the hosts of each play pinged", "s", (values[0], less, values[0] / less), "<= 8"
            )
        if "add" in chosen and whole:
            added = seconds(lambda: site.run(ROOT / "lab", "scale", "web=3"))
            table.row("add: a web server / the whole site", "s", (added, whole, added / whole))
    finally:
        if not asked.keep:
            site.down()
            shells.down()
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
