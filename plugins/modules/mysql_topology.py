#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give this host's MySQL server its place, as mysql_topology_info found it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_topology
short_description: Give this host's MySQL server its place among the nodes
version_added: 0.1.0
description:
  - Does what M(scaleup.webstack.mysql_topology_info) found for this host, after looking again.
  - Holds a lock on every node that answers while the primary is chosen, so that no two can be.
  - A server without data gets a copy (C(CLONE)) where the primary's old binary logs are gone. One with data never does.
author: The scaleup.webstack maintainers (@scaleup)
extends_documentation_fragment:
  - scaleup.webstack.mysql_nodes
  - scaleup.webstack.mysql_nodes.replication
options:
  wait:
    description: Seconds that a replica waits for the primary to be writable.
    type: int
    default: 60
  restart_timeout:
    description: Seconds that the server may take to restart into a copy.
    type: int
    default: 600
attributes:
  check_mode: {description: Can run in check mode, support: full}
  diff_mode: {description: Has no changes to show, support: none}
"""

EXAMPLES = r"""
- name: The server has its place
  scaleup.webstack.mysql_topology:
    me: db2
    nodes: [{name: db1, address: 198.18.0.41}, {name: db2, address: 198.18.0.42}]
    primary: db1
    user: webstack_admin
    password: "{{ vault_admin_password }}"
    replication_user: webstack_replication
    replication_password: "{{ vault_replication_password }}"
    ca: /etc/ssl/webstack/ca.pem
"""

RETURN = r"""
primary: {description: Name of the primary., returned: always, type: str}
action: {description: What was done., returned: always, type: str}
"""

import time  # noqa: E402

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_arguments, mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_change import Cluster, clone, donor_for  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import Node, Verdict  # noqa: E402


def main() -> None:
    """Entry point."""
    module = mysql_arguments.start(
        mysql_arguments.NODES,
        mysql_arguments.REPLICATION,
        {"wait": {"type": "int", "default": 60}, "restart_timeout": {"type": "int", "default": 600}},
    )
    cluster = Cluster(module.params)
    me = module.params["me"]
    try:
        nodes, verdict = _look(cluster)
        action = verdict.actions[me]
        mine = next(n for n in nodes if n.name == me)
        if action == "keep" and mine.replica and cluster.password_is_old(me, module.params["replication_password"]):
            action = "join"
        if action != "keep" and not module.check_mode:
            if action in ("bootstrap", "resume", "finish", "promoted"):
                cluster.lock()
                verdict = _become_primary(cluster)
            else:
                _become_replica(cluster, action, nodes, verdict)
    except mysql_server.ServerError as error:
        module.fail_json(msg=str(error))
    finally:
        cluster.close()
    module.exit_json(changed=action != "keep", action=action, primary=verdict.primary)


def _look(cluster: Cluster) -> tuple[list[Node], Verdict]:
    nodes = cluster.survey()
    verdict = cluster.judge(nodes)
    if verdict.problems:
        raise mysql_server.ServerError("\n".join([*verdict.problems, "Found:", *verdict.facts]))
    return nodes, verdict


def _become_primary(cluster: Cluster) -> Verdict:
    me = cluster.params["me"]
    _, verdict = _look(cluster)
    action = verdict.actions[me]
    if action in ("bootstrap", "resume", "finish"):
        mysql_server.set_writable(cluster[me])
    if action in ("finish", "promoted"):
        mysql_server.forget_source(cluster[me])
    return verdict


def _become_replica(cluster: Cluster, action: str, nodes: list[Node], verdict: Verdict) -> None:
    me = cluster.params["me"]
    # On the first run of a site the primary becomes writable at the same moment.
    deadline = time.monotonic() + cluster.params["wait"]
    while not next(n for n in nodes if n.name == verdict.primary).writable:
        if time.monotonic() > deadline:
            raise mysql_server.ServerError(f"the primary {verdict.primary} did not become writable")
        time.sleep(0.3)
        nodes, verdict = _look(cluster)
    primary = next(n for n in nodes if n.name == verdict.primary)
    if action == "start":
        mysql_server.start_replica(cluster[me])
        return
    if action == "clone":
        if not next(n for n in nodes if n.name == me).fresh:
            raise mysql_server.ServerError(
                f"{me} has data, and {primary.name} has purged the binary logs that {me} would need. Give it a new "
                f"copy: scaleup.webstack.rejoin with -e mysql_replication_rejoin={me} -e mysql_replication_clone=true"
            )
        clone(cluster, me, donor_for(nodes, me, primary))
    cluster.follow(me, primary, cluster.params["wait"])


if __name__ == "__main__":
    main()
