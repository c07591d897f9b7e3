# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts of other sources belong to which tier: the rules, compiled once and asked per host."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Protocol

from ansible_collections.scaleup.webstack.plugins.plugin_utils.expressions import MISSING, Expression
from ansible_collections.scaleup.webstack.plugins.plugin_utils.model import Matcher, Rule
from ansible_collections.scaleup.webstack.plugins.plugin_utils.problems import Path, Problems, show

_GLOB = re.compile(r"[*?\[]")
_PREFIX = re.compile(r"([^*?\[]+)\*\Z")  # web*: the commonest pattern, and three times as fast without re


class ConditionError(Exception):
    """A `when` could not be evaluated; the text says why, in one line."""


class Inventory(Protocol):
    """What is asked of the inventory as the earlier sources left it. All of it is read-only."""

    def hosts(self) -> Iterable[str]:
        """Names of all hosts, without localhost."""

    def groups(self) -> Iterable[str]:
        """Names of all groups."""

    def members(self, group: str) -> frozenset[str]:
        """Names of the hosts in a group and its children; empty when there is no such group."""

    def ancestors(self, group: str) -> frozenset[str]:
        """Names of the groups above a group."""

    def variable(self, host: str, name: str) -> Any:
        """A variable of a host as the sources set it on the host or on its groups, or MISSING."""

    def sets(self, name: str) -> bool:
        """Whether any host or group sets a variable: if none does, ten thousand hosts need not be asked."""

    def variables(self, host: str) -> Mapping[str, Any]:
        """All variables of a host."""

    def evaluate(self, text: str, variables: Mapping[str, Any]) -> Any:
        """The value of a Jinja expression. Raises ConditionError."""

    def sources(self) -> list[str]:
        """The sources read before this one."""


@dataclass(slots=True)
class _Failure:
    """The first host for which a `when` failed, and how many there were."""

    host: str
    message: str
    count: int = 1


