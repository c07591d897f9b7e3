"""What the tiers plugin makes of correct files: whole groups and whole variables, read through Ansible itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible.plugins.loader import inventory_loader

Members = Callable[[Any, str], list[str]]

LAB = """\
plugin: scaleup.webstack.tiers
network: {cidr: 198.18.0.0/24}
vips:
  - {name: public1, address: 198.18.0.101, interface: eth0}
  - {name: public2, address: 198.18.0.102, interface: eth0}
  - {name: internal, address: 198.18.0.103, interface: eth0, internal: true}
tiers:
  lb: {hosts: {"lb[1:2]": {address_start: 198.18.0.11}}}
  web: {hosts: {"web[1:2]": {address_start: 198.18.0.21}}}
  app: {hosts: {"app[1:2]": {address_start: 198.18.0.31}}}
  db: {hosts: {"db[1:2]": {address_start: 198.18.0.41}}, primary: {host: db1}}
  ops: {hosts: {ops1: {address: 198.18.0.51}}}
"""

BARE = "plugin: scaleup.webstack.tiers\ntiers: {lb: {}, web: {}, app: {}, db: {primary: {host: db1}}}\n"
STATIC = """\
[lb]
lb1 ansible_host=10.0.0.11
lb2 ansible_host=10.0.0.12
[web]
web1 ansible_host=10.0.0.21
[app]
app1 ansible_host=10.0.0.31
[db]
db1 ansible_host=10.0.0.41
db2 ansible_host=10.0.0.42
"""

# As the aws_ec2 plugin leaves hosts: names, addresses and tags as host variables.
CLOUD = """\
all:
  hosts:
    i-0a: {private_ip_address: 10.1.0.11, ansible_host: 52.0.0.1, tags: {Name: lb-a, Role: lb}, placement: {region: eu}}
    i-0b: {private_ip_address: 10.1.0.12, ansible_host: 52.0.0.2, tags: {Name: lb-b, Role: lb}, placement: {region: eu}}
    i-1a: {private_ip_address: 10.1.0.21, ansible_host: 52.0.0.3, tags: {Name: web-a, Role: [web, cdn]}}
    i-2a: {private_ip_address: 10.1.0.31, ansible_host: 52.0.0.4, tags: {Name: app-a, Role: app, Index: 4}}
    i-3a: {private_ip_address: 10.1.0.41, ansible_host: 52.0.0.5, tags: {Name: db-a, Role: mysql, First: "yes"}}
    i-3b: {private_ip_address: 10.1.0.42, ansible_host: 52.0.0.6, tags: {Name: db-b, Role: mariadb}}
    i-9a: {private_ip_address: 10.1.0.91, tags: {Name: bastion-old}}
    localhost: {ansible_connection: local}
  children:
    tag_Role_app: {hosts: {i-2a: {}}}
