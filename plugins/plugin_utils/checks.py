# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files are written for the tiers plugin, and what a finished inventory lacks to be a site.

Used by the plugin itself and by the preflight play, which also has to judge static inventories and inventories whose
plugin failed: Ansible only warns about that and goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import (
    KNOWN_TIERS,
    PRIMARY_GROUP,
    REPLICA_GROUP,
)
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import names

EXTENSIONS = (".yml", ".yaml")
# What a static inventory must have; one that the plugin made says for itself what it needs.
REQUIRED_GROUPS = ("lb", "web", "app", PRIMARY_GROUP)

# In block or flow style, with or without quotes.
_MARK = re.compile(r"""(^|[{,]\s*)["']?plugin["']?\s*:\s*["']?scaleup\.webstack\.tiers\b""", re.MULTILINE)
_VAULT = "$ANSIBLE_VAULT;"
# Ansible does not look for sources in these folders of a directory of sources.
_NO_SOURCES = ("group_vars", "host_vars", "vars_plugins")


def read_text(path: str) -> str:
    """The text of a file. Raises OSError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def marks_tiers(text: str) -> bool:
    """Whether the text of a file names the plugin."""
    return _MARK.search(text) is not None


def is_encrypted(text: str) -> bool:
    """Whether the text is a vault: what it contains cannot be told then."""
    return text.startswith(_VAULT)


def tiers_files(sources: Iterable[str], load: Callable[[str], Any] | None = None) -> list[str]:
    """The files among inventory sources (files and directories of them) that name the plugin, as absolute paths.

    load: gives the data of an encrypted file. Without it such files are left out.
    """
    return [path for source in sources for path in _candidates(str(source)) if _names_plugin(path, load)]


def _candidates(source: str) -> Iterator[str]:
    if os.path.isdir(source):
        for name in sorted(os.listdir(source)):
            if not name.startswith(".") and name not in _NO_SOURCES:
                yield from _candidates(os.path.join(source, name))
    elif source.endswith(EXTENSIONS) and os.path.isfile(source):
        yield os.path.abspath(source)


def _names_plugin(path: str, load: Callable[[str], Any] | None) -> bool:
    try:
        text = read_text(path)
    except OSError:
        return False
    if not is_encrypted(text) or load is None:
        return marks_tiers(text)
    try:
        data = load(path)
    except Exception:  # no secret for it, or no YAML: then Ansible cannot have read it either
        return False
    return isinstance(data, Mapping) and data.get("plugin") == "scaleup.webstack.tiers"


def site_problems(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], files: Sequence[str] = ()
) -> list[str]:
    """What keeps an inventory from being a site, one sentence each; empty when it is one.

    groups and hostvars: as in a play. files: files of the tiers plugin among the sources, which must have been read.
    """
    members = {name: list(groups.get(name, ())) for name in (*KNOWN_TIERS, PRIMARY_GROUP, REPLICA_GROUP)}
    first = next((hosts[0] for hosts in members.values() if hosts), None)
    told = hostvars[first] if first is not None else {}
    read = {os.path.abspath(str(path)) for path in told.get("webstack_sources", None) or ()}
    unread = [path for path in files if path not in read]
    if unread:
        return [
            f"{path} was not read, its problems are in the warnings above; "
            f"`ansible-inventory -i {path} --list` shows them again."
            for path in unread
        ]
    if first is None:
        return [
            f"No host is in one of the groups {names(KNOWN_TIERS)}: describe the site in a *.tiers.yml file "
            "(see docs/inventory.md), or name these groups in a static inventory, and give it with -i."
        ]
    found: list[str] = []
    required = [str(name) for name in told.get("webstack_required_groups", None) or REQUIRED_GROUPS]
    for name in required:
        if name == PRIMARY_GROUP and members["db"]:
            continue  # told below, with the hosts that it could be
        if not groups.get(name, ()):
            found.append(f"The group '{name}' has no host: add one to it.")
    owner: dict[str, str] = {}
    for tier in KNOWN_TIERS:
        for host in members[tier]:
            if owner.setdefault(host, tier) != tier:
                found.append(f"The host '{host}' is in two tiers, {owner[host]} and {tier}: keep it in one of them.")
    found += _database_problems(members)
    return found


def _database_problems(members: Mapping[str, Sequence[str]]) -> list[str]:
    database, primaries, replicas = members["db"], members[PRIMARY_GROUP], members[REPLICA_GROUP]
    found = []
    if len(primaries) > 1:
        found.append(f"The group '{PRIMARY_GROUP}' has {len(primaries)} hosts ({names(primaries)}): keep one in it.")
    elif not primaries and database:
        found.append(f"The group '{PRIMARY_GROUP}' has no host: put one of {names(database)} into it.")
    for host in primaries:
        if host in replicas:
            found.append(f"The host '{host}' is in {PRIMARY_GROUP} and in {REPLICA_GROUP}: keep it in one of them.")
    if not database and primaries:
        found.append(f"The group 'db' lacks its children: make {PRIMARY_GROUP} and {REPLICA_GROUP} children of it.")
    elif primaries and (stray := [host for host in database if host not in primaries and host not in replicas]):
        found.append(f"In the group 'db', {names(stray)} has no role: put it into {REPLICA_GROUP}.")
    return found
