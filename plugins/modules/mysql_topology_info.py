#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask all database nodes what they are, and say what each has to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_topology_info
short_description: Find out which MySQL server is the primary, from the servers themselves
version_added: 0.1.0
description:
  - Asks this host's server over its socket and all others over TLS, and derives what each node has to do.
  - Changes nothing.
author: The scaleup.webstack maintainers (@scaleup)
extends_documentation_fragment: [scaleup.webstack.mysql_nodes]
options:
  silent:
    description: Whether this host's own server may be down, too.
    type: bool
    default: false
  replication_password:
    description: A replica that uses another password has to V(join) again; empty leaves it alone.
    type: str
    default: ""
  timeout:
    description: Seconds that a node gets to accept a connection.
    type: int
    default: 3
  settle:
    description: Seconds that a replica which is just connecting gets before its state counts.
    type: int
    default: 15
attributes:
  check_mode: {description: Can run in check mode, support: full}
  diff_mode: {description: Has no changes to show, support: none}
"""

EXAMPLES = r"""
- name: The nodes say what they are
  scaleup.webstack.mysql_topology_info:
    me: "{{ inventory_hostname }}"
    nodes:
      - {name: db1, address: 198.18.0.41}
      - {name: db2, address: 198.18.0.42}
    user: webstack_admin
    password: "{{ vault_admin_password }}"
    ca: /etc/ssl/webstack/ca.pem
  register: topology
"""

RETURN = r"""
primary: {description: "Name of the primary, empty when there is none.", returned: always, type: str}
action: {description: "What this host has to do, for example V(keep) or V(join).", returned: always, type: str}
actions: {description: What each node has to do., returned: always, type: dict}
problems:
  description: Why nothing must be done at all, and the next step.
  returned: always
  type: list
  elements: str
facts: {description: One line for each node., returned: always, type: list, elements: str}
nodes: {description: The state of each node by its name., returned: always, type: dict}
"""

from dataclasses import asdict  # noqa: E402

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_arguments  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_change import Cluster  # noqa: E402


def main() -> None:
    """Entry point."""
    module = mysql_arguments.start(
        mysql_arguments.NODES,
        {
            "replication_password": {"type": "str", "default": "", "no_log": True},
            "silent": {"type": "bool", "default": False},
            "settle": {"type": "int", "default": 15},
            "timeout": {"type": "int", "default": 3},
        },
    )
    p = module.params
    cluster = Cluster(p)
    nodes = cluster.survey(p["settle"])
    mine = next((n for n in nodes if n.name == p["me"]), None)
    if mine is None:
        module.fail_json(msg=f"{p['me']} is none of the nodes {', '.join(n.name for n in nodes)}")
    if not mine.reachable and not p["silent"]:
        module.fail_json(msg=f"the server on {mine.name} does not answer on {p['unix_socket']}: {mine.error}")
    verdict = cluster.judge(nodes)
    wanted = p["replication_password"]
    keeps = not verdict.problems and verdict.actions[p["me"]] == "keep"
    if keeps and wanted and mine.replica and cluster.password_is_old(p["me"], wanted):
        verdict.actions[p["me"]] = "join"
    cluster.close()
    module.exit_json(
        changed=False,
        primary=verdict.primary,
        action=verdict.actions[p["me"]],
        actions=verdict.actions,
        problems=verdict.problems,
        facts=verdict.facts,
        nodes={n.name: asdict(n) for n in nodes},
    )


if __name__ == "__main__":
    main()
