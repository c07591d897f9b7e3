"""Before any test module imports the collection by its name: Ansible's loader, which has to know where it lies."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(Path(__file__).resolve().parents[2] / ".ansible" / "collections")
os.environ.setdefault("ANSIBLE_DEVEL_WARNING", "false")

from ansible.plugins.loader import init_plugin_loader

with contextlib.suppress(ValueError):  # it was called before
    init_plugin_loader()


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> ModuleType:
    """The test module's PROGRAM as a module: a role's program, which has no ending that Python would import by."""
    path = request.module.PROGRAM
    loader = importlib.machinery.SourceFileLoader(path.name.replace("-", "_"), str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
