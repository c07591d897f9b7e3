#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say how one host of a site is, in one round trip and without judging it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_status_info
version_added: 0.1.0
short_description: How one host of a site is
description:
  - Reads what the host knows of itself and of its neighbours - units, addresses, releases, servers behind HAProxy,
    replication, certificates, disks, memory, backups, and what waits for a restart. Changes nothing, needs no secret.
  - It does not judge; the filter P(scaleup.webstack.site_status#filter) does.
options:
  units:
    description: Units of systemd that should be active.
    type: list
    elements: str
    default: []
  restart_units:
    description: Services that wait for a restart when their unit is newer than their process.
    type: list
    elements: str
    default: []
  applications:
    description: The folders of the applications, by their names.
    type: dict
    default: {}
  haproxy:
    description: Whether it is a balancer, which is asked for the servers behind it.
    type: bool
    default: false
  mysql:
    description: Whether it is a database server, which is asked over its socket, as root.
    type: bool
    default: false
  certificates:
    description: Files with a certificate each; those that are not there are left out.
    type: list
    elements: path
    default: []
  backup:
    description: A JSON file in which backups say how they went; it may be missing.
    type: path
    default: /var/lib/webstack-backup/status.json
  resolve:
    description: A name that the host should be able to resolve; empty to ask for none.
    type: str
    default: ""
  upgrades:
    description: Whether to say which packages could be upgraded. Takes a second more.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It reads only.
  diff_mode:
    support: none
    description: It reads only.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: How the web server is, is known
  scaleup.webstack.host_status_info:
    units: [nginx.service]
    certificates: [/etc/ssl/webstack/host.pem]
  register: found
"""

RETURN = r"""
status:
  description: What was found.
  returned: success
  type: dict
  contains:
    time: {description: "The host's clock, in seconds of the epoch.", type: float}
    kernel: {description: The kernel that runs., type: str}
    units: {description: "The state of each of O(units), such as V(active).", type: dict}
    failed_units: {description: Units that systemd calls failed., type: list}
    crashing: {description: "Services that were started again several times of late, and how often.", type: dict}
    addresses: {description: "All addresses of the host, virtual ones too.", type: list}
    disks:
      description: Every disk with its mount point, and how full it is in percent, by blocks and by inodes.
      type: list
    memory: {description: "How much of the memory, or of what a container may have, is in use in percent.", type: float}
    resolves: {description: "Whether O(resolve) is resolved; null when nothing was asked.", type: bool}
    certificates: {description: "The end of each certificate by its file, in seconds of the epoch.", type: dict}
    releases: {description: "What runs of each of O(applications), since when, and beside it.", type: dict}
    servers: {description: "Every server behind HAProxy, by backend, with its state and check.", type: list}
    mysql: {description: "The server's place among the others, and O(ignore:settings) that wait.", type: dict}
    backup: {description: "The content of O(backup); null when there is none.", type: dict}
    restart: {description: "Why each service, by its unit, waits for a restart.", type: dict}
    reboot: {description: "Why the host waits for a reboot; empty when it does not.", type: str}
    upgrades:
      description: Packages with O(ignore:name), O(ignore:installed), O(ignore:candidate) and O(ignore:security).
      type: list
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import calendar
import contextlib
import glob
import json
import os
import re
import socket
import subprocess
import threading
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_server
from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import ReleaseError, Releases
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_values import normal, variable

# File systems that hold data and can fill.
_DISKS = ("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "xfs", "zfs")
# What ends sessions, or the system, when it restarts: a reboot is for these.
_BOOT = re.compile(r"(dbus|dbus-broker|systemd-logind|user@.*|.*getty@.*|emergency|rescue)\.service$")
# A role of the node, not a setting of the file.
_ROLE = ("read_only", "super_read_only")


def output(*words: str, seconds: float = 20) -> str:
    """What a command prints; an empty string where it fails, hangs or is missing."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def blocks(text: str) -> list[dict[str, str]]:
    """The answer of ``systemctl show`` for several units: one dictionary of properties each."""
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.strip().split("\n\n")
    ]


def unit_states(units: list[str], shown: str) -> dict[str, str]:
    """Unit to state; one that systemd does not know is "missing"."""
    found = {
        row.get("Id", ""): "missing" if row.get("LoadState") == "not-found" else row.get("ActiveState", "")
        for row in blocks(shown)
    }
    return {unit: found.get(unit, "unknown") for unit in units}


def crashing(shown: str, monotonic: float, times: int = 3, within: float = 300) -> dict[str, int]:
    """Services that systemd has started again several times, the last time a short while ago; and how often.

    :param monotonic: seconds since the boot.
    """
    found = {}
    for row in blocks(shown):
        count = int(row.get("NRestarts") or 0)
        since = monotonic - int(row.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
        if count >= times and since <= within and row.get("ActiveState") in ("active", "activating"):
            found[row["Id"]] = count
    return found


def newer_units(units: list[str], shown: str, now: float, monotonic: float) -> dict[str, str]:
    """Services that began before their unit or a drop-in was written, and why they wait.

    :param now: the clock in seconds of the epoch.
    :param monotonic: the same moment in seconds since the boot.
    """
    waiting = {}
    for row in blocks(shown):
        since = int(row.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        if row.get("Id") not in units or row.get("ActiveState") != "active" or not since:
            continue
        for path in [row.get("FragmentPath", ""), *row.get("DropInPaths", "").split()]:
            with contextlib.suppress(OSError):
                if path and os.stat(path).st_mtime > now - monotonic + since:
                    waiting[row["Id"]] = f"{path} is newer"
    return waiting


def outdated(proc: str = "/proc") -> dict[str, str]:
    """Services with a process that still uses a program or library which an upgrade has replaced, and which."""
    waiting = {}
    for maps in glob.glob(f"{proc}/[0-9]*/maps"):
        with contextlib.suppress(OSError):
            with open(maps, encoding="utf-8", errors="replace") as file:
                gone = re.search(r" r-xp .* (/(?:usr|lib|opt|srv)\S*) \(deleted\)$", file.read(), re.MULTILINE)
            if not gone:
                continue
            with open(maps.replace("/maps", "/cgroup"), encoding="utf-8") as file:
                unit = re.search(r"/([^/\s]+\.service)(?:/|$)", file.read(), re.MULTILINE)
            if unit:
                waiting[unit[1]] = f"{gone[1]} was replaced"
    return waiting


def reboot() -> str:
    """Why the host waits for a reboot: a package says so, or a newer kernel is there."""
    if os.path.exists("/run/reboot-required"):
        return "a package asks for it (/run/reboot-required)"
    newest = output("sh", "-c", "linux-version list | linux-version sort | tail -n 1").strip()
    running = os.uname().release
    # The flavours of other architectures and of the cloud have another end.
    if newest and newest != running and newest.split("-")[-1] == running.split("-")[-1]:
        return f"the kernel {newest} is installed, {running} runs"
    return ""


def disks(mounts: str) -> list[dict[str, Any]]:
    """How full the disks are, each once, in percent as df has it."""
    found: dict[int, dict[str, Any]] = {}
    for line in mounts.splitlines():
        _, path, kind = line.split()[:3]
        if kind not in _DISKS or os.path.isfile(path):
            continue
        with contextlib.suppress(OSError):
            values, device = os.statvfs(path), os.stat(path).st_dev
            used = values.f_blocks - values.f_bfree
            inodes = values.f_files - values.f_ffree
            found.setdefault(
                device,
                {
                    "path": path,
                    "used": round(100 * used / max(1, used + values.f_bavail), 1),
                    "inodes": round(100 * inodes / max(1, values.f_files), 1),
                },
            )
    return list(found.values())


def memory_used(meminfo: str) -> float:
    """Percent of the memory that nothing could be given of any more."""
    values = {key: int(number) for key, number in re.findall(r"^(\w+): *(\d+)", meminfo, re.MULTILINE)}
    return round(100 - 100 * values["MemAvailable"] / max(1, values["MemTotal"]), 1)


def group_memory_used(root: str = "/sys/fs/cgroup") -> float:
    """Percent of the memory that a container may have; 0 where nothing bounds it. Caches do not count."""
    for folder, most, now, idle in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (f"{root}/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):
            found = {}
            for name in (most, now, "memory.stat"):
                with open(os.path.join(folder, name), encoding="ascii") as file:
                    found[name] = file.read()
            cache = re.search(rf"^{idle} (\d+)$", found["memory.stat"], re.MULTILINE)
            # "max" is no number; the older interface has a very large one.
            return round(100 * (int(found[now]) - int(cache[1] if cache else 0)) / int(found[most]), 1)
    return 0.0


def certificate_end(path: str) -> float | None:
    """When a certificate ends, in seconds of the epoch; None where there is none."""
    text = output("openssl", "x509", "-noout", "-enddate", "-in", path).strip().partition("=")[2]
    with contextlib.suppress(ValueError):
        return float(calendar.timegm(time.strptime(text, "%b %d %H:%M:%S %Y %Z")))
    return None


def resolves(name: str, seconds: float = 3) -> bool:
    """Whether a name is resolved within some seconds; the resolver itself may take minutes."""
    answers: list[Any] = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            answers.append(socket.getaddrinfo(name, 443))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(answers)


def releases(root: str) -> dict[str, Any]:
    """What an application runs."""
    found = Releases(root)
    try:
        state = found.load()
    except ReleaseError as error:
        return {"current": found.current(), "error": str(error)}
    since = (str(e["at"]) for e in reversed(state["history"]) if e["ok"] and e["action"] == "switch")
    return {"current": found.current(), "since": next(since, ""), "beside": state["beside"]}


def options(text: str) -> dict[str, str]:
    """Names and values of an option file of MySQL."""
    pairs = re.findall(r"^([a-z][\w-]*)\s*=\s*(.*?)\s*$", text, re.MULTILINE)
    plain = {name.replace("-", "_").removeprefix("loose_"): value.strip("\"'") for name, value in pairs}
    return {variable(name, value): value for name, value in plain.items()}


def database() -> dict[str, Any]:
    """A database server's state, and the settings of the collection's option file that only a restart gives it."""
    if mysql_server.PYMYSQL_ERROR:
        return {"error": str(mysql_server.PYMYSQL_ERROR)}
    wanted: dict[str, str] = {}
    try:
        with mysql_server.Session("this host", mysql_server.by_socket(), 3, read_timeout=10) as session:
            vendor, state = session.dialect.vendor, mysql_server.read_state(session)
            have = {r["Variable_name"].lower(): r["Value"] for r in session.run("SHOW GLOBAL VARIABLES")}
    except mysql_server.ServerError as error:
        return {"error": str(error)}
    with contextlib.suppress(OSError), open(f"/etc/mysql/{vendor}.conf.d/zz-webstack.cnf", encoding="utf-8") as file:
        wanted = options(file.read())
    differ = [n for n, v in wanted.items() if n in have and n not in _ROLE and normal(have[n]) != normal(v)]
    return {"vendor": vendor, "state": state, "settings": sorted(differ)}


def upgrades() -> list[dict[str, Any]]:
    """Packages of which apt has a newer version, and whether it comes from Debian's security archive."""
    import apt

    found = []
    for package in apt.Cache():
        if package.is_installed and package.is_upgradable:
            origins = [f"{o.label} {o.archive}" for o in package.candidate.origins]
            found.append(
                {
                    "name": package.name,
                    "installed": package.installed.version,
                    "candidate": package.candidate.version,
                    "security": any("Debian-Security" in o or o.endswith("-security") for o in origins),
                }
            )
    return sorted(found, key=lambda entry: entry["name"])


def addresses() -> list[str]:
    """All addresses of the host."""
    interfaces = json.loads(output("ip", "-json", "address") or "[]")
    return sorted({a["local"] for i in interfaces for a in i.get("addr_info", []) if "local" in a})


def read_json(path: str) -> Any:
    """What a JSON file says; None where there is none, a text where it is no JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"error": f"{path}: {error}"}


def status(p: dict[str, Any]) -> dict[str, Any]:
    """Everything that the parameters ask for."""
    properties = "Id,LoadState,ActiveState,ActiveEnterTimestampMonotonic,FragmentPath,DropInPaths"
    asked = sorted(set(p["units"]) | set(p["restart_units"]))
    shown = output("systemctl", "show", f"--property={properties}", *asked) if asked else ""
    now, monotonic = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    waiting = outdated() | newer_units(p["restart_units"], shown, now, monotonic)
    stuck = [f"{unit} cannot restart by itself, {why}" for unit, why in sorted(waiting.items()) if _BOOT.match(unit)]
    services = output(
        "systemctl", "show", "--property=Id,ActiveState,NRestarts,ExecMainStartTimestampMonotonic", "*.service"
    )
    failed = output("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    ends = {path: certificate_end(path) for path in p["certificates"] if os.path.exists(path)}
    with open("/proc/mounts", encoding="utf-8") as mounts, open("/proc/meminfo", encoding="ascii") as meminfo:
        found = {
            "time": now,
            "kernel": os.uname().release,
            "units": unit_states(p["units"], shown),
            "failed_units": [line.split()[0] for line in failed.splitlines() if line.strip()],
            "crashing": crashing(services, monotonic),
            "addresses": addresses(),
            "disks": disks(mounts.read()),
            "memory": max(memory_used(meminfo.read()), group_memory_used()),
            "resolves": resolves(p["resolve"]) if p["resolve"] else None,
            "certificates": ends,
            "releases": {name: releases(root) for name, root in p["applications"].items()},
            "backup": read_json(p["backup"]),
            "restart": {unit: why for unit, why in waiting.items() if not _BOOT.match(unit)},
            "reboot": reboot() or next(iter(stuck), ""),
        }
    if p["haproxy"]:
        found["servers"] = json.loads(output("/usr/local/sbin/haproxy-servers", "show", "--json") or "null")
    if p["mysql"]:
        found["mysql"] = database()
        if found["mysql"].get("settings"):
            unit = f"{found['mysql']['vendor']}.service"
            found["restart"][unit] = f"for {', '.join(found['mysql']['settings'])}"
    if p["upgrades"]:
        found["upgrades"] = upgrades()
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "restart_units": {"type": "list", "elements": "str", "default": []},
            "applications": {"type": "dict", "default": {}},
            "haproxy": {"type": "bool", "default": False},
            "mysql": {"type": "bool", "default": False},
            "certificates": {"type": "list", "elements": "path", "default": []},
            "backup": {"type": "path", "default": "/var/lib/webstack-backup/status.json"},
            "resolve": {"type": "str", "default": ""},
            "upgrades": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, status=status(module.params))


if __name__ == "__main__":
    main()