"""


def test_the_lab(site: Any, members: Members) -> None:
    inventory = site.read(LAB)
    assert {
        name: members(inventory, name) for name in ("lb", "web", "app", "db", "ops", "db_primary", "db_replica")
    } == {
        "lb": ["lb1", "lb2"],
        "web": ["web1", "web2"],
        "app": ["app1", "app2"],
        "db": ["db1", "db2"],
        "ops": ["ops1"],
        "db_primary": ["db1"],
        "db_replica": ["db2"],
    }
    assert [child.name for child in inventory.groups["webstack"].child_groups] == ["lb", "web", "app", "db", "ops"]
    assert [child.name for child in inventory.groups["db"].child_groups] == ["db_primary", "db_replica"]
    hosts = {
        name: {key: value for key, value in host.vars.items() if not key.startswith("inventory_")}
        for name, host in inventory.hosts.items()
    }
    assert hosts["web2"] == {"ansible_host": "198.18.0.22", "tier_address": "198.18.0.22"}
    assert hosts["db2"] == {
        "ansible_host": "198.18.0.42",
        "tier_address": "198.18.0.42",
        "server_id": 198 << 24 | 18 << 16 | 42,
    }
    common = {"prefix": 24, "interface": "eth0"}
    group = inventory.groups["webstack"].vars
    assert group["webstack_vips"] == [
        {
            "name": "public1",
            "address": "198.18.0.101",
            "router_id": 101,
            "priorities": {"lb1": 250, "lb2": 249},
            **common,
        },
        {
            "name": "public2",
            "address": "198.18.0.102",
            "router_id": 102,
            "priorities": {"lb2": 250, "lb1": 249},
            **common,
        },
        {
            "name": "internal",
            "internal": True,
            "address": "198.18.0.103",
            "router_id": 103,
            "priorities": {"lb1": 250, "lb2": 249},
            **common,
        },
    ]
    assert group["webstack_internal_vips"] == ["internal"]
    assert group["webstack_network"] == "198.18.0.0/24"
    assert group["webstack_required_groups"] == ["lb", "web", "app", "db_primary", "ops"]
    assert group["webstack_sources"] == [str(site.folder / "site.tiers.yml")]


def test_every_host_knows_all_its_groups(site: Any) -> None:
    """Groups are linked after their hosts were added; the hosts must not miss an ancestor for that."""
    inventory = site.read(LAB)
    groups = {name: sorted(group.name for group in host.get_groups()) for name, host in inventory.hosts.items()}
    assert groups["db2"] == ["all", "db", "db_replica", "webstack"]
    assert groups["web1"] == ["all", "web", "webstack"]


def test_priorities_are_mirrored_whatever_stands_between(site: Any) -> None:
    """Internal and public VIPs are counted apart, three balancers take turns, and lb10 comes after lb2."""
    config = LAB.replace('"lb[1:2]"', '"lb[8:10]"').replace("internal: true}", "internal: true}\n$", 1)
    lines = config.split("\n")
    internal = next(line for line in lines if "internal: true" in line)
    lines.remove(internal)
    lines.remove("$")
    lines.insert(lines.index("vips:") + 2, internal)
    inventory = site.read("\n".join(lines))
    vips = inventory.groups["webstack"].vars["webstack_vips"]
    assert [(vip["name"], max(vip["priorities"], key=vip["priorities"].get)) for vip in vips] == [
        ("public1", "lb8"),
        ("internal", "lb8"),
        ("public2", "lb9"),
    ]
    assert vips[2]["priorities"] == {"lb9": 250, "lb10": 249, "lb8": 248}


def test_names_are_in_natural_order(site: Any) -> None:
    """lb2 before lb10: the order that people read."""
    inventory = site.read(
        LAB.replace('"lb[1:2]": {address_start: 198.18.0.11}', '"lb[9:11]": {address_start: 198.18.0.11}')
    )
    assert list(inventory.groups["webstack"].vars["webstack_vips"][0]["priorities"]) == ["lb9", "lb10", "lb11"]


def test_everything_can_be_set_by_hand(site: Any, members: Members) -> None:
    config = """\
plugin: scaleup.webstack.tiers
parent_group: shop
network: {cidr: 10.0.0.0/24, extra_cidrs: [203.0.113.0/28, "2001:db8::/64"]}
vips:
  - name: public
    address: 203.0.113.5
    prefix: 32
    interface: "{{ public_interface }}"
    router_id: 77
    priorities: {lb1: 100, lb2: 200}
    extra_addresses: ["2001:db8::5", {address: 10.0.0.105, prefix: 32}]
  - {name: six, address: "2001:db8::65", interface: eth1}
tiers:
  lb: {hosts: {"lb[1:2]": {addresses: [10.0.0.12, 10.0.0.11]}}}
  web: {hosts: {"web[a:b]": {address_start: 10.0.0.21}}, vars: {zone: a, nested: {deep: [1]}}}
  app:
    hosts:
      app1: {address: 10.0.0.31, vars: {ansible_host: app1.management, extra: "{{ zone }}"}}
      app2: {address: 10.0.0.32, vars: {tier_address: 10.0.0.132}}
  db:
    hosts:
      db1: {address: db1.example.org}
      db2: {address: 10.0.0.42, vars: {server_id: 2}}
      db3: {address: "2001:db8::43"}
    primary: {name: "*2"}
  cache: {hosts: ["cache[01:02]"], max_hosts: 2, min_hosts: 0}
