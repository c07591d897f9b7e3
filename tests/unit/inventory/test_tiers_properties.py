"""What holds for every site, whatever its size and order; checked by hypothesis on the pure logic."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import yaml
from ansible.inventory.data import InventoryData
from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import (
    format_address,
    parse_address,
    parse_host_pattern,
    server_id,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import MISSING
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Problems, SourceLines, report
from ansible_collections.scaleup.webstack.plugins.plugin_utils.rules import ConditionError
from ansible_collections.scaleup.webstack.plugins.plugin_utils.site_config import (
    HOST_KEYS,
    KNOWN_TIERS,
    MATCH_KEYS,
    NETWORK_KEYS,
    TIER_KEYS,
    TOP_KEYS,
    VIP_KEYS,
    read_site,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.topology import Plan, plan_site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MODERATE = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


class Known:
    """An inventory as plain data: variables by host, hosts by group."""

    def __init__(
        self, hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._hosts = dict(hosts)
        self._groups = {name: frozenset(members) for name, members in (groups or {}).items()}

    def hosts(self) -> list[str]:
        return list(self._hosts)

    def groups(self) -> list[str]:
        return list(self._groups)

    def members(self, group: str) -> frozenset[str]:
        return self._groups.get(group, frozenset())

    def ancestors(self, group: str) -> frozenset[str]:
        return frozenset()

    def variable(self, host: str, name: str) -> Any:
        return self._hosts.get(host, {}).get(name, MISSING)

    def sets(self, name: str) -> bool:
        return any(name in variables for variables in self._hosts.values())

    def variables(self, host: str) -> Mapping[str, Any]:
        return self._hosts.get(host, {})

    def evaluate(self, text: str, variables: Mapping[str, Any]) -> Any:
        raise ConditionError("no Jinja here")

    def sources(self) -> list[str]:
        return []


def plan(config: object, known: Known | None = None) -> tuple[Plan, Problems]:
    problems = Problems()
    site = read_site(config, problems)
    return plan_site(site, known or Known({}), lambda _name: [], problems), problems


def placed(result: Plan) -> dict[str, tuple[str, str | None, int | None]]:
    """Group, address and server_id by host."""
    hosts: dict[str, tuple[str, str | None, int | None]] = {}
    for group, names in result.joined.items():
        for name in names:
            assert name not in hosts
            hosts[name] = (group, None, None)
    for group, members in result.members.items():
        for member in members:
            assert member.name not in hosts, "a host in two groups"
            hosts[member.name] = (group, member.address, member.server_id)
    return hosts


@st.composite
def sites(draw: st.DrawFn) -> dict[str, Any]:
    """A correct site: hosts by name and address, one by one, in any order."""
    sizes = {tier: draw(st.integers(2, 6)) for tier in ("lb", "web", "app", "db", "ops", "cache")}
    total = sum(sizes.values())
    numbers = draw(st.lists(st.integers(1, 2**16 - 2), min_size=total, max_size=total, unique=True))
    offset = draw(st.sampled_from([10 << 24, 192 << 24 | 168 << 16, 255 << 24]))
    addresses = iter(numbers)
    tiers: dict[str, Any] = {
        tier: {
            "hosts": {
                f"{tier}-{number}": {"address": format_address(offset + next(addresses))} for number in range(size)
            }
        }
        for tier, size in sizes.items()
    }
    tiers["db"]["primary"] = {"host": "db-0"}
    return {"plugin": "scaleup.webstack.tiers", "network": {"cidr": format_address(offset) + "/16"}, "tiers": tiers}


@MODERATE
@given(sites())
def test_each_host_is_in_one_tier_with_an_identity_of_its_own(config: dict[str, Any]) -> None:
    result, problems = plan(config)
    assert not problems, list(problems)
    hosts = placed(result)
    assert set(hosts) == {name for tier in config["tiers"].values() for name in tier["hosts"]}
    ids = [identity for _group, _address, identity in hosts.values() if identity is not None]
    assert len(ids) == len(config["tiers"]["db"]["hosts"]) == len(set(ids))
    assert all(1 <= identity <= 2**32 - 1 for identity in ids)
    assert [member.name for member in result.members["db_primary"]] == ["db-0"]


@MODERATE
@given(sites(), st.randoms(use_true_random=False))
def test_order_changes_nothing(config: dict[str, Any], dice: random.Random) -> None:
    shuffled = {
        **config,
        "tiers": shuffle(
            {name: {**tier, "hosts": shuffle(tier["hosts"], dice)} for name, tier in config["tiers"].items()}, dice
        ),
    }
    assert placed(plan(config)[0]) == placed(plan(shuffled)[0])


@MODERATE
@given(sites(), st.sampled_from(["lb", "web", "app", "db", "ops", "cache"]), st.booleans())
def test_adding_a_host_changes_no_other(config: dict[str, Any], tier: str, first: bool) -> None:
    before = placed(plan(config)[0])
    network = parse_address(config["network"]["cidr"].split("/")[0])
    assert network is not None
    taken = {host["address"] for one in config["tiers"].values() for host in one["hosts"].values()}
    free = next(text for number in range(1, 2**16) if (text := format_address(network + number)) not in taken)
    new = {"new": {"address": free}}
    hosts = config["tiers"][tier]["hosts"]
    grown = {
        **config["tiers"],
        tier: {**config["tiers"][tier], "hosts": {**new, **hosts} if first else {**hosts, **new}},
    }
    result, problems = plan({**config, "tiers": grown})
    assert not problems
    after = placed(result)
    del after["new"]
    assert after == before


@MODERATE
@given(sites(), st.integers(1, 254), st.integers(0, 3))
def test_vips_are_led_by_one_balancer_each(config: dict[str, Any], last: int, more: int) -> None:
    base = 172 << 24 | 16 << 16
    vips = [
        {
            "name": f"v{index}",
            "address": format_address(base + (last + index - 1) % 254 + 1),
            "prefix": 24,
            "interface": "eth0",
        }
        for index in range(more + 1)
    ]
    config = {**config, "vips": vips, "network": {**config["network"], "extra_cidrs": ["172.16.0.0/24"]}}
    result, problems = plan(config)
    assert not problems, list(problems)
    made = result.group_vars["webstack"]["webstack_vips"]
    balancers = sorted(config["tiers"]["lb"]["hosts"])
    for vip in made:
        assert sorted(vip["priorities"]) == balancers
        assert sorted(vip["priorities"].values(), reverse=True) == [250 - rank for rank in range(len(balancers))]
        assert 1 <= vip["router_id"] <= 255
    leaders = [max(vip["priorities"], key=vip["priorities"].get) for vip in made]
    assert len(set(leaders)) == min(len(made), len(balancers))


@MODERATE
@given(
    st.lists(st.from_regex(r"\A(lb|web|app|db|x)[0-9]{1,3}\Z"), unique=True, max_size=40),
    st.randoms(use_true_random=False),
)
def test_rules_put_each_host_into_the_tier_of_its_name(hosts: list[str], dice: random.Random) -> None:
    tiers = ("lb", "web", "app", "db")
    config = {
        "plugin": "scaleup.webstack.tiers",
        "tiers": {tier: {"min_hosts": 0} for tier in tiers},
        "rules": shuffle_list([{"tier": tier, "name": f"{tier}*"} for tier in tiers], dice),
    }
    if databases := [name for name in hosts if name.startswith("db")]:
        config["tiers"]["db"]["primary"] = {"host": dice.choice(databases)}
    result, problems = plan(config, Known({name: {} for name in hosts} or {"x": {}}))
    assert not problems, list(problems)
    for name, (group, _address, _identity) in placed(result).items():
        assert name.startswith(group.removesuffix("_primary").removesuffix("_replica"))
    assert set(placed(result)) == {name for name in hosts if not name.startswith("x")}


# --- addresses and ranges ---


@MODERATE
@given(st.ip_addresses())
def test_addresses_come_back(address: Any) -> None:
    key = parse_address(str(address))
    if "%" in str(address):
        assert key is None
        return
    assert key is not None
    assert format_address(key) == str(address)
    assert address.version == 4 or 1 <= server_id(key) <= 2**32 - 1


@MODERATE
@given(st.integers(0, 2000), st.integers(0, 300), st.integers(1, 7), st.integers(1, 5))
def test_ranges_are_those_of_ansible(first: int, size: int, step: int, width: int) -> None:
    from ansible.plugins.inventory import expand_hostname_range

    last = str(first + size)
    text = f"web[{str(first).zfill(len(last)) if width > 3 else first}:{last}:{step}].example"
    pattern = parse_host_pattern(text)
    assert not isinstance(pattern, str), pattern
    assert list(pattern) == expand_hostname_range(text)
    assert len(pattern) == len(list(pattern))


def test_several_ranges_are_those_of_ansible() -> None:
    from ansible.plugins.inventory import expand_hostname_range

    text = "rack[a:c]-[08:11]x[1:5:2]"
    pattern = parse_host_pattern(text)
    assert not isinstance(pattern, str)
    assert list(pattern) == expand_hostname_range(text)
    assert len(pattern) == 36


# --- nothing ends in a traceback ---

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from(
        ["10.0.0.1", "10.0.0.0/24", "web[1:3]", "db1", "~[", "{{ x }}", "2001:db8::1", "lb", "error", "a.b"]
    ),
)
WORDS = st.sampled_from(
    [*TOP_KEYS, *NETWORK_KEYS, *VIP_KEYS, *TIER_KEYS, *HOST_KEYS, *MATCH_KEYS, "tier", *KNOWN_TIERS]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(WORDS, st.integers(), st.text(max_size=5)), inner, max_size=6),
    ),
    max_leaves=30,
)


def mutated(value: Any, dice: random.Random, other: Any) -> Any:
    """The value with one part, somewhere, replaced by another."""
    if isinstance(value, dict) and value and dice.random() < 0.85:
        key = dice.choice(list(value))
        return {**value, key: mutated(value[key], dice, other)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        index = dice.randrange(len(value))
        return [*value[:index], mutated(value[index], dice, other), *value[index + 1 :]]
    return other


GOOD = yaml.safe_load("""
plugin: scaleup.webstack.tiers
network: {cidr: 10.0.0.0/24, extra_cidrs: ["2001:db8::/64"], address_from: [ansible_host]}
vips: [{name: a, address: 10.0.0.100, interface: eth0, prefix: 24, router_id: 3, priorities: {lb1: 9, lb2: 8},
        internal: true, extra_addresses: [{address: "2001:db8::5", prefix: 64}]}]
