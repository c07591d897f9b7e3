#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several files and folders of a host in one round trip, all of them checked before the first is replaced."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
version_added: 0.1.0
short_description: Put several files and folders in place in one round trip
description:
  - What a loop over M(ansible.builtin.template), M(ansible.builtin.copy) and M(ansible.builtin.file) does, with one
    connection to the host instead of one to three for each file.
  - All new contents are written beside their files and validated first. When one of them is refused, nothing is
    replaced. A file is replaced as a whole, or not at all.
options:
  files:
    description: The files and folders, made in this order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it is on the host.
        type: path
        required: true
      state:
        description: What it is.
        type: str
        choices: [file, directory, absent]
        default: file
      content:
        description: The content of a file, from C(lookup('ansible.builtin.template', …)) say.
        type: str
      src:
        description: Another file of the host, whose content it gets.
        type: path
      owner:
        description: The user that owns it; O(owner) by default.
        type: str
      group:
        description: The group that owns it; O(group) by default.
        type: str
      mode:
        description: Its mode; O(mode) or O(directory_mode) by default.
        type: raw
      validate:
        description: A command that must accept the new content; C(%s) stands for the path of the file to check.
        type: str
  owner:
    description: The user that owns what does not say otherwise.
    type: str
    default: root
  group:
    description: The group that owns what does not say otherwise.
    type: str
    default: root
  mode:
    description: The mode of files that do not say otherwise.
    type: raw
    default: "0644"
  directory_mode:
    description: The mode of folders that do not say otherwise.
    type: raw
    default: "0755"
attributes:
  check_mode:
    support: full
    description: Says what would change; a user, group or O(files[].src) that is not there yet is taken as one to come.
  diff_mode:
    support: full
    description: Every file that changes, before and after.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The service and its configuration are in place
  scaleup.webstack.files:
    files:
      - {path: /etc/example, state: directory}
      - path: /etc/example/example.conf
        content: "{{ lookup('ansible.builtin.template', 'example.conf.j2') }}"
        validate: example --check %s
        group: example
        mode: "0640"
      - path: /etc/systemd/system/example.service
        content: "{{ lookup('ansible.builtin.template', 'example.service.j2') }}"
  notify: Reload example
"""

RETURN = r"""
changed_paths:
  description: What was made, replaced, removed, or got another owner or mode.
  type: list
  elements: str
  returned: success
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import grp
import os
import pwd
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_bytes, to_text


class FilesError(Exception):
    """A file cannot be what it shall be; the text says which, and why."""


def before(path: str) -> bytes | None:
    """The content of a file; None when there is none.

    :raises FilesError: something else than a file is there.
    """
    if not os.path.lexists(path):
        return None
    if not os.path.isfile(path):
        raise FilesError(f"{path} is no file: remove it, or write another path")
    with open(path, "rb") as file:
        return file.read()


def wanted(entry: dict[str, Any], check_mode: bool) -> bytes | None:
    """The content that a file shall have; None in check mode where that is not known yet.

    :raises FilesError: its source is not there.
    """
    if entry["src"] is None:
        return to_bytes(entry["content"])
    try:
        with open(entry["src"], "rb") as file:
            return file.read()
    except OSError as error:
        if check_mode:
            return None
        raise FilesError(f"{entry['path']}: its source {entry['src']} cannot be read: {error.strerror}") from error


def known(entry: dict[str, Any]) -> bool:
    """Whether the host has the user and the group."""
    try:
        pwd.getpwnam(entry["owner"])
        grp.getgrnam(entry["group"])
    except KeyError:
        return False
    return True


