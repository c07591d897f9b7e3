# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan for a site: which host goes into which group, with which identity; and everything that speaks against it.

`plan_site` only reads. The plugin carries out the plan when no problem was found, so an error leaves the inventory as
it was: Ansible itself has no rollback.

Identity comes from what stays when hosts come and go: `server_id` from the address, the VRRP router id from the VIP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import (
    format_address,
    parse_address,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import MISSING
from ansible_collections.scaleup.webstack.plugins.plugin_utils.identities import Identities
from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import (
    KNOWN_TIERS,
    PRIMARY_GROUP,
    REPLICA_GROUP,
    HostEntry,
    Site,
    Tier,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import (
    Path,
    Problems,
    did_you_mean,
    names,
    show,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.rules import Classifier, Inventory
from ansible_collections.scaleup.webstack.plugins.plugin_utils.vips import VipPlanner

# Where the inventory knows no address, the name must do; evaluated by Ansible on use.
FALLBACK_ADDRESS = "{{ ansible_host | default(inventory_hostname) }}"

_NO_VARS: Mapping[str, Any] = {}

Resolver = Callable[[str], list[str]]


@dataclass(slots=True)
class Member:
    """A host of a tier with what is to be set on it: `address` (text) and `server_id` are None when nothing is."""

    name: str
    address: str | None
    connect: bool  # whether ansible_host is ours to set
    server_id: int | None
    vars: Mapping[str, Any]


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
        self.identities = Identities(site.networks, problems)
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
        vips: list[dict[str, Any]] = []
        if self.site.vips:
            balancers = [member.name for member in self.members.get("lb", ())] + self.joined.get("lb", [])
            vips = VipPlanner(self.site, self.identities, self.problems).plan(balancers)
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
                    self.identities.check_span(entry)
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
        is_db, variables, members = tier.name == "db", entry.vars, self.members[tier.name]
        declared, owner, groups, tier_of = self.declared, self.identities.address_owner, self.group_names, self.tier_of
        tier_name, known = tier.name, self.known_host_set
        append, claim, take = members.append, self._claim, owner.setdefault
        for key, name in enumerate(entry.pattern, entry.start or 0):
            if (name not in declared and name not in groups) or claim(tier, entry, name):
                connect = name not in known or self.inventory.variable(name, "ansible_host") is MISSING
                declared[name] = entry
                tier_of[name] = tier_name
                if take(key, name) is not name:
                    self.identities.same_address((*entry.path, "address_start"), key, name)
                identity = self.identities.identity(entry.path, name, key) if is_db else None
                append(Member(name, format_address(key), connect, identity, variables))

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
            self.identities.take_address(path, name, key, checked=entry.start is not None)
        identity: int | None = None
        if tier.name == "db":
            if "server_id" in entry.vars:
                self.identities.take_server_id((*entry.path, "vars", "server_id"), name, entry.vars["server_id"])
            else:
                identity = self.identities.identity(entry.path, name, key)
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
            self.identities.take_address(path, name, key)
        identity: int | None = None
        if tier == "db":
            set_id = self.inventory.variable(name, "server_id")
            if set_id is MISSING:
                identity = self.identities.identity(path, name, key)
            else:
                self.identities.take_server_id(path, name, set_id)
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


def _is_template(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def _hosts(count: int) -> str:
    return f"{count} host" if count == 1 else f"{count} hosts"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
