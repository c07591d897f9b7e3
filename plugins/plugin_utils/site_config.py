# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the data of a `*.tiers.yml` file to a typed description of the site; whatever has the wrong form is a problem.

Nothing here knows a host of another source: what needs them is checked in `topology`.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import (
    is_ipv6,
    parse_address,
    parse_host_pattern,
    parse_network,
    valid_host_name,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import Expression, parse_expression
from ansible_collections.scaleup.webstack.plugins.plugin_utils.forms import Forms, key_text, no_address
from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import (
    DEFAULT_MIN_HOSTS,
    KNOWN_TIERS,
    REQUIRED_TIERS,
    RESERVED_GROUPS,
    HostEntry,
    Matcher,
    Rule,
    Site,
    Tier,
    Vip,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import (
    Path,
    Problems,
    did_you_mean,
    names,
    show,
)

DEFAULTS: dict[str, Any] = {
    "strict": True,
    "unmatched": "warn",
    "parent_group": "webstack",
    "range_limit": 65536,
}

TOP_KEYS = (
    "plugin", "strict", "unmatched", "parent_group", "range_limit", "network", "vips", "tiers", "rules", "exclude",
)  # fmt: skip
NETWORK_KEYS = ("cidr", "extra_cidrs", "address_from")
VIP_KEYS = ("name", "address", "prefix", "interface", "router_id", "priorities", "internal", "extra_addresses")
TIER_KEYS = ("hosts", "vars", "min_hosts", "max_hosts", "primary")
HOST_KEYS = ("address", "address_start", "addresses", "vars")
MATCH_KEYS = ("name", "group", "var", "equals", "when")
# Variables that identify one host; on a whole tier they would give all its hosts one identity.
IDENTITY_VARS = ("ansible_host", "tier_address", "server_id")

_GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_VIP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
_INTERFACE = re.compile(r"[^\s/:{}]{1,15}\Z")  # the kernel's IFNAMSIZ is 16 with the final NUL


class SiteReader(Forms):
    """Reads a configuration, adding to `problems` whatever has the wrong form; the rest is still read and checked."""

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems)
        self.site = Site()

    def read(self, config: object) -> Site:
        """The site that `config` describes, without the parts that have problems."""
        site = self.site
        data = self.mapping((), config, TOP_KEYS, "the file")
        if data is None:
            return site
        site.strict = self.boolean(("strict",), data.get("strict", DEFAULTS["strict"]), DEFAULTS["strict"])
        site.unmatched = self.choice(
            ("unmatched",), data.get("unmatched", DEFAULTS["unmatched"]), ("ignore", "warn", "error")
        )
        limit = self.integer(("range_limit",), data.get("range_limit", DEFAULTS["range_limit"]), 1, 10_000_000)
        site.range_limit = limit or DEFAULTS["range_limit"]
        self._parent_group(data.get("parent_group", DEFAULTS["parent_group"]))
        if data.get("network") is not None:
            self._network(data["network"])
        for path, entry in self.items(("vips",), data.get("vips")):
            self._vip(path, entry)
        self._tiers(data.get("tiers"))
        for path, entry in self.items(("rules",), data.get("rules")):
            self._rule(path, entry)
        if self.problems.under(("rules",)):  # the hosts that a bad rule would have brought are unknown
            for tier in site.tiers.values():
                tier.incomplete = True
        for path, entry in self.items(("exclude",), data.get("exclude")):
            matcher = self._matcher(path, entry, MATCH_KEYS, "an exclude entry")
            if matcher:
                site.exclude.append(matcher)
        return site

    # --- parts of the file ---

    def _parent_group(self, value: object) -> None:
        path = ("parent_group",)
        if not isinstance(value, str) or not _GROUP_NAME.match(value) or value in RESERVED_GROUPS:
            self.problems.add(
                path,
                f"{show(value)} cannot be the name of the parent group: use letters, digits and '_', such as webstack",
            )
        elif value in KNOWN_TIERS:
            self.problems.add(path, f"{show(value)} is the name of a tier: choose another one, such as webstack")
        else:
            self.site.parent_group = str(value)

    def _network(self, value: object) -> None:
        path = ("network",)
        data = self.mapping(path, value, NETWORK_KEYS, "the network", "{cidr: 10.0.0.0/24}")
        if data is None:
            return
        texts: list[tuple[Path, object]] = []
        if data.get("cidr") is not None:
            texts.append(((*path, "cidr"), data["cidr"]))
        elif data.get("extra_cidrs") is not None:
            self.problems.add(path, "'cidr' is missing: it is the first network, extra_cidrs are further ones")
        texts += self.items((*path, "extra_cidrs"), data.get("extra_cidrs"))
        for text_path, text in texts:
            if not isinstance(text, str):
                self.problems.add(text_path, f"expected a network like 10.0.0.0/24, got {show(text)}")
                continue
            network = parse_network(str(text))
            if isinstance(network, str):
                self.problems.add(text_path, network)
            elif network in self.site.networks:
                self.problems.add(text_path, f"'{network.text}' is listed twice: remove one")
            else:
                self.site.networks.append(network)
        if data.get("address_from") is not None:
            sources = self.texts((*path, "address_from"), data["address_from"], "a variable like ansible_host")
            if sources:
                self.site.address_from = sources

    def _vip(self, path: Path, value: object) -> None:
        data = self.mapping(path, value, VIP_KEYS, "a VIP", "{name: public, address: 10.0.0.100, interface: eth0}")
        if data is None:
            return
        name = self.required_text(path, data, "name", "such as public")
        if name is not None and not _VIP_NAME.match(name):
            self.problems.add((*path, "name"), f"{show(name)} is no VIP name: use letters, digits, '_', '-' and '.'")
        address = self.required_address(path, data, "address", "such as 10.0.0.100")
        interface = self.required_text(path, data, "interface", "such as eth0")
        if interface is not None and "{{" not in interface and not _INTERFACE.match(interface):
            self.problems.add(
                (*path, "interface"),
                f"{show(interface)} is no interface name: 1 to 15 characters without space, ':' and '/', such as eth0",
            )
        bits = 128 if address is not None and is_ipv6(address) else 32
        vip = Vip(name or "", path, address or 0, interface or "")
        vip.prefix = self.integer((*path, "prefix"), data.get("prefix"), 1, bits)
        vip.router_id = self.integer((*path, "router_id"), data.get("router_id"), 1, 255)
        vip.internal = self.boolean((*path, "internal"), data.get("internal", name == "internal"), False)
        if data.get("priorities") is not None:
            vip.priorities = self._priorities((*path, "priorities"), data["priorities"])
        for extra_path, extra in self.items((*path, "extra_addresses"), data.get("extra_addresses")):
            self._extra_address(vip, extra_path, extra)
        if name is not None and address is not None and interface is not None:
            self.site.vips.append(vip)

    def _priorities(self, path: Path, value: object) -> dict[str, int] | None:
        if not isinstance(value, Mapping):
            self.problems.add(path, f"expected a mapping like {{lb1: 250, lb2: 249}}, got {show(value)}")
            return None
        read: dict[str, int] = {}
        for host, priority in value.items():
            number = self.integer((*path, key_text(host)), priority, 1, 254, required=True)
            if number is None:
                continue
            # Two routers of one priority: the higher address would win, which nobody reads out of this file.
            same = [other for other, taken in read.items() if taken == number]
            if same:
                self.problems.add(
                    (*path, key_text(host)),
                    f"{key_text(host)} and {same[0]} have the same priority {number}: make them differ",
                )
            read[key_text(host)] = number
        return read

    def _extra_address(self, vip: Vip, path: Path, value: object) -> None:
        prefix: int | None = None
        if isinstance(value, Mapping):
            data = self.mapping(path, value, ("address", "prefix"), "an extra address")
            if data is None:
                return
            address = self.required_address(path, data, "address", "such as 2001:db8::100")
            bits = 128 if address is not None and is_ipv6(address) else 32
            prefix = self.integer((*path, "prefix"), data.get("prefix"), 1, bits)
        else:
            address = self.address(path, value)
        if address is not None:
            vip.extra.append((path, address, prefix))

    def _tiers(self, value: object) -> None:
        path: Path = ("tiers",)
        if value is None:
            self.problems.add((), "'tiers' is missing: name the tiers lb, web, app and db and their hosts there")
            return
        if not isinstance(value, Mapping):
            self.problems.add(
                path, f"expected a mapping of tier names like {{web: {{hosts: [web1, web2]}}}}, got {show(value)}"
            )
            return
        for key, entry in value.items():
            tier_path = (*path, key_text(key))
            if not isinstance(key, str) or not _GROUP_NAME.match(key):
                self.problems.add(
                    tier_path,
                    f"{show(key)} cannot be the name of a tier: use letters, digits and '_', and begin with a letter",
                )
            elif key in RESERVED_GROUPS or key == self.site.parent_group:
                self.problems.add(tier_path, f"'{key}' is a group with a meaning of its own: choose another tier name")
            else:
                self._tier(str(key), tier_path, entry)
        self._missing_tiers()

    def _missing_tiers(self) -> None:
        own = [name for name in self.site.tiers if name not in KNOWN_TIERS]
        for name in REQUIRED_TIERS:
            if name not in self.site.tiers and not self.problems.under(("tiers", name)):
                hint = did_you_mean(name, own).replace("Did you mean", "Is it")
                self.problems.add(
                    ("tiers",),
                    f"the tier '{name}' is missing: add it, or write `{name}: {{min_hosts: 0}}` if this site has none."
                    + hint,
                )

    def _tier(self, name: str, path: Path, value: object) -> None:
        keys = TIER_KEYS if name == "db" else tuple(key for key in TIER_KEYS if key != "primary")
        tier = Tier(name, path, min_hosts=DEFAULT_MIN_HOSTS.get(name, 1))
        self.site.tiers[name] = tier
        if value is None:
            return
        if name != "db" and isinstance(value, Mapping) and "primary" in value:
            self.problems.add((*path, "primary"), "only the tier 'db' has a primary: remove it")
            value = {key: item for key, item in value.items() if key != "primary"}
        data = self.mapping(path, value, keys, f"the tier '{name}'", '{hosts: ["web[1:2]"], min_hosts: 2}')
        if data is None:
            tier.incomplete = True
            return
        tier.incomplete = any(key not in keys for key in data)
        if data.get("hosts") is not None:
            self._hosts(tier, (*path, "hosts"), data["hosts"])
        tier.vars = self._vars((*path, "vars"), data.get("vars"), of_tier=True)
        minimum = self.integer((*path, "min_hosts"), data.get("min_hosts"), 0, 1_000_000)
        tier.max_hosts = self.integer((*path, "max_hosts"), data.get("max_hosts"), 0, 1_000_000)
        if minimum is not None:
            tier.min_hosts = minimum
        elif tier.max_hosts is not None:
            tier.min_hosts = min(tier.min_hosts, tier.max_hosts)
        if tier.max_hosts is not None and tier.max_hosts < tier.min_hosts:
            tier.incomplete = True
            self.problems.add(
                (*path, "max_hosts"),
                f"it is {tier.max_hosts}, less than min_hosts ({tier.min_hosts}): swap or raise it",
            )
        if data.get("primary") is not None:
            self._primary(tier, (*path, "primary"), data["primary"])

    def _primary(self, tier: Tier, path: Path, value: object) -> None:
        if isinstance(value, str):
            self.problems.add(path, f"expected a mapping, got the text {show(value)}: write {{host: {value}}}")
            return
        if not isinstance(value, Mapping) or "host" not in value:
            tier.primary_match = self._matcher(path, value, ("host", *MATCH_KEYS), "the primary", "{host: db1}")
            return
        if len(value) > 1:
            others = names(key_text(key) for key in value if key != "host")
            self.problems.add(path, f"'host' names the primary, so nothing else belongs here: remove {others}")
        host = value["host"]
        if not isinstance(host, str) or not valid_host_name(host):
            self.problems.add((*path, "host"), f"expected the name of one host like db1, got {show(host)}")
        else:
            tier.primary_host = str(host)

    def _hosts(self, tier: Tier, path: Path, value: object) -> None:
        entries: Iterable[tuple[Path, object, object]]
        if isinstance(value, Mapping):
            entries = [((*path, key_text(key)), key, entry) for key, entry in value.items()]
        elif isinstance(value, list):
            entries = [((*path, index), key, None) for index, key in enumerate(value)]
        else:
            tier.incomplete = True
            self.problems.add(
                path, f"expected host names like [web1, web2] or {{web1: {{address: 10.0.0.21}}}}, got {show(value)}"
            )
            return
        for entry_path, key, entry in entries:
            if not isinstance(key, str):
                tier.incomplete = True
                hint = ": write the address below the name, {web1: {address: …}}" if isinstance(key, Mapping) else ""
                self.problems.add(entry_path, f"expected a host name like web1 or web[1:3], got {show(key)}{hint}")
                continue
            pattern = parse_host_pattern(str(key))
            if isinstance(pattern, str):
                tier.incomplete = True
                self.problems.add(entry_path, pattern)
            elif len(pattern) > self.site.range_limit:
                tier.incomplete = True
                self.problems.add(
                    entry_path,
                    f"{show(key)} stands for {len(pattern)} hosts, more than range_limit ({self.site.range_limit}): "
                    "correct the range, or raise range_limit",
                )
            else:
                self._host_entry(tier, HostEntry(entry_path, str(key), pattern), entry)

    def _host_entry(self, tier: Tier, host: HostEntry, value: object) -> None:
        path, count = host.path, len(host.pattern)
        tier.hosts.append(host)
        if value is None:
            return
        if isinstance(value, str):
            self.problems.add(path, f"expected a mapping, got the text {show(value)}: write {{address: {value}}}")
            return
        data = self.mapping(path, value, HOST_KEYS, "a host", "{address: 10.0.0.21}")
        if data is None:
            return
        given = [key for key in ("address", "address_start", "addresses") if data.get(key) is not None]
        if len(given) > 1:
            self.problems.add(path, f"{' and '.join(given)} contradict each other: keep one of them")
            return
        host.vars = self._vars((*path, "vars"), data.get("vars"), of_tier=False)
        if given == ["address"]:
            if count > 1:
                self.problems.add(
                    (*path, "address"),
                    f"one address for the {count} hosts of {show(host.text)}: write address_start or addresses",
                )
                return
            address = self._address_or_name((*path, "address"), data["address"])
            host.addresses = () if address is None else (address,)
        elif given == ["addresses"]:
            self._addresses(host, (*path, "addresses"), data["addresses"])
        elif given == ["address_start"]:
            host.start = self.address((*path, "address_start"), data["address_start"])

    def _addresses(self, host: HostEntry, path: Path, value: object) -> None:
        read = [self._address_or_name(item_path, item) for item_path, item in self.items(path, value)]
        if isinstance(value, list) and len(value) != len(host.pattern):
            self.problems.add(
                path,
                f"{_count(len(value), 'address', 'addresses')} for the {_count(len(host.pattern), 'host')} of "
                f"{show(host.text)}: list one address per host, in their order",
            )
        elif None not in read:
            host.addresses = tuple(address for address in read if address is not None)

    def _rule(self, path: Path, value: object) -> None:
        matcher = self._matcher(path, value, ("tier", *MATCH_KEYS), "a rule", '{tier: web, name: "web*"}')
        if matcher is None or not isinstance(value, Mapping):
            return
        tier = value.get("tier")
        if tier is None:
            self.problems.add(path, "the rule has no 'tier': write like {tier: web, name: \"web*\"}")
        elif not isinstance(tier, str) or tier not in self.site.tiers:
            if not self.problems.under(("tiers", key_text(tier))):
                known = names(self.site.tiers)
                self.problems.add(
                    (*path, "tier"),
                    f"{show(tier)} is none of the tiers of this file ({known})." + did_you_mean(tier, self.site.tiers),
                )
        else:
            self.site.rules.append(Rule(str(tier), path, matcher))

    def _matcher(
        self, path: Path, value: object, keys: tuple[str, ...], what: str, example: str = '{name: "*-old"}'
    ) -> Matcher | None:
        before = len(self.problems)
        data = self.mapping(path, value, keys, what, example)
        if data is None:
            return None
        matcher = Matcher(path)
        if not any(data.get(key) is not None for key in MATCH_KEYS):
            if len(self.problems) == before:
                self.problems.add(path, f"no condition is given: add name, group, var or when, like {example}")
            return None
        if data.get("name") is not None:
            matcher.name_patterns = self.texts((*path, "name"), data["name"], 'a host name pattern like "web*"')
            for pattern in matcher.name_patterns:
                self._check_regex((*path, "name"), pattern)
        if data.get("group") is not None:
            matcher.groups = self.texts((*path, "group"), data["group"], "a group name")
        if data.get("var") is not None:
            matcher.variable = self._variable_path((*path, "var"), data["var"])
            if "equals" not in data:
                self.problems.add(path, "'var' needs 'equals': write like {var: tags.Role, equals: db}")
        if "equals" in data:
            if data.get("var") is None:
                self.problems.add(path, "'equals' needs 'var': write like {var: tags.Role, equals: db}")
            matcher.equals = self.scalars((*path, "equals"), data["equals"])
        if data.get("when") is not None:
            matcher.when = self._expression((*path, "when"), data["when"])
        return matcher if len(self.problems) == before else None

    def _check_regex(self, path: Path, pattern: str) -> None:
        if pattern.startswith("~"):
            try:
                re.compile(pattern[1:])
            except (re.error, OverflowError, RecursionError) as error:
                self.problems.add(path, f"{show(pattern)} is no regular expression: {error}")

    def _variable_path(self, path: Path, value: object) -> tuple[str, ...]:
        if not isinstance(value, str) or not all(value.split(".")) or not _GROUP_NAME.match(value.split(".")[0]):
            self.problems.add(path, f"expected a variable, dotted into its parts, like tags.Role, got {show(value)}")
            return ()
        return tuple(value.split("."))

    def _expression(self, path: Path, value: object) -> Expression | None:
        if not isinstance(value, str):
            self.problems.add(path, f"expected an expression like \"tags.Role == 'ops'\", got {show(value)}")
            return None
        if "{{" in value or "{%" in value:
            self.problems.add(
                path, f"{show(value)} has template brackets: write the bare expression, without {{{{ }}}}"
            )
            return None
        expression = parse_expression(value)
        if isinstance(expression, str):
            self.problems.add(path, f"{show(value)} is no Jinja expression: {expression}")
            return None
        return expression

    # --- forms that only this file has ---

    def _address_or_name(self, path: Path, value: object) -> int | str | None:
        """An address, or a host name that is to be resolved: what looks like a broken address is not taken as one."""
        key = parse_address(value)
        if key is not None:
            return key
        if isinstance(value, str) and valid_host_name(value) and ":" not in value and re.search("[A-Za-z]", value):
            return str(value)
        self.problems.add(path, no_address(value))
        return None

    def _vars(self, path: Path, value: object, of_tier: bool) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.problems.add(path, f"expected a mapping of variables like {{zone: a}}, got {show(value)}")
            return {}
        for key, item in value.items():
            if not isinstance(key, str) or not _GROUP_NAME.match(key) or keyword.iskeyword(key):
                self.problems.add(
                    (*path, key_text(key)),
                    f"{show(key)} is no variable name: use letters, digits and '_', not a Python word",
                )
            elif of_tier and key in IDENTITY_VARS:
                self.problems.add(
                    (*path, key), f"'{key}' identifies one host, on a tier all hosts would share it: set it on the host"
                )
            elif _contains_itself(item):
                self.problems.add(
                    (*path, key), "the value contains itself (a YAML alias in its own anchor): write it out"
                )
        return value


def read_site(config: object, problems: Problems) -> Site:
    """The site that the data of a file describes; what is wrong with its form is added to `problems`."""
    return SiteReader(problems).read(config)


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _contains_itself(value: object, parents: tuple[int, ...] = ()) -> bool:
    if not isinstance(value, Mapping | list):
        return False
    if id(value) in parents or len(parents) > 200:
        return True
    items = value.values() if isinstance(value, Mapping) else value
    return any(_contains_itself(item, (*parents, id(value))) for item in items)
