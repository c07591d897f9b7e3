"""Which settings of the option file differ from those of the running server."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.modules import mysql_settings


@pytest.mark.parametrize(
    ("written", "running"),
    [
        ("256M", "268435456"),
        ("1G", 1073741824),
        ("ON", "1"),
        ("off", 0),
        (True, "ON"),
        (10, "10.000000"),
        ("0.5", 0.5),
        ("AFTER_SYNC", "after_sync"),
        ("/etc/mysql/webstack/ca.pem", "/etc/mysql/webstack/ca.pem"),
    ],
)
def test_the_same_value_is_recognized_however_it_is_written(written: Any, running: Any) -> None:
    assert mysql_settings.normal(written) == mysql_settings.normal(running)


@pytest.mark.parametrize(("written", "running"), [("256M", "256"), ("ON", "OFF"), (2, 20), ("a", "b")])
def test_another_value_is_noticed(written: Any, running: Any) -> None:
    assert mysql_settings.normal(written) != mysql_settings.normal(running)


class Session:
    """A server with one variable; enumerations take words only."""

    def __init__(self, value: Any, error: int = 0) -> None:
        self.value, self.error, self.sent = value, error, None

    def one(self, statement: str) -> dict[str, Any]:
        return {"value": self.value}

    def run(self, statement: str, values: Any) -> list[dict[str, Any]]:
        if self.error:
            raise mysql_settings.mysql_server.ServerError(f"no (MySQL error {self.error})")
        self.sent = self.value = values[0]
        return []


@pytest.mark.parametrize(("value", "sent"), [("ON", "ON"), ("1M", 1048576), (5, 5), ("AFTER_SYNC", "AFTER_SYNC")])
def test_words_stay_words_and_sizes_become_numbers(value: Any, sent: Any) -> None:
    session = Session("before")
    assert mysql_settings._set(session, "x", mysql_settings.normal(value), value) is True  # type: ignore[arg-type]
    assert session.sent == sent and type(session.sent) is type(sent)


def test_what_only_a_restart_changes_is_told_from_a_mistake() -> None:
    assert mysql_settings._set(Session("a", 1238), "x", "b", "b") is None  # type: ignore[arg-type]
    with pytest.raises(mysql_settings.mysql_server.ServerError, match="x = b"):
        mysql_settings._set(Session("a", 1231), "x", "b", "b")  # type: ignore[arg-type]
