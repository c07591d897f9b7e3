#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collect on the controller the wheels that an application needs on a host, in one archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
version_added: 0.1.0
short_description: Collect an application's wheels for a host in one archive
description:
  - Downloads the wheels of a lock file for another machine's Python and platform, once, and packs them. The hosts then
    need neither an index nor a compiler.
  - Meant for C(delegate_to=localhost). Several hosts may ask at the same time; the first one downloads.
options:
  src:
    description: The application's source, a folder or an archive.
    type: path
    required: true
  requirements:
    description: Path of the requirements file in O(src). Hashes are demanded where the file has any.
    type: str
    default: requirements.txt
  extra:
    description: Requirements beside the file's, such as an application server. Those that the file has are left out.
    type: list
    elements: str
    default: []
  python:
    description: The host's Python version, as in C(3.13).
    type: str
    required: true
  platforms:
    description: The platform tags of wheels that the host can use.
    type: list
    elements: str
    required: true
  dest:
    description: Folder that keeps the archives.
    type: path
    default: ~/.cache/scaleup.webstack
attributes:
  check_mode:
    support: full
    description: Says whether it would download.
  diff_mode:
    support: none
    description: A changed archive has another name.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The wheels are on the controller
  scaleup.webstack.wheelhouse:
    src: "{{ playbook_dir }}/guestbook"
    extra: [gunicorn==27.0.1]
    python: "{{ found.python }}"
    platforms: "{{ found.platforms }}"
  delegate_to: localhost
  register: wheels
"""

RETURN = r"""
archive:
  description: Path of the archive (C(.tar)) of the wheels on the machine where the module ran.
  type: str
  returned: always
environment:
  description: Id of the environment that these wheels make, as M(scaleup.webstack.app_release_info) knows it.
  type: str
  returned: always
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.scaleup.webstack.plugins.module_utils.app_requirements import (
    environment_id,
    has_hashes,
    missing,
    read_requirements,
)


class WheelhouseError(Exception):
    """The wheels cannot be had; the text says which and why."""


def download(folder: str, requirements: str, extra: list[str], python: str, platforms: list[str]) -> None:
    """Fill `folder` with wheels.

    :raises WheelhouseError: pip did not find one, or its hash is another.
    """
    common = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    common += ["--dest", folder, "--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    common += [word for platform in platforms for word in ("--platform", platform)]
    calls = []
    if requirements.strip():
        lock = os.path.join(folder, "requirements.txt")
        with open(lock, "w", encoding="utf-8") as file:
            file.write(requirements)
        calls.append([*common, *(["--require-hashes"] if has_hashes(requirements) else []), "--requirement", lock])
    if extra:
        calls.append([*common, *extra])
    for call in calls:
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
            raise WheelhouseError(
                f"pip found no wheels for Python {python} on {platforms[0]}: {' '.join(lines[-12:]) or done.stdout}"
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "requirements": {"type": "str", "default": "requirements.txt"},
            "extra": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "str", "required": True},
            "platforms": {"type": "list", "elements": "str", "required": True},
            "dest": {"type": "path", "default": "~/.cache/scaleup.webstack"},
        },
        supports_check_mode=True,
    )
    asked, dest = module.params, module.params["dest"]
    try:
        requirements = read_requirements(asked["src"], asked["requirements"])
        extra = missing(asked["extra"], requirements)
        environment = environment_id(requirements, extra, asked["python"])
        key = hashlib.sha256(f"{environment} {' '.join(asked['platforms'])}".encode()).hexdigest()
        archive = os.path.join(dest, f"wheels-{key[:16]}.tar")
        if os.path.exists(archive) or module.check_mode:
            module.exit_json(changed=not os.path.exists(archive), archive=archive, environment=environment)
        os.makedirs(dest, mode=0o700, exist_ok=True)
        with open(os.path.join(dest, ".wheelhouse.lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            changed = not os.path.exists(archive)
            if changed:
                with tempfile.TemporaryDirectory(dir=dest, prefix=".wheels-") as folder:
                    download(folder, requirements, extra, asked["python"], asked["platforms"])
                    partial = os.path.join(folder, ".tar")
                    with tarfile.open(partial, "w") as tar:
                        for name in sorted(os.listdir(folder)):
                            if name.endswith(".whl"):
                                tar.add(os.path.join(folder, name), name)
                    os.replace(partial, archive)
    except (WheelhouseError, ValueError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or dest}: {error.strerror}")
    module.exit_json(changed=changed, archive=archive, environment=environment)


if __name__ == "__main__":
    main()
