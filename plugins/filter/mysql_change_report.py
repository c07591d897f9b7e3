# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of mysql_switchover, mysql_failover and mysql_rejoin as lines for an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: mysql_change_report
short_description: What a change of the database nodes' roles found, planned and did
version_added: 0.1.0
author: The scaleup.webstack maintainers (@scaleup)
description:
  - Lines for an operator from the registered result of M(scaleup.webstack.mysql_switchover),
    M(scaleup.webstack.mysql_failover) or M(scaleup.webstack.mysql_rejoin).
options:
  _input: {description: The registered result., type: dict, required: true}
"""

EXAMPLES = r"""
- name: What was found, planned and done
  ansible.builtin.debug:
    msg: "{{ switchover | scaleup.webstack.mysql_change_report }}"
"""

RETURN = r"""
_value: {description: The lines., type: list, elements: str}
"""


def mysql_change_report(result: Mapping[str, Any]) -> list[str]:
    """Found, planned, done, and how long writes stood still."""
    facts = result.get("facts", [])
    lines = ["Found:", *(f"  {line}" for line in facts)] if facts else []
    lines += ["Plan:", *(f"  {line}" for line in result.get("plan", []) or ["nothing is to be done"])]
    if steps := result.get("steps"):
        lines += ["Done:", *(f"  {line}" for line in steps)]
    if "stood_still" in result:
        lines.append(f"Writes stood still for {result['stood_still']:.3f} s.")
    return lines


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """All filters of this file."""
        return {"mysql_change_report": mysql_change_report}
