#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a MySQL server back as a replica."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_rejoin
short_description: Bring a MySQL server back as a replica of the primary
version_added: 0.1.0
description:
  - By GTID where nothing diverged. Where the node has transactions that the primary lacks, or needs binary logs that
    are purged, it is refused, and only O(clone) helps, which replaces the node's data by a copy of another node's.
  - Run it on the node that comes back.
author: The scaleup.webstack maintainers (@scaleup)
extends_documentation_fragment:
  - scaleup.webstack.mysql_nodes
  - scaleup.webstack.mysql_nodes.replication
options:
  clone:
    description: The operator's word that this node's data may be replaced.
    type: bool
    default: false
  restart_timeout:
    description: Seconds that the server may take to restart into the copy.
    type: int
    default: 600
attributes:
  check_mode: {description: "Can run in check mode, and shows the plan", support: full}
  diff_mode: {description: Has no changes to show, support: none}
"""

EXAMPLES = r"""
- name: The former primary is a replica
  scaleup.webstack.mysql_rejoin:
    me: db1
    nodes: [{name: db1, address: 198.18.0.41}, {name: db2, address: 198.18.0.42}]
    user: webstack_admin
    password: "{{ vault_admin_password }}"
    replication_user: webstack_replication
    replication_password: "{{ vault_replication_password }}"
    ca: /etc/ssl/webstack/ca.pem
"""

RETURN = r"""
primary: {description: Whom it follows., returned: always, type: str}
plan: {description: "What is, or would be, done.", returned: always, type: list, elements: str}
facts: {description: One line for each node before the change., returned: always, type: list, elements: str}
steps: {description: What was done and when., returned: when something was done, type: list, elements: str}
"""

from typing import Any  # noqa: E402

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_arguments, mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_change import Cluster, clone, detached, donor_for  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import plan_rejoin  # noqa: E402


def main() -> None:
    """Entry point."""
    module = mysql_arguments.start(
        mysql_arguments.NODES,
        mysql_arguments.REPLICATION,
        {"clone": {"type": "bool", "default": False}, "restart_timeout": {"type": "int", "default": 600}},
    )
    params, check = module.params, module.check_mode
    result = _change(params, check) if check else detached(lambda: _change(params, check))
    if error := result.pop("error", ""):
        module.fail_json(msg=error, **result)
    module.exit_json(**result)


def _change(params: dict[str, Any], check: bool) -> dict[str, Any]:
    cluster, me = Cluster(params), params["me"]
    result: dict[str, Any] = {"changed": False, "primary": ""}
    try:
        nodes = cluster.survey(10)
        facts = result["facts"] = [n.describe() for n in nodes]
        primary, how, problems = plan_rejoin(nodes, me, params["clone"])
        if problems or primary is None:
            raise mysql_server.ServerError("\n".join([*problems, "Nothing was changed. Found:", *facts]))
        donor = donor_for(nodes, me, primary)
        result["primary"] = primary.name
        result["plan"] = {
            "keep": [],
            "join": [f"make {me} a replica of {primary.name}: nothing diverged"],
            "clone": [
                f"replace the data of {me} by a copy from {donor.name}",
                f"make {me} a replica of {primary.name}",
            ],
        }[how]
        result["changed"] = how != "keep"
        if not check and how != "keep":
            if how == "clone":
                clone(cluster, me, donor)
            cluster.follow(me, primary, 60)
            cluster.say(f"{me} replicates from {primary.name}")
    except mysql_server.ServerError as error:
        result["error"] = str(error)
    finally:
        result["steps"] = cluster.steps
        cluster.close()
    return result


if __name__ == "__main__":
    main()
