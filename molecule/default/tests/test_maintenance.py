"""Hosts that are taken out and brought in again: visitors notice nothing, whatever is done to the host meanwhile."""

from __future__ import annotations

import time

import pytest
from labtest import wait_for
from visiting import PUBLIC, SITE, lab, play, played, served_by, traffic, visitor, whole


@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize(
    "host",
    ["web1", "app1", pytest.param("lb1", marks=pytest.mark.thorough), pytest.param("db2", marks=pytest.mark.thorough)],
)
def test_a_host_that_is_out_may_be_powered_off(host: str) -> None:
    # What waits or is on its way on a virtual IP is cut when that moves, and the client opens a new connection.
    balancer = host.startswith("lb")
    with traffic(**({"keep_alive": 0} if balancer else {})) as visitors:
        played("maintenance", "-e", f"host={host}")
        lab.kill(host)
        time.sleep(3)
        lab.start(host)
        # Also after the boot nobody is sent there.
        time.sleep(3)
        for vip in PUBLIC:
            assert host not in served_by(visitor(vip).get(f"https://{SITE}/", timeout=5).text).values()
        played("maintenance", "-e", f"host={host}", "-e", "back=true")
        wait_for(whole, 60)
    if host == "db2":
        # What the applications opened meanwhile stays with the primary until they open it anew.
        for app in ("app1", "app2"):
            lab.host(app).check_output("systemctl reload gunicorn-guestbook.service")
    assert visitors.outage() <= 1 if balancer else visitors.failures == [], visitors.summary()


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("db1", "it is the primary. Run scaleup.webstack.switchover first"),
        ("web9", "-e host=NAME, NAME one of lb1, lb2, web1"),
    ],
)
def test_a_host_that_must_stay_is_refused(host: str, said: str) -> None:
    done = play("maintenance", "-e", f"host={host}")
    assert done.returncode != 0 and said in " ".join(done.stdout.split()), done.stdout[-2000:]
    assert whole()
