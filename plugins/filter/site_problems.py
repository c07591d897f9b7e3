# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - a plugin's documentation stands before its imports
from __future__ import annotations

DOCUMENTATION = r"""
name: site_problems
author: The scaleup.webstack authors (@scaleup)
short_description: Says what keeps an inventory from being a site
version_added: 0.1.0
description:
  - Checks the groups of the inventory that a play runs with, however they were made.
positional: hostvars, files
options:
  _input:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  files:
    description:
      - Files of the tiers plugin that must have been read; see the lookup P(scaleup.webstack.tiers_files#lookup).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Stop unless the inventory describes a site
  ansible.builtin.assert:
    that: groups | scaleup.webstack.site_problems(hostvars) | length == 0
  run_once: true
"""

RETURN = r"""
_value:
  description: The problems, one sentence each; an empty list when there is none.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.checks import site_problems


class FilterModule:
    """See DOCUMENTATION."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter by its name."""
        return {"site_problems": site_problems}
