"""What may happen to a site: failures of machines, of the network, of what a machine needs; and planned work."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "molecule" / "shared"), str(ROOT / "molecule" / "default" / "tests")]
from labtest import wait_for  # noqa: E402 - the path comes first
from visiting import HOSTS, INVENTORY, every_certificate, lab, play, played  # noqa: E402

SERVICES = {"lb": "haproxy", "web": "nginx", "app": "gunicorn-guestbook", "db": "mysql"}
FAILURES, NETWORK, NEEDS, PLANNED = (
    "Machines that fail",
    "The network between two tiers",
    "What a machine needs",
    "Planned work",
)


def nothing() -> None:
    """Nothing is to be done."""


@dataclass
class Event:
    """Something that happens, and its bounds.

    :param outage: seconds for which reads may fail; 0: no read may fail.
    :param settle: seconds after its begin in which requests may fail.
    :param writes: whether a write may fail within ``settle``.
    :param resume: seconds after ``do`` returned within which writes succeed again; 0: they are not looked at.
    :param back: seconds after its end within which what comes back may move a virtual IP once more.
    :param lasts: seconds between ``do`` and ``undo``.
    :param before: done before the load begins; returns what undoes it, which happens after the load.
    :param status: what the playbook status must say meanwhile, of this host and of no other: (host, words).
    """

    name: str
    do: Callable[[], object]
    undo: Callable[[], object] = nothing
    group: str = FAILURES
    outage: float = 0
    settle: float = 5
    writes: bool = True
    resume: float = 0
    back: float = 0
    lasts: float = 10
    before: Callable[[], Callable[[], object]] | None = None
    status: tuple[str, str] | None = None

    @property
    def promise(self) -> str:
        """The bounds in words."""
        if self.group == PLANNED:
            return "nothing fails"
        reads = f"reads fail for {self.outage:g} s at most" if self.outage else "no read fails"
        writes = f"writes of the first {self.settle:g} s" if self.writes else "no write fails"
        named = ", status names it and no other host" if self.status else ""
        resumed = f", writes go on within {self.resume:g} s" if self.resume else ""
        return f"{reads}, {writes}{resumed}{named}"


def tier(host: str) -> str:
    """The tier of a host, by its name."""
    return host.rstrip("0123456789")


def told(*words: str | Path) -> str:
    """Run a command on this machine; returns what it prints.

    :raises AssertionError: it failed; with the end of what it printed.
    """
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{words[0]} failed: {(done.stdout + done.stderr)[-1500:]}"
    return done.stdout


# --- machines ---------------------------------------------------------------------------------------------------------


def service(host: str, signal: str) -> Callable[[], object]:
    """Send a signal to every process of a host's service."""
    unit = SERVICES[tier(host)]
    return lambda: lab.host(host).run(f"systemctl kill --signal={signal} --kill-whom=all {unit}.service")


def restart(host: str) -> None:
    """Start a host's service, where it has not come back by itself."""
    lab.host(host).run(f"systemctl start {SERVICES[tier(host)]}.service")


def machines() -> Iterator[Event]:
    """Each host but the primary: its service killed and hung, the host off, its network cut."""
    for host in ("lb1", "lb2", "web1", "web2", "app1", "app2", "db2"):
        bound: dict[str, Any] = {"outage": 1.0, "settle": 3.0, "back": 12.0} if tier(host) == "lb" else {}
        more: dict[str, Any] = {"writes": False} if tier(host) == "db" else {}
        hung = bound | ({"outage": 3.0, "settle": 5.0} if tier(host) == "lb" else {"settle": 12.0})
        yield Event(f"{host} killed", service(host, "KILL"), partial(restart, host), **bound, **more)
        yield Event(f"{host} hung", service(host, "STOP"), service(host, "CONT"), **hung, **more)
        yield Event(f"{host} off", partial(lab.kill, host), partial(lab.start, host), **bound, **more)
        yield Event(f"{host} cut", partial(lab.cut, host), partial(lab.mend, host), **bound, **more)


