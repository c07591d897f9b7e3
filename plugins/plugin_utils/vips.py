# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which balancer carries which VIP: VRRP router ids and priorities."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import Network, format_address
from ansible_collections.scaleup.webstack.plugins.plugin_utils.identities import Identities
from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import Site, Vip
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Path, Problems, did_you_mean, names

# High and adjacent: VRRP's skew time is (256 - priority) / 256 advertisement intervals (RFC 5798, 6.1), so a high
# priority takes over sooner. 255 is left out: it is for the owner of the address.
TOP_PRIORITY = 250

_DIGITS = re.compile(r"(\d+)")


class VipPlanner:
    """Derives what the VIPs of a site need, and checks it."""

    def __init__(self, site: Site, identities: Identities, problems: Problems) -> None:
        self.site, self.identities, self.problems = site, identities, problems

    def plan(self, hosts: list[str]) -> list[dict[str, Any]]:
        """The value of webstack_vips. hosts: the names of the balancers, in any order."""
        site, problems = self.site, self.problems
        balancers = sorted(hosts, key=_natural)
        balancing = site.tiers.get("lb")
        if balancing is not None and balancing.min_hosts == 0 and not balancers and not balancing.incomplete:
            problems.add(
                ("vips",), "there is no host in the tier 'lb' that could carry a VIP: add hosts, or remove vips"
            )
        if len(balancers) > TOP_PRIORITY and any(vip.priorities is None for vip in site.vips):
            problems.add(
                ("tiers", "lb"),
                f"VRRP has priorities for {TOP_PRIORITY} hosts, this tier has {len(balancers)}: set priorities by hand",
            )
            return []
        first_name: dict[str, Vip] = {}
        first_address: dict[int, Vip] = {}
        first_router: dict[tuple[str, int], Vip] = {}
        turns = {True: 0, False: 0}  # internal and public VIPs take turns apart, so that two public ones mirror
        result: list[dict[str, Any]] = []
        for vip in site.vips:
            if first_name.setdefault(vip.name, vip) is not vip:
                problems.add((*vip.path, "name"), f"two VIPs have the name '{vip.name}': rename one")
            self._vip_address(vip, (*vip.path, "address"), vip.address, first_address)
            router_id = vip.router_id if vip.router_id is not None else vip.address & 255
            self._router_id(vip, router_id, first_router)
            prefix = vip.prefix or self._prefix(vip.path, "VIP", vip.address)
            priorities = self._priorities(vip, balancers, turns[vip.internal])
            turns[vip.internal] += 1
            entry: dict[str, Any] = {
                "name": vip.name,
                "address": format_address(vip.address),
                "prefix": prefix,
                "interface": vip.interface,
                "router_id": router_id,
                "priorities": priorities,
            }
            if vip.internal:
                entry["internal"] = True
            extra = []
            for path, address, extra_prefix in vip.extra:
                self._vip_address(vip, path, address, first_address)
                length = extra_prefix or self._prefix(path, "extra address", address)
                extra.append({"address": format_address(address), "prefix": length})
            if extra:
                entry["extra_addresses"] = extra
            result.append(entry)
        return result

    def _vip_address(self, vip: Vip, path: Path, address: int, first: dict[int, Vip]) -> None:
        text = format_address(address)
        if first.setdefault(address, vip) is not vip:
            self.problems.add(path, f"the VIPs '{first[address].name}' and '{vip.name}' have the same address {text}")
        if address in self.identities.address_owner:
            self.problems.add(
                path,
                f"the VIP '{vip.name}' has the address {text} of the host '{self.identities.address_owner[address]}'",
            )
        self.identities.check_network(path, address, f"the address {text}", f" of the VIP '{vip.name}'")

    def _prefix(self, path: Path, what: str, address: int) -> int | None:
        inside = [network for network in self.site.networks if address in network]
        if inside:
            return max(inside, key=_prefix_length).prefix
        if not self.site.networks and not self.problems.under(("network",)):
            self.problems.add(
                path, f"the {what} has no prefix length: add prefix (such as 24), or network.cidr for the site"
            )
        return None

    def _router_id(self, vip: Vip, router_id: int, first: dict[tuple[str, int], Vip]) -> None:
        path = (*vip.path, "router_id")
        if router_id == 0:
            self.problems.add(
                path,
                f"the address {format_address(vip.address)} ends in 0, which is no router id: set one from 1 to 255",
            )
            return
        # A router id is unique on a network segment (RFC 5798, 1.7); VIPs on other interfaces may share it.
        other = first.setdefault((vip.interface, router_id), vip)
        if other is not vip:
            self.problems.add(
                path,
                f"the VIPs '{other.name}' and '{vip.name}' have the same router id {router_id} on {vip.interface}: "
                "set router_id of one of them to another number from 1 to 255",
            )

    def _priorities(self, vip: Vip, balancers: list[str], turn: int) -> dict[str, int]:
        if vip.priorities is None:
            if not balancers:
                return {}
            shift = turn % len(balancers)
            ordered = balancers[shift:] + balancers[:shift]
            return {name: TOP_PRIORITY - rank for rank, name in enumerate(ordered)}
        path = (*vip.path, "priorities")
        for name in vip.priorities:
            if balancers and name not in balancers:
                self.problems.add(
                    (*path, name), f"'{name}' is no host of the tier 'lb'." + did_you_mean(name, balancers)
                )
        missing = [name for name in balancers if name not in vip.priorities]
        if missing and not self.problems.under(path):
            self.problems.add(path, f"{names(missing)} of the tier 'lb' has no priority: list every host of the tier")
        return dict(vip.priorities)


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts lb2 before lb10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in _DIGITS.split(name)]


def _prefix_length(network: Network) -> int:
    return network.prefix
