# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A site as it is described by a `*.tiers.yml` file, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import HostPattern, Network
from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import Expression
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Path

KNOWN_TIERS = ("lb", "web", "app", "db", "ops")
# A site without these is declared to have none (min_hosts: 0); forgetting one must not pass.
REQUIRED_TIERS = ("lb", "web", "app", "db")
DEFAULT_MIN_HOSTS = {"lb": 2}
PRIMARY_GROUP, REPLICA_GROUP = "db_primary", "db_replica"
RESERVED_GROUPS = ("all", "ungrouped", PRIMARY_GROUP, REPLICA_GROUP)
DEFAULT_ADDRESS_FROM = ("private_ip_address", "ansible_host")


@dataclass(slots=True)
class HostEntry:
    """One key below `hosts`: a pattern, and the addresses and variables of the hosts that it stands for."""

    path: Path
    text: str
    pattern: HostPattern
    start: int | None = None
    addresses: tuple[int | str, ...] = ()  # keys, or names that are still to be resolved
    vars: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Matcher:
    """Conditions that a host of another source meets; all that are given must hold."""

    path: Path
    name_patterns: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    variable: tuple[str, ...] = ()
    equals: tuple[Any, ...] = ()
    when: Expression | None = None


@dataclass(slots=True)
class Tier:
    """One tier as it was declared. `max_hosts` is None without a maximum."""

    name: str
    path: Path
    hosts: list[HostEntry] = field(default_factory=list)
    vars: Mapping[str, Any] = field(default_factory=dict)
    min_hosts: int = 1
    max_hosts: int | None = None
    primary_host: str | None = None
    primary_match: Matcher | None = None
    incomplete: bool = False  # some of its hosts could not be read


@dataclass(slots=True)
class Vip:
    """One virtual address. Prefix (bits), router id (1..255) and priorities (1..254) are None where to be derived."""

    name: str
    path: Path
    address: int
    interface: str
    prefix: int | None = None
    router_id: int | None = None
    priorities: dict[str, int] | None = None
    internal: bool = False
    extra: list[tuple[Path, int, int | None]] = field(default_factory=list)


@dataclass(slots=True)
class Rule:
    """Hosts that meet the matcher belong to the tier."""

    tier: str
    path: Path
    matcher: Matcher


@dataclass(slots=True)
class Site:
    """The whole file. `networks[0]` is `network.cidr` where that is given."""

    strict: bool = True
    unmatched: str = "warn"
    parent_group: str = "webstack"
    range_limit: int = 65536
    networks: list[Network] = field(default_factory=list)
    address_from: tuple[str, ...] = DEFAULT_ADDRESS_FROM
    vips: list[Vip] = field(default_factory=list)
    tiers: dict[str, Tier] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    exclude: list[Matcher] = field(default_factory=list)
