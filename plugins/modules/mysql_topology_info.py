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
options:
  nodes:
    description: All servers of the tier, also those that are down. O(nodes[].name) of this host is O(me).
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the host in the inventory., type: str, required: true}
      address: {description: Address that the other nodes use., type: str, required: true}
      port: {description: Port of the server., type: int, default: 3306}
  me:
    description: Which of O(nodes) this host is.
    type: str
    required: true
  primary:
    description: The inventory's first primary; counts only while no node holds data.
    type: str
    default: ""
  bootstrap:
    description: The operator's word that this node may start an empty tier although others do not answer.
    type: str
    default: ""
  user:
    description: Account on the other servers that may read their state.
    type: str
    required: true
  password:
    description: Password of O(user).
    type: str
    required: true
  ca:
    description: File on this host with the authority of the servers' certificates.
    type: path
    required: true
  unix_socket:
    description: Socket of this host's server, entered as root.
    type: path
    default: /run/mysqld/mysqld.sock
  settle:
    description: Seconds that a replica which is just connecting gets before its state counts.
    type: int
    default: 15
requirements: [PyMySQL]
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

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_survey import survey  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import judge  # noqa: E402


def main() -> None:
    """Entry point."""
    node = {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "default": 3306},
    }
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "dict", "required": True, "options": node},
            "me": {"type": "str", "required": True},
            "primary": {"type": "str", "default": ""},
            "bootstrap": {"type": "str", "default": ""},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "ca": {"type": "path", "required": True},
            "unix_socket": {"type": "path", "default": mysql_server.SOCKET},
            "settle": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    if mysql_server.PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=str(mysql_server.PYMYSQL_ERROR))
    p = module.params
    nodes = survey(p["nodes"], p["user"], p["password"], p["ca"], p["me"], p["unix_socket"], p["settle"])
    mine = next((n for n in nodes if n.name == p["me"]), None)
    if mine is None:
        module.fail_json(msg=f"{p['me']} is none of the nodes {', '.join(n.name for n in nodes)}")
    if not mine.reachable:
        module.fail_json(msg=f"the server on {mine.name} does not answer on {p['unix_socket']}: {mine.error}")
    verdict = judge(nodes, p["primary"], p["bootstrap"])
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
