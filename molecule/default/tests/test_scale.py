"""Tiers that grow and shrink: visitors notice nothing, and nobody changes who need not know."""

from __future__ import annotations

import re
import subprocess

import pytest
from labtest import wait_for
from visiting import HOSTS, INVENTORY, PUBLIC, ROOT, SITE, lab, play, served_by, traffic, visitor, whole


def scale(size: str) -> dict[str, int]:
    """Run ./lab scale; host to what changed on it."""
    done = subprocess.run([ROOT / "lab", "scale", size], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = sorted((INVENTORY.parent / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", logs[-1].read_text(), re.MULTILINE)
    return {host: int(changed) for host, changed in recap}


@pytest.mark.thorough
@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize(
    ("tier", "label", "uninvolved"), [("web", "Web server", ("db", "web")), ("app", "Application", ("app",))]
)
def test_a_tier_grows_and_shrinks(tier: str, label: str, uninvolved: tuple[str, ...]) -> None:
    def serving() -> set[str]:
        pages = [visitor(vip).get(f"https://{SITE}/", timeout=5).text for vip in PUBLIC for _ in range(12)]
        return {served_by(page)[label] for page in pages}

    with traffic() as visitors:
        for size in (3, 2):
            changed = scale(f"{tier}={size}")
            wait_for(lambda size=size: serving() == {f"{tier}{number}" for number in range(1, size + 1)}, 60)
            # Those who need not know: other tiers, and the hosts of the tier itself.
            others = {name: changed[name] for name in changed if name in HOSTS and name.startswith(uninvolved)}
            assert set(others.values()) <= {0}, changed
    assert visitors.failures == [], visitors.summary()
    wait_for(whole, 60)
    assert f"{tier}3" not in lab.host("lb1").check_output("haproxy-servers show")


@pytest.mark.parametrize("host", ["lb1", "nobody1"])
def test_the_last_hosts_of_a_tier_stay(host: str) -> None:
    done = play("decommission", "-e", f"host={host}")
    assert done.returncode != 0 and "say which host" in " ".join(done.stdout.split()), done.stdout[-2000:]


@pytest.mark.thorough
@pytest.mark.usefixtures("healed")
def test_an_event_happens() -> None:
    """`./lab chaos`: the promise of the event itself is the report's business; the site is whole after it."""
    done = subprocess.run([ROOT / "./lab", "chaos", "app1 killed"], capture_output=True, text=True)
    assert "app1 killed: " in done.stdout, done.stdout + done.stderr
    wait_for(whole, 60)