def primary() -> Iterator[Event]:
    """The primary is gone, a replica is made the primary, the old one comes back."""

    def fail_over() -> None:
        lab.kill("db1")
        time.sleep(2)
        # Its exit code tells of the host that is off.
        done = play("failover", "-e", "mysql_replication_primary_is_dead=true")
        assert "is writable" in done.stdout, done.stdout[-2000:]

    def rejoin() -> None:
        lab.start("db1")
        if play("rejoin", "-e", "mysql_replication_rejoin=db1").returncode:
            # A transaction that nobody acknowledged was on its disk only: it is thrown away on the operator's word.
            played("rejoin", "-e", "mysql_replication_rejoin=db1", "-e", "mysql_replication_clone=true")
        # A switchover refuses a replica that has yet to catch up.
        status_of = lab.host("db1")
        wait_for(lambda: "Source: 0" in status_of.run("mysql -e 'SHOW REPLICA STATUS' --vertical").stdout, 60)
        played("switchover", "-e", "mysql_replication_candidate=db1")

    yield Event("db1 off, failover", fail_over, rejoin, settle=45, resume=1, lasts=5)
    # A primary that merely restarts takes its place by itself.
    yield Event("db1 killed", service("db1", "KILL"), partial(restart, "db1"), settle=30, lasts=15)


# --- the network ------------------------------------------------------------------------------------------------------