"""
    config = config.replace(
        'hosts: ["cache[01:02]"]', 'hosts: {"cache[01:02]": {address_start: 10.0.0.61, vars: {size: 5}}}'
    )
    inventory = site.read(config)
    hosts = {
        name: {key: value for key, value in host.vars.items() if not key.startswith("inventory_")}
        for name, host in inventory.hosts.items()
    }
    assert hosts["lb1"]["tier_address"] == "10.0.0.12"
    assert hosts["webb"]["tier_address"] == "10.0.0.22"
    assert hosts["app1"] == {"tier_address": "10.0.0.31", "ansible_host": "app1.management", "extra": "{{ zone }}"}
    assert hosts["app2"]["tier_address"] == "10.0.0.132"
    assert hosts["db1"]["tier_address"] == "10.0.0.41"
    assert hosts["db1"]["server_id"] == 10 << 24 | 41
    assert hosts["db2"]["server_id"] == 2
    assert hosts["db3"]["server_id"] == 942269455
    assert hosts["cache02"] == {"ansible_host": "10.0.0.62", "tier_address": "10.0.0.62", "size": 5}
    assert members(inventory, "db_primary") == ["db2"]
    assert members(inventory, "db_replica") == ["db1", "db3"]
    assert members(inventory, "cache") == ["cache01", "cache02"]
    assert inventory.groups["web"].vars == {"zone": "a", "nested": {"deep": [1]}}
    group = inventory.groups["shop"].vars
    assert group["webstack_vips"] == [
        {
            "name": "public",
            "address": "203.0.113.5",
            "prefix": 32,
            "interface": "{{ public_interface }}",
            "router_id": 77,
            "priorities": {"lb1": 100, "lb2": 200},
            "extra_addresses": [{"address": "2001:db8::5", "prefix": 64}, {"address": "10.0.0.105", "prefix": 32}],
        },
        {
            "name": "six",
            "address": "2001:db8::65",
            "prefix": 64,
            "interface": "eth1",
            "router_id": 0x65,
            "priorities": {"lb2": 250, "lb1": 249},
        },
    ]
    assert group["webstack_networks"] == ["10.0.0.0/24", "203.0.113.0/28", "2001:db8::/64"]
    assert "webstack" not in inventory.groups


def test_the_known_tiers_are_always_groups(site: Any, members: Members) -> None:
    inventory = site.read(
        "plugin: scaleup.webstack.tiers\ntiers: {lb: {min_hosts: 0}, web: {hosts: {web1: {address: 10.0.0.1}}}, "
        "app: {min_hosts: 0}, db: {min_hosts: 0}}\n"
    )
    assert {name: members(inventory, name) for name in ("lb", "web", "db_primary", "ops")} == {
        "lb": [],
        "web": ["web1"],
        "db_primary": [],
        "ops": [],
    }
    assert inventory.groups["webstack"].vars["webstack_required_groups"] == ["web"]


def test_names_that_resolve(site: Any, resolver: list[str]) -> None:
    """A host without an address is looked up by its name; ansible_host is then not ours to set. IPv4 comes first."""
    inventory = site.read(
        LAB.replace(
            'web: {hosts: {"web[1:2]": {address_start: 198.18.0.21}}}', "web: {hosts: [web1.example.org]}"
        ).replace("network: {cidr: 198.18.0.0/24}", "network: {cidr: 198.18.0.0/24, extra_cidrs: [10.0.0.0/24]}")
    )
    host = inventory.hosts["web1.example.org"].vars
    assert host["tier_address"] == "10.0.0.21"
    assert "ansible_host" not in host
    assert set(resolver) == {"web1.example.org"}


# --- hosts of other sources ---


def test_a_cloud_source(site: Any, members: Members) -> None:
    config = """\
plugin: scaleup.webstack.tiers
unmatched: error
network: {cidr: 10.1.0.0/16}
vips: [{name: public, address: 10.1.0.100, interface: ens5}]
tiers:
  lb: {}
  web: {}
  app: {}
  db: {primary: {var: tags.First, equals: "yes"}}
rules:
  - {tier: lb, when: "tags.Name.startswith('lb-') and placement.region == 'eu'"}
  - {tier: web, var: tags.Role, equals: web}
  - {tier: app, group: tag_Role_app, var: tags.Index, equals: "4"}
  - {tier: db, var: tags.Role, equals: [mysql, mariadb]}
