# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The picture of a site, drawn from the inventory alone: as SVG that needs nothing else, and as Mermaid text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import (
    KNOWN_TIERS,
    PRIMARY_GROUP,
    REPLICA_GROUP,
)

# A row holds as many hosts as can be read; the others are counted.
MAX_HOSTS = 6
TITLES = {
    "lb": "HAProxy and keepalived",
    "web": "nginx",
    "app": "gunicorn",
    "db": "MySQL",
    "ops": "metrics, alerts, backups",
}

_BOX, _GAP, _LEFT, _ROW = 150, 18, 190, 118  # widths and heights in SVG user units (pixels at 100 %)
_COLOURS = {"lb": "#dbeafe", "web": "#dcfce7", "app": "#fef9c3", "db": "#fde2e4", "ops": "#ede9fe"}
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1f2937}"
    ".t{font-size:15px;font-weight:600}.s{font-size:11px;fill:#4b5563}.h{font-size:13px;font-weight:600}"
    ".a{font-size:11px;font-family:ui-monospace,Menlo,Consolas,monospace}.b{font-size:10px;font-weight:600}"
    ".l{stroke:#6b7280;stroke-width:1.5;fill:none}.d{stroke-dasharray:5 4}"
)


@dataclass(slots=True)
class Host:
    """A host as it is drawn. role: primary, replica, or nothing."""

    name: str
    address: str
    role: str = ""


@dataclass(slots=True)
class Picture:
    """What is drawn: tiers in the order of a request, then the others. ports: texts like 443/tcp by tier."""

    tiers: dict[str, list[Host]] = field(default_factory=dict)
    vips: list[dict[str, Any]] = field(default_factory=list)
    internal: list[str] = field(default_factory=list)
    ports: dict[str, list[str]] = field(default_factory=dict)

    @property
    def path(self) -> list[str]:
        """The tiers that a request passes."""
        return [name for name in ("lb", "web", "app", "db") if self.tiers.get(name)]


def picture(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    ports: Mapping[str, Sequence[Any]] | None = None,
) -> Picture:
    """What there is to draw in an inventory, whichever source it came from."""
    drawn = Picture()
    first = next((groups[name][0] for name in KNOWN_TIERS if groups.get(name)), None)
    told: Mapping[str, Any] = hostvars[first] if first is not None else {}
    primaries, replicas = set(groups.get(PRIMARY_GROUP, ())), set(groups.get(REPLICA_GROUP, ()))
    required = [str(name) for name in told.get("webstack_tiers", None) or ()]
    for name in dict.fromkeys((*KNOWN_TIERS, *required)):
        hosts = []
        for host in groups.get(name, ()):
            variables = hostvars[host]
            address = variables.get("tier_address", None) or variables.get("ansible_host", None) or ""
            role = "primary" if host in primaries else "replica" if host in replicas else ""
            hosts.append(Host(str(host), str(address), role))
        if hosts:
            drawn.tiers[str(name)] = hosts
    drawn.vips = [dict(vip) for vip in told.get("webstack_vips", None) or ()]
    drawn.internal = [str(name) for name in told.get("webstack_internal_vips", None) or ()]
    drawn.ports = {str(tier): [str(port) for port in listed or ()] for tier, listed in (ports or {}).items()}
    return drawn


# --- SVG ---