def apart(one: str, other: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Cut the network between two tiers, and mend it."""
    addresses = ", ".join(str(HOSTS[name]["tier_address"]) for name in HOSTS if name.startswith(other))
    chain = f"chain input {{ type filter hook input priority -10; ip saddr {{ {addresses} }} drop; }};"
    table = f"table inet chaos {{ {chain} }}"
    hosts = [name for name in HOSTS if name.startswith(one)]

    def do() -> None:
        for name in hosts:
            lab.host(name).check_output(f"echo '{table}' | nft -f -")

    def undo() -> None:
        for name in hosts:
            lab.host(name).run("nft delete table inet chaos")

    return do, undo


def partitions() -> Iterator[Event]:
    """Nobody can answer meanwhile; the site heals by itself."""
    for one, other in (("app", "web"), ("db", "lb"), ("web", "lb")):
        do, undo = apart(one, other)
        yield Event(f"{other}|{one} parted", do, undo, NETWORK, outage=15, settle=20)


# --- what a machine needs ---------------------------------------------------------------------------------------------


def small_disk(host: str, folder: str, size: str) -> Callable[[], object]:
    """Let a folder of a host be a small disk of its own (the real one is that of the whole lab); undone at the end."""
    unit = SERVICES[tier(host)]
    lab.host(host).check_output(
        f"mkdir -p /run/chaos && mount -t tmpfs -o size={size} chaos /run/chaos && "
        f"mkdir -m 755 /run/chaos/upper /run/chaos/work && chown --reference={folder} /run/chaos/upper && "
        f"mount -t overlay -o lowerdir={folder},upperdir=/run/chaos/upper,workdir=/run/chaos/work overlay {folder} && "
        f"systemctl restart {unit}"
    )
    return lambda: lab.host(host).check_output(
        f"umount --lazy {folder}; umount --lazy /run/chaos; systemctl restart {unit}"
    )


def fill(host: str, folder: str) -> None:
    """Write to a folder until nothing more goes in."""
    lab.host(host).run(f"dd if=/dev/zero of={folder}/chaos.full bs=64k; dd if=/dev/zero of={folder}/chaos.full2 bs=1")


def small_memory(host: str) -> Callable[[], object]:
    """Let a host have 150 MiB more than it uses now; undone at the end."""
    used = int(lab.host(host).check_output("cat /sys/fs/cgroup/memory/memory.usage_in_bytes"))
    name, limit = lab.container(host), str(used + (150 << 20))
    lab.docker("update", f"--memory={limit}", f"--memory-swap={limit}", name)
    # (0 would leave the limit as it is.)
    none = str(1 << 40)
    return lambda: lab.docker("update", f"--memory={none}", f"--memory-swap={none}", name)


# An application that takes whatever memory there is, and is started again whenever the kernel ends it.
HOG = """
import time
taken = []
while True:
    taken.append(bytearray(4 << 20))
    time.sleep(0.02)
"""


def hog(host: str) -> None:
    """Start it."""
    lab.host(host).check_output(
        "systemd-run --unit=chaos-hog --property=Restart=always --property=RestartSec=1 "
        "--property=StartLimitIntervalSec=0 python3 -c %s",
        HOG,
    )


def other_clock(host: str) -> Callable[[], object]:
    """Let the processes of a host see a clock of their own; undone at the end.

    Containers share the kernel's clock: this is libfaketime in front of the C library, for the host's service as for
    whoever enters the host. Only the time of day is another one, as when a clock is set.
    """
    library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
    unit = SERVICES[tier(host)]
    drop_in = f"/run/systemd/system/{unit}.service.d"
    lab.host(host).check_output(
        "apt-get install --yes --no-install-recommends libfaketime && echo +0 > /etc/faketimerc && "
        f"mkdir -p {drop_in} && printf '[Service]\\nEnvironment=LD_PRELOAD={library} DONT_FAKE_MONOTONIC=1 "
        f"FAKETIME_CACHE_DURATION=1\\n' > {drop_in}/chaos.conf && systemctl daemon-reload && "
        f"systemctl restart {unit} && echo {library} > /etc/ld.so.preload"
    )
    return lambda: lab.host(host).check_output(
        f"rm -rf /etc/ld.so.preload /etc/faketimerc {drop_in}; systemctl daemon-reload; systemctl restart {unit}"
    )


def needs() -> Iterator[Event]:
    """One host is short of something: contained to it, and named."""
    # A server's files move to the small disk when it opens them.
    for host, folder, size in (("web1", "/var", "24m"), ("app1", "/var", "24m"), ("db2", "/var/lib/mysql", "500m")):
        yield Event(
            f"{host} disk full",
            partial(fill, host, folder),
            lambda host=host, folder=folder: lab.host(host).run(f"rm -f {folder}/chaos.full*"),  # type: ignore[misc]
            NEEDS,
            before=partial(small_disk, host, folder, size),
            # A commit waits for the replica as long as mysql_replication_semi_sync_timeout_ms says.
            writes=False,
            lasts=20,
            status=(host, "is full to"),
        )
    yield Event(
        "app1 memory exhausted",
        partial(hog, "app1"),
        lambda: lab.host("app1").run("systemctl stop chaos-hog"),
        NEEDS,
        before=partial(small_memory, "app1"),
        settle=30,
        lasts=20,
        status=("app1", "chaos-hog.service ends again and again"),
    )
    for host in ("app1", "web1"):
        yield Event(
            f"{host} clock an hour ahead",
            lambda host=host: lab.host(host).check_output("echo +3600 > /etc/faketimerc"),  # type: ignore[misc]
            lambda host=host: lab.host(host).check_output("echo +0 > /etc/faketimerc"),  # type: ignore[misc]
            NEEDS,
            before=partial(other_clock, host),
            writes=False,
            lasts=10,
            status=(host, "its clock is"),
        )
    yield Event(
        "app1 without DNS",
        lambda: lab.host("app1").check_output(
            "cp /etc/resolv.conf /root/resolv.conf && echo nameserver 192.0.2.1 > /etc/resolv.conf"
        ),
        lambda: lab.host("app1").check_output("cat /root/resolv.conf > /etc/resolv.conf"),
        NEEDS,
        writes=False,
        status=("app1", "it resolves no names"),
    )


# --- planned work -----------------------------------------------------------------------------------------------------

# Services restart, packages stay: what a mirror offers on a day must not decide.
RESTART = ("-e", "update_packages=none", "-e", "update_restart=always")


def unchanged(*options: str) -> None:
    """Run the site's play, which changes nothing.

    :raises AssertionError: it does.
    """
    changed = re.findall(r"^(\S+) +: ok=\d+ +changed=([1-9]\d*)", played("site", *options), re.MULTILINE)
    assert not changed, f"not unchanged: {changed}"


def update(*options: str) -> Callable[[], object]:
    """Restart every service, host by host, with or without a limit."""
    return lambda: played("rolling_update", *RESTART, *options)


def next_release() -> None:
    """Release another version of the application, and take it back."""
    copy = INVENTORY.parent / "next"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "molecule" / "shared" / "app", copy / "molecule" / "shared" / "app")
    page = copy / "molecule" / "shared" / "app" / "guestbook" / "templates" / "index.html"
    page.write_text(page.read_text() + f"<!-- {time.time()} -->\n")
    played("deploy", "-e", f"lab_checkout={copy}")
    played("rollback")


def scaled(name: str) -> Callable[[], object]:
    """Give a tier a third host, and take it out again."""

    def do() -> None:
        told(ROOT / "lab", "scale", f"{name}=3")
        wait_for(whole_or_more, 60)
        told(ROOT / "lab", "scale", f"{name}=2")

    return do


def whole_or_more() -> bool:
    """Whether what there is answers; with a third host in a tier it is more than whole()."""
    return "The site is whole." in play("status", "-e", "status_fail=false").stdout


def certificates() -> None:
    """Issue every certificate anew, and load them."""
    told_of = played("site", *every_certificate())
    assert re.search(r"changed=[1-9]", told_of), "no certificate was renewed"


def firewalls() -> None:
    """Load the rules of every host anew."""
    for name in HOSTS:
        lab.host(name).check_output("systemctl reload webstack-firewall")


def first_primary() -> None:
    """The other events expect the first primary."""
    if "db1" not in lab.host("db1").run("mysql -NBe \"SELECT IF(@@read_only, '', 'db1')\"").stdout:
        played("switchover", "-e", "mysql_replication_candidate=db1")


def planned() -> Iterator[Event]:
    """What an operator does; nothing of it may be noticed."""
    bound: dict[str, Any] = {"group": PLANNED, "settle": 0, "writes": False, "lasts": 0}
    yield Event("site.yml again", unchanged, **bound)
    for name in ("lb", "web", "app", "db", "ops"):
        yield Event(f"site.yml --limit {name}", partial(unchanged, "--limit", name), **bound)
    for name in ("lb", "web", "app", "db"):
        yield Event(f"rolling_update {name}", update("--limit", name), first_primary, **bound)
    yield Event("switchover", lambda: played("switchover"), first_primary, **bound)
    yield Event("deploy and rollback", next_release, **bound)
    yield Event("certificates renewed", certificates, **bound)
    yield Event("firewalls reloaded", firewalls, **bound)
    for name in ("web", "app", "db", "lb"):
        yield Event(f"{name} scaled 2, 3, 2", scaled(name), **bound)


def events() -> list[Event]:
    """All of them, in the order of the report."""
    return [*machines(), *primary(), *partitions(), *needs(), *planned()]


def status() -> list[dict[str, str]]:
    """What is wrong with the site, by the playbook status: host, what and text each."""
    path = INVENTORY.parent / "chaos-status.json"
    path.unlink(missing_ok=True)
    done = play("status", "-e", f"status_json={path}", "-e", "status_resolve=deb.debian.org")
    assert path.exists(), done.stdout[-1500:]
    found: list[dict[str, str]] = json.loads(path.read_text())["problems"]
    return found


def written() -> set[int]:
    """The entries that the primary has.

    :raises SystemExit: there is none that answers.
    """
    for name in ("db1", "db2", "db3"):
        query = "SELECT IF(@@read_only, '', GROUP_CONCAT(id)) FROM guestbook.entries"
        with contextlib.suppress(Exception):
            done = lab.host(name).run(
                f'mysql --batch --skip-column-names -e "SET group_concat_max_len = 1 << 30; {query}"'
            )
            if done.rc == 0 and done.stdout.strip():
                return {int(number) for number in done.stdout.strip().split(",")}
    raise SystemExit("chaos: no writable database answers")
