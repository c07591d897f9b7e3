"""A back end fails, or is taken out and in again, and no client sees it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from functools import partial

import pytest
from cluster import ADDRESS, lab, load, servers, states
from labtest import wait_for

BOTH = {"web1", "web2"}
# The check interval, in seconds (haproxy_keepalived_server_options), and what the checks themselves may take on a
# machine that is shared with the load and works through what had waited for a hung server.
INTERVAL, CHECKS = 2, 1


@pytest.fixture(autouse=True)
def both() -> Iterator[None]:
    """Both back ends serve, before and after."""
    yield
    lab.host("web1").run("rm -f /run/unhealthy; systemctl kill --signal CONT stub; systemctl start stub")
    wait_for(lambda: servers() == BOTH, 15)


@pytest.mark.parametrize(
    ("breaks", "heals"),
    [
        ("systemctl kill --signal KILL stub; systemctl stop stub", "systemctl start stub"),
        ("systemctl kill --signal STOP stub", "systemctl kill --signal CONT stub"),
        ("touch /run/unhealthy", "rm /run/unhealthy"),
    ],
    ids=["killed", "hung", "answering 503"],
)
def test_a_back_end_fails_and_no_safe_request_does(breaks: str, heals: str) -> None:
    host = lab.host("web1")

    def up() -> bool:
        return all(states(name)["web/web1"] == "UP" for name in ADDRESS)

    def down() -> bool:
        return all(states(name)["web/web1"] == "DOWN" for name in ADDRESS)

    def back(name: str) -> list[float]:
        """When it was taken back, by the balancer's own log: asking takes its time, too."""
        log = "journalctl --unit haproxy --output short-unix --since '1 minute ago' | grep 'Server web/web1 is UP'"
        lines = lab.host(name).run(log).stdout.splitlines()
        return [at for line in lines if (at := float(line.split()[0])) > healing]

    def answers() -> bool:
        check = ["curl", "--silent", "--insecure", "--fail", "--max-time", "1", "https://198.18.1.21/nginx-healthz"]
        return subprocess.run(check, capture_output=True).returncode == 0

    with load(timeout=10, workers=800) as clients:
        time.sleep(1)
        host.run(breaks)
        wait_for(lambda: servers() == {"web2"} and down(), 15)
        time.sleep(1)
        healing = time.time()
        host.run(heals)
        # Healed is what answers: after a pause there is much that it works through first.
        wait_for(answers, 10, every=0.05)
        healed = time.time()
        wait_for(up, 10)
        for name in ADDRESS:
            assert wait_for(partial(back, name), 5)[0] - healed <= INTERVAL + CHECKS
        wait_for(lambda: servers() == BOTH, 5)
    assert len(clients.results) > 500
    assert clients.failures == [], clients.summary()


def test_a_request_that_is_not_safe_is_not_sent_twice() -> None:
    """Answered with 503, not repeated: nobody knows what a POST has done."""
    lab.host("web1").run("touch /run/unhealthy")
    with load(method="POST", rate=50) as clients:
        time.sleep(1)
    assert {result.status for result in clients.failures} == {503}, clients.summary()


def test_a_back_end_is_drained_and_comes_back_and_no_request_fails() -> None:
    with load() as clients:
        time.sleep(1)
        for name in ADDRESS:
            assert lab.host(name).check_output("haproxy-servers drain web1") == "changed"
            assert lab.host(name).check_output("haproxy-servers drain web1") == "unchanged"
        assert servers() == {"web2"}
        lab.host("web1").run("systemctl stop stub; systemctl start stub")
        for name in ADDRESS:
            lab.host(name).check_output("systemctl reload haproxy")
            assert states(name)["web/web1"].startswith("DRAIN"), "a reload keeps who is drained"
            assert states(name)["web_plain/web1"].startswith("DRAIN")
        for name in ADDRESS:
            assert lab.host(name).check_output("haproxy-servers ready web1") == "changed"
        wait_for(lambda: servers() == BOTH, 15)
    assert clients.failures == [], clients.summary()


def test_draining_a_server_that_does_not_exist_says_which_there_are() -> None:
    done = lab.host("lb1").run("haproxy-servers drain web9")
    assert done.rc == 2
    assert "no backend has a server web9; there are: web1, web2" in done.stderr
