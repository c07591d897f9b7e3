#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host run a second release of an application beside the one that serves, on a port of its own."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_beside
version_added: 0.1.0
short_description: Run a release of an application beside the one that serves
description:
  - A blue/green deployment in two halves. This module runs the new release on every application server, on another
    port, with the service's own settings, sandbox and number of workers; then the web servers send to that port.
  - The service and the release that it runs are not touched. Further processes of the application stay with them.
  - A release that does not come up is stopped, marked void, and the module fails with its last log lines.
extends_documentation_fragment: [scaleup.webstack.app_instance]
options:
  unit:
    description: Name of the service's unit, without the ending; the unit beside it is C(<unit>-beside.service).
    type: str
    required: true
  state:
    description: Whether a release shall run beside the service.
    type: str
    choices: [present, absent]
    default: present
  release:
    description: Id of the release; needed with O(state=present).
    type: str
  address:
    description: Where it listens, as host:port; needed with O(state=present).
    type: str
  config:
    description: The service's files; the one that ends in C(.py) is gunicorn's configuration.
    type: list
    elements: path
    default: []
  void:
    description: With O(state=absent), mark the release as void, so that no later run brings it in again.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would run, without trying it.
  diff_mode:
    support: full
    description: The release beside the service, before and after.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The new release runs beside the old one
  scaleup.webstack.app_beside:
    root: /srv/guestbook
    unit: gunicorn-guestbook
    release: 6c1f0a9d2b7e
    address: 198.18.0.31:8010
    config: [/etc/webstack/guestbook/gunicorn.conf.py]

- name: It does not any more, and must not come back
  scaleup.webstack.app_beside:
    root: /srv/guestbook
    unit: gunicorn-guestbook
    state: absent
    void: true
    reason: the new form loses entries
"""

RETURN = r"""
release:
  description: The release that runs beside the service now; empty when there is none.
  type: str
  returned: success
previous:
  description: The release that ran beside it before; empty when there was none.
  type: str
  returned: success
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.scaleup.webstack.plugins.module_utils.app_instance import INSTANCE_OPTIONS, Beside
from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import ReleaseError, now


def start(beside: Beside, state: dict[str, Any], release: str) -> None:
    """Run a release beside the service.

    :raises ReleaseError: it does not come up; nothing runs beside the service, and it is void.
    """
    try:
        beside.begin(release, time.time())
    except ReleaseError as error:
        beside.end()
        state["beside"] = ""
        state["void"][release] = {"at": now(), "reason": str(error).splitlines()[0]}
        beside.record(state, release, "beside", str(error))
        raise ReleaseError(
            f"release {release} does not come up beside {beside.releases.current() or 'none'} and is void. {error}"
        ) from error
    state["void"].pop(release, None)
    state["beside"] = release
    beside.record(state, release, "beside")


def stop(beside: Beside, state: dict[str, Any]) -> None:
    """Run nothing beside the service any more."""
    release, state["beside"] = state["beside"], ""
    beside.end()
    if beside.asked["void"] and release and release != beside.releases.current():
        state["void"][release] = {"at": now(), "reason": beside.asked["reason"] or "taken back"}
    beside.record(state, release, "ended")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **INSTANCE_OPTIONS,
            "unit": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "release": {"type": "str"},
            "address": {"type": "str"},
            "config": {"type": "list", "elements": "path", "default": []},
            "void": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ("release", "address"))],
        supports_check_mode=True,
    )
    beside, wanted = Beside(module.params), module.params["state"] == "present"
    release = module.params["release"] if wanted else ""
    try:
        state = beside.releases.load()
        before = state["beside"]
        changed = before != release or (wanted and not beside.runs(release))
        if changed and not module.check_mode:
            if wanted:
                beside.releases.demand(release, state, module.params["retry_void"])
                start(beside, state, release)
            else:
                stop(beside, state)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['root']}: {error.strerror}")
    module.exit_json(
        changed=changed,
        release=release,
        previous=before,
        diff={"before": f"beside: {before or 'none'}\n", "after": f"beside: {release or 'none'}\n"},
    )


if __name__ == "__main__":
    main()
