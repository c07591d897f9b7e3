"""The firewall from outside: every host scans every other, and exactly the ports of the role's table answer."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from labtest import wait_for
from visiting import HOSTS, PUBLIC, VIPS, lab, played, traffic, whole

# All that listens anywhere in the site, SSH, and what nobody serves.
PORTS = (22, 80, 443, 3306, 3307, 8000, 8404, 8405, 8406, 9090, 9093, 9115, 9200, 111, 9999)
# Who may connect to what of whom, by tier: the table of the role's README. On 22 nothing listens, and refuses.
OPEN = {
    "lb": {22: "*", 80: "*", 443: "*", 3306: "app", 3307: "app", 8404: "lb ops"},
    "web": {22: "*", 443: "lb", 8406: "ops"},
    "app": {22: "*", 8000: "web lb ops"},
    "db": {22: "*", 3306: "lb db", 9200: "lb db ops"},
    "ops": {22: "*"},
}
SCAN = """
import asyncio, json, sys

async def knock(address, port):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 1.5)
        writer.close()
    except ConnectionRefusedError:
        pass
    except (TimeoutError, asyncio.TimeoutError, OSError):
        return None
    return [address, port]

async def main():
    asked = [(a, p) for a in json.loads(sys.argv[1]) for p in json.loads(sys.argv[2])]
    print(json.dumps([found for found in await asyncio.gather(*(knock(*one) for one in asked)) if found]))

asyncio.run(main())
"""


def tier(host: str) -> str:
    return host.rstrip("0123456789")


def answers(host: str, addresses: list[str], ports: tuple[int, ...] = PORTS) -> set[tuple[str, int]]:
    """Which ports answer a host, with a connection or a refusal; where the firewall drops, nothing does."""
    words = ["exec", lab.container(host), "python3", "-c", SCAN, json.dumps(addresses), json.dumps(ports)]
    return {(address, port) for address, port in json.loads(lab.docker(*words))}


def test_exactly_the_documented_ports_answer() -> None:
    addresses = {str(HOSTS[name]["tier_address"]): name for name in HOSTS}

    def expected(host: str) -> set[tuple[str, int]]:
        return {
            (address, port)
            for address, name in addresses.items()
            for port, who in OPEN[tier(name)].items()
            if name != host and (who == "*" or tier(host) in who.split())
        }

    def found(host: str) -> set[tuple[str, int]]:
        return answers(host, [address for address, name in addresses.items() if name != host])

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        assert dict(zip(HOSTS, pool.map(found, HOSTS), strict=True)) == {host: expected(host) for host in HOSTS}


def test_visitors_reach_the_virtual_ips_and_nothing_else() -> None:
    def reaches(address: str, port: int) -> bool:
        try:
            socket.create_connection((address, port), 1).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    assert all(reaches(vip, port) for vip in PUBLIC for port in (80, 443))
    closed = [("web1", 443), ("app1", 8000), ("db1", 3306), ("lb1", 8404)]
    assert [name for name, port in closed if reaches(HOSTS[name]["tier_address"], port)] == []
    assert not reaches(VIPS["internal"], 3306)
    assert answers("app1", [VIPS["internal"]], (3306, 3307, 8404)) == {(VIPS["internal"], p) for p in (3306, 3307)}
    assert answers("web1", [VIPS["internal"]], (3306, 3307)) == set()


def test_what_came_and_what_was_dropped_is_counted() -> None:
    before = counters("web1")
    answers("app1", [HOSTS["web1"]["tier_address"]], (443,))
    answers("lb1", [HOSTS["web1"]["tier_address"]], (443,))
    after = counters("web1")
    assert after["dropped"] > before["dropped"] and after["balancers"] > before["balancers"]


def counters(host: str) -> dict[str, int]:
    rows = lab.host(host).check_output("webstack-firewall show").splitlines()[1:]
    return {" ".join(row.split()[:-2]): int(row.split()[-2]) for row in rows}


@pytest.fixture
def web2() -> Iterator[str]:
    """A host whose rules are those of the play again afterwards."""
    rules = "/etc/webstack-firewall/rules.nft"
    host = lab.host("web2")
    host.check_output(f"cp {rules} /root/rules.nft")
    yield HOSTS["web2"]["tier_address"]
    host.check_output(f"mv /root/rules.nft {rules}; webstack-firewall try 60")
    host.run("webstack-firewall keep")  # unless the rules before had come back already


def test_rules_that_nobody_confirms_are_taken_back(web2: str) -> None:
    host = lab.host("web2")
    host.check_output("nft add table inet someone_elses")
    host.check_output("sed -i 's/tcp dport { 443 }/tcp dport { 444 }/' /etc/webstack-firewall/rules.nft")
    assert host.check_output("webstack-firewall try 4") == "changed"
    began = time.monotonic()
    assert answers("lb1", [web2], (443,)) == set()
    wait_for(lambda: answers("lb1", [web2], (443,)), 15)
    assert time.monotonic() - began < 10
    late = host.run("webstack-firewall keep")
    assert late.rc == 1 and "taken back already" in late.stderr
    host.check_output("nft delete table inet someone_elses")


def test_rules_that_nft_refuses_change_nothing(web2: str) -> None:
    host = lab.host("web2")
    before = host.check_output("nft list table inet webstack_firewall | grep -v counter")
    host.check_output("echo nonsense >> /etc/webstack-firewall/rules.nft")
    assert host.run("webstack-firewall try 10").rc == 1
    assert host.check_output("nft list table inet webstack_firewall | grep -v counter") == before


def test_the_rules_are_there_after_a_boot() -> None:
    lab.kill("app2")
    lab.start("app2")
    assert answers("db1", [HOSTS["app2"]["tier_address"]], (22, 8000)) == {(HOSTS["app2"]["tier_address"], 22)}
    wait_for(whole, 60)


def test_no_request_fails_while_the_rules_are_loaded_anew() -> None:
    with traffic() as visitors:
        for _ in range(2):
            for name in HOSTS:
                lab.host(name).check_output("systemctl reload webstack-firewall")
    assert visitors.failures == [], visitors.summary()


def test_ipv6_is_filtered_as_well_and_its_neighbours_are_found() -> None:
    try:
        for number, name in ((1, "web1"), (2, "app1")):
            lab.host(name).check_output(
                "mount -o remount,rw /proc/sys; sysctl -qw net.ipv6.conf.all.disable_ipv6=0 "
                "net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth0.accept_dad=0; "
                f"ip address replace fd00::{number}/64 dev eth0 nodad"
            )
        wait_for(lambda: answers("app1", ["fd00::1"], (22, 443, 9999)) == {("fd00::1", 22)}, 20)
    finally:
        for number, name in ((1, "web1"), (2, "app1")):
            lab.host(name).run(f"ip address del fd00::{number}/64 dev eth0")


@pytest.mark.thorough
def test_the_firewall_goes_and_comes_back_by_one_variable() -> None:
    with traffic() as visitors:
        played("site", "--limit", "web", "-e", "host_firewall_enabled=false")
        assert answers("db1", [HOSTS["web1"]["tier_address"]], (443,)) != set()
        played("site", "--limit", "web")
        assert answers("db1", [HOSTS["web1"]["tier_address"]], (443,)) == set()
    assert visitors.failures == [], visitors.summary()
