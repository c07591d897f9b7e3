"""Updates host by host: visitors notice nothing; one that does not come back ends them, and they go on from there."""

from __future__ import annotations

import re

import pytest
from labtest import wait_for
from visiting import HOSTS, lab, play, played, traffic, whole

# Services restart, packages stay: what a mirror offers on a day must not decide a test.
RESTART = ("-e", "update_packages=none", "-e", "update_restart=always")
SERVICES = {"lb": "haproxy", "web": "nginx", "app": "gunicorn-guestbook", "db": "mysql"}


def processes(*tiers: str) -> dict[str, str]:
    """Host to the process of its tier's service."""
    found = {}
    for name in HOSTS:
        if (tier := name.rstrip("0123456789")) in tiers:
            show = f"systemctl show --property=MainPID --value {SERVICES[tier]}.service"
            found[name] = lab.host(name).check_output(show)
    return found


@pytest.mark.usefixtures("healed")
def test_a_tier_restarts_without_a_failed_request_and_stops_where_a_host_does_not_come_back() -> None:
    before = processes("web", "app")
    # The first host of the tier cannot start its service again.
    lab.host("web1").check_output("systemctl mask --runtime nginx.service")
    try:
        with traffic() as visitors:
            done = play("rolling_update", *RESTART, "--limit", "web")
            told = " ".join(done.stdout.split())
            assert done.returncode != 0
            assert "web1 did not come back" in told and "-e update_start_at=web1" in told, told[-2000:]
            assert processes("web")["web2"] == before["web2"]
            lab.host("web1").check_output("systemctl unmask --runtime nginx.service")
            played("rolling_update", *RESTART, "--limit", "web", "-e", "update_start_at=web1")
    finally:
        lab.host("web1").run("systemctl unmask --runtime nginx.service")
    after = processes("web", "app")
    assert {name for name in after if after[name] != before[name]} == {"web1", "web2"}
    assert visitors.failures == [], visitors.summary()
    wait_for(whole, 60)


def test_a_host_with_nothing_to_do_is_left_alone() -> None:
    told = played("rolling_update", "-e", "update_packages=none", "-e", "update_restart=never", "--limit", "lb:app")
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", told, re.MULTILINE)
    assert sorted(recap) == [(name, "0") for name in ("app1", "app2", "lb1", "lb2")]


@pytest.mark.thorough
@pytest.mark.usefixtures("healed")
def test_all_hosts_restart_under_load() -> None:
    before = processes(*SERVICES)
    # What is on its way on a virtual IP is cut when that moves, and the client opens a new connection.
    with traffic(keep_alive=0) as visitors:
        played("rolling_update", *RESTART)
        wait_for(whole, 60)
    after = processes(*SERVICES)
    assert all(after[name] != before[name] for name in before), (before, after)
    assert visitors.outage() <= 1 and len(visitors.failures) <= 10, visitors.summary()
    # A switchover was part of it; the tests around expect the first primary.
    played("switchover", "-e", "mysql_replication_candidate=db1")
    wait_for(whole, 60)
