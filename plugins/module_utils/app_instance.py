# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One application's service on this host: started, reloaded, tried on the side, or run beside another release."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import (
    ReleaseError,
    Releases,
    digest,
    journal,
    now,
    systemctl,
    wait_for_health,
)

SYSTEM = "/etc/systemd/system"
RUNTIME = "/run/systemd/system"

# What the modules have in common (doc_fragments/app_instance.py).
INSTANCE_OPTIONS: dict[str, Any] = {
    "root": {"type": "path", "required": True},
    "health_path": {"type": "str", "default": "/healthz"},
    "health_release": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 30},
    "retry_void": {"type": "bool", "default": False},
    "reason": {"type": "str", "default": ""},
}


class Instance:
    """The service of one application, its socket, and its trial."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.releases = Releases(asked["root"])
        self.asked = asked
        self.service, self.socket = f"{asked['unit']}.service", f"{asked['unit']}.socket"
        self.applied = {
            "config": digest(asked["config"]),
            "service": digest([os.path.join(SYSTEM, self.service)]),
            "socket": digest([os.path.join(SYSTEM, self.socket)]),
            "processes": digest(sorted(os.path.join(SYSTEM, unit) for unit in self.further())),
        }

    def further(self) -> list[str]:
        """The units of further processes that are on the host."""
        with contextlib.suppress(FileNotFoundError):
            own = (self.service, self.socket)
            return [u for u in os.listdir(SYSTEM) if u.startswith(f"{self.asked['unit']}.") and u not in own]
        return []

    def run_processes(self) -> None:
        """Let the further processes run what the link names, and remove those that are not wanted any more.

        :raises ReleaseError: one of them does not start.
        """
        unit = self.asked["unit"]
        services = [f"{unit}.{name}.service" for name in self.asked["processes"]]
        timers = [f"{unit}.{name}.timer" for name in self.asked["timers"]]
        wanted = {*services, *timers, *(f"{unit}.{name}.service" for name in self.asked["timers"])}
        for other in (u for u in self.further() if u.endswith((".service", ".timer")) and u not in wanted):
            systemctl("disable", "--now", "--quiet", other, check=False)
            os.unlink(os.path.join(SYSTEM, other))
        self.applied["processes"] = digest(sorted(os.path.join(SYSTEM, u) for u in self.further()))
        if wanted:
            systemctl("daemon-reload")
        if services:
            systemctl("enable", "--quiet", *services)
            systemctl("restart", *services)
        if timers:
            systemctl("enable", "--quiet", "--now", *timers)

    def files(self) -> dict[str, str]:
        """The files that make the instance, and where their last good copies are."""
        paths = [*self.asked["config"], *(os.path.join(SYSTEM, unit) for unit in (self.service, self.socket))]
        return {path: os.path.join(self.releases.root, "good", os.path.basename(path)) for path in paths}

    def keep(self) -> None:
        """Keep a copy of the files with which the instance is healthy; for root only, there are secrets in them."""
        os.makedirs(os.path.join(self.releases.root, "good"), mode=0o700, exist_ok=True)
        for path, good in self.files().items():
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path, good)
                os.chmod(good, 0o600)

    def restore(self) -> None:
        """Bring the last good files back, so that a restart, whyever, does not meet the bad ones."""
        for path, good in self.files().items():
            if os.path.exists(good) and digest([path]) != digest([good]):
                # Owner and mode are those of the file that is there.
                shutil.copyfile(good, path)
        systemctl("daemon-reload", check=False)

    def check(self, release: str, address: str, unit: str) -> str:
        """What is wrong with an instance; empty when it is healthy."""
        wanted = release if self.asked["health_release"] else ""
        return wait_for_health(address, self.asked["health_path"], wanted, unit, self.asked["timeout"])

    def like_the_service(self, release: str, folder: str, options: str, *lines: str) -> str:
        """The text of a unit like the service, for `release`, with a runtime folder and gunicorn options of its own."""
        with open(os.path.join(SYSTEM, self.service), encoding="utf-8") as file:
            text = file.read()
        program = self.releases.path(release, "venv", "bin", "gunicorn")
        config = next((c for c in self.asked["config"] if c.endswith(".py")), "")
        own = ("RuntimeDirectory=", f"RuntimeDirectory={folder}", "ExecStart=")
        command = f"ExecStart={program} --config {config} {options}"
        # The socket is the service's: the other unit has one of its own.
        kept = [line for line in text.splitlines() if self.socket not in line]
        return "\n".join([*kept, "", "[Service]", *own, command, *lines]) + "\n"

    @contextlib.contextmanager
    def side_unit(self, release: str) -> Iterator[tuple[str, str]]:
        """A unit like the service, for `release`, on a Unix socket; its name and the socket's path."""
        folder = f"{self.asked['unit']}-trial"
        unit, address = f"{folder}.service", f"/run/{folder}/trial.sock"
        path = os.path.join(RUNTIME, unit)
        options = f"--bind unix:{address} --workers 1"
        os.makedirs(RUNTIME, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.like_the_service(release, folder, options, "Restart=no", "ExecReload="))
        try:
            systemctl("daemon-reload")
            yield unit, address
        finally:
            systemctl("stop", unit, check=False)
            os.unlink(path)
            systemctl("daemon-reload", check=False)
            systemctl("reset-failed", unit, check=False)

    def trial(self, release: str) -> None:
        """Start a release on the side.

        :raises ReleaseError: it does not answer there; with its last log lines.
        """
        began = time.time()
        with self.side_unit(release) as (unit, address):
            try:
                systemctl("start", unit)
                wrong = self.check(release, address, unit)
            except ReleaseError:
                wrong = f"{unit} does not start"
            if wrong:
                # Stopped first, so that its last words are there.
                systemctl("stop", unit, check=False)
                raise ReleaseError(f"{wrong}\n{journal(unit, began)}")

    def start(self, release: str, new_socket: bool) -> None:
        """Let the service run what the link names.

        :raises ReleaseError: it does not become healthy; with its last log lines.
        """
        began = time.time()
        systemctl("daemon-reload")
        systemctl("enable", "--quiet", self.socket, self.service)
        if new_socket:
            # A socket can only be bound anew while its service stands still.
            systemctl("stop", self.service, check=False)
            systemctl("restart", self.socket)
        else:
            systemctl("start", self.socket)
        try:
            systemctl("restart", self.service)
            wrong = self.check(release, self.asked["address"], self.service)
        except ReleaseError:
            wrong = f"{self.service} does not start"
        if wrong:
            raise ReleaseError(f"{wrong}\n{journal(self.service, began)}")

    def reload(self, release: str) -> None:
        """Apply changed settings.

        :raises ReleaseError: the service is not healthy with them.
        """
        began = time.time()
        systemctl("reload", self.service)
        if wrong := self.check(release, self.asked["address"], self.service):
            raise ReleaseError(f"{wrong}\n{journal(self.service, began)}")

    def prune(self, state: dict[str, Any]) -> None:
        """Remove the releases that are neither current nor likely to be asked for."""
        current, built = self.releases.current(), self.releases.built()
        ran = [e["release"] for e in reversed(state["history"]) if e["ok"]]
        order = list(dict.fromkeys([current, state["beside"], *(r for r in ran if r not in state["void"])]))
        # Built and not yet run: a canary's next step.
        order += [r for r in reversed(built) if r not in order and r not in state["void"]]
        keep = set([r for r in order if r in built][: max(2, self.asked["keep"])])
        for release in built:
            if release not in keep:
                shutil.rmtree(self.releases.path(release), ignore_errors=True)

    def record(self, state: dict[str, Any], release: str, action: str, wrong: str = "") -> None:
        """Write down what happened. What went wrong, but for its first line, stays in the journal."""
        event = {"at": now(), "release": release, "action": action, "reason": self.asked["reason"], "ok": not wrong}
        if wrong:
            event["error"] = wrong.splitlines()[0]
        state["history"].append(event)
        self.releases.save(state)