class Classifier:
    """Asks the rules for the tier of a host."""

    def __init__(
        self,
        rules: Iterable[Rule],
        exclude: Iterable[Matcher],
        inventory: Inventory,
        declared_vars: Callable[[str], Mapping[str, Any]],
        strict: bool,
    ) -> None:
        """declared_vars: gives the variables that this file itself sets on a host; they win over other sources."""
        self._inventory = inventory
        self._declared_vars = declared_vars
        self._strict = strict
        self._answers: dict[str, dict[Hashable, Any]] = {}
        self._failures: dict[Path, _Failure] = {}
        self._rules = [(rule, self._compile(rule.matcher)) for rule in rules]
        self._exclude = [self._compile(matcher) for matcher in exclude]

    @property
    def tests(self) -> list[tuple[Rule, Callable[[str], Any]]]:
        """The rules in their order, each with a function that tells whether a host meets it."""
        return list(self._rules)

    def tier_rule(self, host: str) -> Rule | None:
        """The first rule that matches, or None."""
        for rule, test in self._rules:
            if test(host):
                return rule
        return None

    def excluded(self, host: str) -> bool:
        """Whether the rules must leave the host alone."""
        return any(test(host) for test in self._exclude)

    @property
    def has_exclusions(self) -> bool:
        """Whether it is worth asking."""
        return bool(self._exclude)

    def select(self, matcher: Matcher, hosts: Iterable[str]) -> list[str]:
        """The hosts that meet a matcher."""
        test = self._compile(matcher)
        return [host for host in hosts if test(host)]

    def report(self, problems: Problems) -> None:
        """Add a problem for each `when` that failed."""
        for path, failure in self._failures.items():
            more = f" (and {failure.count - 1} more)" if failure.count > 1 else ""
            problems.add(path, f"it fails for the host '{failure.host}'{more}: {failure.message}")

    # --- compiling ---

    def _compile(self, matcher: Matcher) -> Callable[[str], Any]:
        tests: list[Callable[[str], Any]] = []
        if matcher.name_patterns:
            tests.append(_name_test(matcher.name_patterns))
        if matcher.groups:
            tests.append(frozenset().union(*(self._inventory.members(group) for group in matcher.groups)).__contains__)
        if matcher.variable:
            tests.append(self._variable_test(matcher.variable, matcher.equals))
        if matcher.when is not None:
            tests.append(self._when_test((*matcher.path, "when"), matcher.when))
        if len(tests) == 1:
            return tests[0]
        return lambda host: all(test(host) for test in tests)

    def _value(self, host: str, name: str) -> Any:
        declared = self._declared_vars(host)
        if name in declared:
            return declared[name]
        return self._inventory.variable(host, name)

    def _variable_test(self, path: tuple[str, ...], equals: tuple[Any, ...]) -> Callable[[str], bool]:
        wanted = {_comparable(value) for value in equals}
        root, rest = path[0], path[1:]

        def test(host: str) -> bool:
            value = self._value(host, root)
            for part in rest:
                if not isinstance(value, Mapping):
                    return False
                value = value.get(part, MISSING)
            if isinstance(value, list | tuple):  # a variable that holds a list matches by any of its items
                return any(_comparable(item) in wanted for item in value)
            return value is not MISSING and _comparable(value) in wanted

        return test

    def _when_test(self, path: Path, expression: Expression) -> Callable[[str], bool]:
        answers = self._answers.setdefault(expression.text, {})
        per_host = not expression.pure or "inventory_hostname" in expression.roots

        def test(host: str) -> bool:
            key = None if per_host else expression.key(lambda name: self._value(host, name))
            answer = answers.get(key, MISSING) if key is not None else MISSING
            if answer is MISSING:
                answer = self._ask(expression, host, complete=key is None)
                if key is not None:
                    answers[key] = answer
            if isinstance(answer, bool):
                return answer
            message, always = answer
            if always or self._strict:
                failure = self._failures.get(path)
                if failure is None:
                    self._failures[path] = _Failure(host, message)
                else:
                    failure.count += 1
            return False

        return test

    def _ask(self, expression: Expression, host: str, complete: bool) -> bool | tuple[str, bool]:
        """The answer for one host, or (what went wrong, whether that is an error even without `strict`)."""
        if complete:  # something in it may refer to any other variable
            variables = {**self._inventory.variables(host), "inventory_hostname": host, **self._declared_vars(host)}
        else:
            values = {name: self._value(host, name) for name in expression.roots}
            variables = {name: value for name, value in values.items() if value is not MISSING}
        try:
            answer = self._inventory.evaluate(expression.text, variables)
        except ConditionError as error:
            return f"{error}; give it a default, or set `strict: false` to take a failure as no match", False
        if isinstance(answer, bool):
            return answer
        return f"it gives {show(answer)} and not true or false; compare the value, or add `| bool`", True


def _name_test(patterns: tuple[str, ...]) -> Callable[[str], Any]:
    """Names by glob or, after '~', by regular expression matched at the start: as in Ansible's host patterns."""
    if not any(pattern.startswith("~") or _GLOB.search(pattern) for pattern in patterns):
        return frozenset(patterns).__contains__
    compiled = [_pattern_test(pattern) for pattern in patterns]
    if len(compiled) == 1:
        return compiled[0]
    return lambda host: any(match(host) for match in compiled)


def _pattern_test(pattern: str) -> Callable[[str], Any]:
    if pattern.startswith("~"):
        return re.compile(pattern[1:]).match
    if prefix := _PREFIX.match(pattern):
        return methodcaller("startswith", prefix[1])
    return re.compile(fnmatch.translate(pattern)).match


def _comparable(value: Any) -> Hashable:
    """Values as they are compared: a number equals its text (tags are text), a boolean only a boolean."""
    if isinstance(value, bool) or value is None:
        return (value.__class__, value)
    return str(value)
