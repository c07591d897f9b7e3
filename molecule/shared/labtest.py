"""What the tests of all scenarios share: the hosts of a lab, and waiting for something to become true."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import testinfra
from testinfra.host import Host

T = TypeVar("T")


class Lab:
    """The containers of one lab, by the names that the inventory gives them.

    :param name: the lab's name, ``lab_name`` in the inventory; the variable LAB_NAME of the environment by default.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name or os.environ.get("LAB_NAME", "webstack")

    def container(self, host: str) -> str:
        """The container's name."""
        return f"{self.name}-{host}"

    def host(self, host: str) -> Host:
        """A testinfra host: ``lab.host("web1").run("nginx -t")``."""
        return testinfra.get_host(f"docker://{self.container(host)}")

    def docker(self, *words: str) -> str:
        """Run the docker client and return what it prints.

        :raises subprocess.CalledProcessError: it failed.
        """
        return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()

    def kill(self, host: str) -> None:
        """Power a host off without a goodbye."""
        self.docker("kill", self.container(host))

    def start(self, host: str) -> None:
        """Power a host on and wait until its systemd says that it has booted."""
        self.docker("start", self.container(host))
        booted = ("running", "degraded")
        wait_for(lambda: self.host(host).run("systemctl is-system-running").stdout.strip() in booted, 60)

    def cut(self, host: str) -> None:
        """Cut a host's network; its processes go on."""
        self.docker("exec", self.container(host), "ip", "link", "set", "eth0", "down")

    def mend(self, host: str) -> None:
        """Join a host's network again."""
        subnet = self.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", self.name)
        # The kernel forgot the route with the link; Docker's gateway is a network's first address.
        gateway = ipaddress.ip_network(subnet)[1]
        command = f"ip link set eth0 up && ip route replace default via {gateway}"
        self.docker("exec", self.container(host), "sh", "-c", command)


def inventories(own: Path | str) -> list[str]:
    """The options of an Ansible command for a scenario's inventory, between the two that all scenarios share."""
    shared = Path(__file__).parent
    return [word for path in (shared / "inventory", own, shared / "containers") for word in ("-i", str(path))]


def wait_for(condition: Callable[[], T], seconds: float = 30, every: float = 0.2) -> T:
    """Poll until ``condition()`` is true, and return what it returned.

    :raises AssertionError: it did not become true in ``seconds``; carries the last exception, if there was one.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while True:
        try:
            if result := condition():
                return result
            last = None
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"did not become true within {seconds} s: {condition}") from last
        time.sleep(every)
