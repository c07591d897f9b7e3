"""The documentation says what the code does: options, defaults, and examples that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.scaleup.webstack.plugins.inventory import tiers
from ansible_collections.scaleup.webstack.plugins.plugin_utils import site_config

OPTIONS: dict[str, Any] = yaml.safe_load(tiers.DOCUMENTATION)["options"]
# Where the examples' hosts come from when they declare none.
SOURCES = {
    "rules": """\
all:
  hosts:
    lb-1: {private_ip_address: 10.1.0.11}
    lb-2: {private_ip_address: 10.1.0.12}
    web-1: {private_ip_address: 10.1.0.21}
    www2: {private_ip_address: 10.1.0.22}
    i-3: {private_ip_address: 10.1.0.31}
    i-4: {private_ip_address: 10.1.0.32}
    i-5: {private_ip_address: 10.1.0.41, tags: {Role: mysql, Primary: "yes"}}
    i-6: {private_ip_address: 10.1.0.42, tags: {Role: mariadb}}
    i-7: {private_ip_address: 10.1.0.51, tags: {Role: ops}, placement: {region: eu-west-1}}
    i-8: {private_ip_address: 10.1.0.61, tags: {Role: redis}}
    web-old: {}
  children:
    tag_Tier_app: {hosts: {i-3: {}, i-4: {}}}
""",
    "groups": """\
all:
  children:
    lb: {hosts: {lb1: {ansible_host: 192.0.2.11}, lb2: {ansible_host: 192.0.2.12}}}
    web: {hosts: {web1: {ansible_host: 192.0.2.21}}}
    app: {hosts: {app1: {ansible_host: 192.0.2.31}}}
    db: {hosts: {db1: {ansible_host: 192.0.2.41}, db2: {ansible_host: 192.0.2.42}}}
""",
}


def test_each_option_is_known_and_documented() -> None:
    assert sorted(OPTIONS) == sorted(site_config.TOP_KEYS)
    assert sorted(OPTIONS["network"]["suboptions"]) == sorted(site_config.NETWORK_KEYS)
    assert sorted(OPTIONS["vips"]["suboptions"]) == sorted(site_config.VIP_KEYS)
    assert sorted(OPTIONS["rules"]["suboptions"]) == sorted((*site_config.MATCH_KEYS, "tier"))
    for key in (*site_config.TIER_KEYS, *site_config.HOST_KEYS):
        assert f"C({key})" in str(OPTIONS["tiers"]["description"]), key


def test_defaults_are_those_of_the_code() -> None:
    site = site_config.Site()
    for name in site_config.DEFAULTS:
        assert OPTIONS[name]["default"] == site_config.DEFAULTS[name] == getattr(site, name)
    assert tuple(OPTIONS["network"]["suboptions"]["address_from"]["default"]) == site.address_from


@pytest.mark.parametrize("index", range(3))
def test_examples_of_the_plugin_run(site: Any, index: int) -> None:
    examples = tiers.EXAMPLES.split("\n---\n")
    assert len(examples) == 3
    sources = [{}, {"hosts.yml": SOURCES["rules"]}, {"hosts.yml": SOURCES["groups"]}][index]
    inventory = site.read(examples[index], sources)
    for group in ("lb", "web", "app", "db_primary", "db_replica"):
        assert inventory.groups[group].get_hosts(), group


def test_examples_of_the_page_run(site: Any, root: Path) -> None:
    """Each block of docs/inventory.md that names the plugin is a whole file that works."""
    page = (root / "docs" / "inventory.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "plugin: scaleup" in block]
    assert len(blocks) >= 3
    for block in blocks:
        kind = "rules" if "rules:" in block else "groups"
        inventory = site.read(block, {"hosts.yml": SOURCES[kind]} if "\n    hosts:" not in block else {})
        assert inventory.groups["db_primary"].get_hosts()


def test_the_page_names_every_option(root: Path) -> None:
    page = (root / "docs" / "inventory.md").read_text(encoding="utf-8")
    keys = {*site_config.TOP_KEYS, *site_config.NETWORK_KEYS, *site_config.VIP_KEYS, *site_config.TIER_KEYS}
    keys |= {*site_config.HOST_KEYS, *site_config.MATCH_KEYS}
    assert not [key for key in sorted(keys) if f"`{key}`" not in page]


def test_the_example_site_to_copy(site: Any, root: Path) -> None:
    inventory = site.manager(str(root / "inventory"))._inventory
    sizes = {name: len(inventory.groups[name].get_hosts()) for name in ("lb", "web", "app", "db", "ops")}
    assert sizes == {"lb": 2, "web": 2, "app": 2, "db": 2, "ops": 1}
    assert inventory.groups["webstack"].vars["webstack_sources"] == [str(root / "inventory" / "site.tiers.yml")]


def test_the_cloud_example_to_copy(site: Any, root: Path) -> None:
    """With the hosts as the cloud plugin leaves them: that plugin itself needs an account."""
    config = (root / "docs" / "examples" / "cloud" / "zz_site.tiers.yml").read_text(encoding="utf-8")
    hosts = "".join(
        f"    i-{index}: {{private_ip_address: 10.1.0.{index}, tags: {{Role: {role}, Primary: '{primary}'}}}}\n"
        for index, (role, primary) in enumerate(
            [
                ("lb", ""),
                ("lb", ""),
                ("web", ""),
                ("web", ""),
                ("app", ""),
                ("app", ""),
                ("db", "yes"),
                ("db", ""),
                ("ops", ""),
            ],
            start=10,
        )
    )
    inventory = site.read(config, {"aws_ec2.yml": f"all:\n  hosts:\n{hosts}"})
    assert [host.name for host in inventory.groups["db_primary"].get_hosts()] == ["i-16"]
    assert len(inventory.groups["webstack"].get_hosts()) == 9
