#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand the role of the primary to another MySQL server, without losing a write."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_switchover
short_description: Hand the role of the primary to another MySQL server
version_added: 0.1.0
description:
  - The whole change is one process that talks to all nodes. It goes on when the controller goes away, and until the
    candidate is writable every step can be, and on a failure is, undone.
  - What an earlier change left behind when its process was killed is finished or undone first.
  - Run it on any node, best on the primary. O(me) is the node that it runs on.
author: The scaleup.webstack maintainers (@scaleup)
extends_documentation_fragment:
  - scaleup.webstack.mysql_nodes
  - scaleup.webstack.mysql_nodes.replication
options:
  candidate:
    description: The new primary. Empty takes the replica that is least behind.
    type: str
    default: ""
  max_lag:
    description: Seconds that a replica may be behind at the beginning.
    type: int
    default: 10
  sync_timeout:
    description: Seconds that the replicas get to catch up before writes are stopped.
    type: int
    default: 30
  stop_timeout:
    description: Seconds that stopping the writes, and then the last write's way to each replica, may take.
    type: int
    default: 3
  keep_sessions:
    description: Accounts whose sessions to the old primary are not ended.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {description: "Can run in check mode, and shows the plan", support: full}
  diff_mode: {description: Has no changes to show, support: none}
"""

EXAMPLES = r"""
- name: The first database host is the primary again
  scaleup.webstack.mysql_switchover:
    me: db2
    candidate: db1
    nodes: [{name: db1, address: 198.18.0.41}, {name: db2, address: 198.18.0.42}]
    user: webstack_admin
    password: "{{ vault_admin_password }}"
    replication_user: webstack_replication
    replication_password: "{{ vault_replication_password }}"
    ca: /etc/ssl/webstack/ca.pem
"""

RETURN = r"""
old_primary: {description: Who was the primary., returned: always, type: str}
primary: {description: Who is the primary now., returned: always, type: str}
plan: {description: "What is, or would be, done.", returned: always, type: list, elements: str}
facts: {description: One line for each node before the change., returned: always, type: list, elements: str}
steps: {description: What was done and when., returned: when something was done, type: list, elements: str}
stood_still: {description: Seconds for which writes stood still., returned: when it was handed over, type: float}
"""

from typing import Any  # noqa: E402

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_arguments, mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_change import (  # noqa: E402
    Cluster,
    complete,
    detached,
    left_behind,
    switch_over,
)
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import plan_switchover  # noqa: E402


def main() -> None:
    """Entry point."""
    module = mysql_arguments.start(
        mysql_arguments.NODES,
        mysql_arguments.REPLICATION,
        {
            "candidate": {"type": "str", "default": ""},
            "max_lag": {"type": "int", "default": 10},
            "sync_timeout": {"type": "int", "default": 30},
            "stop_timeout": {"type": "int", "default": 3},
            "keep_sessions": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
    )
    params = module.params
    result = _plan(params) if module.check_mode else detached(lambda: _change(params))
    if error := result.pop("error", ""):
        module.fail_json(msg=error, **result)
    module.exit_json(**result)


def _plan(params: dict[str, Any]) -> dict[str, Any]:
    cluster = Cluster(params)
    try:
        nodes = cluster.survey(5)
        verdict = cluster.judge(nodes)
        facts = verdict.facts
        if verdict.problems:
            return {"error": "\n".join([*verdict.problems, "Found:", *facts])}
        if todo := left_behind(verdict):
            words = ", ".join(f"{name}: {action}" for name, action in sorted(todo.items()))
            plan = [f"complete an interrupted change first ({words})"]
            return {"changed": True, "plan": plan, "facts": facts, "old_primary": verdict.primary, "primary": ""}
        primary, candidate, others, problems = plan_switchover(nodes, params["candidate"], params["max_lag"])
        if problems:
            return {"error": "\n".join([*problems, "Nothing was changed. Found:", *facts])}
        plan = _describe(primary.name, candidate.name, [n.name for n in others])
        return {
            "changed": bool(plan),
            "plan": plan,
            "facts": facts,
            "old_primary": primary.name,
            "primary": candidate.name,
        }
    except mysql_server.ServerError as error:
        return {"error": str(error)}
    finally:
        cluster.close()


def _describe(primary: str, candidate: str, others: list[str]) -> list[str]:
    if primary == candidate:
        return []
    return [
        f"wait until {', '.join([candidate, *others])} caught up with {primary}",
        f"stop the writes on {primary}, and wait for the last one on every replica",
        f"make {primary} a replica of {candidate}, and {candidate} writable",
        *(f"make {name} a replica of {candidate}" for name in others),
        f"end the applications' sessions on {primary}",
    ]


def _change(params: dict[str, Any]) -> dict[str, Any]:
    cluster = Cluster(params)
    result: dict[str, Any] = {"changed": False}
    try:
        cluster.lock()
        nodes = complete(cluster)
        result["changed"] = bool(cluster.steps)
        result["facts"] = [n.describe() for n in nodes]
        primary, candidate, others, problems = plan_switchover(nodes, params["candidate"], params["max_lag"])
        result.update(old_primary=primary.name, primary=candidate.name)
        result["plan"] = _describe(primary.name, candidate.name, [n.name for n in others])
        if problems:
            raise mysql_server.ServerError("\n".join([*problems, "Nothing was changed. Found:", *result["facts"]]))
        if primary is not candidate:
            result["stood_still"] = round(switch_over(cluster, primary, candidate, others), 3)
            result["changed"] = True
            after = cluster.survey(10)
            verdict = cluster.judge(after)
            if verdict.problems or any(a != "keep" for a in verdict.actions.values()):
                raise mysql_server.ServerError("\n".join([*verdict.problems, "After the change:", *verdict.facts]))
    except mysql_server.ServerError as error:
        result["error"] = str(error)
    finally:
        result["steps"] = cluster.steps
        cluster.close()
    return result


if __name__ == "__main__":
    main()
