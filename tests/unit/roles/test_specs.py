"""Every role has the same rooms, and its specification says what its defaults are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
ROOMS = [
    "README.md",
    "defaults/main.yml",
    "handlers/main.yml",
    "meta/argument_specs.yml",
    "meta/main.yml",
    "tasks/main.yml",
    "tasks/preflight.yml",
]


def read(role: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text()) or {}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_the_rooms_of_the_others(role: str) -> None:
    assert [room for room in ROOMS if not (ROOT / "roles" / role / room).is_file()] == []


@pytest.mark.parametrize("role", ROLES)
def test_the_specification_has_the_defaults(role: str) -> None:
    defaults = read(role, "defaults/main.yml")
    options = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    specified = {name: option.get("default") for name, option in options.items() if not option.get("required")}
    assert specified == defaults


@pytest.mark.parametrize("role", ROLES)
def test_public_names_begin_with_the_role(role: str) -> None:
    assert [name for name in read(role, "defaults/main.yml") if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_internal_names_begin_with_two_underscores(role: str) -> None:
    path = ROOT / "roles" / role / "vars" / "main.yml"
    names = yaml.safe_load(path.read_text()) if path.is_file() else {}
    assert [name for name in names if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_templates_say_that_they_are_managed(role: str) -> None:
    # JSON has no comments, an HTTP answer begins with its status; a name with "_" is a part of another template.
    templates = (ROOT / "roles" / role / "templates").rglob("*.j2")
    marked = [
        path for path in templates if not path.name.startswith("_") and not path.name.endswith((".json.j2", ".http.j2"))
    ]
    mark = "{{ ansible_managed | comment }}"
    assert [path.name for path in marked if mark not in path.read_text().split("\n", 2)[:2]] == []
