#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say which releases of an application a host has, and what it can run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release_info
version_added: 0.1.0
short_description: Which releases of an application a host has, and what it can run
description:
  - Reads what M(scaleup.webstack.app_build) and M(scaleup.webstack.app_release) left on the host, and what of the
    host decides about wheels and workers. Changes nothing.
options:
  root:
    description: The application's folder, such as C(/srv/guestbook).
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: It reads only.
  diff_mode:
    support: none
    description: It reads only.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The host's releases are known
  scaleup.webstack.app_release_info:
    root: /srv/guestbook
  register: found
"""

RETURN = r"""
current:
  description: The release that runs; empty when there is none.
  type: str
  returned: always
since:
  description: When RV(current) was switched to, in UTC; empty when that is not recorded.
  type: str
  returned: always
previous:
  description: The release that a rollback would go to; empty when there is none.
  type: str
  returned: always
beside:
  description: The release that runs beside the service, as of M(scaleup.webstack.app_beside); empty when there is none.
  type: str
  returned: always
built:
  description: The releases that are whole, the oldest first.
  type: list
  elements: str
  returned: always
environments:
  description: Ids of the environments of these releases, which a new release may take over.
  type: list
  elements: str
  returned: always
void:
  description: The releases that must not run again, each with RV(ignore:at) and RV(ignore:reason).
  type: dict
  returned: always
python:
  description: Version of the host's Python, as in C(3.13).
  type: str
  returned: always
platforms:
  description: Platform tags of the wheels that the host can use, the best first.
  type: list
  elements: str
  returned: always
cpus:
  description: Processors that the host may use.
  type: int
  returned: always
memory_mb:
  description: The host's memory in MiB, or the limit of its control group where that is less.
  type: int
  returned: always
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import contextlib
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import PYTHON, ReleaseError, Releases


def wheel_platforms(machine: str, glibc: str) -> list[str]:
    """The platform tags of PEP 600 for a machine and a glibc ("2.36"), the newest first, and their old names."""
    minor = int(glibc.split(".")[1])
    tags = [f"manylinux_2_{m}_{machine}" for m in range(minor, 4, -1)]
    tags += [f"manylinux2014_{machine}"]
    if machine in ("x86_64", "i686"):
        tags += [f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    return [*tags, f"linux_{machine}"]


def memory_mb() -> int:
    """MiB of memory that this host may use."""
    with open("/proc/meminfo", encoding="ascii") as file:
        limit = int(file.readline().split()[1]) * 1024
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            limit = min(limit, int(file.read()))
    return limit >> 20


def main() -> None:
    module = AnsibleModule(argument_spec={"root": {"type": "path", "required": True}}, supports_check_mode=True)
    releases = Releases(module.params["root"])
    try:
        state = releases.load()
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    current, environments = releases.current(), releases.environments()
    glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.17").split()[1]
    module.exit_json(
        changed=False,
        current=current,
        since=next((str(e["at"]) for e in reversed(state["history"]) if e["ok"] and e["action"] == "switch"), ""),
        previous=releases.previous(state),
        beside=state["beside"],
        built=list(environments),
        environments=sorted(set(environments.values())),
        void=state["void"],
        python=PYTHON,
        platforms=wheel_platforms(platform.machine(), glibc),
        cpus=len(os.sched_getaffinity(0)),
        memory_mb=memory_mb(),
    )


if __name__ == "__main__":
    main()
