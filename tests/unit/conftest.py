"""Before any test module imports the collection by its name: Ansible's loader, which has to know where it lies."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(Path(__file__).resolve().parents[2] / ".ansible" / "collections")
os.environ.setdefault("ANSIBLE_DEVEL_WARNING", "false")

from ansible.plugins.loader import init_plugin_loader

with contextlib.suppress(ValueError):  # it was called before
    init_plugin_loader()
