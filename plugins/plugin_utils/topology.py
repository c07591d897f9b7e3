# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for a site: which host goes into which group, with which identity; and everything that speaks against it.

`plan_site` only reads. The plugin carries out the plan when no problem was found, so an error leaves the inventory as
it was: Ansible itself has no rollback.

Identity comes from what stays when hosts come and go: `server_id` from the address, the VRRP router id from the VIP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import (
    IPV6,
    Network,
    format_address,
    is_ipv6,
    name_server_id,
    parse_address,
    server_id,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import MISSING
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import (
    Path,
    Problems,
    did_you_mean,
    names,
    show,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.rules import Classifier, Inventory
from ansible_collections.scaleup.webstack.plugins.plugin_utils.site_config import (
    KNOWN_TIERS,
    PRIMARY_GROUP,
    REPLICA_GROUP,
    HostEntry,
    Site,
    Tier,
    Vip,
)

# High and adjacent: VRRP's skew time is (256 - priority) / 256 advertisement intervals (RFC 5798, 6.1), so a high
# priority takes over sooner. 255 is left out: it is for the owner of the address.
TOP_PRIORITY = 250
# Where the inventory knows no address, the name must do; evaluated by Ansible on use.
FALLBACK_ADDRESS = "{{ ansible_host | default(inventory_hostname) }}"

_NO_VARS: Mapping[str, Any] = {}
_DIGITS = re.compile(r"(\d+)")

Resolver = Callable[[str], list[str]]


@dataclass(slots=True)
class Member:
    """A host of a tier with what is to be set on it: `address` (text) and `server_id` are None when nothing is."""

    name: str
    address: str | None
    connect: bool  # whether ansible_host is ours to set
    server_id: int | None
    vars: Mapping[str, Any]

    def variables(self) -> Iterator[tuple[str, Any]]:
        """The host variables to set."""
        if self.address is not None:
            if self.connect:
                yield "ansible_host", self.address
            yield "tier_address", self.address
        if self.server_id is not None:
            yield "server_id", self.server_id
        yield from self.vars.items()


@dataclass(slots=True)
class Plan:
    """What is to be done to the inventory. `groups` are (group, parent), parents first; `warnings` are for the user."""

    parent_group: str
    groups: list[tuple[str, str | None]] = field(default_factory=list)
    group_vars: dict[str, dict[str, Any]] = field(default_factory=dict)
    members: dict[str, list[Member]] = field(default_factory=dict)
    joined: dict[str, list[str]] = field(default_factory=dict)  # hosts of other sources that get nothing set
    warnings: list[str] = field(default_factory=list)


class Planner:
    """Builds the plan of one site, step by step; see `plan_site`."""

    def __init__(self, site: Site, inventory: Inventory, resolve: Resolver, problems: Problems) -> None:
        self.site, self.inventory, self.resolve, self.problems = site, inventory, resolve, problems
        self.members: dict[str, list[Member]] = {name: [] for name in site.tiers}
        self.joined: dict[str, list[str]] = {name: [] for name in site.tiers}
        self.declared: dict[str, HostEntry] = {}
        self.tier_of: dict[str, str] = {}  # of declared hosts and of those that earlier sources put into a tier group
        self.address_owner: dict[int, str] = {}
        self.server_id_owner: dict[int, str] = {}
        self.refused: dict[str, list[str]] = {}  # declared hosts whose name has another meaning already
        self.unmatched: list[str] = []
        self.addresses_known: bool | None = None  # whether any source sets one; None while nobody has asked
        self.nameless_address = False  # a host whose tier_address is left to FALLBACK_ADDRESS
        existing = set(inventory.groups())
        self.group_names = (
            existing | set(site.tiers) | {site.parent_group, "all", "ungrouped", PRIMARY_GROUP, REPLICA_GROUP}
        )
        self.known_hosts = list(inventory.hosts())
        self.known_host_set = frozenset(self.known_hosts)
        self.classifier = Classifier(site.rules, site.exclude, inventory, self._declared_vars, site.strict)

    def plan(self) -> Plan:
        """All steps. The plan is only worth something when `problems` stayed empty."""
        self._check_groups()
        self._declare()
        self._classify()
        self._count()
        primary = self._primary()
        vips = self._vips()
        self.classifier.report(self.problems)
        return self._result(primary, vips)

    # --- groups ---

    def _check_groups(self) -> None:
        site = self.site
        wanted = {site.parent_group: ("parent_group",)} | {name: tier.path for name, tier in site.tiers.items()}
        for group, path in wanted.items():
            if group in self.known_host_set:
                self.problems.add(
                    path, f"'{group}' is the name of a host of another source: a group and a host cannot share it"
                )
        above = self.inventory.ancestors(site.parent_group)
        for name, tier in site.tiers.items():
            if name in above:
                self.problems.add(
                    tier.path,
                    f"another source makes '{name}' a parent of '{site.parent_group}', which is to be above it: "
                    "remove that, or set parent_group to another name",
                )
        if "db" in site.tiers:
            above = self.inventory.ancestors("db")
            for group in (PRIMARY_GROUP, REPLICA_GROUP):
                if group in above:
                    self.problems.add(
                        site.tiers["db"].path,
                        f"another source makes '{group}' a parent of 'db': it must be a child of it",
                    )

    # --- declared hosts ---

    def _declared_vars(self, host: str) -> Mapping[str, Any]:
        entry = self.declared.get(host)
        return _NO_VARS if entry is None else entry.vars

    def _declare(self) -> None:
        for tier in self.site.tiers.values():
            for entry in tier.hosts:
                if entry.start is not None:
                    self._check_span(entry)
                if self._plain(tier, entry):
                    self._declare_range(tier, entry)
                else:
                    for index, name in enumerate(entry.pattern):
                        if self._claim(tier, entry, name):
                            self._declare_host(tier, entry, index, name)

    def _plain(self, tier: Tier, entry: HostEntry) -> bool:
        """Whether the addresses of the entry are consecutive and nothing else names them: the fast way will do."""
        by_hand = {"tier_address", "server_id", "ansible_host"}
        return entry.start is not None and not by_hand.intersection(entry.vars)

    def _declare_range(self, tier: Tier, entry: HostEntry) -> None:
        """As `_declare_host` for each host of a range with address_start, without its questions."""
        key = entry.start or 0
        is_db, variables, members = tier.name == "db", entry.vars, self.members[tier.name]
        declared, owner, groups, tier_of = self.declared, self.address_owner, self.group_names, self.tier_of
        tier_name, known = tier.name, self.known_host_set
        for name in entry.pattern:
            if (name not in declared and name not in groups) or self._claim(tier, entry, name):
                connect = name not in known or self.inventory.variable(name, "ansible_host") is MISSING
                declared[name] = entry
                tier_of[name] = tier_name
                if owner.setdefault(key, name) is not name:
                    self._same_address((*entry.path, "address_start"), key, name)
                identity = self._identity(entry.path, name, key) if is_db else None
                members.append(Member(name, format_address(key), connect, identity, variables))
            key += 1

    def _claim(self, tier: Tier, entry: HostEntry, name: str) -> bool:
        """Take the name for this tier; a problem when it has another meaning already."""
        if self._claimed(tier, entry, name):
            return True
        self.refused.setdefault(tier.name, []).append(name)
        return False

    def _claimed(self, tier: Tier, entry: HostEntry, name: str) -> bool:
        other = self.declared.get(name)
        if other is not None:
            other_tier = self.tier_of[name]
            by = f" (by '{other.text}')" if other.text != name else ""
            if other_tier != tier.name:
                self.problems.add(
                    entry.path,
                    f"the host '{name}' is in two tiers, {other_tier}{by} and {tier.name}: keep it in one of them",
                )
            else:
                self.problems.add(
                    entry.path, f"the host '{name}' is declared twice in this tier{by}: remove one of them"
                )
            return False
        if name in self.group_names:
            self.problems.add(
                entry.path,
                f"the host '{name}' has the name of a group: Ansible cannot tell them apart, rename the host ({name}1)",
            )
            return False
        self.declared[name] = entry
        self.tier_of[name] = tier.name
        return True

    def _declare_host(self, tier: Tier, entry: HostEntry, index: int, name: str) -> None:
        path, by_hand = entry.path, entry.vars.get("tier_address", MISSING)
        key: int | None = None
        connect = False
        if entry.start is not None:
            key, path, connect = entry.start + index, (*path, "address_start"), True
        elif entry.addresses:
            path = path + (("addresses", index) if len(entry.pattern) > 1 or len(entry.addresses) > 1 else ("address",))
            key, connect = self._resolved(path, name, entry.addresses[index]), True
        elif by_hand is MISSING:
            key = self._address_of(name)
            if key is None and not self.problems.under(entry.path):
                key = self._resolved(path, name, name)
        if by_hand is not MISSING:
            path, by_hand_key = (*entry.path, "vars", "tier_address"), parse_address(by_hand)
            if by_hand_key is None and not _is_template(by_hand):
                self.problems.add(path, f"{show(by_hand)} is no IPv4 or IPv6 address")
            key = by_hand_key if by_hand_key is not None else key
        if connect and ("ansible_host" in entry.vars or self.inventory.variable(name, "ansible_host") is not MISSING):
            connect = False
        if key is not None:
            self._take_address(path, name, key, checked=entry.start is not None)
        identity: int | None = None
        if tier.name == "db":
            if "server_id" in entry.vars:
                self._take_server_id((*entry.path, "vars", "server_id"), name, entry.vars["server_id"])
            else:
                identity = self._identity(entry.path, name, key)
        address = None if key is None or by_hand is not MISSING else format_address(key)
        self.members[tier.name].append(Member(name, address, connect and address is not None, identity, entry.vars))

    def _resolved(self, path: Path, host: str, address: int | str) -> int | None:
        """The key of an address that may be a name; a name is looked up once, IPv4 first."""
        if isinstance(address, int):
            return address
        keys = sorted(key for key in map(parse_address, self.resolve(address)) if key is not None)
        if keys:
            return keys[0]
        if address == host:
            self.problems.add(path, f"the host '{host}' has no address and its name does not resolve: add an address")
        else:
            self.problems.add(
                path, f"the name {show(address)} of the host '{host}' does not resolve: write its address"
            )
        return None

    # --- addresses and identities ---

    def _check_span(self, entry: HostEntry) -> None:
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
            if not self._check_network(path, key, f"the address {format_address(key)}", f" of '{entry.text}'"):
                return
        inside = next((network for network in self.site.networks if start in network), None)
        if inside is not None and last not in inside:
            self.problems.add(
                path, f"the {count} addresses of '{entry.text}' begin in {inside.text} and end outside of it"
            )

    def _check_network(self, path: Path, key: int, what: str, whose: str) -> bool:
        networks = self.site.networks
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

    def _take_address(self, path: Path, name: str, key: int, checked: bool = False) -> None:
        if not checked:
            self._check_network(path, key, f"the address {format_address(key)}", f" of the host '{name}'")
        if self.address_owner.setdefault(key, name) != name:
            self._same_address(path, key, name)

    def _same_address(self, path: Path, key: int, name: str) -> None:
        self.problems.add(
            path, f"the hosts '{self.address_owner[key]}' and '{name}' have the same address {format_address(key)}"
        )

    def _identity(self, path: Path, name: str, key: int | None) -> int:
        identity = name_server_id(name) if key is None else server_id(key)
        owner = self.server_id_owner.setdefault(identity, name)
        # Two IPv4 hosts of one id share an address, which is a problem of its own.
        if owner != name and (key is None or is_ipv6(key) or self.address_owner.get(key) == name):
            self._same_server_id(path, name, identity)
        return identity

    def _take_server_id(self, path: Path, name: str, value: Any) -> None:
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

    def _address_of(self, name: str) -> int | None:
        """The first address among the variables of `network.address_from`; names in them are left to Ansible."""
        declared = self._declared_vars(name)
        for variable in self.site.address_from:
            value = declared[variable] if variable in declared else self.inventory.variable(name, variable)
            if value is not MISSING and (key := parse_address(value)) is not None:
                return key
        return None

    # --- hosts of other sources ---

    def _classify(self) -> None:
        site, inventory, problems = self.site, self.inventory, self.problems
        if site.rules and not self.known_hosts:
            for empty in site.tiers.values():  # that they have no hosts follows from this, and is not told as well
                empty.incomplete = True
            read = names(inventory.sources()) or "none"
            problems.add(
                ("rules",),
                f"there are no hosts that rules could sort: no source before this one brought any (read: {read}); "
                "name this file so that it is read last, or put it last on the command line",
            )
        earlier = self._earlier_tiers()
        check_declared = bool(site.rules)
        for name, entry in self.declared.items() if check_declared or earlier else ():
            tier = self.tier_of[name]
            if (before := earlier.get(name)) is not None and before != tier:
                problems.add(
                    entry.path,
                    f"the host '{name}' is in two tiers, {tier} here and {before} by another source: mend one",
                )
            elif check_declared and not self.classifier.excluded(name):
                rule = self.classifier.tier_rule(name)
                if rule is not None and rule.tier != tier:
                    problems.add(
                        rule.path,
                        f"the host '{name}' is in two tiers: declared in {tier}, and this rule puts it into "
                        f"{rule.tier}; narrow the rule, or list the host below exclude",
                    )
        self._sort(earlier)
        if self.unmatched and site.unmatched == "error" and site.tiers:
            problems.add(
                ("rules",) if site.rules else ("tiers",),
                f"{_hosts(len(self.unmatched))} of other sources {_are(len(self.unmatched))} in no tier: "
                f"{names(self.unmatched)}; add a rule, list them below exclude, or set unmatched: warn",
            )

    def _sort(self, earlier: Mapping[str, str]) -> None:
        """Put each host of another source that is not declared here into its tier."""
        tests = [(test, self._sink(rule.tier, rule.path)) for rule, test in self.classifier.tests]
        special = self.known_host_set & (self.declared.keys() | earlier.keys() | self.group_names)
        exclusions, excluded = self.classifier.has_exclusions, self.classifier.excluded
        for name in self.known_hosts:
            if name in special:
                self._sort_special(name, earlier.get(name))
            elif not exclusions or not excluded(name):
                for test, sink in tests:
                    if test(name):
                        sink(name)
                        break
                else:
                    self.unmatched.append(name)

    def _sort_special(self, name: str, before: str | None) -> None:
        """As `_sort` for a host that has a place already, or the name of a group. before: its tier by other sources."""
        if name in self.declared:
            return
        rule = None if self.classifier.excluded(name) else self.classifier.tier_rule(name)
        if before is None:
            if rule is None:
                if not self.classifier.excluded(name):
                    self.unmatched.append(name)
                return
            before = rule.tier
        elif rule is not None and rule.tier != before:
            self.problems.add(
                rule.path,
                f"the host '{name}' is in two tiers: {before} by another source, and this rule puts it into "
                f"{rule.tier}; narrow the rule, or take the host out of the group '{before}'",
            )
        if name in self.group_names:
            self.problems.add(
                self.site.tiers[before].path,
                f"the host '{name}' of another source has the name of a group: Ansible cannot tell them apart",
            )
            return
        self._sink(before, rule.path if rule is not None else self.site.tiers[before].path)(name)

    def _sink(self, tier: str, path: Path) -> Callable[[str], None]:
        """What takes a host of another source into a tier."""
        if self.addresses_known is None:
            self.addresses_known = any(map(self.inventory.sets, ("tier_address", *self.site.address_from)))
        if tier != "db" and not self.addresses_known:
            self.nameless_address = True
            return self.joined[tier].append  # nothing is known of any host, so there is nothing to check or to set
        members = self.members[tier]
        return lambda name: members.append(self._found_host(path, tier, name))

    def _earlier_tiers(self) -> dict[str, str]:
        """The tier of each host that another source put into a group with the name of a tier."""
        earlier: dict[str, str] = {}
        for name, tier in self.site.tiers.items():
            groups = (name, PRIMARY_GROUP, REPLICA_GROUP) if name == "db" else (name,)
            for host in sorted(frozenset().union(*(self.inventory.members(group) for group in groups))):
                if host not in self.known_host_set:
                    continue
                if host in earlier:
                    self.problems.add(
                        tier.path,
                        f"the host '{host}' is in two tiers by other sources, {earlier[host]} and {name}: mend one",
                    )
                earlier.setdefault(host, name)
        return earlier

    def _found_host(self, path: Path, tier: str, name: str) -> Member:
        """A host that another source brought: what that source set by hand stays."""
        by_hand = self.inventory.variable(name, "tier_address") if self.addresses_known else MISSING
        if by_hand is MISSING:
            key = self._address_of(name) if self.addresses_known else None
            if key is None:
                self.nameless_address = True
        else:
            key = parse_address(by_hand)
        if key is not None:
            self._take_address(path, name, key)
        identity: int | None = None
        if tier == "db":
            set_id = self.inventory.variable(name, "server_id")
            if set_id is MISSING:
                identity = self._identity(path, name, key)
            else:
                self._take_server_id(path, name, set_id)
        address = format_address(key) if key is not None and by_hand is MISSING else None
        return Member(name, address, False, identity, _NO_VARS)

    # --- the site as a whole ---

    def _count(self) -> None:
        for name, tier in self.site.tiers.items():
            count = len(self.members[name]) + len(self.joined[name])
            if count < tier.min_hosts and not tier.incomplete and not self.refused.get(name):
                ways = "add hosts" if not self.site.rules else "add hosts or a rule"
                zero = "0 when this site has none" if count == 0 else f"{count} when that is meant"
                self.problems.add(
                    tier.path,
                    f"the tier has {_hosts(count)}, at least {tier.min_hosts} {_are(tier.min_hosts)} needed: {ways}, "
                    f"or set min_hosts: {zero}",
                )
            if tier.max_hosts is not None and count > tier.max_hosts:
                self.problems.add(
                    tier.path,
                    f"the tier has {_hosts(count)}, at most {tier.max_hosts} {_are(tier.max_hosts)} allowed: "
                    "remove hosts, or raise max_hosts",
                )

    def _primary(self) -> str | None:
        """The name of the first primary, or None (a problem, or a site without a database)."""
        tier = self.site.tiers.get("db")
        if tier is None:
            return None
        hosts = [member.name for member in self.members["db"]] + self.refused.get("db", [])
        path = (*tier.path, "primary")
        before = sorted(self.inventory.members(PRIMARY_GROUP).intersection(hosts))
        if len(before) > 1:
            self.problems.add(
                path, f"other sources put {names(before)} into the group {PRIMARY_GROUP}: one host can be in it"
            )
            return None
        primary: str | None
        if tier.primary_host is not None:
            primary = tier.primary_host
            if primary not in hosts:
                if not tier.incomplete:
                    where = f", it is in the tier '{self.tier_of[primary]}'" if primary in self.tier_of else ""
                    self.problems.add(
                        (*path, "host"),
                        f"'{primary}' is no host of the tier 'db'{where} (hosts: {names(hosts) or 'none'})."
                        + did_you_mean(primary, hosts),
                    )
                return None
        elif tier.primary_match is not None:
            found = self.classifier.select(tier.primary_match, hosts)
            if len(found) != 1:
                if hosts and not tier.incomplete:
                    matched = f"{len(found)} hosts ({names(found)})" if found else "no host"
                    of = "" if found else f" ({names(hosts)})"
                    self.problems.add(path, f"it matches {matched} of the tier 'db'{of}: exactly one is needed")
                return None
            primary = found[0]
        elif before:
            return before[0]
        elif len(hosts) == 1:
            primary = hosts[0]
        else:
            if hosts and not self.problems.under(path) and not tier.incomplete:
                self.problems.add(
                    tier.path,
                    f"'primary' is missing: {names(hosts)} are {len(hosts)} hosts, say which is the first primary: "
                    f"primary: {{host: {hosts[0]}}}",
                )
            return None
        if before and before != [primary]:
            self.problems.add(
                path,
                f"'{primary}' is the primary here, another source puts '{before[0]}' into {PRIMARY_GROUP}: mend one",
            )
        if primary in self.inventory.members(REPLICA_GROUP):
            self.problems.add(
                path, f"'{primary}' is the primary here, another source puts it into {REPLICA_GROUP}: mend one"
            )
        return primary

    # --- VIPs ---

    def _vips(self) -> list[dict[str, Any]]:
        site, problems = self.site, self.problems
        if not site.vips:
            return []
        balancers = [member.name for member in self.members.get("lb", ())] + self.joined.get("lb", [])
        balancers.sort(key=_natural)
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
        if address in self.address_owner:
            self.problems.add(
                path, f"the VIP '{vip.name}' has the address {text} of the host '{self.address_owner[address]}'"
            )
        self._check_network(path, address, f"the address {text}", f" of the VIP '{vip.name}'")

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

    # --- the plan ---

    def _result(self, primary: str | None, vips: list[dict[str, Any]]) -> Plan:
        site = self.site
        plan = Plan(site.parent_group)
        plan.groups.append((site.parent_group, None))
        parent_vars = plan.group_vars.setdefault(site.parent_group, {})
        parent_vars["webstack_vips"] = vips
        parent_vars["webstack_internal_vips"] = [vip.name for vip in site.vips if vip.internal]
        if site.networks:
            parent_vars["webstack_network"] = site.networks[0].text
            parent_vars["webstack_networks"] = [network.text for network in site.networks]
        parent_vars["webstack_tiers"] = list(site.tiers)
        required = [name for name, tier in site.tiers.items() if tier.min_hosts > 0]
        parent_vars["webstack_required_groups"] = [PRIMARY_GROUP if name == "db" else name for name in required]
        if self.nameless_address:
            parent_vars["tier_address"] = FALLBACK_ADDRESS
        # The five known tiers always become groups, so that playbooks can name one that this site does not have.
        for name in dict.fromkeys((*KNOWN_TIERS, *site.tiers)):
            plan.groups.append((name, site.parent_group))
            if name == "db":
                plan.groups += [(PRIMARY_GROUP, "db"), (REPLICA_GROUP, "db")]
            tier = site.tiers.get(name)
            if tier is not None and tier.vars:
                plan.group_vars[name] = dict(tier.vars)
        for name, members in self.members.items():
            if name != "db":
                plan.members[name] = members
        plan.joined = self.joined
        database = self.members.get("db", [])
        plan.members[PRIMARY_GROUP] = [member for member in database if member.name == primary]
        plan.members[REPLICA_GROUP] = [member for member in database if member.name != primary]
        if self.unmatched and site.unmatched == "warn":
            plan.warnings.append(
                f"{_hosts(len(self.unmatched))} of other sources {_are(len(self.unmatched))} in no tier: "
                f"{names(self.unmatched)}. Add a rule, list them below exclude, or set unmatched: ignore."
            )
        return plan


def plan_site(site: Site, inventory: Inventory, resolve: Resolver, problems: Problems) -> Plan:
    """The plan for `site` over what `inventory` holds; whatever speaks against it is added to `problems`.

    resolve: gives the addresses of a host name, an empty list when it has none.
    """
    return Planner(site, inventory, resolve, problems).plan()


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts lb2 before lb10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in _DIGITS.split(name)]


def _prefix_length(network: Network) -> int:
    return network.prefix


def _is_template(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def _hosts(count: int) -> str:
    return f"{count} host" if count == 1 else f"{count} hosts"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
