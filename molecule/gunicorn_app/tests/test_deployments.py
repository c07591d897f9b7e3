"""Releases under load: good ones without a failed request, bad ones without a trace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from labtest import wait_for
from releasing import (
    HOSTS,
    ROOT,
    SCENARIO,
    SECRET,
    WEB,
    deploy,
    edit,
    lab,
    load,
    play,
    recap,
    record,
    releases,
    running,
)


@pytest.mark.thorough
def test_ten_deployments_in_a_row(source: Path) -> None:
    before = running()
    with load() as requests_sent:
        for number in range(1, 11):
            done = deploy(edit(source, f"ten-{number}"), gunicorn_app_reason=f"number {number}")
            assert done.returncode == 0, recap(done)
            assert running() not in ("", before)
            before = running()
    assert len(requests_sent.results) > 400
    for host in HOSTS:
        history = record(host)["history"]
        assert [e["reason"] for e in history if e["ok"]][-10:] == [f"number {n}" for n in range(1, 11)]
        # The five newest stay.
        assert lab.host(host).check_output("ls /srv/probe/releases | wc -l") == "5"


@pytest.mark.parametrize("broken", ["import", "health", "migration"])
def test_a_bad_release_leaves_the_old_one_serving(source: Path, broken: str) -> None:
    before, void = running(), {h: len(record(h)["void"]) for h in HOSTS}
    with load():
        done = deploy(edit(source, f"bad {broken}", broken))
    assert done.returncode != 0
    assert "broken on purpose" in done.stdout, recap(done)
    assert running() == before
    assert " down;" not in lab.host("web1").check_output("cat /etc/nginx/nginx.conf"), "nothing stays drained"
    for host in HOSTS:
        assert lab.host(host).file("/srv/probe/current").linked_to == f"/srv/probe/releases/{before}"
    # The first host tried it on the side; the second was not touched.
    assert {h: len(record(h)["void"]) - void[h] for h in HOSTS} == {"app1": int(broken == "health"), "app2": 0}
    if broken == "health":
        again = deploy(source)
        assert again.returncode != 0 and "is void on app1" in again.stdout, recap(again)


@pytest.mark.thorough
def test_roll_back_and_back_again_and_forward(source: Path) -> None:
    ran = []
    for part in ("back-1", "back-2", "back-3"):
        assert deploy(edit(source, part)).returncode == 0
        ran.append(running())
    with load():
        done = play("rollback", gunicorn_app_rollback_name="probe", gunicorn_app_reason="three is bad")
        assert done.returncode == 0, recap(done)
        assert running() == ran[1]
        done = play("rollback", gunicorn_app_rollback_name="probe", gunicorn_app_reason="two is bad too")
        assert done.returncode == 0, recap(done)
        assert running() == ran[0]
    assert {r: v["reason"] for r, v in record("app2")["void"].items() if r in ran} == {
        ran[1]: "two is bad too",
        ran[2]: "three is bad",
    }
    # Not to a void one, and not to one that nobody has.
    for target in (ran[2], "nonsense"):
        done = play("rollback", gunicorn_app_rollback_name="probe", gunicorn_app_rollback_to=target)
        assert done.returncode != 0 and f"cannot go back to {target}" in done.stdout, recap(done)
    assert running() == ran[0]
    assert deploy(source, gunicorn_app_retry_void=True).returncode == 0
    assert running() == ran[2]


@pytest.mark.thorough
def test_a_canary_and_then_the_rest(source: Path) -> None:
    before = running()
    with load():
        done = deploy(edit(source, "canary"), "--limit", "app1")
        assert done.returncode == 0, recap(done)
        canary = releases()
        assert canary["app1"] != before and canary["app2"] == before
        # Rolled back as a whole: the host that it did not reach stays as it is.
        assert play("rollback", gunicorn_app_rollback_name="probe").returncode == 0
        assert releases() == {"app1": before, "app2": before}
        assert deploy(edit(source, "canary two"), "--limit", "app1").returncode == 0
        assert deploy(source).returncode == 0
    assert running() == releases()["app1"] != before


def blue_green(step: str, source: Path) -> subprocess.CompletedProcess[str]:
    return play("blue_green", gunicorn_app_blue_green=step, probe_src=str(source), gunicorn_app_reason=step)


def served() -> set[str]:
    """The releases that the web server's answers come from."""
    return {requests.get(f"{WEB}/parts", timeout=10).json()["release"] for _ in range(8)}


def beside() -> dict[str, str]:
    """The state of the unit beside the service, on each host."""
    return {h: lab.host(h).run("systemctl is-active gunicorn-probe-beside.service").stdout.strip() for h in HOSTS}


