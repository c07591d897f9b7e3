"""Fixtures of the tests of releases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from releasing import SCENARIO


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the probe to be changed; in a folder of the same name, so that the same content is the same release."""
    return Path(shutil.copytree(SCENARIO / "probe", tmp_path / "probe"))