class Beside(Instance):
    """A second release of the application, on a port of its own, until it is switched to or taken back."""

    def __init__(self, asked: dict[str, Any]) -> None:
        super().__init__(asked)
        self.beside = f"{asked['unit']}-beside.service"
        self.path = os.path.join(SYSTEM, self.beside)

    def text(self, release: str) -> str:
        """Its unit: that of the service, without the socket. It comes back after a reboot."""
        return self.like_the_service(release, self.beside.removesuffix(".service"), f"--bind {self.asked['address']}")

    def runs(self, release: str) -> bool:
        """Whether the release runs beside the service, with the unit that it should have."""
        with contextlib.suppress(FileNotFoundError), open(self.path, encoding="utf-8") as file:
            return file.read() == self.text(release) and systemctl("is-active", self.beside, check=False) == "active"
        return False

    def begin(self, release: str, began: float) -> None:
        """Run it; `began` is from when on the journal is of interest (seconds of the epoch).

        :raises ReleaseError: it does not become healthy; with its last log lines.
        """
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(self.text(release))
        try:
            systemctl("daemon-reload")
            systemctl("enable", "--quiet", self.beside)
            systemctl("restart", self.beside)
            wrong = self.check(release, self.asked["address"], self.beside)
        except ReleaseError:
            wrong = f"{self.beside} does not start"
        if wrong:
            # Stopped first, so that its last words are there.
            systemctl("stop", self.beside, check=False)
            raise ReleaseError(f"{wrong}\n{journal(self.beside, began)}")

    def end(self) -> None:
        """Stop it, when its requests are answered, and forget its unit."""
        systemctl("disable", "--now", "--quiet", self.beside, check=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        systemctl("daemon-reload", check=False)
        systemctl("reset-failed", self.beside, check=False)
