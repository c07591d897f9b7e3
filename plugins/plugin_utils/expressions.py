# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Jinja `when` depends on: so that hosts with the same values are asked once, not one by one.

Ansible compiles a condition anew for every host (milliseconds); over ten thousand hosts it usually has a handful of
different inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

# Filters whose result is not given by their input.
_IMPURE_FILTERS = frozenset({"random", "shuffle", "random_mac", "to_uuid", "expandvars", "fileglob", "realpath"})
# Tests that look at the world outside.
_IMPURE_TESTS = frozenset({"file", "directory", "exists", "link", "link_exists", "mount", "abs", "same_file"})

_ENVIRONMENT = Environment(autoescape=True)  # only parses, renders nothing

MISSING: Any = type("Missing", (), {"__repr__": lambda _self: "MISSING", "__bool__": lambda _self: False})()


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed `when`.

    text: as written, with the trust that Ansible's loader gave it. roots: the variables that it reads. paths: how far
    into them it looks (`tags.Role`). pure: whether equal inputs give equal answers (no lookups, no clock, no dice).
    """

    text: str
    roots: tuple[str, ...]
    paths: tuple[tuple[str | int, ...], ...]
    pure: bool

    def key(self, value_of: Callable[[str], Any]) -> Hashable | None:
        """What the answer depends on for one host, or None when it must be asked on its own.

        value_of: gives the host's variable, or MISSING. A value that is a template itself needs all other variables.
        """
        parts: list[Hashable] = []
        for path in self.paths:
            value = value_of(str(path[0]))
            depth = 1
            for part in path[1:]:
                # Jinja finds a method (tags.get, tags.items) before an item: then the whole mapping counts.
                if not isinstance(value, Mapping) or hasattr(dict, str(part)):
                    break
                value = value.get(part, MISSING)
                depth += 1
            if isinstance(value, Mapping | list | tuple):
                value = repr(value)
            if isinstance(value, str):
                if "{{" in value or "{%" in value:
                    return None
            elif value is not MISSING and value is not None and not isinstance(value, bool | int | float):
                return None
            parts += (value.__class__, value, depth)
        return tuple(parts)


def parse_expression(text: str) -> Expression | str:
    """The expression, or what Jinja has against it."""
    try:
        tree = _ENVIRONMENT.parse("{{ " + str(text) + " }}")
    except TemplateSyntaxError as error:
        return str(error.message)
    except (RecursionError, ValueError, OverflowError) as error:
        return f"too complex ({error})"
    if not str(text).strip():
        return "it is empty"
    # All names: an expression assigns none. (jinja2.meta would have to know Ansible's filters and tests.)
    roots = {name.name for name in tree.find_all(nodes.Name)}
    pure = True
    for call in tree.find_all(nodes.Call):
        pure = pure and not isinstance(call.node, nodes.Name)  # lookup(), query(), now()
    for filter_ in tree.find_all(nodes.Filter):
        pure = pure and filter_.name.rpartition(".")[2] not in _IMPURE_FILTERS
    for test in tree.find_all(nodes.Test):
        pure = pure and test.name.rpartition(".")[2] not in _IMPURE_TESTS
    paths: set[tuple[str | int, ...]] = set()
    inner: set[int] = set()  # nodes that are part of a longer path
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):
        if id(node) in inner:
            continue
        path: list[str | int] = []
        current: nodes.Node = node
        while isinstance(current, nodes.Getattr | nodes.Getitem):
            if isinstance(current, nodes.Getattr):
                path.insert(0, current.attr)
            elif isinstance(current.arg, nodes.Const) and isinstance(current.arg.value, str | int):
                path.insert(0, current.arg.value)
            else:
                path.clear()  # a computed key: the whole value counts
            inner.add(id(current))
            current = current.node
        if isinstance(current, nodes.Name):
            inner.add(id(current))
            paths.add((current.name, *path))
    return Expression(text, tuple(sorted(roots)), tuple(sorted(paths, key=repr)), pure)