tiers:
  lb: {hosts: {"lb[1:2]": {address_start: 10.0.0.11, vars: {a: 1}}}, vars: {b: 2}, min_hosts: 1, max_hosts: 3}
  web: {hosts: {"web[1:2]": {addresses: [10.0.0.21, 10.0.0.22]}}}
  app: {hosts: {app1: {address: 10.0.0.31}}}
  db: {hosts: {"db[1:2]": {address_start: 10.0.0.41}}, primary: {host: db1}}
rules: [{tier: web, name: "w*", group: x, var: a.b, equals: [c], when: "a is defined"}]
exclude: [{name: ["*-old"]}]
""")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES, st.randoms(use_true_random=False), st.booleans())
def test_no_data_ends_in_a_traceback(value: Any, dice: random.Random, whole: bool) -> None:
    config = value if whole else mutated(GOOD, dice, value)
    known = Known({"x1": {"a": {"b": "c"}}, "w2": {"ansible_host": "10.0.0.77"}}, {"x": ["x1"], "all": ["x1", "w2"]})
    result, problems = plan(config, known)
    text = report(problems, "site.yml", SourceLines(yaml.safe_dump(config, allow_unicode=True)))
    if problems:
        assert len(text.split("\n")) >= 2
    else:
        placed(result)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(VALUES, st.randoms(use_true_random=False))
def test_any_error_leaves_the_inventory_untouched(site: Any, value: Any, dice: random.Random) -> None:
    """Through the plugin and Ansible's loader: an Ansible error and no change, or success."""
    from conftest import snapshot

    config = mutated(GOOD, dice, value)
    if isinstance(config, dict):
        config = {**config, "plugin": "scaleup.webstack.tiers"}
    path = site.write("site.tiers.yml", yaml.safe_dump(config, allow_unicode=True))
    inventory = InventoryData()
    inventory.add_host("w2")
    before = snapshot(inventory)
    error = site.error_of(inventory, path)
    if error is not None:
        assert snapshot(inventory) == before
        assert "Traceback" not in error
    else:
        assert "webstack" in inventory.groups or config.get("parent_group") in inventory.groups


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_text_ends_in_a_traceback(text: str) -> None:
    lines = SourceLines(text)
    list(lines.duplicate_keys())
    lines.line(("tiers", "web", 3))


@pytest.mark.parametrize(
    "text", ["&a [*a]", "&a {b: *a}", "{? [a]: b}", "? {a: b}\n: c", "!!python/object:os.system x", "- " * 3000]
)
def test_unusual_yaml(text: str) -> None:
    lines = SourceLines(text)
    list(lines.duplicate_keys())
    lines.line(("b", "b", 0))


def shuffle(mapping: Mapping[str, Any], dice: random.Random) -> dict[str, Any]:
    return dict(shuffle_list(list(mapping.items()), dice))


def shuffle_list(items: list[Any], dice: random.Random) -> list[Any]:
    dice.shuffle(items)
    return items
