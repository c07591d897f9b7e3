"""The programs of the role, which have no ending that Python would import by."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> ModuleType:
    """The test module's PROGRAM as a module."""
    path = request.module.PROGRAM
    loader = importlib.machinery.SourceFileLoader(path.name.replace("-", "_"), str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
