"""Fixtures of the tests of the whole site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from labtest import wait_for
from visiting import HOSTS, lab, whole


@pytest.fixture
def healed() -> Iterator[None]:
    """What a test stopped is started again, and the site is whole before the next."""
    yield
    for name in HOSTS:
        if lab.docker("inspect", "--format", "{{.State.Running}}", lab.container(name)) != "true":
            lab.start(name)
    for name, unit in (("lb", "haproxy"), ("web", "nginx"), ("app", "gunicorn-guestbook.socket")):
        for number in (1, 2):
            lab.host(f"{name}{number}").run(f"systemctl start {unit}")
    wait_for(whole, 60)
