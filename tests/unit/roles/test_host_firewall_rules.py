"""What the firewall's rules say, rendered for the example site without any host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from test_haproxy_keepalived_templates import ROOT, render

ROLE = ROOT / "roles" / "host_firewall"


def rules(to: Path, **variables: Any) -> dict[str, list[str]]:
    """Host to its rules, those with a counter."""
    settings = {"render_role": str(ROLE), "render_templates": ["rules.nft.j2"], **variables}
    texts = render(to, "all", **settings)
    return {
        name.removesuffix("-rules.nft"): [line.strip() for line in text.splitlines() if "counter accept" in line]
        for name, text in texts.items()
    }


def test_every_tier_opens_what_the_next_one_needs(tmp_path: Path) -> None:
    found = rules(tmp_path)
    assert [re.search(r'"(.*)"', line)[1] for line in found["lb1"]] == [  # type: ignore[index]
        "ssh", "clients", "vrrp", "database endpoints", "statistics",
    ]  # fmt: skip
    assert "ip saddr { 10.0.0.11, 10.0.0.12 } tcp dport { 443 } counter accept" in found["web1"][1]
    assert any("10.0.0.31" in line and "3306, 3307" in line for line in found["lb1"])
    assert not any("10.0.0.31" in line for line in found["db1"])


def test_the_operators_word_is_taken_in_both_families(tmp_path: Path) -> None:
    found = rules(
        tmp_path,
        webstack_tls_mode="offload",
        host_firewall_ssh_sources=["192.0.2.0/24", "2001:db8::/32"],
        host_firewall_addresses=["fd00::1", "10.9.9.9"],
        host_firewall_extra_rules=[{"name": "dns", "protocol": "udp", "ports": [53]}],
    )
    assert found["web1"] == [
        'ip saddr { 192.0.2.0/24 } tcp dport { 22 } counter accept comment "ssh"',
        'ip6 saddr { 2001:db8::/32 } tcp dport { 22 } counter accept comment "ssh"',
        'ip saddr { 10.9.9.9 } tcp dport { 80 } counter accept comment "balancers"',
        'ip6 saddr { fd00::1 } tcp dport { 80 } counter accept comment "balancers"',
        'ip saddr { 10.9.9.9 } tcp dport { 8406 } counter accept comment "status"',
        'ip6 saddr { fd00::1 } tcp dport { 8406 } counter accept comment "status"',
        'udp dport { 53 } counter accept comment "dns"',
    ]


def test_an_empty_list_of_hosts_is_nobody_not_everybody(tmp_path: Path) -> None:
    closed = [{"name": "nobody", "ports": [1], "hosts": []}, {"name": "neither", "ports": [2], "networks": []}]
    found = rules(tmp_path, host_firewall_extra_rules=closed, host_firewall_lb_hosts=[], host_firewall_ops_hosts=[])
    for lines in found.values():
        assert not [line for line in lines if "nobody" in line or "neither" in line or "vrrp" in line]
    assert len(found["web1"]) == 1