exclude:
  - {when: "tags.Name is search('-old$')"}
"""
    inventory = site.read(config.replace("strict: true\n", ""), {"cloud.yml": CLOUD})
    assert {name: members(inventory, name) for name in ("lb", "web", "app", "db", "db_primary")} == {
        "lb": ["i-0a", "i-0b"],
        "web": ["i-1a"],
        "app": ["i-2a"],
        "db": ["i-3a", "i-3b"],
        "db_primary": ["i-3a"],
    }
    web = inventory.hosts["i-1a"].vars
    assert (web["tier_address"], web["ansible_host"]) == ("10.1.0.21", "52.0.0.3")
    assert inventory.hosts["i-3b"].vars["server_id"] == 10 << 24 | 1 << 16 | 42
    assert "tier_address" not in inventory.hosts["i-9a"].vars
    assert "tier_address" not in inventory.groups["webstack"].vars


def test_a_static_inventory_with_the_groups_already(site: Any, members: Members) -> None:
    inventory = site.read(BARE, {"hosts.ini": STATIC})
    assert members(inventory, "db_primary") == ["db1"]
    assert members(inventory, "db_replica") == ["db2"]
    assert inventory.hosts["db2"].vars["server_id"] == 10 << 24 | 42
    assert members(inventory, "webstack") == ["lb1", "lb2", "web1", "app1", "db1", "db2"]


def test_a_static_inventory_names_the_primary(site: Any, members: Members) -> None:
    inventory = site.read(
        BARE.replace("{primary: {host: db1}}", "{}"), {"hosts.ini": STATIC + "[db_primary]\ndb2\n[db_replica]\ndb1\n"}
    )
    assert members(inventory, "db_primary") == ["db2"]
    assert members(inventory, "db_replica") == ["db1"]


def test_what_other_sources_set_by_hand_stays(site: Any) -> None:
    static = STATIC.replace(
        "db2 ansible_host=10.0.0.42", "db2 ansible_host=10.0.0.42 server_id=7 tier_address=10.9.9.9"
    )
    inventory = site.read(BARE, {"hosts.ini": static + "[web:vars]\ntier_address=10.8.8.8\n"})
    assert inventory.hosts["db2"].vars["server_id"] == 7
    assert inventory.hosts["db2"].vars["tier_address"] == "10.9.9.9"
    assert "tier_address" not in inventory.hosts["web1"].vars


def test_a_declared_host_that_another_source_has_too(site: Any) -> None:
    """ansible_host stays as it was set; the address for the other tiers is the declared one."""
    inventory = site.read(LAB, {"hosts.ini": "web1 ansible_host=web1.management\n[all:vars]\ncolour=blue\n"})
    assert inventory.hosts["web1"].vars["ansible_host"] == "web1.management"
    assert inventory.hosts["web1"].vars["tier_address"] == "198.18.0.21"
    assert inventory.hosts["web2"].vars["ansible_host"] == "198.18.0.22"


def test_hosts_without_a_known_address(site: Any) -> None:
    """Names are left to Ansible and to the resolver of the machines; the id of a database host comes from its name."""
    static = STATIC.replace(" ansible_host=10.0.0.", ".example.com x=")
    inventory = site.read(BARE.replace("host: db1", "host: db1.example.com"), {"hosts.ini": static})
    assert inventory.groups["webstack"].vars["tier_address"] == "{{ ansible_host | default(inventory_hostname) }}"
    assert inventory.hosts["db1.example.com"].vars["server_id"] == 4185450844
    assert inventory.hosts["db2.example.com"].vars["server_id"] != 4185450844


def test_the_first_rule_that_matches_wins(site: Any, members: Members) -> None:
    hosts = "a1\na2\nb1\nb2\nb3\nc1\nd1\n"
    config = BARE.replace("host: db1", "host: d1") + (
        'rules: [{tier: lb, name: [a1, a2]}, {tier: web, name: "~b[12]$"}, {tier: app, name: "b*"}, '
        '{tier: app, name: "c?"}, {tier: db, name: "*1"}]\n'
    )
    inventory = site.read(config, {"hosts.ini": hosts})
    assert {name: members(inventory, name) for name in ("lb", "web", "app", "db")} == {
        "lb": ["a1", "a2"],
        "web": ["b1", "b2"],
        "app": ["b3", "c1"],
        "db": ["d1"],
    }


@pytest.mark.parametrize(("unmatched", "warned"), [("ignore", False), ("warn", True)])
def test_hosts_in_no_tier(site: Any, monkeypatch: pytest.MonkeyPatch, unmatched: str, warned: bool) -> None:
    from ansible.utils.display import Display

    told: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, msg, *_args, **_kwargs: told.append(msg))
    site.read(
        f"unmatched: {unmatched}\nexclude: [{{name: 'x*'}}]\n" + BARE,
        {"hosts.ini": "stray\nx1\nlocalhost ansible_connection=local\n" + STATIC},
    )
    message = (
        "1 host of other sources is in no tier: stray. Add a rule, list them below exclude, or set unmatched: ignore."
    )
    assert any(message in line for line in told) == warned


def test_an_excluded_host_is_never_unmatched(site: Any, members: Members) -> None:
    """Not even one with the name of a group, which takes another way through the code."""
    inventory = site.read(
        "unmatched: error\nexclude: [{name: 'x*'}]\n" + BARE, {"hosts.ini": "x2\n[x1]\nx1\n" + STATIC}
    )
    assert members(inventory, "webstack") == ["lb1", "lb2", "web1", "app1", "db1", "db2"]


# --- `when` ---


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("tags.Role | default('') == 'app'", {"i-2a"}),
        ("'web' in (tags.Role | default([]))", {"i-1a"}),
        ("tags['Index'] | default(0) == 4", {"i-2a"}),
        ("tags.get('First') == 'yes'", {"i-3a"}),
        ("(tags | dict2items | length) == 3", {"i-2a", "i-3a"}),
        ("inventory_hostname in ['i-0a', 'i-3b']", {"i-0a", "i-3b"}),
        ("'tag_Role_app' in group_names", {"i-2a"}),
        ("private_ip_address is match('10.1.0.4')", {"i-3a", "i-3b"}),
        ("lookup('ansible.builtin.vars', 'private_ip_address') == '10.1.0.12'", {"i-0b"}),
        ("placement is defined", {"i-0a", "i-0b"}),
    ],
)
def test_conditions(site: Any, members: Members, expression: str, expected: set[str]) -> None:
    config = (
        "plugin: scaleup.webstack.tiers\nunmatched: ignore\n"
        "tiers: {lb: {min_hosts: 0}, web: {min_hosts: 0}, app: {min_hosts: 0}, db: {min_hosts: 0}, mine: {}}\n"
        f'rules:\n  - tier: mine\n    when: "{expression}"\n'
    )
    inventory = site.read(config, {"cloud.yml": CLOUD})
    assert set(members(inventory, "mine")) == expected


def test_a_condition_that_fails_is_no_match_unless_strict(site: Any, members: Members) -> None:
    config = (
        "plugin: scaleup.webstack.tiers\nstrict: false\nunmatched: ignore\n"
        "tiers: {lb: {min_hosts: 0}, web: {min_hosts: 0}, app: {min_hosts: 0}, db: {min_hosts: 0}, mine: {}}\n"
        "rules: [{tier: mine, when: \"placement.region == 'eu'\"}]\n"
    )
    inventory = site.read(config, {"cloud.yml": CLOUD})
    assert members(inventory, "mine") == ["i-0a", "i-0b"]


def test_equal_inputs_are_asked_once(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand hosts with two values of the variable need two answers from Jinja."""
    from ansible.template import Templar

    name = "evaluate_expression" if hasattr(Templar, "evaluate_expression") else "template"
    original, asked = getattr(Templar, name), []
    monkeypatch.setattr(Templar, name, lambda self, *a, **k: asked.append(a) or original(self, *a, **k))
    hosts = site.write("hosts.ini", "a[1:500] kind=x\nb[1:500] kind=y\n")
    path = site.write(
        "site.tiers.yml",
        "plugin: scaleup.webstack.tiers\nunmatched: ignore\n"
        "tiers: {lb: {min_hosts: 0}, web: {}, app: {min_hosts: 0}, db: {min_hosts: 0}}\n"
        "rules: [{tier: web, when: \"kind == 'x'\"}]\n",
    )
    inventory = site.manager(hosts)._inventory
    asked.clear()
    assert site.error_of(inventory, path) is None
    assert len(inventory.groups["web"].get_hosts()) == 500
    assert len(asked) <= 4  # core before 2.19 templates each answer once more


