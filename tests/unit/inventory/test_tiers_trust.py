"""Strings that the plugin sets have the trust of a playbook, by core's quick way and by its public one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.scaleup.webstack.plugins.inventory import tiers

template = pytest.importorskip("ansible.template")
if not hasattr(template, "trust_as_template"):
    pytest.skip("strings carry no trust before ansible-core 2.19", allow_module_level=True)


def quick() -> Callable[[str], str]:
    return tiers._stamp(template.trust_as_template(""))


@pytest.mark.parametrize("stamp", [quick, lambda: tiers._stamp("no tagged string")], ids=["quick", "public"])
def test_a_stamped_string_is_trusted_and_is_the_same_text(stamp: Callable[[], Callable[[str], str]]) -> None:
    stamped = stamp()("10.0.0.{{ number }}")
    assert stamped == "10.0.0.{{ number }}"
    assert template.is_trusted_as_template(stamped)
    assert {stamped: 1}["10.0.0.{{ number }}"] == 1


def test_the_quick_way_is_taken_where_core_is_as_known() -> None:
    """When this fails, core's tagged strings have changed: nothing breaks, the plugin is slower."""
    assert quick() is not template.trust_as_template


def test_strings_that_core_trusts_already_are_left_alone() -> None:
    value, text = tiers._trust([template.trust_as_template("a source")])
    assert value is text
    given = "10.0.0.1"
    assert text(given) is given
