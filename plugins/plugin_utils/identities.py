# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has which address and which server_id: each is given once, and lies where it may."""

from __future__ import annotations

from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import (
    IPV6,
    Network,
    format_address,
    is_ipv6,
    name_server_id,
    server_id,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import HostEntry
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Path, Problems, names, show


class Identities:
    """Keeps the owners of addresses (by key) and of server_ids; a second owner is a problem."""

    def __init__(self, networks: list[Network], problems: Problems) -> None:
        self.networks, self.problems = networks, problems
        self.address_owner: dict[int, str] = {}
        self.server_id_owner: dict[int, str] = {}

    def check_span(self, entry: HostEntry) -> None:
        """The first and the last address of a range: what lies between is then right too."""
        start, count = entry.start or 0, len(entry.pattern)
        path, last = (*entry.path, "address_start"), start + count - 1
        top = IPV6 * 2 - 1 if is_ipv6(start) else 2**32 - 1
        if last > top:
            self.problems.add(
                path, f"{count} addresses from {format_address(start)} go beyond {format_address(top)}: start lower"
            )
            entry.start = None
            return
        for key in dict.fromkeys((start, last)):
            if not self.check_network(path, key, f"the address {format_address(key)}", f" of '{entry.text}'"):
                return
        inside = next((network for network in self.networks if start in network), None)
        if inside is not None and last not in inside:
            self.problems.add(
                path, f"the {count} addresses of '{entry.text}' begin in {inside.text} and end outside of it"
            )

    def check_network(self, path: Path, key: int, what: str, whose: str) -> bool:
        """Whether an address lies in the networks and can be a host's; else a problem. Without networks all do."""
        networks = self.networks
        inside = [network for network in networks if key in network]
        if networks and not inside:
            many = "networks" if len(networks) > 1 else "network"
            listed = names(network.text for network in networks)
            self.problems.add(
                path,
                f"{what}{whose} is outside the {many} {listed}: correct it, or add its network to network.extra_cidrs",
            )
            return False
        for network in inside:
            if reserved := network.reserved(key):
                self.problems.add(path, f"{what}{whose} is the {reserved} of {network.text}: no host can have it")
                return False
        return True

    def take_address(self, path: Path, name: str, key: int, checked: bool = False) -> None:
        """Note the address of a host. checked: whether it is known to lie in the networks."""
        if key in (0, IPV6):
            self.problems.add(path, f"the address {format_address(key)} of the host '{name}' means no host: correct it")
        elif not checked:
            self.check_network(path, key, f"the address {format_address(key)}", f" of the host '{name}'")
        if self.address_owner.setdefault(key, name) != name:
            self.same_address(path, key, name)

    def same_address(self, path: Path, key: int, name: str) -> None:
        """The problem that two hosts have one address."""
        self.problems.add(
            path, f"the hosts '{self.address_owner[key]}' and '{name}' have the same address {format_address(key)}"
        )

    def identity(self, path: Path, name: str, key: int | None) -> int:
        """The server_id of a host by its address, or by its name where that is not known."""
        identity = name_server_id(name) if key is None else server_id(key)
        owner = self.server_id_owner.setdefault(identity, name)
        # Two IPv4 hosts of one id share an address, which is a problem of its own.
        if owner != name and (key is None or is_ipv6(key) or self.address_owner.get(key) == name):
            self._same_server_id(path, name, identity)
        return identity

    def take_server_id(self, path: Path, name: str, value: Any) -> None:
        """Note a server_id that was set by hand."""
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**32 - 1:
            self.problems.add(
                path,
                f"expected a whole number from 1 to {2**32 - 1} as server_id of the host '{name}', got {show(value)}",
            )
        elif self.server_id_owner.setdefault(int(value), name) != name:
            self._same_server_id(path, name, value)

    def _same_server_id(self, path: Path, name: str, identity: int) -> None:
        self.problems.add(
            path,
            f"the hosts '{self.server_id_owner[identity]}' and '{name}' have the same server_id {identity}: "
            "set another one by hand in the vars of one of them",
        )
