"""A balancer fails in one way or another, and the other one has its VIP."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cluster import ADDRESS, VIPS, holders_on, lab, load, play
from labtest import wait_for


@pytest.mark.parametrize(
    ("event", "outage"),
    [
        ("pkill -KILL -x haproxy", 1.0),
        ("pkill -STOP -x haproxy", 3.0),
        ("systemctl stop keepalived", 0.3),
    ],
    ids=["haproxy killed", "haproxy hung", "keepalived stopped"],
)
def test_a_balancer_fails_and_the_other_takes_its_vip(event: str, outage: float) -> None:
    with load() as clients:
        time.sleep(1)
        lab.host("lb1").run(event)
        time.sleep(5)
        before_last_second = time.monotonic() - 1
    assert clients.outage() <= outage, clients.summary()
    assert not [failure for failure in clients.failures if failure.due > before_last_second], clients.summary()


@pytest.mark.parametrize("event", ["killed", "cut off"])
def test_a_balancer_is_gone_and_the_other_takes_its_vip(event: str) -> None:
    with load() as clients:
        time.sleep(1)
        lab.kill("lb1") if event == "killed" else lab.cut("lb1")
        wait_for(lambda: holders_on("lb2") == set(VIPS), 10)
        time.sleep(1)
        before_last_second = time.monotonic() - 0.5
        time.sleep(0.5)
    # The engine itself takes a moment to carry out the command, which counts against us.
    assert clients.outage() <= 1.0, clients.summary()
    assert not [failure for failure in clients.failures if failure.due > before_last_second], clients.summary()


def test_reloads_lose_no_request() -> None:
    host = lab.host("lb1")
    with load() as clients:
        for _ in range(50):
            assert host.run("systemctl reload haproxy").rc == 0
            time.sleep(0.1)
    assert len(clients.results) > 500
    assert clients.failures == [], clients.summary()


def test_a_partition_between_the_balancers_ends_with_one_holder_each_and_no_flapping() -> None:
    """Neither hears the other: both have all VIPs; when they hear each other again, each VIP has one holder."""

    def changes(name: str) -> int:
        return int(lab.host(name).check_output("journalctl --unit keepalived | grep -c 'Entering .* STATE'"))

    def one_holder_each() -> bool:
        first, second = (holders_on(name) for name in ADDRESS)
        return first | second == set(VIPS) and not first & second

    rules = "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
    rules += "add rule inet cut in ip protocol 112 drop"
    try:
        for name in ADDRESS:
            lab.host(name).check_output("nft %s", rules)
        wait_for(lambda: all(holders_on(name) == set(VIPS) for name in ADDRESS), 10)
    finally:
        for name in ADDRESS:
            lab.host(name).run("nft delete table inet cut")
    healed = time.monotonic()
    wait_for(one_holder_each, 5, every=0.05)
    assert time.monotonic() - healed <= 2
    settled = {name: changes(name) for name in ADDRESS}
    time.sleep(5)
    assert one_holder_each()
    assert {name: changes(name) for name in ADDRESS} == settled, "no VIP moves again"


@pytest.fixture
def unknown() -> Iterator[None]:
    """lb2 becomes a machine that lb1 has never heard of; at the end both know each other."""
    other = "sed -i 's/%s /%s /' /etc/keepalived/keepalived.conf && systemctl reload keepalived"
    lab.host("lb2").check_output("systemctl disable --now keepalived && rm /etc/keepalived/keepalived.conf")
    lab.host("lb1").check_output(other, ADDRESS["lb2"], "198.18.1.99")
    wait_for(lambda: holders_on("lb1") == set(VIPS), 10)
    yield
    play()


@pytest.mark.usefixtures("unknown")
def test_a_new_balancer_takes_no_vip_of_those_that_do_not_know_it_yet() -> None:
    alone = play(limit="lb2")
    said = alone.stdout + alone.stderr
    assert alone.returncode != 0 and "lb1 does not know lb2 (198.18.1.12) yet" in said, said[-2000:]
    assert lab.host("lb2").run("systemctl is-active keepalived").stdout.strip() == "inactive"
    began = lab.host("lb2").check_output("date +@%s")
    done = play()
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-1000:]
    wait_for(lambda: holders_on("lb2") == {"public2"}, 30)
    log = lab.host("lb2").check_output("journalctl --unit keepalived --since %s", began)
    assert "(public2) Entering MASTER STATE" in log
    assert "(public1) Entering MASTER STATE" not in log and "(internal) Entering MASTER STATE" not in log
