# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - a plugin's documentation stands before its imports
from __future__ import annotations

DOCUMENTATION = r"""
name: site_status
author: The scaleup.webstack authors (@scaleup)
short_description: Judges a site by what its hosts say of themselves
version_added: 0.1.0
description:
  - Takes what M(scaleup.webstack.host_status_info) returned on every host, and says what is wrong and what waits.
positional: groups, hostvars, vips, now
options:
  _input:
    description: The module's result by host. One without C(status) stands for a host that could not be asked.
    type: dict
    required: true
  groups:
    description: The magic variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The magic variable C(hostvars).
    type: dict
    required: true
  vips:
    description: The virtual IPs, each with C(name) and C(address).
    type: list
    elements: dict
    default: []
  now:
    description: The controller's clock when the hosts were asked, in seconds of the epoch.
    type: float
    default: 0
  limits:
    description: >-
      What is still good - percent in use (C(disk) 90, C(memory) 95), days (C(certificate_days) 14), seconds
      (C(lag) 10, C(clock) 30), hours since a backup (C(backup_hours) 26, C(binlogs_hours) 1), days since the backups
      were proven (C(verified_days) 8).
    type: dict
    default: {}
  semi_sync:
    description: Whether a primary should wait for a replica.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: The site is judged
  ansible.builtin.set_fact:
    site: "{{ facts | scaleup.webstack.site_status(groups, hostvars, webstack_vips, now(utc=true).timestamp()) }}"
"""

RETURN = r"""
_value:
  description: >-
    C(ok), C(problems) and C(notes) (each with C(host), C(what) and both as C(text)), and what was seen - C(vips),
    C(hosts), C(database), C(backups).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.status import site_status


class FilterModule:
    """See DOCUMENTATION."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter by its name."""
        return {"site_status": site_status}
