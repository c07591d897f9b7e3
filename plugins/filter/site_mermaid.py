# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - a plugin's documentation stands before its imports
from __future__ import annotations

DOCUMENTATION = r"""
name: site_mermaid
author: The scaleup.webstack authors (@scaleup)
short_description: Draws the site of an inventory as Mermaid
version_added: 0.1.0
description:
  - Draws tiers, hosts, addresses, VIPs, primary and replicas of the inventory that a play runs with.
positional: hostvars, ports
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  ports:
    description: "Open ports by tier, such as C({web: [443/tcp]})."
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Draw the site
  ansible.builtin.copy:
    content: "{{ groups | scaleup.webstack.site_mermaid(hostvars) }}"
    dest: site.mmd
    mode: "0644"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
_value:
  description: The Mermaid text.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.diagram import site_mermaid


class FilterModule:
    """See DOCUMENTATION."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter by its name."""
        return {"site_mermaid": site_mermaid}
