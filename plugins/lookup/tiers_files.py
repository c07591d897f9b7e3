# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# ruff: noqa: E402 - a plugin's documentation stands before its imports
from __future__ import annotations

DOCUMENTATION = r"""
name: tiers_files
author: The scaleup.webstack authors (@scaleup)
short_description: Finds the files of the tiers plugin among inventory sources
version_added: 0.1.0
description:
  - Gives the files that name the plugin C(scaleup.webstack.tiers), in the order in which Ansible reads them.
  - The preflight play compares them with C(webstack_sources), the files that the plugin has read without a problem.
options:
  _terms:
    description: Inventory sources, files and directories; other sources are skipped.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show which files describe the site
  ansible.builtin.debug:
    msg: "{{ query('scaleup.webstack.tiers_files', *ansible_inventory_sources) }}"
"""

RETURN = r"""
_raw:
  description: Absolute paths.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.scaleup.webstack.plugins.plugin_utils.checks import tiers_files


class LookupModule(LookupBase):
    """See DOCUMENTATION."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """The files among the sources `terms`."""
        self.set_options(var_options=variables, direct=kwargs)
        return tiers_files(terms, lambda path: self._loader.load_from_file(path, cache="none"))