def svg(drawn: Picture) -> str:
    """One self-contained SVG document: no script, no font, no image from elsewhere."""
    others = [name for name in drawn.tiers if name not in drawn.path]
    columns = max([min(len(hosts), MAX_HOSTS + 1) for hosts in drawn.tiers.values()] + [len(drawn.vips), 2])
    width = _LEFT + columns * (_BOX + _GAP) + 20
    parts: list[str] = []
    top = 20
    public = [vip for vip in drawn.vips if vip.get("name") not in drawn.internal]
    internal = [vip for vip in drawn.vips if vip.get("name") in drawn.internal]
    centre = _LEFT + (columns * (_BOX + _GAP) - _GAP) // 2
    if drawn.path:
        parts.append(
            f'<rect x="{centre - 60}" y="{top}" width="120" height="30" rx="15" fill="#f3f4f6" stroke="#6b7280"/>'
        )
        parts.append(_text(centre, top + 20, "h", "clients", "middle"))
        top += 30
    if public:
        top = _arrow(parts, centre, top)
        top = _vip_row(parts, top, width, "public VIPs", public)
    previous = ""
    for name in drawn.path:
        if name == "db" and internal:
            top = _arrow(parts, centre, top)
            top = _vip_row(parts, top, width, "internal VIP", internal)
        if top > 20:
            top = _arrow(parts, centre, top)
        top = _tier_row(parts, top, width, drawn, name)
        previous = name
    for name in others:
        top += 24 if previous else 0
        top = _tier_row(parts, top, width, drawn, name)
        previous = name
    height = top + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Topology of the site">\n<style>{_STYLE}</style>\n'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _text(x: int, y: int, kind: str, text: str, anchor: str = "start", room: int = 0) -> str:
    """A line of text, cut to `room` characters where that is given."""
    if room and len(text) > room:
        text = text[: room - 1] + "…"
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _first_x(width: int, count: int) -> int:
    """Where the first of `count` boxes begins, so that the row is centred beside the titles."""
    return _LEFT + (width - 20 - _LEFT - count * (_BOX + _GAP)) // 2


def _arrow(parts: list[str], x: int, top: int) -> int:
    parts.append(f'<path class="l" d="M{x} {top + 2}V{top + 24}" marker-end="url(#arrow)"/>')
    return top + 26


