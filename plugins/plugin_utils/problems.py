# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong in a configuration file, said so that an operator can mend it: file, line, key, and what to write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

# Beyond this many lines a terminal no longer helps; the rest is counted.
MAX_SHOWN = 100

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `path` leads to the key in the file, `message` says what is wrong and what to write."""

    path: Path
    message: str


@dataclass(slots=True)
class Problems:
    """Collects problems, so that all of them are told at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, path: Path, message: str) -> None:
        """Note one problem, once: a key that is wrong for two hosts in the same words is one problem."""
        problem = Problem(path, message)
        if problem not in self.found[-MAX_SHOWN:]:
            self.found.append(problem)

    def __bool__(self) -> bool:
        return bool(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.found)

    def under(self, path: Path) -> bool:
        """Whether anything at or below `path` is wrong: what follows from it is then not worth a second message."""
        return any(problem.path[: len(path)] == path for problem in self.found)


class SourceLines:
    """Finds the line of a key in the YAML text of a file.

    It reads the text with PyYAML's composer, which builds no values: the data itself comes from Ansible's loader,
    whose way of keeping positions differs between its versions.
    """

    def __init__(self, text: str) -> None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._root: yaml.Node | None
        try:
            self._root = yaml.compose(text, Loader=loader)
        except (yaml.YAMLError, RecursionError, ValueError):  # Ansible's loader has refused it, or it is encrypted
            self._root = None

    def line(self, path: Path) -> int | None:
        """Line (from 1) of the key at `path`, or of its nearest parent that is in the file; None without positions."""
        node = self._root
        if node is None:
            return None
        line: int = node.start_mark.line + 1
        for part in path:
            if isinstance(node, yaml.MappingNode) and (entry := self._entry(node, part)):
                line, node = entry[0].start_mark.line + 1, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return line

    @staticmethod
    def _entry(node: yaml.MappingNode, key: str | int) -> tuple[yaml.Node, yaml.Node] | None:
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == str(key):
                return key_node, value_node
        for key_node, value_node in node.value:  # keys that come through a merge (<<: *anchor)
            if key_node.tag == "tag:yaml.org,2002:merge" and isinstance(value_node, yaml.MappingNode):
                return SourceLines._entry(value_node, key)
        return None

    def duplicate_keys(self) -> Iterator[tuple[Path, int, int]]:
        """Keys that stand twice in one mapping (path, first line, second line): YAML would keep the last, silently."""
        seen_nodes: set[int] = set()
        pending: list[tuple[Path, yaml.Node]] = [((), self._root)] if self._root is not None else []
        while pending:
            path, node = pending.pop()
            if id(node) in seen_nodes:  # an alias; YAML allows one to contain itself
                continue
            seen_nodes.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                pending.extend(((*path, index), item) for index, item in enumerate(node.value))
            elif isinstance(node, yaml.MappingNode):
                first: dict[str, int] = {}
                for key_node, value_node in node.value:
                    if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                        continue
                    key, line = key_node.value, key_node.start_mark.line + 1
                    if key in first:
                        yield (*path, key), first[key], line
                    first.setdefault(key, line)
                    if not isinstance(value_node, yaml.ScalarNode):
                        pending.append(((*path, key), value_node))


def path_text(path: Path) -> str:
    """The path as an operator would write it: `tiers.db.primary`, `vips[1].address`, `tiers.db.hosts['db[1:2]']`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            text += f".{part}" if text else f"{part}"
        else:
            text += f"[{show(part)}]"
    return text


def show(value: Any, limit: int = 60) -> str:
    """A value from the file in one short line, in quotes where it is text."""
    if isinstance(value, str):
        text = str(value).replace("\n", "\\n")
        return f"'{text[:limit]}…'" if len(text) > limit else f"'{text}'"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"the value {str(value)[:limit]}"


def names(values: Iterable[Any], limit: int = 10) -> str:
    """Names in one line, shortened after `limit` of them."""
    listed = [str(value) for value in values]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` (with a leading space) when one of the known words is close, else nothing."""
    # Only a few words are compared: difflib is quadratic, and a list of 10,000 hosts is no help to anyone.
    candidates = [str(item) for _index, item in zip(range(500), known, strict=False)]
    close = difflib.get_close_matches(str(word), candidates, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def report(problems: Problems, source: str, lines: SourceLines) -> str:
    """The whole message: one line per problem, each as `file:line: key: what is wrong`, in the order of the file."""
    located = [(lines.line(problem.path) or 0, index, problem) for index, problem in enumerate(problems)]
    located.sort(key=lambda item: item[:2])
    count = f"{len(located)} problems" if len(located) != 1 else "1 problem"
    text = [f"{count} in {source}, nothing of it was added to the inventory:"]
    for line, _index, problem in located[:MAX_SHOWN]:
        where = f"{source}:{line}" if line else source
        key = path_text(problem.path)
        text.append(f"{where}: {key}: {problem.message}" if key else f"{where}: {problem.message}")
    if len(located) > MAX_SHOWN:
        text.append(f"… and {len(located) - MAX_SHOWN} more of them.")
    return "\n".join(text)
