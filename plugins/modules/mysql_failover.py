#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a replica the primary after the primary is gone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_failover
short_description: Make a MySQL replica the primary after the primary is gone
version_added: 0.1.0
description:
  - Refuses while a primary answers, while a replica still receives from it, or while nothing shows that it is dead.
  - Takes the most advanced replica, after it has applied all that it had received.
  - Run it on a node that answers. O(me) is that node.
author: The scaleup.webstack maintainers (@scaleup)
extends_documentation_fragment:
  - scaleup.webstack.mysql_nodes
  - scaleup.webstack.mysql_nodes.replication
options:
  candidate:
    description: The new primary. Empty takes the most advanced replica.
    type: str
    default: ""
  dead:
    description: Nodes that were shown to be dead, because their server was stopped, or the operator says so.
    type: list
    elements: str
    default: []
  accept_loss:
    description: The operator's word that transactions which only other nodes have may be lost.
    type: bool
    default: false
  timeout:
    description: Seconds that a node gets to accept a connection.
    type: int
    default: 2
  sync_timeout:
    description: Seconds that the new primary may need to apply what it had received.
    type: int
    default: 60
attributes:
  check_mode: {description: "Can run in check mode, and shows the plan", support: full}
  diff_mode: {description: Has no changes to show, support: none}
"""

EXAMPLES = r"""
- name: The tier has a primary again
  scaleup.webstack.mysql_failover:
    me: db2
    dead: [db1]
    nodes: [{name: db1, address: 198.18.0.41}, {name: db2, address: 198.18.0.42}]
    user: webstack_admin
    password: "{{ vault_admin_password }}"
    replication_user: webstack_replication
    replication_password: "{{ vault_replication_password }}"
    ca: /etc/ssl/webstack/ca.pem
"""

RETURN = r"""
primary: {description: Who is the primary now., returned: always, type: str}
plan: {description: "What is, or would be, done.", returned: always, type: list, elements: str}
facts: {description: One line for each node before the change., returned: always, type: list, elements: str}
steps: {description: What was done and when., returned: when something was done, type: list, elements: str}
took: {description: Seconds from the first statement to the new primary., returned: when it was done, type: float}
"""

from typing import Any  # noqa: E402

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_arguments, mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_change import Cluster, detached, fail_over  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import plan_failover  # noqa: E402


def main() -> None:
    """Entry point."""
    module = mysql_arguments.start(
        mysql_arguments.NODES,
        mysql_arguments.REPLICATION,
        {
            "candidate": {"type": "str", "default": ""},
            "dead": {"type": "list", "elements": "str", "default": []},
            "accept_loss": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 2},
            "sync_timeout": {"type": "int", "default": 60},
        },
    )
    params, check = module.params, module.check_mode
    result = _change(params, check) if check else detached(lambda: _change(params, check))
    if error := result.pop("error", ""):
        module.fail_json(msg=error, **result)
    module.exit_json(**result)


def _change(params: dict[str, Any], check: bool) -> dict[str, Any]:
    cluster = Cluster(params)
    result: dict[str, Any] = {"changed": False, "primary": ""}
    try:
        if not check:
            cluster.lock()
        nodes = cluster.survey()
        facts = result["facts"] = [n.describe() for n in nodes]
        silent = {n.name for n in nodes if not n.reachable}
        replicas = [n for n in nodes if n.reachable and n.replica is not None]
        gone = {n.name for n in nodes if n.name in silent and any(r.follows(n) for r in replicas)}
        candidate, others, problems, notes = plan_failover(
            nodes, params["candidate"], gone <= set(params["dead"]), params["accept_loss"]
        )
        if problems or candidate is None:
            raise mysql_server.ServerError("\n".join([*problems, "Nothing was changed. Found:", *facts]))
        result["primary"] = candidate.name
        result["plan"] = [
            *notes,
            "stop receiving on every replica",
            f"wait until {candidate.name} has applied all that it had received, and make it writable",
            *(f"make {node.name} a replica of {candidate.name}" for node in others),
        ]
        if not check:
            result["took"] = round(fail_over(cluster, candidate, others), 3)
        result["changed"] = True
    except mysql_server.ServerError as error:
        result["error"] = str(error)
    finally:
        result["steps"] = cluster.steps
        cluster.close()
    return result


if __name__ == "__main__":
    main()
