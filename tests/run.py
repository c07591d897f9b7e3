"""`./lab test`: every check of the project, in parts that can be run alone. Needs the tools of .lab/venv."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".lab" / "log" / "test"
# The default scenario gets a network of its own, so that a lab that is up does not stand in its way.
NETWORK = "198.18.200.0/24"
# The scenarios that run on Debian 12, too, and those of them that only --thorough runs: what differs there is known to
# the others. MySQL has no package there.
DEBIAN_12 = ("haproxy_keepalived", "nginx_web", "gunicorn_app", "ops_server", "mysql_replication_mariadb")
DEBIAN_12_THOROUGH = ("gunicorn_app", "ops_server", "mysql_replication_mariadb")
PYTHON_SOURCES = [
    "lab",
    "molecule",
    "plugins",
    "roles/gunicorn_app/files/gunicorn-metrics",
    "roles/haproxy_keepalived/files/haproxy-servers",
    "roles/haproxy_keepalived/files/haproxy-certificates",
    "roles/host_firewall/files/webstack-firewall",
    "roles/mysql_replication/files",
    "tests",
]
# CI may force colours; Molecule then forces them on Ansible, and tests could not read what a playbook says.
PLAIN = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_NOCOLOR": "true",
    "FORCE_COLOR": "",
    "NO_COLOR": "1",
    "PY_COLORS": "0",
}

# A whole scenario more of what another one tests: by name, and with --thorough.
THOROUGH = ("mysql_replication_mariadb",)

Steps = Callable[["Part"], None]


class Part:
    """One part: a name, how it is run, and the log that it writes."""

    def __init__(self, name: str, steps: Steps, thorough: bool = False) -> None:
        self.name, self.steps, self.thorough = name, steps, thorough
        # Two parts with the same hosts cannot run side by side.
        self.hosts = name.partition("@")[0]
        self.log = LOGS / f"{name.replace('/', '-')}.log"
        self.took, self.ok = 0.0, False

    def run(self) -> None:
        """Run it; a step that fails ends it."""
        began = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        try:
            self.steps(self)
            self.ok = True
        except (subprocess.CalledProcessError, OSError) as error:
            with self.log.open("a") as log:
                log.write(f"\n{error}\n")
        self.took = time.monotonic() - began

    def do(self, *words: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
        """One command, its output into the log.

        :raises subprocess.CalledProcessError: it failed.
        """
        environment = os.environ | PLAIN | (env or {})
        command = [str(word) for word in words]
        with self.log.open("a") as log:
            log.write(f"\n$ {' '.join(command)}\n")
            log.flush()
            subprocess.run(
                command, check=True, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )


def lint(part: Part) -> None:
    """ansible-lint (profile production), yamllint, ruff, mypy."""
    part.do("ansible-lint", "--offline", "--strict", "--profile", "production")
    part.do("yamllint", "--strict", ".")
    part.do("ruff", "check", *PYTHON_SOURCES)
    part.do(
        "mypy",
        "--scripts-are-modules",
        "lab",
        "tests/run.py",
        "tests/screenshot.py",
        "tests/bench/run.py",
        *sorted((ROOT / "tests" / "chaos").glob("*.py")),
        *sorted((ROOT / "molecule" / "shared").glob("*.py")),
    )
    # By their names in the collection: the plugins import each other by those.
    packages = (f"ansible_collections.scaleup.webstack.plugins.{name}" for name in ("plugin_utils", "module_utils"))
    names = [word for package in packages for word in ("-p", package)]
    environment = {"MYPYPATH": str(ROOT / ".ansible" / "collections")}
    part.do("mypy", "--namespace-packages", "--explicit-package-bases", *names, env=environment)


def unit(part: Part) -> None:
    """Plugins, rendered templates, specifications equal to defaults."""
    part.do(sys.executable, "-m", "pytest", "-q", "tests/unit", env={"PYTHONPATH": ".ansible/collections"})


def compat(part: Part) -> None:
    """The inventory plugin on the newest ansible-core that a Python of this machine can have."""
    part.do(sys.executable, "tests/compat.py")


def build(part: Part) -> None:
    """The tarball builds, installs, and its playbooks and plugins are found by their full names, from anywhere."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        collections = work / "collections"
        part.do("ansible-galaxy", "collection", "build", "--output-path", work)
        tarball = next(work.glob("scaleup-webstack-*.tar.gz"))
        # No Galaxy: the dependencies are those that the checkout has from the bundle.
        bundled = ROOT / ".ansible" / "collections" / "ansible_collections"
        for name in ("ansible", "community"):
            shutil.copytree(bundled / name, collections / "ansible_collections" / name)
        # Without the settings of the checkout, as on a user's machine.
        (work / "ansible.cfg").write_text("")
        installed = {"ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_CONFIG": str(work / "ansible.cfg")}
        galaxy_install = ("ansible-galaxy", "collection", "install", "--offline", "-p", collections, tarball)
        part.do(*galaxy_install, cwd=work, env=installed)
        site = work / "my-site"
        shutil.copytree(ROOT / "inventory", site)
        part.do("ansible-playbook", "-i", site, "scaleup.webstack.site", "--list-hosts", cwd=work, env=installed)
        part.do("ansible-doc", "-t", "inventory", "scaleup.webstack.tiers", cwd=work, env=installed)
        # From the root of a checkout, with its own settings.
        part.do("ansible-playbook", "site.yml", "--list-hosts", env={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")})


def scenario(name: str, **env: str) -> Steps:
    """A Molecule scenario, from nothing to nothing."""

    def steps(part: Part) -> None:
        home = ROOT / ".lab" / "molecule" / part.name.replace("/", "-")
        try:
            part.do("molecule", "test", "--scenario-name", name, env={"ANSIBLE_HOME": str(home), **env})
        finally:
            shutil.rmtree(home, ignore_errors=True)

    return steps


def default(part: Part) -> None:
    """The whole site: Molecule's default scenario, as ./lab up makes it, beside whatever lab is up."""
    name = "webstack-test"
    env = {"LAB_NAME": name, "LAB_NETWORK": NETWORK, "LAB_INVENTORY": str(ROOT / ".lab" / name / "inventory")}
    part.do(ROOT / "lab", "inventory", env=env)
    try:
        scenario("default", **env)(part)
    finally:
        part.do(ROOT / "lab", "down", "--keep-image", env=env)


def parts() -> list[Part]:
    """All parts, the longest first."""
    found = [Part("default", default)]
    for folder in sorted((ROOT / "molecule").glob("*/molecule.yml")):
        if (name := folder.parent.name) != "default":
            found.append(Part(f"roles/{name}", scenario(name), name in THOROUGH))
    for name in DEBIAN_12:
        found.append(Part(f"roles/{name}@12", scenario(name, LAB_DEBIAN="12"), name in DEBIAN_12_THOROUGH))
    return [*found, Part("lint", lint), Part("unit", unit), Part("compat", compat), Part("build", build)]


def telling(text: str) -> list[str]:
    """What a part's log says of its failure, in few lines: CI may keep no more of it."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    # The tests' names stand at the head of what pytest says of each, which may be long.
    found = [f"failed: {match[1]}" for line in lines if (match := re.match(r"_{3,} (\S.*?) _{3,}$", line))]
    found += [line for line in lines if line.startswith("E  ")][:12]
    task = ""
    for line in lines:
        if line.startswith("TASK ["):
            task = line.rstrip(" *")
        elif line.startswith(("fatal: ", "[ERROR]: ")) or " FAILED! => " in line:
            found += [task, line]
    noise = re.compile(r"(INFO|WARNING) |TASK|PLAY|\$ |ok: |changed: |skipping: |RUNNING |\s*$")
    found += [line for line in lines[-40:] if not noise.match(line)]
    return [line if len(line) <= 400 else f"{line[:300]} ... {line[-90:]}" for line in dict.fromkeys(found)]


def report(part: Part) -> None:
    """A line for a part, and for a failed one what its log says of that."""
    print(f"{part.name:.<48} {'passed' if part.ok else 'FAILED'} {part.took:7.0f} s", flush=True)
    if not part.ok:
        print("\n".join(f"    {line}" for line in telling(part.log.read_text(errors="replace"))))
        print(f"    (all of it: {part.log.relative_to(ROOT)})", flush=True)


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="./lab test", description=__doc__)
    parser.add_argument(
        "part",
        nargs="*",
        help="for example roles/nginx_web, or roles/nginx_web@12 (on Debian 12); without one, all",
    )
    parser.add_argument("--list", action="store_true", help="say which parts there are")
    parser.add_argument("--thorough", action="store_true", help="the tests that take minutes, and all parts")
    parser.add_argument("--jobs", type=int, default=2, help="parts side by side")
    arguments = parser.parse_args()
    if arguments.thorough:
        os.environ["LAB_THOROUGH"] = "yes"
    everything = parts()
    if arguments.list:
        print("\n".join(part.name for part in everything))
        return 0
    unknown = [name for name in arguments.part if name not in [part.name for part in everything]]
    if unknown:
        known = ", ".join(part.name for part in everything)
        print(f"lab: there is no part {unknown[0]}; there are: {known}", file=sys.stderr)
        return 2
    asked = arguments.part or [part.name for part in everything if arguments.thorough or not part.thorough]
    chosen = [part for part in everything if part.name in asked]
    queue, busy, changed = list(chosen), set[str](), threading.Condition()

    def work() -> None:
        while True:
            with changed:
                while not (free := [part for part in queue if part.hosts not in busy]):
                    if not queue:
                        return
                    changed.wait()
                part = free[0]
                queue.remove(part)
                busy.add(part.hosts)
            part.run()
            with changed:
                report(part)
                busy.remove(part.hosts)
                changed.notify_all()

    print(f"{len(chosen)} parts, {arguments.jobs} at a time; logs in {LOGS.relative_to(ROOT)}", flush=True)
    workers = [threading.Thread(target=work) for _ in range(arguments.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    failed = sum(not part.ok for part in chosen)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