def test_values_that_are_templates_see_the_other_variables(site: Any, members: Members) -> None:
    hosts = "all:\n  hosts:\n    a1: {kind: '{{ other }}', other: x}\n    a2: {kind: '{{ other }}', other: y}\n"
    config = (
        "plugin: scaleup.webstack.tiers\nunmatched: ignore\n"
        "tiers: {lb: {min_hosts: 0}, web: {}, app: {min_hosts: 0}, db: {min_hosts: 0}}\n"
        "rules: [{tier: web, when: \"kind == 'x'\"}]\n"
    )
    assert members(site.read(config, {"hosts.yml": hosts}), "web") == ["a1"]


# --- the file ---


@pytest.mark.parametrize(
    ("name", "text", "taken"),
    [
        ("site.tiers.yml", "plugin: scaleup.webstack.tiers\n", True),
        ("site.yaml", "---\n# a comment\nplugin: 'scaleup.webstack.tiers'\n", True),
        ("flow.yml", "{plugin: scaleup.webstack.tiers, tiers: {}}\n", True),
        ("json.yml", '{"tiers": {}, "plugin": "scaleup.webstack.tiers"}\n', True),
        ("vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", True),
        ("site.tiers", "plugin: scaleup.webstack.tiers\n", False),
        ("other.yml", "plugin: amazon.aws.aws_ec2\n", False),
        ("longer.yml", "plugin: scaleup.webstack.tiersplus\n", False),
        ("hosts.yml", "all: {hosts: {web1: {}}}\n", False),
        ("comment.yml", "# plugin: scaleup.webstack.tiers\nall: {}\n", False),
    ],
)
def test_which_files_are_taken(site: Any, name: str, text: str, taken: bool) -> None:
    path = site.write(name, text)
    assert inventory_loader.get("scaleup.webstack.tiers").verify_file(path) is taken