def _vip_row(parts: list[str], top: int, width: int, title: str, vips: list[dict[str, Any]]) -> int:
    parts.append(_text(20, top + 20, "t", title))
    parts.append(_text(20, top + 37, "s", "held by VRRP"))
    left = _first_x(width, len(vips))
    for index, vip in enumerate(vips):
        x = left + index * (_BOX + _GAP)
        priorities = vip.get("priorities") or {}
        master = max(priorities, key=lambda name: priorities[name]) if priorities else ""
        parts.append(f'<rect x="{x}" y="{top}" width="{_BOX}" height="54" rx="27" fill="#fff7ed" stroke="#ea580c"/>')
        parts.append(_text(x + _BOX // 2, top + 19, "h", str(vip.get("name", "")), "middle", 18))
        parts.append(_text(x + _BOX // 2, top + 33, "a", f"{vip.get('address')}/{vip.get('prefix')}", "middle", 23))
        parts.append(_text(x + _BOX // 2, top + 46, "b", f"first on {master}" if master else "", "middle", 24))
    return top + 54


def _tier_row(parts: list[str], top: int, width: int, drawn: Picture, name: str) -> int:
    hosts, ports = drawn.tiers[name], drawn.ports.get(name, [])
    height = _ROW - 22
    colour = _COLOURS.get(name, "#f3f4f6")
    parts.append(
        f'<rect x="8" y="{top}" width="{width - 16}" height="{height}" rx="10" fill="{colour}" stroke="#9ca3af"/>'
    )
    parts.append(_text(20, top + 26, "t", name, room=20))
    count = "1 host" if len(hosts) == 1 else f"{len(hosts)} hosts"
    parts.append(_text(20, top + 45, "s", TITLES.get(name, ""), room=28))
    parts.append(_text(20, top + 62, "s", count))
    parts.append(_text(20, top + 80, "a", ", ".join(ports), room=24))
    boxes: list[int] = []
    left = _first_x(width, min(len(hosts), MAX_HOSTS + 1))
    for index, host in enumerate(hosts[:MAX_HOSTS]):
        x = left + index * (_BOX + _GAP)
        boxes.append(x)
        edge = "#be123c" if host.role == "primary" else "#6b7280"
        parts.append(f'<rect x="{x}" y="{top + 16}" width="{_BOX}" height="64" rx="6" fill="#ffffff" stroke="{edge}"/>')
        parts.append(_text(x + _BOX // 2, top + 37, "h", host.name, "middle", 18))
        parts.append(_text(x + _BOX // 2, top + 54, "a", host.address, "middle", 22))
        parts.append(_text(x + _BOX // 2, top + 71, "b", host.role, "middle"))
    for index in range(1, len(boxes)):
        if hosts[0].role == "primary" and hosts[index].role == "replica":
            y = top + 84
            parts.append(
                f'<path class="l d" d="M{boxes[0] + _BOX // 2} {top + 80}V{y}H{boxes[index] + _BOX // 2}V{top + 80}"/>'
            )
    if len(hosts) > MAX_HOSTS:
        x = left + MAX_HOSTS * (_BOX + _GAP)
        parts.append(_text(x, top + 52, "s", f"and {len(hosts) - MAX_HOSTS} more"))
    return top + height


# --- Mermaid ---


def mermaid(drawn: Picture) -> str:
    """A Mermaid flowchart; it goes into a README between ```mermaid and ```."""
    lines = ["flowchart TB"]
    internal = [vip for vip in drawn.vips if vip.get("name") in drawn.internal]
    public = [vip for vip in drawn.vips if vip not in internal]
    if drawn.path:
        lines.append('  clients(["clients"])')
    for vip in drawn.vips:
        label = _label(vip.get("name"), f"{vip.get('address')}/{vip.get('prefix')}")
        lines.append(f'  {_id("vip", vip.get("name"))}{{{{"{label}"}}}}')
    for name, hosts in drawn.tiers.items():
        ports = ", ".join(drawn.ports.get(name, []))
        title = f"{name}: {TITLES[name]}" if name in TITLES else name
        lines.append(f'  subgraph {_id("tier", name)}["{_label(title + (f" ({ports})" if ports else ""))}"]')
        for host in hosts[:MAX_HOSTS]:
            lines.append(f'    {_id("host", host.name)}["{_label(host.name, host.address, host.role)}"]')
        if len(hosts) > MAX_HOSTS:
            lines.append(f'    {_id("more", name)}["and {len(hosts) - MAX_HOSTS} more"]')
        lines.append("  end")
    shown = {host.name for host in drawn.tiers.get("lb", [])[:MAX_HOSTS]}
    for vip in public:
        lines.append(f"  clients --> {_id('vip', vip.get('name'))}")
    for vip in drawn.vips:
        priorities = vip.get("priorities") or {}
        ranked = sorted((name for name in priorities if name in shown), key=lambda name: -priorities[name])
        for rank, name in enumerate(ranked):
            lines.append(f"  {_id('vip', vip.get('name'))} {'-.->' if rank else '-->'} {_id('host', name)}")
    path = drawn.path
    if path and not public:
        lines.append(f"  clients --> {_id('tier', path[0])}")
    for upper, lower in pairwise(path):
        if lower == "db" and internal and upper != "lb":
            names = [_id("vip", vip.get("name")) for vip in internal]
            lines += [f"  {_id('tier', upper)} --> {name}" for name in names]
            lines.append(f"  {_id('tier', 'lb')} -- SQL --> {_id('tier', lower)}")
        else:
            lines.append(f"  {_id('tier', upper)} --> {_id('tier', lower)}")
    database = drawn.tiers.get("db", [])[:MAX_HOSTS]
    for primary in (host for host in database if host.role == "primary"):
        for replica in (host for host in database if host.role == "replica"):
            lines.append(f"  {_id('host', primary.name)} -. GTID .-> {_id('host', replica.name)}")
    return "\n".join(lines) + "\n"


def _id(kind: str, name: object) -> str:
    """A Mermaid identifier; other characters than letters and digits are spelled out, so that no two names meet."""
    return f"{kind}_" + re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):x}_", str(name))


def _label(*lines: object) -> str:
    texts = [str(line) for line in lines if line]
    return "<br/>".join(text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;") for text in texts)


def site_svg(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any], ports: Mapping[str, Sequence[Any]] | None = None
) -> str:
    """The filter of that name."""
    return svg(picture(groups, hostvars, ports))


def site_mermaid(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any], ports: Mapping[str, Sequence[Any]] | None = None
) -> str:
    """The filter of that name."""
    return mermaid(picture(groups, hostvars, ports))
