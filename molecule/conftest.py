"""The long tests are for `./lab test --thorough`: repeated failures and releases, each under load."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Molecule asks for colours; tests read what a playbook says.
    os.environ.update(ANSIBLE_FORCE_COLOR="false", ANSIBLE_NOCOLOR="true")
    config.addinivalue_line("markers", "thorough: takes minutes; runs with ./lab test --thorough")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("LAB_THOROUGH"):
        return
    for item in items:
        if item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: ./lab test --thorough"))
