#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pack a folder so that the same content always gives the same archive and the same release id."""

from __future__ import annotations

DOCUMENTATION = r"""
module: source_archive
version_added: 0.1.0
short_description: Pack an application's source into an archive with a reproducible release id
description:
  - Packs a folder into a C(.tar.gz) on the controller. The same names, contents and executable bits give the same id
    on every machine, at any time, whoever owns the files.
  - Meant for C(delegate_to=localhost), once for all hosts of a play, so that all of them get one release.
options:
  src:
    description: The folder to pack, or an archive (a file), which is taken as it is.
    type: path
    required: true
  dest:
    description: Folder that gets the archive, called after the folder and its release id. Made if missing.
    type: path
    default: ~/.cache/scaleup.webstack
  exclude:
    description:
      - Shell patterns of what stays out. A pattern is compared with the name and with the path below O(src) of each
        file and folder; a folder that matches stays out whole.
    type: list
    elements: str
    default: [".git", "__pycache__", "*.pyc", ".venv"]
  recipe:
    description:
      - What else makes this a different release although the source is the same, such as the version of the server
        that is installed beside it. It goes into the id and not into the archive.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: The id is worked out and nothing is written; RV(archive) may then name a file that is not there yet.
  diff_mode:
    support: none
    description: A changed archive has another name.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The application is packed once for all hosts
  scaleup.webstack.source_archive:
    src: "{{ playbook_dir }}/guestbook"
  delegate_to: localhost
  run_once: true
  register: source

- name: Every host has the release
  ansible.builtin.unarchive:
    src: "{{ source.archive }}"
    dest: /srv/guestbook/releases/{{ source.release }}
"""

RETURN = r"""
archive:
  description: Path of the archive on the machine where the module ran.
  type: str
  returned: always
  sample: /home/ops/.cache/scaleup.webstack/guestbook-6c1f0a9d2b7e.tar.gz
sha256:
  description:
    - SHA-256 of what was packed (the tar stream before compression, since compression differs between zlib versions),
      or of the file when O(src) is an archive; with O(recipe) it covers the recipe too.
  type: str
  returned: always
release:
  description: The first twelve hexadecimal digits of RV(sha256).
  type: str
  returned: always
  sample: 6c1f0a9d2b7e
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import contextlib
import fnmatch
import gzip
import hashlib
import json
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule


class SourceError(Exception):
    """The source cannot become a release; the text says which file and why."""


class _Hashing:
    """A file for writing that digests what passes through, and hands it on to `sink` if there is one."""

    def __init__(self, sink: IO[bytes] | gzip.GzipFile | None = None) -> None:
        self.digest = hashlib.sha256()
        self.sink = sink

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        if self.sink is not None:
            self.sink.write(data)
        return len(data)


def excluded(path: str, patterns: list[str]) -> bool:
    """Whether a pattern matches `path` (relative, with slashes) or its last part."""
    name = posixpath.basename(path)
    return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(path, p.strip("/")) for p in patterns)


def members(root: str, patterns: list[str], below: str = "") -> Iterator[str]:
    """The relative paths of what goes into the archive, folders before their contents, sorted by name."""
    for name in sorted(os.listdir(os.path.join(root, below))):
        path = posixpath.join(below, name)
        if excluded(path, patterns):
            continue
        yield path
        full = os.path.join(root, path)
        if os.path.isdir(full) and not os.path.islink(full):
            yield from members(root, patterns, path)


def header(root: str, path: str) -> tarfile.TarInfo:
    """The archive's entry for one file: nothing of it depends on who packs it, or when.

    :raises SourceError: neither file, folder nor link, or a link that leads out of the source.
    """
    full = os.path.join(root, path)
    found = os.lstat(full)
    info = tarfile.TarInfo(path)
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(full)
        landing = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if posixpath.isabs(target) or landing.split("/")[0] == "..":
            raise SourceError(
                f"{full}: the link leads out of the source, to {target}; copy that file, or exclude the link"
            )
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISREG(found.st_mode):
        info.size, info.mode = found.st_size, 0o755 if found.st_mode & stat.S_IXUSR else 0o644
    else:
        raise SourceError(f"{full}: neither a file, a folder nor a link; exclude it")
    return info


def pack(root: str, patterns: list[str], sink: IO[bytes] | gzip.GzipFile | None = None) -> Any:
    """Write the tar stream of `root` to `sink` and return its SHA-256 object.

    :raises SourceError: the source holds nothing, or something that cannot be packed.
    :raises OSError: a file could not be read, or the archive not be written.
    """
    stream = _Hashing(sink)
    empty = True
    # Stream mode: tarfile never seeks. The format is named since Python's default changed once and may again.
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path in members(root, patterns):
            empty = False
            info = header(root, path)
            if info.isreg():
                with open(os.path.join(root, path), "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    if empty:
        raise SourceError(f"{root}: nothing to pack: the folder is empty, or everything in it is excluded")
    return stream.digest


def with_recipe(digest: Any, recipe: dict[str, Any]) -> str:
    """The hexadecimal digest of a source and of how it is built. An empty recipe changes nothing."""
    if recipe:
        digest = digest.copy()
        digest.update(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode())
    return str(digest.hexdigest())


def digest_file(path: str) -> Any:
    """The SHA-256 object of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest


def write_archive(root: str, patterns: list[str], archive: str, expected: str) -> None:
    """Make `archive`, all of it or nothing.

    :raises SourceError: the source is no longer the one whose digest is `expected`.
    """
    handle, partial = tempfile.mkstemp(dir=os.path.dirname(archive), prefix=".packing-")
    try:
        with os.fdopen(handle, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            digest = pack(root, patterns, packed)
        if digest.hexdigest() != expected:
            raise SourceError(f"{root}: the source changed while it was packed; run the play again")
        os.replace(partial, archive)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "default": "~/.cache/scaleup.webstack"},
            "exclude": {"type": "list", "elements": "str", "default": [".git", "__pycache__", "*.pyc", ".venv"]},
            "recipe": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    src, dest = os.path.abspath(module.params["src"]), module.params["dest"]
    patterns, recipe = module.params["exclude"], module.params["recipe"]
    changed = False
    try:
        if os.path.isfile(src):
            sha256, archive = with_recipe(digest_file(src), recipe), src
        elif os.path.isdir(src):
            digest = pack(src, patterns)
            sha256 = with_recipe(digest, recipe)
            archive = os.path.join(dest, f"{os.path.basename(src)}-{sha256[:12]}.tar.gz")
            changed = not os.path.exists(archive)
            if changed and not module.check_mode:
                os.makedirs(dest, mode=0o700, exist_ok=True)
                write_archive(src, patterns, archive, digest.hexdigest())
        else:
            raise SourceError(
                f"src: there is no file or folder {src} on this machine"
                " (the module looks where it runs: use delegate_to: localhost)"
            )
    except SourceError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or src}: {error.strerror}")
    module.exit_json(changed=changed, archive=archive, sha256=sha256, release=sha256[:12])


if __name__ == "__main__":
    main()
