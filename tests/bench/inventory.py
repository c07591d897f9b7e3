#!/usr/bin/env python3
"""How fast the tiers inventory plugin is, as ratios to the least that Ansible itself needs for the same inventory.

Run it from the root of a checkout: `./lab bench inventory`, or `python tests/bench/inventory.py`. It takes some
minutes. Times are CPU seconds of this process, so a busy machine disturbs little; each ratio is the median of pairs
measured one right after the other. Exits with 1 when a ratio misses its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIERS = ("lb", "web", "app", "db", "ops")
PLUGIN = "scaleup.webstack.tiers"


def ansible() -> Any:
    """Ansible's inventory machinery with this checkout's collection on its path; imported late, it is slow."""
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".ansible/collections")
    os.environ["ANSIBLE_DEVEL_WARNING"] = "false"
    from ansible.inventory import manager as module
    from ansible.inventory.data import InventoryData
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader, inventory_loader

    with contextlib.suppress(ValueError):  # it was called before
        init_plugin_loader()

    class Ansible:
        data, manager, loader, plugins = InventoryData, InventoryManager, DataLoader, inventory_loader
        # What core hands to a plugin instead of the bare data, since 2.19.
        wrapper, origin = getattr(module, "_InventoryDataWrapper", None), getattr(module, "Origin", None)

    return Ansible


# --- the sites ---


def declared_site(hosts: int) -> str:
    """A site of five tiers whose hosts are declared by one range each; a /12 holds a million addresses."""
    each = hosts // len(TIERS)
    lines = [f"plugin: {PLUGIN}", "network: {cidr: 10.0.0.0/12}", "range_limit: 1000000", "tiers:"]
    for index, tier in enumerate(TIERS):
        start = f"10.{index * 3}.0.1"
        primary = ", primary: {host: db1}" if tier == "db" else ""
        lines.append(f'  {tier}: {{hosts: {{"{tier}[1:{each}]": {{address_start: {start}}}}}{primary}}}')
    return "\n".join(lines) + "\n"


def rules_site(kind: str) -> str:
    """A site whose hosts come from an INI file, sorted by five name rules or five `when` rules."""
    lines = [f"plugin: {PLUGIN}", "tiers: {lb: {}, web: {}, app: {}, db: {primary: {host: db1}}, ops: {}}", "rules:"]
    for tier in TIERS:
        condition = f'name: "{tier}*"' if kind == "name" else f"when: \"tier_tag == '{tier}'\""
        lines.append(f"  - {{tier: {tier}, {condition}}}")
    return "\n".join(lines) + "\n"


def ini(hosts: int, tags: bool = False, addresses: bool = False) -> str:
    """An INI file with the same hosts: a range per tier, or a line per host where addresses are wanted."""
    each = hosts // len(TIERS)
    lines = []
    for index, tier in enumerate(TIERS):
        tag = f" tier_tag={tier}" if tags else ""
        if addresses:
            for number in range(each):
                address = f"10.{index * 3 + number // 65536}.{number // 256 % 256}.{number % 256}"
                lines.append(f"{tier}{number + 1} ansible_host={address}{tag}")
        else:
            lines.append(f"{tier}[1:{each}]{tag}")
    return "\n".join(lines) + "\n"


CONSTRUCTED = """
plugin: ansible.builtin.constructed
strict: true
groups:
""" + "".join(f"  {tier}: inventory_hostname is match('{tier}')\n" for tier in TIERS)


class Recorder:
    """Stands for an inventory and notes what is done to it, so that the bare loop does exactly the same."""

    def __init__(self, inventory: Any) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._inventory = inventory
        self.hosts, self.groups = inventory.hosts, inventory.groups
        self.processed_sources: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inventory, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, (*args, *kwargs.values())))
            return method(*args, **kwargs)

        return call


class Bench:
    """Runs the rows of the table."""

    def __init__(self, folder: Path, hosts: int, repeat: int) -> None:
        self.ansible, self.folder, self.hosts, self.repeat = ansible(), folder, hosts, repeat

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def inventory(self, *sources: str) -> Any:
        """Ansible's InventoryData after it has read the sources."""
        manager = self.ansible.manager(loader=self.ansible.loader(), sources=list(sources) or None)
        return manager._inventory if sources else self.ansible.data()

    def handed(self) -> Any:
        """An empty inventory as core hands it to this plugin: since 2.19, wrapped to trust what the plugin sets."""
        data = self.inventory()
        if self.ansible.wrapper is None:
            return data
        origin = self.ansible.origin(description="a benchmark")
        return self.ansible.wrapper(data, target_plugin=self.ansible.plugins.get(PLUGIN), origin=origin)

    def parse(self, inventory: Any, path: str, plugin: str = PLUGIN) -> float:
        """CPU seconds of one plugin's parse."""
        return self.timed(lambda: self.ansible.plugins.get(plugin).parse(inventory, self.ansible.loader(), path))

    @staticmethod
    def timed(work: Callable[[], Any]) -> float:
        gc.collect()
        start = time.process_time()
        work()
        return time.process_time() - start

    def replay(self, calls: list[tuple[str, tuple[Any, ...]]], inventory: Any) -> float:
        """CPU seconds of a loop that makes the calls."""
        bound = [(getattr(inventory, name), args) for name, args in calls]

        def loop() -> None:
            for method, args in bound:
                method(*args)

        return self.timed(loop)

    def pairs(self, one: Callable[[], tuple[float, float]]) -> tuple[float, float, float]:
        """Medians of `repeat` pairs: first, second, and first / second."""
        measured = [one() for _ in range(self.repeat)]
        return (
            statistics.median(a for a, _ in measured),
            statistics.median(b for _, b in measured),
            statistics.median(a / b for a, b in measured),
        )

    # --- rows ---

    def declared(self, make: Callable[[], Any]) -> tuple[float, float, float]:
        """`make` gives the empty inventory: both the plugin and the loop get one."""
        path = self.file("declared.yml", declared_site(self.hosts))
        recorder = Recorder(make())
        self.ansible.plugins.get(PLUGIN).parse(recorder, self.ansible.loader(), path)
        assert len(recorder.hosts) == self.hosts // 5 * 5
        return self.pairs(lambda: (self.parse(make(), path), self.replay(recorder.calls, make())))

    def name_rules(self, addresses: bool) -> tuple[float, float, float]:
        hosts = self.file("hosts.ini", ini(self.hosts, addresses=addresses))
        path = self.file("names.yml", rules_site("name"))

        def pair() -> tuple[float, float]:
            ours, bare = self.inventory(hosts), self.inventory(hosts)
            seconds = self.parse(ours, path)
            # The same groups, made the fastest way: hosts first, because a linked group walks up with each of them.
            loop: list[tuple[str, tuple[Any, ...]]] = [("add_group", ("webstack",))]
            for tier in TIERS:
                assert len(ours.groups[tier].get_hosts()) == self.hosts // 5
                loop.append(("add_group", (tier,)))
                loop += [("add_child", (tier, host.name)) for host in ours.groups[tier].get_hosts()]
            loop += [("add_child", ("webstack", tier)) for tier in TIERS]
            return seconds, self.replay(loop, bare)

        return self.pairs(pair)

    def constructed(self) -> tuple[float, float, float]:
        """`constructed` over a tenth of the hosts, times ten: it is linear, and all of them take minutes."""
        few = self.file("few.ini", ini(max(self.hosts // 10, 10)))
        many = self.file("hosts.ini", ini(self.hosts))
        groups = self.file("constructed.yml", CONSTRUCTED)
        path = self.file("names.yml", rules_site("name"))
        inventory = self.inventory(few)
        theirs = self.parse(inventory, groups, "ansible.builtin.constructed") * 10
        assert len(inventory.groups["web"].hosts) == max(self.hosts // 10, 10) // 5
        ours = statistics.median(self.parse(self.inventory(many), path) for _ in range(self.repeat))
        return theirs, ours, theirs / ours

    def when_rules(self) -> tuple[float, float, float]:
        hosts = self.file("tagged.ini", ini(self.hosts, tags=True))
        whens, by_name = self.file("whens.yml", rules_site("when")), self.file("names.yml", rules_site("name"))
        return self.pairs(
            lambda: (self.parse(self.inventory(hosts), whens), self.parse(self.inventory(hosts), by_name))
        )

    def growth(self, rules: bool) -> tuple[float, float, float]:
        """Seconds per host, ten times the hosts against the hosts."""
        many = self.hosts * 10
        paths, sources = [], []
        for count in (many, self.hosts):
            if rules:
                paths.append(self.file(f"names{count}.yml", rules_site("name")))
                sources.append([self.file(f"hosts{count}.ini", ini(count))])
            else:
                paths.append(self.file(f"declared{count}.yml", declared_site(count)))
                sources.append([])
        return self.pairs(
            lambda: (
                self.parse(self.inventory(*sources[0]), paths[0]) / many,
                self.parse(self.inventory(*sources[1]), paths[1]) / self.hosts,
            )
        )

    def memory(self, ours: list[str], alone: list[str]) -> tuple[float, float, float]:
        """Peak resident memory in MB of a process of its own that reads the sources."""
        a, b = (peak_memory(sources) for sources in (ours, alone))
        return a, b, a / b


def peak_memory(sources: list[str]) -> float:
    """MB (10^6 bytes) that a fresh process needs at most to read the sources."""
    done = subprocess.run(
        [sys.executable, __file__, "--peak", json.dumps(sources)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def print_peak(sources: list[str]) -> None:
    """What `peak_memory` runs. Linux gives ru_maxrss in KiB."""
    import resource

    tools = ansible()
    tools.manager(loader=tools.loader(), sources=sources)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=10_000, help="hosts of the site (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="pairs per row (default: %(default)s)")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(json.loads(arguments.peak))
        return 0
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.hosts, arguments.repeat)
        many = arguments.hosts * 10
        from ansible.release import __version__

        load = os.getloadavg()[0]
        print(f"ansible-core {__version__}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f}")
        print(f"{arguments.hosts} hosts, five tiers, medians of {arguments.repeat}; CPU milliseconds")

        def row(name: str, values: tuple[float, float, float], limit: str, scale: float = 1e3) -> None:
            nonlocal missed
            a, b, ratio = values
            ok = True
            if limit:
                bound = float(limit.split()[1])
                ok = ratio <= bound if limit.startswith("<=") else ratio >= bound
                missed += not ok
            verdict = f"{limit:>8}  {'ok' if ok else 'MISSED'}" if limit else "       -"
            print(f"{name:<72} {a * scale:>9.1f} / {b * scale:>8.1f} = {ratio:>7.2f}  {verdict}", flush=True)

        row("declared ranges: parse / bare add_host and set_variable", bench.declared(bench.inventory), "<= 1.3")
        row("  the same on what core hands to a plugin, which trusts strings itself", bench.declared(bench.handed), "")
        row("five name rules over an INI file: parse / bare add_child", bench.name_rules(False), "<= 2.5")
        row("  the same where hosts have addresses (sets tier_address, server_id)", bench.name_rules(True), "")
        row("constructed, five conditions (a tenth of the hosts, x 10) / our rules", bench.constructed(), ">= 200")
        row("five `when` rules / five name rules", bench.when_rules(), "<= 5")
        row(f"growth to {many} hosts, declared, us per host", bench.growth(False), "<= 1.3", 1e6)
        row(f"growth to {many} hosts, name rules, us per host", bench.growth(True), "<= 1.3", 1e6)
        hosts = bench.file("memory.ini", ini(many))
        lines = bench.file("lines.ini", ini(many, addresses=True))
        names = bench.file("names.yml", rules_site("name"))
        declared = bench.file("declared.yml", declared_site(many))
        row(
            f"peak memory, {many} hosts: INI and name rules / INI, MB",
            bench.memory([hosts, names], [hosts]),
            "<= 1.3",
            1,
        )
        row("  the same with an address per host, MB", bench.memory([lines, names], [lines]), "", 1)
        row("  declared ranges / INI with an address per host, MB", bench.memory([declared], [lines]), "<= 1.3", 1)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
