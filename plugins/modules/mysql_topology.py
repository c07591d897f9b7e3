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
author: The scaleup.webstack maintainers (@scaleup)
extends_documentation_fragment: []
options:
  nodes:
    description: All servers of the tier, also those that are down.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the host in the inventory., type: str, required: true}
      address: {description: Address that the other nodes use., type: str, required: true}
      port: {description: Port of the server., type: int, default: 3306}
  me: {description: Which of O(nodes) this host is., type: str, required: true}
  primary:
    description: The inventory's first primary; counts only while no node holds data.
    type: str
    default: ""
  bootstrap:
    description: The operator's word that this node may start an empty tier although others do not answer.
    type: str
    default: ""
  user: {description: Account on the other servers that may read their state., type: str, required: true}
  password: {description: Password of O(user)., type: str, required: true}
  ca:
    description: File on this host with the authority of the servers' certificates.
    type: path
    required: true
  replication_user: {description: Account that replicas use., type: str, required: true}
  replication_password: {description: Password of O(replication_user)., type: str, required: true}
  unix_socket:
    description: Socket of this host's server, entered as root.
    type: path
    default: /run/mysqld/mysqld.sock
  wait:
    description: Seconds that a replica waits for the primary to be writable.
    type: int
    default: 60
requirements: [PyMySQL]
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
from contextlib import ExitStack  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_survey import connection_to, survey  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import Node, Verdict, judge  # noqa: E402


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
            "replication_user": {"type": "str", "required": True},
            "replication_password": {"type": "str", "required": True, "no_log": True},
            "unix_socket": {"type": "path", "default": mysql_server.SOCKET},
            "wait": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if mysql_server.PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=str(mysql_server.PYMYSQL_ERROR))
    try:
        nodes, verdict = _look(module.params)
        action = verdict.actions[module.params["me"]]
        if action != "keep" and not module.check_mode:
            if action in ("bootstrap", "resume"):
                verdict = _become_primary(module.params)
            elif action == "promoted":
                with _local(module.params) as session:
                    session.run("STOP REPLICA")
                    session.run("RESET REPLICA ALL")
            elif action in ("join", "start"):
                _become_replica(module.params, action, nodes, verdict)
            else:
                raise mysql_server.ServerError(
                    f"{module.params['me']} needs a copy of the data of {verdict.primary}, whose old binary logs are "
                    "purged: run scaleup.webstack.rejoin with "
                    f"-e mysql_rejoin_node={module.params['me']} -e mysql_rejoin_clone=true"
                )
    except mysql_server.ServerError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=action != "keep", action=action, primary=verdict.primary)


def _local(params: dict[str, Any]) -> mysql_server.Session:
    return mysql_server.Session(params["me"], mysql_server.by_socket("root", params["unix_socket"]))


def _look(params: dict[str, Any], settle: float = 0) -> tuple[list[Node], Verdict]:
    nodes = survey(
        params["nodes"], params["user"], params["password"], params["ca"], params["me"], params["unix_socket"], settle
    )
    verdict = judge(nodes, params["primary"], params["bootstrap"])
    if verdict.problems:
        raise mysql_server.ServerError(" ".join([*verdict.problems, "Found:", *verdict.facts]))
    return nodes, verdict


def _become_primary(params: dict[str, Any]) -> Verdict:
    with ExitStack() as stack:
        for node in params["nodes"]:
            connection = connection_to(
                node, params["user"], params["password"], params["ca"], params["me"], params["unix_socket"]
            )
            try:
                session = stack.enter_context(mysql_server.Session(node["name"], connection, 3))
            except mysql_server.ServerError:
                continue  # whether it may be missing is judged below
            if not mysql_server.take_lock(session, 10):
                raise mysql_server.ServerError(
                    f"another process is changing the roles of the nodes: {node['name']} is locked"
                )
        _, verdict = _look(params)
        if verdict.actions[params["me"]] in ("bootstrap", "resume"):
            with _local(params) as session:
                mysql_server.set_writable(session)
        return verdict


def _become_replica(params: dict[str, Any], action: str, nodes: list[Node], verdict: Verdict) -> None:
    # On the first run of a site the primary becomes writable at the same moment.
    deadline = time.monotonic() + params["wait"]
    while not next(n for n in nodes if n.name == verdict.primary).writable:
        if time.monotonic() > deadline:
            raise mysql_server.ServerError(f"the primary {verdict.primary} did not become writable")
        time.sleep(0.3)
        nodes, verdict = _look(params)
    source = next(n for n in nodes if n.name == verdict.primary)
    with _local(params) as session:
        mysql_server.set_fenced(session)
        if action == "join":
            mysql_server.set_source(
                session,
                source.address,
                source.port,
                params["replication_user"],
                params["replication_password"],
                params["ca"],
            )
        mysql_server.start_replica(session)


if __name__ == "__main__":
    main()
