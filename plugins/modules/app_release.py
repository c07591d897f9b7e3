#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a host run a release of an application; take a release that does not come up back by itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
version_added: 0.1.0
short_description: Let a host run a release of an application, and take a bad one back
description:
  - The release is started on the side first, behind a Unix socket that no client knows, with the service's own sandbox
    and settings. Only when it answers its health check there is the link switched and the service restarted behind its
    systemd socket, which keeps the listening port open meanwhile.
  - The health check is then polled for the release's id. A release that does not come up is replaced by the one that
    ran before, marked void, and the module fails with the application's last log lines.
  - With the release unchanged, changed settings are tried on the side in the same way and then applied by a reload; a
    changed unit by a restart behind the socket. When they are bad, the files become the former ones again.
  - What ran, when and why is kept in C(<root>/releases.json).
extends_documentation_fragment: [scaleup.webstack.app_instance]
options:
  release:
    description:
      - Id of the release, or C(previous) for the one that ran last before the current one and is not void.
    type: str
    required: true
  unit:
    description: Name of the C(.service) and C(.socket) units, without the ending.
    type: str
    required: true
  config:
    description: Files whose change is applied by a reload.
    type: list
    elements: path
    default: []
  processes:
    description:
      - Names of the release's further processes, with units C(<unit>.<name>.service); they are restarted with it. Units
        of this form that are not named here or in O(timers) are stopped and removed.
    type: list
    elements: str
    default: []
  timers:
    description: Names of the release's scheduled processes, with units C(<unit>.<name>.timer).
    type: list
    elements: str
    default: []
  address:
    description: Where the socket listens, as host:port or the path of a Unix socket.
    type: str
    required: true
  trial:
    description: Whether to start it on the side first.
    type: bool
    default: true
  void_current:
    description: Mark the release that is left as void, as a rollback does.
    type: bool
    default: false
  keep:
    description: How many releases stay on the host, at least the current one and the one before it.
    type: int
    default: 5
attributes:
  check_mode:
    support: full
    description: Says what would run, without trying it.
  diff_mode:
    support: full
    description: The release before and after.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The release runs
  scaleup.webstack.app_release:
    root: /srv/guestbook
    release: 6c1f0a9d2b7e
    unit: gunicorn-guestbook
    config: [/etc/webstack/guestbook/environment, /etc/webstack/guestbook/gunicorn.conf.py]
    address: 198.18.0.31:8000
  throttle: 1

- name: The release before it runs again
  scaleup.webstack.app_release:
    root: /srv/guestbook
    release: previous
    void_current: true
    reason: the new form loses entries
    unit: gunicorn-guestbook
    address: 198.18.0.31:8000
  throttle: 1
"""

RETURN = r"""
release:
  description: The release that runs now.
  type: str
  returned: success
previous:
  description: The release that ran before; empty when there was none.
  type: str
  returned: success
action:
  description: What was done.
  type: str
  returned: success
  sample: switched
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.scaleup.webstack.plugins.module_utils.app_instance import INSTANCE_OPTIONS, Instance
from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import ReleaseError, now, systemctl


def target(instance: Instance, state: dict[str, Any]) -> str:
    """The id of the release that is asked for.

    :raises ReleaseError: it is not on the host, or void.
    """
    releases, release = instance.releases, instance.asked["release"]
    if release == "previous":
        release = releases.previous(state)
        if not release:
            raise ReleaseError(
                f"there is no release to go back to: {releases.root} has {', '.join(releases.built()) or 'none'}"
            )
    releases.demand(release, state, instance.asked["retry_void"])
    return str(release)


def switch(instance: Instance, state: dict[str, Any], release: str) -> None:
    """Run another release.

    :raises ReleaseError: it does not come up. The one before it runs, and this one is void.
    """
    releases, before = instance.releases, instance.releases.current()
    try:
        if instance.asked["trial"]:
            instance.trial(release)
        releases.switch(release)
        instance.start(release, state["applied"].get("socket") != instance.applied["socket"])
        instance.run_processes()
    except ReleaseError as error:
        back = f"{before} serves" if before else "no release runs"
        instance.restore()
        try:
            if releases.current() != before:
                releases.switch(before)
                if before:
                    instance.start(before, False)
                    instance.run_processes()
                else:
                    systemctl("disable", "--now", "--quiet", instance.socket, instance.service, check=False)
        except ReleaseError as second:
            back = f"AND {before} DOES NOT COME UP EITHER: {second}"
        state["void"][release] = {"at": now(), "reason": str(error).splitlines()[0]}
        instance.record(state, release, "switch", str(error))
        raise ReleaseError(f"release {release} does not come up and is void; {back}. {error}") from error
    state["void"].pop(release, None)
    if instance.asked["void_current"] and before and before != release:
        reason = instance.asked["reason"] or "rolled back"
        state["void"][before] = {"at": now(), "reason": reason}
    state["applied"] = instance.applied
    instance.keep()
    instance.record(state, release, "switch")
    instance.prune(state)


def refresh(instance: Instance, state: dict[str, Any], release: str, restart: bool) -> None:
    """Apply changed units and settings to the release that runs.

    :raises ReleaseError: it does not come up with them.
    """
    action = "restart" if restart else "reload"
    tried = False
    try:
        if instance.asked["trial"]:
            instance.trial(release)
        tried = True
        if restart:
            instance.start(release, state["applied"].get("socket") != instance.applied["socket"])
        else:
            instance.reload(release)
        instance.run_processes()
    except ReleaseError as error:
        instance.restore()
        back = "its settings are the former ones again"
        if tried:
            try:
                instance.start(release, False)
            except ReleaseError as second:
                back = f"{back}, AND IT DOES NOT COME UP WITH THEM EITHER: {second}"
        instance.record(state, release, action, str(error))
        raise ReleaseError(f"release {release} does not come up with its changed settings; {back}. {error}") from error
    state["applied"] = instance.applied
    instance.keep()
    instance.record(state, release, action)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **INSTANCE_OPTIONS,
            "release": {"type": "str", "required": True},
            "unit": {"type": "str", "required": True},
            "config": {"type": "list", "elements": "path", "default": []},
            "processes": {"type": "list", "elements": "str", "default": []},
            "timers": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str", "required": True},
            "trial": {"type": "bool", "default": True},
            "void_current": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    instance = Instance(module.params)
    releases = instance.releases
    try:
        before = releases.current()
        if module.check_mode and module.params["release"] not in (*releases.built(), "previous"):
            # It would have been built in this run.
            release, action = module.params["release"], "switch"
        else:
            state = releases.load()
            release, action = target(instance, state), ""
            applied = state["applied"]
            stopped = systemctl("is-active", instance.service, instance.socket, check=False).split() != ["active"] * 2
            if release != before:
                action = "switch"
            elif stopped or any(applied.get(part) != instance.applied[part] for part in ("service", "socket")):
                action = "restart"
            elif any(applied.get(part) != instance.applied[part] for part in ("config", "processes")):
                action = "reload"
            if action == "switch" and not module.check_mode:
                switch(instance, state, release)
            elif action and not module.check_mode:
                refresh(instance, state, release, action == "restart")
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or releases.root}: {error.strerror}")
    module.exit_json(
        changed=bool(action),
        release=release,
        previous=before,
        action=action,
        diff={"before": f"release {before or 'none'}\n", "after": f"release {release}\n"},
    )


if __name__ == "__main__":
    main()
