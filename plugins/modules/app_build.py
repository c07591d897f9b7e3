#!/usr/bin/python
# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the virtual environment of a release that lies unpacked on the host, and see whether it can be imported."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_build
version_added: 0.1.0
short_description: Build a release of an application off to the side
description:
  - Unpacks a release's source into C(<root>/releases/<release>/app), makes its virtual environment, imports the
    application as its own user, and marks the release as whole. What runs is not touched.
  - An earlier release with the same requirements lends its environment, by hard links, so that an unchanged set of
    dependencies costs little. Otherwise pip installs wheels only; nothing of a package is run while it is installed.
  - A release that fails is removed again.
options:
  root:
    description: The application's folder, such as C(/srv/guestbook).
    type: path
    required: true
  release:
    description: Id of the release.
    type: str
    required: true
  archive:
    description: The packed source on the host. It is removed.
    type: path
    required: true
  requirements:
    description: Path of the requirements file in the source. Hashes are demanded where the file has any.
    type: str
    default: requirements.txt
  extra:
    description: Requirements beside the file's. Those that the file has are left out.
    type: list
    elements: str
    default: []
  wheels:
    description: The packed wheels on the host. They are removed. Without any, pip asks its index.
    type: path
  installer:
    description: What installs the packages. C(uv) must be on the host's PATH.
    type: str
    choices: [pip, uv]
    default: pip
  module:
    description: What to import, as C(module:name) or C(module:factory()); nothing when empty.
    type: str
    default: ""
  user:
    description: The user who imports it.
    type: str
    required: true
  environment_file:
    description: File with the application's settings for the import.
    type: path
attributes:
  check_mode:
    support: full
    description: Says that it would build.
  diff_mode:
    support: none
    description: The release's id says what is new.
author:
  - The scaleup.webstack maintainers
"""

EXAMPLES = r"""
- name: The release is built
  scaleup.webstack.app_build:
    root: /srv/guestbook
    release: 6c1f0a9d2b7e
    archive: /srv/.guestbook-6c1f0a9d2b7e.tar.gz
    wheels: /srv/.guestbook-6c1f0a9d2b7e-wheels.tar
    extra: [gunicorn==27.0.1]
    module: guestbook:app
    user: guestbook
"""

RETURN = r"""
reused:
  description: The release whose environment was taken over; empty when it was made anew.
  type: str
  returned: when a release was built
