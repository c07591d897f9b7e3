"""The picture: well-formed, complete, self-contained, and safe whatever the names are."""

from __future__ import annotations

from typing import Any
from xml.dom import minidom

from ansible_collections.scaleup.webstack.plugins.plugin_utils.diagram import site_mermaid, site_svg

VIPS = [
    {"name": "public", "address": "10.0.0.101", "prefix": 24, "priorities": {"lb1": 250, "lb2": 249}},
    {"name": "internal", "address": "10.0.0.103", "prefix": 24, "priorities": {"lb1": 249, "lb2": 250}},
]
GROUPS = {
    "lb": ["lb1", "lb2"],
    "web": [f"web{number}" for number in range(1, 10)],
    "app": ["app1"],
    "db": ["db1", "db2"],
    "db_primary": ["db1"],
    "db_replica": ["db2"],
    "ops": ["ops1"],
    "cache": ["cache1"],
}


def hostvars(**extra: Any) -> dict[str, Any]:
    names = [name for hosts in GROUPS.values() for name in hosts]
    common = {"webstack_vips": VIPS, "webstack_internal_vips": ["internal"], "webstack_tiers": [*GROUPS, "cache"]}
    return {name: {"tier_address": f"10.0.0.{index}", **common, **extra} for index, name in enumerate(names)}


def texts(svg: str) -> list[str]:
    return [node.firstChild.data for node in minidom.parseString(svg).getElementsByTagName("text") if node.firstChild]


def test_the_svg_holds_the_whole_topology() -> None:
    svg = site_svg(GROUPS, hostvars(), {"web": ["443/tcp"], "db": ["3306/tcp"]})
    found = texts(svg)
    for text in (
        "lb1",
        "10.0.0.0",
        "web6",
        "and 3 more",
        "primary",
        "replica",
        "443/tcp",
        "3306/tcp",
        "ops1",
        "cache1",
    ):
        assert text in found, text
    for text in ("public", "10.0.0.101/24", "first on lb1", "internal", "first on lb2", "9 hosts"):
        assert text in found, text
    assert "web7" not in found
    for outside in ("http://", "https://", "href", "<script", "url(http"):
        assert outside not in svg.replace('xmlns="http://www.w3.org/2000/svg"', ""), outside


def test_everything_lies_inside_the_picture() -> None:
    document = minidom.parseString(site_svg(GROUPS, hostvars()))
    root = document.documentElement
    width, height = int(root.getAttribute("width")), int(root.getAttribute("height"))
    for box in document.getElementsByTagName("rect"):
        x, y = int(box.getAttribute("x") or 0), int(box.getAttribute("y") or 0)
        assert x >= 0
        assert y >= 0
        assert x + int(box.getAttribute("width")) <= width
        assert y + int(box.getAttribute("height")) <= height


def test_mermaid() -> None:
    lines = site_mermaid(GROUPS, hostvars(), {"web": ["443/tcp"]}).splitlines()
    assert lines[0] == "flowchart TB"
    for line in (
        '  vip_public{{"public<br/>10.0.0.101/24"}}',
        '  subgraph tier_web["web: nginx (443/tcp)"]',
        "  clients --> vip_public",
        "  vip_public --> host_lb1",
        "  vip_public -.-> host_lb2",
        "  vip_internal --> host_lb2",
        "  tier_app --> vip_internal",
        "  host_db1 -. GTID .-> host_db2",
        '    more_web["and 3 more"]',
    ):
        assert line in lines, line
    assert "  clients --> vip_internal" not in lines


def test_names_cannot_break_out() -> None:
    groups = {"web": ["a<b>&\"c'", "a_b", "a.b"]}
    told = {name: {"tier_address": "<x>"} for name in groups["web"]}
    assert "a<b>&\"c'" in texts(site_svg(groups, told))
    mermaid = site_mermaid(groups, told)
    assert '["a&lt;b>&amp;&quot;c\'<br/>&lt;x>"]' in mermaid
    assert len({line.split("[")[0] for line in mermaid.splitlines() if "host_" in line}) == 3


def test_an_inventory_without_a_site() -> None:
    minidom.parseString(site_svg({}, {}))
    assert site_mermaid({}, {}) == "flowchart TB\n"