def test_a_release_beside_the_other_is_switched_to_and_back_in_one_step(source: Path) -> None:
    before = running()
    edit(source, "green")
    with load():
        done = blue_green("start", source)
        assert done.returncode == 0, recap(done)
        assert running() == before, "the services run what they ran"
        (new,) = served()
        assert new != before and set(beside().values()) == {"active"}
        # The site play keeps the choice.
        done = play(str(SCENARIO / "converge.yml"), "--limit", "web")
        assert done.returncode == 0 and re.search(r"web1 .*changed=0", done.stdout), recap(done)
        assert served() == {new}
        done = blue_green("back", source)
        assert done.returncode == 0, recap(done)
        assert served() == {before} == {running()}
        assert set(beside().values()) == {"inactive"}
        assert all(record(host)["void"][new]["reason"] == "back" for host in HOSTS)
        again = blue_green("start", source)
        assert again.returncode != 0 and f"release {new}" in again.stdout and "is void" in again.stdout, recap(again)

        assert blue_green("start", edit(source, "greener")).returncode == 0
        (newer,) = served()
        done = blue_green("finish", source)
        assert done.returncode == 0, recap(done)
        assert served() == {newer} == {running()}
        assert set(beside().values()) == {"inactive"}
    nothing = blue_green("finish", source)
    assert nothing.returncode != 0 and "no release of probe runs beside the other on app1" in nothing.stdout


def test_a_bad_release_beside_the_other_gets_no_request(source: Path) -> None:
    before = running()
    with load():
        done = blue_green("start", edit(source, "bad beside", "health"))
        assert done.returncode != 0 and "broken on purpose" in done.stdout, recap(done)
    assert served() == {before} == {running()}
    assert set(beside().values()) == {"inactive"}


@pytest.mark.thorough
def test_changed_settings_are_applied_by_a_reload(source: Path) -> None:
    edit(source, "settings")
    assert deploy(source).returncode == 0
    pids = {h: lab.host(h).check_output("systemctl show -P MainPID gunicorn-probe.service") for h in HOSTS}
    with load():
        done = play(str(SCENARIO / "converge.yml"), probe_src=str(source), probe_setting="two")
        assert done.returncode == 0, recap(done)
    for host, address in zip(HOSTS, ("198.18.3.31", "198.18.3.32"), strict=True):
        assert requests.get(f"http://{address}:8001/setting", timeout=10).json()["setting"] == "two"
        assert lab.host(host).check_output("systemctl show -P MainPID gunicorn-probe.service") == pids[host]


def test_secrets_are_not_shown(source: Path) -> None:
    done = deploy(edit(source, "secrets"), "-vvv", "--diff")
    assert done.returncode == 0, recap(done)
    assert SECRET not in done.stdout + done.stderr
    for host in HOSTS:
        assert lab.host(host).run(f"journalctl --no-pager | grep {SECRET}").rc == 1


def test_another_hash_leaves_the_old_release(source: Path) -> None:
    before = running()
    edit(source, "hash")
    (source / "requirements.txt").write_text(f"gunicorn==27.0.1 --hash=sha256:{'0' * 64}\n")
    done = deploy(source)
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stdout, recap(done)
    assert running() == before


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    before = running()
    done = deploy(tmp_path / "nowhere")
    assert done.returncode != 0 and f"no file or folder {tmp_path}/nowhere" in done.stdout, recap(done)
    assert running() == before


@pytest.mark.thorough
def test_a_full_disk_leaves_the_old_release(source: Path) -> None:
    before = running()
    edit(source, "full")
    (source / "large").write_bytes(os.urandom(1 << 20))
    # The folder of the release that is going to be: its id is known beforehand.
    arguments = {"src": str(source), "recipe": {"server": "gunicorn==27.0.1", "requirements": "requirements.txt"}}
    packed = subprocess.run(
        [sys.executable, ROOT / "plugins/modules/source_archive.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments | {"_ansible_check_mode": True}}),
        capture_output=True,
        text=True,
    )
    folder = f"/srv/probe/releases/{json.loads(packed.stdout)['release']}"
    machine = lab.host("app2")
    machine.check_output(f"mkdir {folder} && mount -t tmpfs -o size=256k none {folder}")
    try:
        done = deploy(source)
        assert done.returncode != 0 and "No space left on device" in done.stdout, recap(done)
        assert running() == before
    finally:
        machine.check_output(f"umount {folder} && rm -r {folder}")


def test_a_reboot_comes_back_on_the_release() -> None:
    before = running()
    lab.docker("restart", lab.container("app2"))
    wait_for(lambda: running() == before, 90)