"""

# ruff: noqa: E402 - Ansible wants the documentation before the imports
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import (
    PYTHON,
    RELEASE_ID,
    ReleaseError,
    Releases,
    read_environment,
)
from ansible_collections.scaleup.webstack.plugins.module_utils.app_requirements import (
    environment_id,
    has_hashes,
    missing,
    read_requirements,
)

IMPORT = """
import importlib, sys
name, _, attribute = sys.argv[1].partition(":")
module = importlib.import_module(name)
getattr(module, attribute.partition("(")[0] or "application")
"""


def run(argv: list[str], what: str) -> None:
    """Run a command.

    :raises ReleaseError: it failed; with the last lines of what it said.
    """
    # pip asks the host's own store whom to trust; uv does when it is told to (it has had two names for that).
    environment = {**os.environ, "UV_NATIVE_TLS": "true", "UV_SYSTEM_CERTS": "true"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ReleaseError(f"{what}: " + "\n".join(lines[-15:]))


def clone(source: str, target: str) -> None:
    """Copy a virtual environment by hard links; only what names its path is written anew."""
    shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    old, new = source.encode(), target.encode()
    scripts = [os.path.join(target, "bin", name) for name in os.listdir(os.path.join(target, "bin"))]
    for path in [*scripts, os.path.join(target, "pyvenv.cfg")]:
        if os.path.islink(path) or not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            content = file.read()
        if old in content:
            mode = os.stat(path).st_mode
            # A new file, not the old one opened for writing: the other release has the same inode.
            os.unlink(path)
            with open(path, "wb") as file:
                file.write(content.replace(old, new))
            os.chmod(path, mode)


def install(venv: str, requirements: str, extra: list[str], wheels: str | None, installer: str) -> None:
    """Make a virtual environment and fill it.

    :raises ReleaseError: a package is missing, or has another hash.
    """
    python = os.path.join(venv, "bin", "python")
    run([sys.executable, "-m", "venv", *(["--without-pip"] if installer == "uv" else []), venv], "the environment")
    if installer == "uv":
        call = ["uv", "pip", "install", "--quiet", "--python", python, "--only-binary", ":all:", "--compile-bytecode"]
    else:
        call = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--no-cache-dir",
        ]
        call += ["--only-binary", ":all:"]
    if wheels:
        call += ["--no-index", "--find-links", wheels]
    if requirements.strip():
        lock = os.path.join(venv, "requirements.txt")
        with open(lock, "w", encoding="utf-8") as file:
            file.write(requirements)
        hashes = ["--require-hashes"] if has_hashes(requirements) else []
        run([*call, *hashes, "--requirement", lock], "the requirements cannot be installed")
    if extra:
        run([*call, *extra], f"{' '.join(extra)} cannot be installed")


def smoke_import(venv: str, app: str, module: str, user: str, environment: dict[str, str]) -> None:
    """Import the application as `user`.

    :raises ReleaseError: it cannot be imported; with the end of the traceback.
    """
    entry = pwd.getpwnam(user)
    done = subprocess.run(
        [os.path.join(venv, "bin", "python"), "-c", IMPORT, module],
        cwd=app,
        user=entry.pw_uid,
        group=entry.pw_gid,
        extra_groups=os.getgrouplist(user, entry.pw_gid),
        env={"PATH": f"{venv}/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ReleaseError(f"{module} cannot be imported:\n" + "\n".join(done.stderr.splitlines()[-15:]))


def unpack(archive: str, folder: str) -> None:
    """Unpack a tar archive, all of it root's; what would leave `folder` is refused.

    :raises ReleaseError: it is no such archive.
    """
    os.makedirs(folder)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                landing = [member.name]
                if member.issym():
                    landing.append(os.path.join(os.path.dirname(member.name), member.linkname))
                if any(os.path.normpath(p).split("/")[0] in ("", "..") for p in landing):
                    raise ReleaseError(f"{archive}: {member.name} leads out of the archive")
                if not (member.isreg() or member.isdir() or member.issym()):
                    raise ReleaseError(f"{archive}: {member.name} is neither a file, a folder nor a symbolic link")
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            # The filters of later Pythons do the same; Debian 12's does not have them.
            tar.extraction_filter = lambda member, path: member  # type: ignore[method-assign]
            tar.extractall(folder)
    except tarfile.TarError as error:
        raise ReleaseError(f"{archive}: {error}") from error


def build(releases: Releases, asked: dict[str, Any]) -> str:
    """Build one release and return the release whose environment it took over.

    :raises ReleaseError: it cannot be built.
    """
    release = asked["release"]
    app, venv, wheels = (releases.path(release, part) for part in ("app", "venv", "wheels"))
    group = pwd.getpwnam(asked["user"]).pw_gid
    os.makedirs(releases.path(""), exist_ok=True)
    # The application's own users and nobody else.
    os.chown(releases.root, 0, group)
    os.chmod(releases.root, 0o750)
    shutil.rmtree(releases.path(release), ignore_errors=True)
    unpack(asked["archive"], app)
    requirements = read_requirements(app, asked["requirements"])
    extra = missing(asked["extra"], requirements)
    environment = environment_id(requirements, extra, PYTHON)
    reused = next((r for r, e in reversed(releases.environments().items()) if e == environment), "")
    if reused:
        clone(releases.path(reused, "venv"), venv)
    else:
        if asked["wheels"]:
            unpack(asked["wheels"], wheels)
        install(venv, requirements, extra, wheels if asked["wheels"] else None, asked["installer"])
        shutil.rmtree(wheels, ignore_errors=True)
    # The application's own bytecode, since its user may not write here. A file that is no Python 3 (a template, a test
    # fixture) is no reason to stop: the import decides.
    subprocess.run([os.path.join(venv, "bin", "python"), "-m", "compileall", "-q", app], capture_output=True)
    if asked["module"]:
        settings = read_environment(asked["environment_file"] or "")
        smoke_import(venv, app, asked["module"], asked["user"], {**settings, "RELEASE": release})
    with open(releases.path(release, ".built"), "w", encoding="utf-8") as file:
        json.dump({"environment": environment, "python": PYTHON}, file)
    return reused


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "archive": {"type": "path", "required": True},
            "requirements": {"type": "str", "default": "requirements.txt"},
            "extra": {"type": "list", "elements": "str", "default": []},
            "wheels": {"type": "path"},
            "installer": {"type": "str", "choices": ["pip", "uv"], "default": "pip"},
            "module": {"type": "str", "default": ""},
            "user": {"type": "str", "required": True},
            "environment_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    asked = module.params
    if not RELEASE_ID.match(asked["release"]):
        module.fail_json(msg=f"release: {asked['release']!r} is no release id (letters, digits, dot, dash, underscore)")
    releases = Releases(asked["root"])
    if asked["release"] in releases.built():
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True, reused="")
    # Everyone who may enter the application's folder may read the release, whatever the caller's umask.
    os.umask(0o022)
    try:
        reused = build(releases, asked)
    except (ReleaseError, OSError, ValueError, KeyError) as error:
        shutil.rmtree(releases.path(asked["release"]), ignore_errors=True)
        module.fail_json(msg=f"release {asked['release']} cannot be built, what runs is untouched: {error}")
    finally:
        for path in (asked["archive"], asked["wheels"]):
            with contextlib.suppress(OSError):
                os.unlink(path or "")
    module.exit_json(changed=True, reused=reused)


if __name__ == "__main__":
    main()
