# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - a plugin's documentation stands before its imports
from __future__ import annotations

DOCUMENTATION = r"""
name: site_status_text
author: The scaleup.webstack authors (@scaleup)
short_description: Shows the status of a site as a table
version_added: 0.1.0
description:
  - A row for each host, for people at a terminal.
options:
  _input:
    description: What P(scaleup.webstack.site_status#filter) says.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: The status is written
  ansible.builtin.copy:
    content: "{{ site | scaleup.webstack.site_status_text }}"
    dest: status.txt
    mode: "0644"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
_value:
  description: The table, and below it what is wrong and what waits, a line each.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.status import site_status_text


class FilterModule:
    """See DOCUMENTATION."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter by its name."""
        return {"site_status_text": site_status_text}