class Files:
    """The work of one call."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.changed, self.diffs = module, [], []  # type: ignore[var-annotated]
        self.folder = ""
        self.staged: dict[str, str] = {}
        self.entries: list[dict[str, Any]] = module.params["files"]
        for entry in self.entries:
            mode = "directory_mode" if entry["state"] == "directory" else "mode"
            entry["mode"] = entry["mode"] if entry["mode"] is not None else module.params[mode]
            entry["owner"] = entry["owner"] or module.params["owner"]
            entry["group"] = entry["group"] or module.params["group"]
            if entry["state"] == "file" and (entry["content"] is None) == (entry["src"] is None):
                raise FilesError(f"{entry['path']}: a file needs content or src, one of the two")

    def note(self, path: str, old: bytes | None, new: bytes | None) -> None:
        """Remember that something changes."""
        if path not in self.changed:
            self.changed.append(path)
        self.diffs.append(
            {
                "before_header": path,
                "after_header": path,
                "before": to_text(old or b"", errors="surrogate_or_replace"),
                "after": to_text(new or b"", errors="surrogate_or_replace"),
            }
        )

    def stage(self) -> None:
        """Write every new content beside the others and let it be validated; nothing is replaced yet.

        :raises FilesError: one of them is refused.
        """
        for number, entry in enumerate(e for e in self.entries if e["state"] == "file"):
            old, new = before(entry["path"]), wanted(entry, self.module.check_mode)
            if old == new and old is not None:
                continue
            self.note(entry["path"], old, new)
            if new is None:
                continue
            staged = os.path.join(self.folder, f"{number}-{os.path.basename(entry['path'])}")
            with open(staged, "wb") as file:
                file.write(new)
            self.staged[entry["path"]] = staged
            if entry["validate"]:
                self.validate(entry, staged)

    def validate(self, entry: dict[str, Any], staged: str) -> None:
        """Ask the command of an entry.

        :raises FilesError: it refuses, or is no command with a %s.
        """
        if "%s" not in entry["validate"]:
            raise FilesError(f"{entry['path']}: validate must contain %s: {entry['validate']}")
        code, out, err = self.module.run_command(entry["validate"] % staged)
        if code:
            raise FilesError(f"{entry['path']} is refused, nothing is replaced: {(err or out).strip()}")

    def attributes(self, entry: dict[str, Any]) -> None:
        """Owner, group and mode."""
        if self.module.check_mode and (not os.path.lexists(entry["path"]) or not known(entry)):
            return
        arguments = self.module.load_file_common_arguments(
            {**self.module.params, **{key: entry[key] for key in ("path", "owner", "group", "mode")}}
        )
        if self.module.set_fs_attributes_if_different(arguments, False) and entry["path"] not in self.changed:
            self.changed.append(entry["path"])

    def carry_out(self) -> None:
        """Make, replace and remove.

        :raises FilesError: something of another kind is in the way.
        """
        for entry in self.entries:
            path = entry["path"]
            if entry["state"] == "absent":
                if os.path.lexists(path):
                    self.note(path, None, None)
                    if not self.module.check_mode:
                        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
                continue
            if entry["state"] == "directory":
                if os.path.lexists(path) and not os.path.isdir(path):
                    raise FilesError(f"{path} is no folder: remove it, or write another path")
                if not os.path.isdir(path):
                    self.note(path, None, None)
                    if not self.module.check_mode:
                        os.makedirs(path)
            elif path in self.staged and not self.module.check_mode:
                if not os.path.isdir(os.path.dirname(path)):
                    raise FilesError(f"{path}: its folder is not there: make it, or write another path")
                if not os.path.lexists(path):
                    # It replaces a file that nobody else can read: what is new is secret until it has its mode.
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                self.module.atomic_move(self.staged[path], path)
            self.attributes(entry)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
                    "content": {"type": "str"},
                    "src": {"type": "path"},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                    "mode": {"type": "raw"},
                    "validate": {"type": "str"},
                },
            },
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "raw", "default": "0644"},
            "directory_mode": {"type": "raw", "default": "0755"},
        },
        supports_check_mode=True,
    )
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        try:
            files = Files(module)
            files.folder = folder
            files.stage()
            files.carry_out()
        except FilesError as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            module.fail_json(msg=f"{error.filename}: {error.strerror}")
        module.exit_json(changed=bool(files.changed), changed_paths=files.changed, diff=files.diffs)


if __name__ == "__main__":
    main()
