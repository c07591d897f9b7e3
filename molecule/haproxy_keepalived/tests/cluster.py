"""The balancers of this scenario: what clients see of them, who has which VIP, and converging them anew."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

from labtest import Lab, inventories
from load import Load, Request

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
SCENARIO = ROOT / "molecule" / "haproxy_keepalived"
VIPS = {"public1": "198.18.1.101", "public2": "198.18.1.102", "internal": "198.18.1.103"}
ADDRESS = {"lb1": "198.18.1.11", "lb2": "198.18.1.12"}
SITE = "www.lab.test"
lab = Lab("webstack-haproxy")


def context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(SCENARIO / "inventory" / ".pki" / "ca.pem"))


def curl(vip: str, *options: str, path: str = "/") -> str:
    words = ["curl", "--silent", "--show-error", "--max-time", "5", "--cacert", f"{SCENARIO}/inventory/.pki/ca.pem"]
    words += ["--resolve", f"{SITE}:443:{VIPS[vip]}", *options, f"https://{SITE}{path}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def running(name: str) -> bool:
    return lab.docker("inspect", "--format", "{{.State.Running}}", lab.container(name)) == "true"


def holders_on(name: str) -> set[str]:
    """The VIPs that a balancer has."""
    addresses = lab.host(name).run("ip -4 -o address show").stdout
    return {vip for vip, address in VIPS.items() if f" {address}/" in addresses}


def load(
    rate: float = 200,
    method: str = "GET",
    timeout: float = 5,
    workers: int = 200,
    verify: bool = True,
    vips: tuple[str, str] | tuple[str] = ("public1", "public2"),
) -> Load:
    """Requests over both public VIPs, every second one on a kept-alive connection.

    :param rate: per second, in all.
    :param timeout: seconds until a request counts as failed.
    """
    # By turns of two, so that either VIP gets both kinds of connections.
    requests = [Request(f"https://{SITE}/{vip}", method, connect_to=VIPS[vip]) for vip in vips for _ in range(2)]
    settings = context()
    if not verify:
        settings.check_hostname, settings.verify_mode = False, ssl.CERT_NONE
    return Load(requests, rate=rate, timeout=timeout, context=settings, workers=workers)


def at_home() -> bool:
    """Each balancer has its own VIP, and both answer."""
    return holders_on("lb1") == {"public1", "internal"} and holders_on("lb2") == {"public2"}


def server(vip: str = "public1", *options: str, path: str = "/") -> str:
    """The name of the back end that answers."""
    return str(json.loads(curl(vip, *options, path=path))["server"])


def servers(count: int = 4, vip: str = "public1") -> set[str]:
    """Those that answer a few requests."""
    return {server(vip) for _ in range(count)}


def api(name: str, command: str) -> str:
    """What the runtime API of a balancer answers."""
    return str(lab.host(name).check_output("echo %s | socat - /run/haproxy/admin.sock", command))


def process(name: str) -> str:
    """The PID of the process that serves."""
    return next(line.split()[1] for line in api(name, "show info").splitlines() if line.startswith("Pid:"))


def states(name: str) -> dict[str, str]:
    """Backend and server to status, on one balancer."""
    rows = json.loads(lab.host(name).check_output("haproxy-servers show --json"))
    return {f"{row['backend']}/{row['server']}": row["status"] for row in rows}


def play(limit: str = "lb", **variables: Any) -> subprocess.CompletedProcess[str]:
    """Converge the balancers, or one of them, with other variables."""
    words = [
        "ansible-playbook",
        *inventories(SCENARIO / "inventory"),
        "--limit",
        limit,
        "-e",
        json.dumps(variables),
        str(SCENARIO / "balancers.yml"),
    ]
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "false"}
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
