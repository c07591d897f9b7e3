"""The balancers with other variables: both IP families, one VIP, and how a client finds its server."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cluster import ADDRESS, SITE, VIPS, curl, holders_on, lab, load, play, server, servers
from labtest import wait_for

SIX = "fd00:18:1::101"


def curl_six(*options: str) -> dict[str, Any]:
    """What the IPv6 address of public1 answers to a client."""
    resolve = f"{SITE}:443:[{SIX}]"
    words = f"curl -sS --max-time 2 --cacert /etc/ssl/webstack/ca.pem --resolve '{resolve}' https://{SITE}/"
    return dict(json.loads(lab.host("client").check_output(words + " " + " ".join(options))))


def test_a_vip_has_an_ipv6_address_that_moves_with_it() -> None:
    answer = curl_six()
    assert answer["headers"]["x-forwarded-for"] == "fd00:18:1::31"
    assert answer["headers"]["x-served-by-lb"] == "lb1"
    lab.host("lb1").check_output("systemctl stop keepalived")
    wait_for(lambda: curl_six()["headers"]["x-served-by-lb"] == "lb2", 5)
    for name, there in (("lb1", False), ("lb2", True)):
        assert (f" {SIX}/" in lab.host(name).check_output("ip -6 -o address show")) is there


def test_how_a_client_finds_its_server() -> None:
    """Cookie, source, algorithm, slow start, backup; and only some networks get in."""

    def backend(name: str, **more: Any) -> dict[str, Any]:
        check = {"path": "/nginx-healthz"}
        return {"name": name, "hosts": ["web1", "web2"], "port": 443, "tls": True, "check": check} | more

    ways = [
        backend("web", balance="leastconn", server_options="slowstart 3s"),
        backend("by_cookie", sticky="cookie"),
        backend("by_source", sticky="source"),
        backend("by_path", balance="uri"),
        backend("with_backup", hosts=["web1"], backup_hosts=["web2"]),
        {"name": "web_plain", "mode": "tcp", "hosts": ["web1", "web2"], "port": 8080},
    ]
    routes = [{"path": f"/{name}", "backend": name} for name in ("by_cookie", "by_source", "by_path", "with_backup")]
    # The test's own network address, and not that of the other hosts.
    done = play(
        haproxy_keepalived_backends=ways, haproxy_keepalived_routes=routes, haproxy_keepalived_allow=["198.18.1.1/32"]
    )
    assert done.returncode == 0, done.stdout
    try:
        assert servers(8) == {"web1", "web2"}
        headers = curl("public1", "--include", path="/by_cookie")
        cookie = re.search(r"(?mi)^set-cookie: (SERVER=(\w+));(.*)$", headers)
        assert cookie and "HttpOnly" in cookie[3] and "Secure" in cookie[3]
        assert {server("public1", "--cookie", cookie[1], path="/by_cookie") for _ in range(6)} == {cookie[2]}
        assert len({server(path="/by_source") for _ in range(6)}) == 1
        assert all(len({server(path=f"/by_path/{page}") for _ in range(3)}) == 1 for page in range(4))
        assert len({server(path=f"/by_path/{page}") for page in range(12)}) == 2
        assert {server(path="/with_backup") for _ in range(4)} == {"web1"}

        refused = lab.host("client").run(f"curl -sk --max-time 3 https://{VIPS['public1']}/")
        assert refused.rc != 0

        lab.host("web1").check_output("touch /run/unhealthy")
        try:
            wait_for(lambda: server(path="/with_backup") == "web2", 15)
            # The client whose server is gone gets another one.
            assert server("public1", "--cookie", "SERVER=web1", path="/by_cookie") == "web2"
        finally:
            lab.host("web1").check_output("rm /run/unhealthy")
        wait_for(lambda: server(path="/with_backup") == "web1", 15)
    finally:
        assert play().returncode == 0


def test_what_is_more_than_the_web_servers_take_waits_for_a_bounded_time() -> None:
    """Only what counts waits; and a wave that is over in time is served whole."""

    def answers(count: int, seconds: float) -> list[tuple[int, float, bool]]:
        """Status, seconds until it was there, and whether it says when to come back, of requests at the same time."""
        report = "%{http_code} %{time_total} %header{retry-after}\n"
        options = ["--output", "/dev/null", "--write-out", report]
        with ThreadPoolExecutor(count) as pool:
            paths = [f"/slow/{seconds}"] * count
            lines = [line.split() for line in pool.map(lambda path: curl("public1", *options, path=path), paths)]
        return sorted((int(line[0]), float(line[1]), len(line) > 2) for line in lines)

    done = play(
        haproxy_keepalived_web_maxconn=2,
        haproxy_keepalived_web_queue="1s",
        haproxy_keepalived_web_uncounted=["/static/"],
    )
    assert done.returncode == 0, done.stdout
    try:
        # Four at a time, two servers' worth.
        assert [status for status, *_ in answers(12, 0.2)] == [200] * 12
        with ThreadPoolExecutor(1) as pool:
            flood = pool.submit(answers, 10, 3)
            time.sleep(0.5)
            started = time.monotonic()
            assert {server(path="/static/style.css") for _ in range(4)} == {"web1", "web2"}
            # All that while.
            assert not flood.done() and time.monotonic() - started < 2
        served, refused = flood.result()[:4], flood.result()[4:]
        assert [status for status, *_ in served] == [200] * 4
        assert all(status == 503 and 0.9 < seconds < 2.5 and when for status, seconds, when in refused), refused
    finally:
        assert play().returncode == 0


@pytest.mark.thorough
def test_one_vip_is_active_passive() -> None:
    """The second balancer only waits; it does not give the VIP back by itself where it shall not."""
    one = {"name": "public1", "address": VIPS["public1"], "prefix": 24, "router_id": 101}
    one["priorities"] = {"lb1": 250, "lb2": 249}
    settings = {
        "haproxy_keepalived_vips": [one],
        "haproxy_keepalived_services": [],
        "haproxy_keepalived_preempt_delay": -1,
    }
    assert play(**settings).returncode == 0
    try:
        wait_for(lambda: [holders_on(name) for name in ADDRESS] == [{"public1"}, set()], 15)
        with load(vips=("public1",)) as clients:
            time.sleep(1)
            lab.host("lb1").check_output("systemctl stop keepalived")
            wait_for(lambda: holders_on("lb2") == {"public1"}, 10)
            lab.host("lb1").check_output("systemctl start keepalived")
            time.sleep(3)
        assert clients.outage() <= 0.3, clients.summary()
        assert [holders_on(name) for name in ADDRESS] == [set(), {"public1"}]
    finally:
        assert play().returncode == 0


def test_a_vip_of_the_other_ip_family_is_told_where_it_belongs() -> None:
    """keepalived speaks VRRP over the balancers' own addresses."""
    vip = {"name": "six", "address": SIX, "prefix": 64, "router_id": 9, "priorities": {"lb1": 250, "lb2": 249}}
    done = play(haproxy_keepalived_vips=[vip], haproxy_keepalived_services=[])
    assert done.returncode != 0
    assert "put this one into its extra_addresses" in " ".join((done.stdout + done.stderr).split())
    assert server()
