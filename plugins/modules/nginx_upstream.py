#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a web server send to one of the servers behind it, or not, and wait until that is so."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_upstream
version_added: 0.1.0
short_description: Drain a server out of nginx's upstreams, or send to it again
description:
  - Marks every line C(server ...; # <server>) of the configuration as C(down), or takes the mark away; lets nginx check
    the whole; reloads it; and waits until no process with the former configuration takes requests any more.
  - With O(state=drained) it then waits until nginx has no connection to the server, thus until the last request that
    was on its way is answered.
  - Called again, it waits again, and reloads where an earlier call could not.
  - Where nginx does not run, the file alone is changed.
options:
  server:
    description: The server, as the comment behind its lines names it.
    type: str
    required: true
  state:
    description: Whether it gets nothing any more.
    type: str
    choices: [drained, active]
    required: true
  address:
    description: Where its connections go; needed with O(state=drained).
    type: str
  timeout:
    description: How long the requests that are on their way may take, in seconds.
    type: int
    default: 60
  path:
    description: The configuration.
    type: path
    default: /etc/nginx/nginx.conf
attributes:
  check_mode:
    support: full
    description: Says whether the configuration would change.
  diff_mode:
    support: full
    description: The configuration, before and after.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The web server sends nothing to app1
  scaleup.webstack.nginx_upstream:
    server: app1
    address: 198.18.0.31
    state: drained

- name: It does again
  scaleup.webstack.nginx_upstream:
    server: app1
    state: active
"""

RETURN = r"""
waited:
  description: How long the last requests took, in seconds.
  type: float
  returned: success
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PID = Path("/run/nginx.pid")
# How long the master may take to start its new workers, in seconds.
RELOAD_TIMEOUT = 30
# What nginx calls an old worker, in its command line.
LEAVING = "is shutting down"


class UpstreamError(Exception):
    """It did not come about; the text says what, and what to do."""


def marked(text: str, server: str, drained: bool) -> str:
    """The configuration with the server's lines as they shall be."""
    lines = rf"^(\s+server \S+ [^;#]*?)(?: down)?; # {re.escape(server)}$"
    return re.sub(lines, rf"\1{' down' if drained else ''}; # {server}", text, flags=re.MULTILINE)


def workers() -> set[int]:
    """The processes that nginx's master has; none when it does not run."""
    try:
        master = int(PID.read_text())
        return {int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()}
    except (OSError, ValueError):
        return set()


def takes_requests(pid: int) -> bool:
    """Whether a worker is there and not one that only finishes what it has."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
    return command != "" and LEAVING not in command


def begun(pid: int) -> float:
    """When a process began, in seconds of the system's clock.

    The fields of stat are those of proc_pid_stat(5): the command may hold blanks, and the 22nd is in clock ticks since
    the machine was started.

    :raises OSError: there is no such process.
    """
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


@contextmanager
def alone(folder: str) -> Iterator[None]:
    """Nobody else changes a file of the folder in the same way meanwhile: several hosts of one batch may want to."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Not the file itself, which is replaced.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class Upstream:
    """The work of one call."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]

    def run(self, words: list[str], failure: str) -> str:
        """What a command prints.

        :raises UpstreamError: it failed; the text begins with `failure`.
        """
        code, out, err = self.module.run_command(words)
        if code:
            raise UpstreamError(f"{failure}: {(err or out).strip()}")
        return str(out)

    def change(self, text: str) -> None:
        """Replace the configuration when nginx accepts it, and reload; returns when the new one alone takes requests.

        :raises UpstreamError: nginx refuses it, or cannot be reloaded.
        """
        # Beside the old one: what it includes may be named from there.
        handle, staged = tempfile.mkstemp(prefix=".nginx.conf.", dir=os.path.dirname(self.path))
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
            self.run(["nginx", "-t", "-q", "-c", staged], f"{self.path} stays as it is, nginx refuses the change")
            self.module.atomic_move(staged, self.path)
        finally:
            if os.path.exists(staged):
                os.unlink(staged)
        self.reload()

    def behind(self) -> bool:
        """Whether a worker has an older configuration than the file: an earlier call wrote it and could not reload."""
        written = os.stat(self.path).st_mtime
        for pid in workers():
            with suppress(OSError):
                # A process's age is known to a tick of the clock, 0.01 s.
                if takes_requests(pid) and begun(pid) < written - 0.05:
                    return True
        return False

    def reload(self) -> None:
        """Let nginx read its configuration; returns when nobody with the former one takes requests.

        :raises UpstreamError: it cannot be reloaded.
        """
        old = workers()
        if not old:
            return
        self.run(["systemctl", "reload", "nginx.service"], "nginx cannot be reloaded")
        deadline = time.monotonic() + RELOAD_TIMEOUT
        while any(takes_requests(pid) for pid in old):
            if time.monotonic() > deadline:
                raise UpstreamError(
                    f"nginx was told to reload and did not in {RELOAD_TIMEOUT} s: look into /var/log/nginx/error.log"
                )
            time.sleep(0.05)

    def last_requests(self, address: str, timeout: int) -> None:
        """Wait until no connection to the server is left.

        :raises UpstreamError: there still is one after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        words = ["ss", "--no-header", "--tcp", "--numeric", "state", "established", "dst", address]
        while left := self.run(words, "the connections cannot be listed").splitlines():
            if time.monotonic() > deadline:
                raise UpstreamError(
                    f"{len(left)} connections to {address} are still open after {timeout} s, with requests on them. "
                    "Give them more time: nginx_web_drain_timeout"
                )
            time.sleep(0.1)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "server": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["drained", "active"], "required": True},
            "address": {"type": "str"},
            "timeout": {"type": "int", "default": 60},
            "path": {"type": "path", "default": "/etc/nginx/nginx.conf"},
        },
        required_if=[("state", "drained", ("address",))],
        supports_check_mode=True,
    )
    upstream, path = Upstream(module), module.params["path"]
    drained = module.params["state"] == "drained"
    began = time.monotonic()
    try:
        with alone(os.path.dirname(path)):
            old = Path(path).read_text()
            new = marked(old, module.params["server"], drained)
            behind = new == old and upstream.behind()
            if not module.check_mode:
                if new != old:
                    upstream.change(new)
                elif behind:
                    upstream.reload()
        began = time.monotonic()
        if drained and not module.check_mode:
            upstream.last_requests(module.params["address"], module.params["timeout"])
    except UpstreamError as error:
        module.fail_json(msg=f"nginx_upstream: {error}.")
    except OSError as error:
        module.fail_json(msg=f"nginx_upstream: {error.filename}: {error.strerror}. Run the role nginx_web there first.")
    module.exit_json(
        changed=new != old or behind,
        waited=round(time.monotonic() - began, 3),
        diff={"before_header": path, "after_header": path, "before": old, "after": new},
    )


if __name__ == "__main__":
    main()
