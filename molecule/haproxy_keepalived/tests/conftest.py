"""Every test starts from, and leaves, a whole cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labtest import wait_for

sys.path.insert(0, str(Path(__file__).parent))

from cluster import ADDRESS, at_home, lab, running


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    """Each balancer has its own VIP, before and after."""
    wait_for(at_home, 60)
    yield
    for name in ADDRESS:
        if not running(name):
            lab.start(name)
        lab.mend(name)
        lab.host(name).run("pkill -CONT -x haproxy; systemctl start haproxy keepalived")
    wait_for(at_home, 60)
