# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - a plugin's documentation stands before its imports
from __future__ import annotations

DOCUMENTATION = r"""
name: tiers
author: The scaleup.webstack authors (@scaleup)
short_description: Describes a tiered web site in one small file
version_added: 0.1.0
description:
  - Declares the hosts of a site by ranges and lists, sorts the hosts that other sources brought into tiers by rules,
    and derives what the roles of this collection need, the VIPs, VRRP priorities, database identities and the first
    primary.
  - Checks the whole site first. All problems are reported at once, each with file, line, key and host, and then nothing
    is added to the inventory.
  - Every tier becomes a group below O(parent_group). The groups V(lb), V(web), V(app), V(db) (with the children
    V(db_primary) and V(db_replica)) and V(ops) have a meaning for the roles and always exist; other tiers are the
    user's own.
notes:
  - Ansible goes on with the play when an inventory source fails. Set C(any_unparsed_is_failed = true) in the section
    C([inventory]) of C(ansible.cfg), and import C(scaleup.webstack.preflight) first in playbooks of your own.
  - Rules see the hosts of the sources that were read before. In a directory of sources, files are read in the order of
    their names; give this one a name that is read last.
  - Variables from C(group_vars/) and C(host_vars/) beside the inventory are not visible to rules. Variables that other
    sources set on hosts and groups are.
  - "Host variables that are set: C(tier_address) (the address that other tiers use), C(ansible_host) for declared
    addresses where nothing else sets it, and C(server_id) for hosts of the tier V(db)."
  - "Group variables that are set on O(parent_group): C(webstack_vips), C(webstack_internal_vips), C(webstack_network),
    C(webstack_networks), C(webstack_tiers), C(webstack_required_groups), C(webstack_sources)."
options:
  plugin:
    description: The name of this plugin; marks the file as one of its own.
    type: str
    required: true
    choices: [scaleup.webstack.tiers]
  strict:
    description:
      - Whether a O(rules[].when) that fails for a host is an error. Otherwise the rule does not match that host.
      - A C(when) that gives something else than true or false is an error in any case.
    type: bool
    default: true
  unmatched:
    description: What to do about hosts of other sources that are in no tier and in no O(exclude) entry.
    type: str
    choices: [ignore, warn, error]
    default: warn
  parent_group:
    description: The group that holds all tiers.
    type: str
    default: webstack
  range_limit:
    description: The largest number of hosts that one pattern may stand for; protects from a slip of the keyboard.
    type: int
    default: 65536
  network:
    description: Where the site lives. When it is given, every address must lie in it.
    type: dict
    suboptions:
      cidr:
        description: The first network, such as V(10.0.0.0/24) or V(2001:db8::/64).
        type: str
      extra_cidrs:
        description: Further networks, for several subnets or dual-stack VIPs.
        type: list
        elements: str
        default: []
      address_from:
        description:
          - Variables that may hold the address of a host of another source; the first with an IP address is taken.
        type: list
        elements: str
        default: [private_ip_address, ansible_host]
  vips:
    description: Virtual addresses, carried by the hosts of the tier V(lb) by VRRP.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: A name, unique in the site. A VIP named V(internal) serves the tiers only.
        type: str
        required: true
      address:
        description: The address, IPv4 or IPv6. VRRP advertises in its family.
        type: str
        required: true
      prefix:
        description: The prefix length in bits; by default that of the network in O(network) that the address lies in.
        type: int
      interface:
        description: The interface that carries it, or a template for it.
        type: str
        required: true
      router_id:
        description: The VRRP router id, 1 to 255, unique per interface; by default the last octet of the address.
        type: int
      priorities:
        description:
          - The VRRP priority (1 to 254) of every host of the tier V(lb).
          - By default 250, 249 and so on in the natural order of the names, beginning one host later for each further
            VIP, so that two VIPs on two balancers are mirrored. Internal and public VIPs are counted apart.
        type: dict
      internal:
        description: Whether only the tiers use it; true by default for the name V(internal).
        type: bool
      extra_addresses:
        description:
          - Addresses that move together with this VIP, of either family, such as the IPv6 address of a dual-stack VIP.
          - Each is an address, or a mapping of C(address) and C(prefix).
        type: list
        elements: raw
        default: []
  tiers:
    description:
      - The tiers by name. V(lb), V(web), V(app) and V(db) must be there; a site without one of them says so by
        C(min_hosts) V(0).
      - Each tier has the keys C(hosts), C(vars), C(min_hosts), C(max_hosts), and for V(db) C(primary). See the
        examples.
      - "C(hosts) is a list of names and ranges, or a mapping of them to C(address) (an address, or a name that
        resolves), C(address_start) (the first of consecutive addresses), C(addresses) (a list) and C(vars)."
      - C(vars) of a tier become group variables, so C(group_vars/) overrides them. C(vars) of a host become host
        variables; C(ansible_host), C(tier_address) and C(server_id) can be set there by hand.
      - "C(primary) says which host of V(db) is the first primary: C(host), or a condition as in O(rules)."
      - C(min_hosts) is V(2) by default for V(lb), and V(1) for all others. C(max_hosts) has no default.
    type: dict
    required: true
  rules:
    description:
      - Sort hosts of other sources into tiers. The first rule that matches wins; of its conditions all must hold.
    type: list
    elements: dict
    default: []
    suboptions:
      tier:
        description: The tier, one of O(tiers).
        type: str
        required: true
      name:
        description: A pattern of host names (V(web*)), a regular expression after V(~), or a list of them.
        type: raw
      group:
        description: A group of another source, or a list of them.
        type: raw
      var:
        description: A variable of the host, dotted into its parts, such as V(tags.Role). Needs O(rules[].equals).
        type: str
      equals:
        description:
          - The value that O(rules[].var) must have, or a list of values. A variable that is a list matches by any item.
        type: raw
      when:
        description:
          - A Jinja expression without brackets that gives true or false; slower than the other conditions.
          - Hosts with the same values of the variables in it are asked once. Lookups and C(now()) are asked per host.
        type: str
  exclude:
    description: Hosts of other sources that the rules leave alone. Conditions as in O(rules).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
# inventory/site.tiers.yml: a site of nine hosts, two public VIPs (one per balancer) and an internal one
plugin: scaleup.webstack.tiers
network:
  cidr: 10.0.0.0/24
vips:
  - {name: public1, address: 10.0.0.101, interface: eth0}
  - {name: public2, address: 10.0.0.102, interface: eth0}
  - {name: internal, address: 10.0.0.103, interface: eth0}
tiers:
  lb:
    hosts:
      "lb[1:2]": {address_start: 10.0.0.11}
  web:
    hosts:
      "web[1:2]": {address_start: 10.0.0.21, vars: {zone: a}}
    min_hosts: 2
    vars:
      nginx_web_worker_connections: 2048  # a group variable: group_vars/web.yml overrides it
  app:
    hosts:
      "app[1:2]": {addresses: [10.0.0.31, 10.0.0.35]}
  db:
    hosts:
      "db[1:2]": {address_start: 10.0.0.41}
    primary: {host: db1}
  ops:
    hosts:
      ops1: {address: 10.0.0.51}
    max_hosts: 1
---
# Hosts that the amazon.aws.aws_ec2 plugin found; this file is read after its file
plugin: scaleup.webstack.tiers
unmatched: error
network:
  cidr: 10.1.0.0/16
  address_from: [private_ip_address]
vips:
  - {name: public, address: 10.1.0.100, interface: ens5}
tiers:
  lb: {}
  web: {min_hosts: 2, max_hosts: 40}
  app: {min_hosts: 2}
  db:
    primary: {var: tags.Primary, equals: "yes"}
  ops: {min_hosts: 0}
  cache: {min_hosts: 0}
rules:
  - {tier: lb, name: "lb-*"}
  - {tier: web, name: ["web-*", "~www[0-9]+"]}
  - {tier: app, group: tag_Tier_app}
  - {tier: db, var: tags.Role, equals: [mysql, mariadb]}
  - {tier: cache, var: tags.Role, equals: redis}
  - {tier: ops, when: "tags.Role | default('') == 'ops' and placement.region == 'eu-west-1'"}
exclude:
  - {name: "*-old"}
---
# A static inventory that has the groups already: only the VIPs, the checks and the identities are added
plugin: scaleup.webstack.tiers
vips:
  - name: public
    address: 192.0.2.100
    prefix: 24
    interface: eth0
    extra_addresses:
      - {address: "2001:db8::100", prefix: 64}
tiers: {lb: {}, web: {}, app: {}, db: {primary: {host: db1}}}
"""

