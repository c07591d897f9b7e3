"""What the tests of releases share: deploying a changed probe, and a load that must not notice."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from labtest import Lab, inventories
from load import Load, Request, Result

ROOT = Path(__file__).parents[3]
SCENARIO = ROOT / "molecule/gunicorn_app"
WEB = "http://198.18.3.21"
HOSTS = ("app1", "app2")
SECRET = "not-to-be-found-anywhere"
# The same content is the same release, and may be void since the last run of these tests.
RUN = uuid.uuid4().hex[:8]
lab = Lab("webstack-app")


def play(name: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the collection's playbooks, or one of the scenario's (a path), over the scenario's inventory."""
    path = name if "/" in name else str(ROOT / "playbooks" / f"{name}.yml")
    call = ["ansible-playbook", path, *inventories(SCENARIO / "inventory")]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible/collections"),
        "LAB_CHECKOUT": str(ROOT),
    }
    call += [*words, "--extra-vars", json.dumps(variables)]
    return subprocess.run(call, capture_output=True, text=True, env=environment, cwd=ROOT)


def deploy(source: Path, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    return play("deploy", *words, probe_src=str(source), gunicorn_app_only=["probe"], **variables)


def recap(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout[-3000:] + done.stderr[-2000:]


def edit(source: Path, part: str, broken: str = "") -> Path:
    """Another release of the probe: every part of it says `part`, and of which run it is."""
    part = f"{part} of {RUN}"
    text = (SCENARIO / "probe/probe.py").read_text()
    text = text.replace('PART = "0"', f'PART = "{part}"').replace('BROKEN = ""', f'BROKEN = "{broken}"')
    (source / "probe.py").write_text(text)
    (source / "part.txt").write_text(part + "\n")
    return source


def releases() -> dict[str, str]:
    """What each host runs, asked of the hosts themselves."""
    found = {}
    for host, address in zip(HOSTS, ("198.18.3.31", "198.18.3.32"), strict=True):
        found[host] = requests.get(f"http://{address}:8001/parts", timeout=10).json()["release"]
    return found


def running() -> str:
    """The one release that all hosts run."""
    (release,) = set(releases().values())
    return release


def record(host: str) -> dict[str, Any]:
    text = lab.host(host).check_output("cat /srv/probe/releases.json")
    found: dict[str, Any] = json.loads(text)
    return found


@contextmanager
def load(rate: float = 40) -> Iterator[Load]:
    """Reads and writes, on kept-alive and on new connections; every one has to be answered, and by one release."""
    wrong: list[str] = []

    def look(request: Request, result: Result) -> None:
        if result.status != 200:
            return
        answer = json.loads(result.body)
        if request.method == "POST" and answer["body"] != "hello":
            wrong.append(f"another body: {answer}")
        if "imported" in answer:
            # part -> release has to be one and the same for what was imported, what is read, and the packages.
            if answer["imported"] != answer["read"] or answer["packages"] != answer["release"]:
                wrong.append(f"half switched: {answer}")
            seen.setdefault(answer["imported"], set()).add(answer["release"])

    seen: dict[str, set[str]] = {}
    mix = [Request(f"{WEB}/parts"), Request(f"{WEB}/echo", "POST", b"hello"), Request(f"{WEB}/parts")]
    with Load(mix, rate=rate, timeout=20, on_result=look) as running_load:
        yield running_load
    assert not running_load.failures, running_load.summary()
    assert {r.status for r in running_load.results} == {200}
    assert not wrong, wrong[:3]
    assert all(len(found) == 1 for found in seen.values()), seen