def test_a_file_that_is_not_there(site: Any) -> None:
    assert inventory_loader.get("scaleup.webstack.tiers").verify_file(str(site.folder / "none.yml")) is False


@pytest.mark.parametrize(
    "text", ["plugin: scaleup.webstack.tiers\ntiers: {\n", "plugin: scaleup.webstack.tiers\n\tx: 1\n"]
)
def test_a_file_that_is_no_yaml(site: Any, text: str) -> None:
    error = site.error(text)
    assert "site.tiers.yml is no readable YAML file: " in error
    assert "Traceback" not in error


def test_anchors_and_merges_keep_their_lines(site: Any) -> None:
    config = (
        "plugin: scaleup.webstack.tiers\ntiers:\n  lb: {hosts: {'lb[1:2]': {address_start: 10.0.0.11}}}\n"
        "  web: &tier\n    hosts: {web1: {address: 10.0.0.21}}\n    min_hosts: two\n"
        "  app:\n    <<: *tier\n    hosts: {app1: {address: 10.0.0.31}}\n"
        "  db: {hosts: {db1: {address: 10.0.0.41}}}\n"
    )
    assert site.error(config).split("\n")[1:] == [
        "site.tiers.yml:6: tiers.web.min_hosts: expected a whole number from 0 to 1000000, got 'two'",
        "site.tiers.yml:6: tiers.app.min_hosts: expected a whole number from 0 to 1000000, got 'two'",
    ]


def test_many_problems_are_cut_and_counted(site: Any) -> None:
    error = site.error(
        LAB.replace("address_start: 198.18.0.21", "address_start: 198.18.0.31").replace("[1:2]", "[1:150]")
    )
    lines = error.split("\n")
    assert len(lines) == 102
    assert lines[-1].startswith("… and ")