import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.inventory.helpers import get_group_vars, sort_groups
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.scaleup.webstack.plugins.plugin_utils.checks import (
    EXTENSIONS,
    is_encrypted,
    marks_tiers,
    read_text,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import MISSING
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Problems, SourceLines, report
from ansible_collections.scaleup.webstack.plugins.plugin_utils.rules import ConditionError
from ansible_collections.scaleup.webstack.plugins.plugin_utils.site_config import read_site
from ansible_collections.scaleup.webstack.plugins.plugin_utils.topology import Plan, plan_site

try:
    from ansible.template import is_trusted_as_template, trust_as_template
except ImportError:  # before ansible-core 2.19, where strings carry no trust
    trust_as_template = None

_LOCAL = ("localhost", "127.0.0.1", "::1")


class InventoryModule(BaseInventoryPlugin):
    """Reads a file of this plugin, plans the site, and carries out the plan when nothing speaks against it."""

    NAME = "scaleup.webstack.tiers"
    # All strings that are set come from the configuration file, or are addresses that this plugin wrote (core >= 2.19).
    # Core 2.19 remembers this of the first source that sets a variable, whichever it is, so _trust() looks.
    trusted_by_default = True

    def verify_file(self, path: str) -> bool:
        """Whether the file is a YAML file with this plugin's name in it; the reason for declining is shown at -vvv."""
        if not super().verify_file(path):
            return False
        if not path.endswith(EXTENSIONS):
            self.display.vvv(f"tiers declines {path}: its name does not end in {' or '.join(EXTENSIONS)}")
            return False
        try:
            text = read_text(path)
        except OSError as error:
            self.display.vvv(f"tiers declines {path}: {error}")
            return False
        if not marks_tiers(text) and not is_encrypted(text):
            self.display.vvv(f"tiers declines {path}: it has no line 'plugin: {self.NAME}'")
            return False
        return True

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Read `path` and add the site to `inventory`.

        Raises AnsibleParserError with all problems; the inventory is then as it was.
        """
        super().parse(inventory, loader, path, cache=cache)
        config = self._load(path)
        lines = _lines(path)
        problems = Problems()
        for duplicate, first, second in lines.duplicate_keys():
            where = f"in line {first}" if first == second else f"in line {first} and in line {second}"
            problems.add(duplicate, f"this key stands twice, {where}: remove one of them")
        site = read_site(config, problems)
        plan = plan_site(site, _InventoryView(inventory, self.templar_for), _resolve, problems)
        if problems:
            raise AnsibleParserError(report(problems, path, lines))
        self._apply(plan, [*_sources(inventory, plan.parent_group), str(path)])
        for warning in plan.warnings:
            self.display.warning(f"{path}: {warning}")

    def _load(self, path: str) -> Any:
        """The data of the file, as trusted as a playbook. Wrong types of options are told by us, with their line."""
        try:
            return self._read_config_data(path)
        except Exception as error:
            try:
                config = self.loader.load_from_file(path, cache="none")
            except Exception:
                raise AnsibleParserError(f"{path} is no readable YAML file: {to_text(error)}") from None
            problems = Problems()
            site = read_site(config, problems)
            if problems:
                plan_site(site, _InventoryView(self.inventory, self.templar_for), _resolve, problems)
                raise AnsibleParserError(report(problems, path, _lines(path))) from None
            raise

    def templar_for(self, variables: Mapping[str, Any]) -> Any:
        """Ansible's template engine over the variables of one host."""
        templar = self.templar
        templar.available_variables = variables
        return templar

    def _apply(self, plan: Plan, sources: list[str]) -> None:
        """Carry out the plan; it has been checked, so nothing here is expected to fail."""
        inventory = self.inventory
        for group, _parent in plan.groups:
            inventory.add_group(group)
        inventory.set_variable(plan.parent_group, "webstack_sources", sources)
        trust, trust_text = _trust(inventory.groups[plan.parent_group].vars["webstack_sources"])
        inventory.set_variable(plan.parent_group, "webstack_sources", trust(sources))
        for group, variables in plan.group_vars.items():
            for name, value in variables.items():
                inventory.set_variable(group, name, trust(value))
        for group, hosts in plan.joined.items():
            for host in hosts:
                inventory.add_child(group, host)
        for group, members in plan.members.items():
            for member in members:
                inventory.add_host(member.name, group=group)
                if (address := member.address) is not None:
                    address = trust_text(address)  # once for both names: it costs as much as a variable
                    if member.connect:
                        inventory.set_variable(member.name, "ansible_host", address)
                    inventory.set_variable(member.name, "tier_address", address)
                if member.server_id is not None:
                    inventory.set_variable(member.name, "server_id", member.server_id)
                for name, value in member.vars.items():
                    inventory.set_variable(member.name, name, trust(value))
        # Last, because with each host that it gets a group walks up to all its ancestors.
        for group, parent in plan.groups:
            if parent is not None:
                inventory.add_child(parent, group)


def _trust(sample: list[str]) -> tuple[Callable[[Any], Any], Callable[[str], str]]:
    """What gives values, and what gives strings, the trust of a playbook.

    Nothing does, where core gave it to the sample that was set before.
    """
    if trust_as_template is None or all(is_trusted_as_template(text) for text in sample):
        return _unchanged, _unchanged
    return _trusted, _stamp(trust_as_template(""))


def _stamp(trusted: str) -> Callable[[str], str]:
    """What gives a plain string the trust that `trusted` has, at a tenth of the cost: all share one set of tags.

    core's public function makes a set for each string. Where its tagged strings are not what they were in core 2.19
    to 2.20, that function serves.
    """
    try:
        factory, tags = type(trusted)._instance_factory, trusted._ansible_tags_mapping  # type: ignore[attr-defined]
        sample = factory("sample", tags)
        if sample == "sample" and is_trusted_as_template(sample):
            return lambda text: factory(text, tags)
    except (AttributeError, TypeError):
        pass
    return trust_as_template


def _unchanged(value: Any) -> Any:
    return value


def _trusted(value: Any) -> Any:
    """The value with trust on all of its strings: they may be templates, and show as they are."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, Mapping):
        return {key: _trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return value


class _InventoryView:
    """What the earlier sources left in Ansible's inventory, read lazily: most hosts are asked for little or nothing."""

    def __init__(self, inventory: Any, templar_for: Any) -> None:
        self._inventory = inventory
        self._hosts: Mapping[str, Any] = inventory.hosts
        self._groups: Mapping[str, Any] = inventory.groups
        self._templar_for = templar_for
        self._members: dict[str, frozenset[str]] = {}
        self._set_by_group: dict[str, bool] = {}

    def hosts(self) -> Iterable[str]:
        return [name for name in self._hosts if name not in _LOCAL]

    def groups(self) -> Iterable[str]:
        return list(self._groups)

    def members(self, group: str) -> frozenset[str]:
        if group not in self._members:
            found = self._groups.get(group)
            self._members[group] = frozenset(host.name for host in found.get_hosts()) if found else frozenset()
        return self._members[group]

    def ancestors(self, group: str) -> frozenset[str]:
        found = self._groups.get(group)
        return frozenset(above.name for above in found.get_ancestors()) if found else frozenset()

    def sets(self, name: str) -> bool:
        return self._in_groups(name) or any(name in host.vars for host in self._hosts.values())

    def _in_groups(self, name: str) -> bool:
        if name not in self._set_by_group:
            self._set_by_group[name] = any(name in group.vars for group in self._groups.values())
        return self._set_by_group[name]

    def variable(self, host: str, name: str) -> Any:
        found = self._hosts.get(host)
        if found is None:
            return MISSING
        if name in found.vars:
            return found.vars[name]
        if name == "group_names":
            return sorted(group.name for group in found.get_groups() if group.name != "all")
        if self._in_groups(name):
            for group in reversed(sort_groups(found.get_groups())):
                if name in group.vars:
                    return group.vars[name]
        return MISSING

    def variables(self, host: str) -> Mapping[str, Any]:
        found = self._hosts.get(host)
        return {**get_group_vars(found.get_groups()), **found.get_vars()} if found else {}

    def evaluate(self, text: str, variables: Mapping[str, Any]) -> Any:
        templar = self._templar_for(variables)
        try:
            if hasattr(templar, "evaluate_expression"):  # core >= 2.19
                return templar.evaluate_expression(text)
            return templar.template("{{ " + text + " }}")
        except Exception as error:
            # The first line says what is wrong; what follows is about Ansible's own parts. Core 2.16 says it twice.
            said = to_text(error).splitlines()[0]
            first, _dot, second = said.partition(". ")
            raise ConditionError(first if first == second else said) from error

    def sources(self) -> list[str]:
        return [to_text(source) for source in getattr(self._inventory, "processed_sources", ())]


def _lines(path: str) -> SourceLines:
    """Where the keys of a file stand; nothing is known of an encrypted one."""
    text = read_text(path)
    return SourceLines("" if is_encrypted(text) else text)


def _sources(inventory: Any, parent_group: str) -> list[str]:
    """The files of this plugin that were read before; the preflight compares them with the files that exist."""
    group = inventory.groups.get(parent_group)
    return list(group.vars.get("webstack_sources", ())) if group else []


def _resolve(name: str) -> list[str]:
    """The addresses of a host name, as the controller's resolver gives them."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []
