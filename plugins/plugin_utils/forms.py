# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads values of a form; whatever has another one is a problem, and is read as nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.addresses import parse_address
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Path, Problems, did_you_mean, names, show


class Forms:
    """Readers for the forms that a configuration has: each gives the value, or adds a problem."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def mapping(
        self, path: Path, value: object, keys: tuple[str, ...], what: str, example: str = ""
    ) -> Mapping[str, Any] | None:
        """The mapping at `path`; its unknown keys are problems. None when it is no mapping."""
        if not isinstance(value, Mapping):
            like = f" like {example}" if example else f" with {names(keys)}"
            self.problems.add(path, f"expected a mapping{like}, got {show(value)}")
            return None
        for key in value:
            if key not in keys:
                self.problems.add(
                    (*path, key_text(key)),
                    f"{what} has no key '{key_text(key)}' (known: {names(keys)})." + did_you_mean(key, keys),
                )
        return value

    def items(self, path: Path, value: object) -> list[tuple[Path, object]]:
        """The items of a list with their paths; None is an empty list."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.problems.add(path, f"expected a list, got {show(value)}: begin each entry with '- '")
            return []
        return [((*path, index), item) for index, item in enumerate(value)]

    def texts(self, path: Path, value: object, what: str) -> tuple[str, ...]:
        """One text, or a list of them."""
        items = value if isinstance(value, list) else [value]
        if not items:
            self.problems.add(path, f"expected {what}, got an empty list")
        for item in items:
            if not isinstance(item, str) or not item:
                self.problems.add(path, f"expected {what}, or a list of them, got {show(item)}")
                return ()
        return tuple(str(item) for item in items)

    def scalars(self, path: Path, value: object) -> tuple[Any, ...]:
        """One plain value, or a list of them."""
        items = value if isinstance(value, list) else [value]
        if not items:
            self.problems.add(path, "expected a value, or a list of values, got an empty list")
        for item in items:
            if isinstance(item, Mapping | list):
                self.problems.add(path, f"expected a plain value, or a list of them, got {show(item)}")
                return ()
        return tuple(items)

    def boolean(self, path: Path, value: object, default: bool) -> bool:
        if isinstance(value, bool):
            return value
        self.problems.add(path, f"expected true or false, got {show(value)}")
        return default

    def choice(self, path: Path, value: object, choices: tuple[str, ...]) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        self.problems.add(path, f"expected {names(choices[:-1])} or {choices[-1]}, got {show(value)}")
        return choices[0]

    def integer(self, path: Path, value: object, low: int, high: int, required: bool = False) -> int | None:
        """A whole number in low..high; None when there is none."""
        if value is None and not required:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problems.add(path, f"expected a whole number from {low} to {high}, got {show(value)}")
            return None
        return int(value)

    def required_text(self, path: Path, data: Mapping[str, Any], key: str, example: str) -> str | None:
        value = data.get(key)
        if value is None:
            self.problems.add(path, f"'{key}' is missing: add it, {example}")
            return None
        if not isinstance(value, str) or not value:
            self.problems.add((*path, key), f"expected text, {example}, got {show(value)}")
            return None
        return str(value)

    def required_address(self, path: Path, data: Mapping[str, Any], key: str, example: str) -> int | None:
        if data.get(key) is None:
            self.problems.add(path, f"'{key}' is missing: add it, {example}")
            return None
        return self.address((*path, key), data[key])

    def address(self, path: Path, value: object) -> int | None:
        key = parse_address(value)
        if key is None:
            self.problems.add(path, no_address(value))
        return key


def key_text(key: object) -> str:
    """A key as it stands in the file."""
    if key is None:
        return "null"
    return str(key).lower() if isinstance(key, bool) else str(key)


def no_address(value: object) -> str:
    if isinstance(value, str) and "/" in value:
        address, _slash, _prefix = value.partition("/")
        if parse_address(address) is not None:
            return f"{show(value)} has a prefix length: write the address alone, {address}"
    return f"{show(value)} is no IPv4 or IPv6 address"
