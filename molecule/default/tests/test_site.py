"""The whole site as a visitor sees it, while its machines fail one by one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from labtest import wait_for
from visiting import AUTHORITY, HOSTS, INVENTORY, PUBLIC, ROOT, SITE, lab, played, served_by, traffic, visitor, whole


@pytest.mark.parametrize("vip", PUBLIC)
def test_the_page_comes_through_each_vip_with_a_certificate_that_verifies(vip: str) -> None:
    page = visitor(vip).get(f"https://{SITE}/", timeout=5)
    assert page.status_code == 200
    parts = served_by(page.text)
    assert parts["Balancer"] in ("lb1", "lb2")
    assert parts["Web server"] in ("web1", "web2")
    assert parts["Application"] in ("app1", "app2")
    assert parts["Database, writes"] == "db1"
    assert parts["Database, reads"] == "db2"


def test_two_vips_are_served_by_two_balancers() -> None:
    balancers = [served_by(visitor(vip).get(f"https://{SITE}/", timeout=5).text)["Balancer"] for vip in PUBLIC]
    assert sorted(balancers) == ["lb1", "lb2"]


def test_static_files_come_from_the_web_tier() -> None:
    for name, kind in (("style.css", "text/css"), ("logo.svg", "image/svg+xml")):
        answer = visitor(PUBLIC[0]).get(f"https://{SITE}/static/{name}", timeout=5)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith(kind)
        assert "X-Served-By-App" not in answer.headers


def test_a_row_written_through_a_vip_is_read_back_from_the_replica() -> None:
    token = str(uuid.uuid4())
    entry = {"author": "test", "message": "hello", "token": token}
    written = visitor(PUBLIC[0]).post(f"https://{SITE}/entries", json=entry, timeout=5)
    assert written.status_code == 201
    assert written.json()["database"] == "db1"

    def read_back() -> bool:
        answer = visitor(PUBLIC[1]).get(f"https://{SITE}/entries", timeout=5).json()
        return answer["database"] == "db2" and token in [row["token"] for row in answer["entries"]]

    wait_for(read_back, 10)


@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize(
    ("host", "event", "allowed"),
    [
        ("lb1", lambda: lab.host("lb1").run("systemctl stop haproxy"), 1.5),
        ("web1", lambda: lab.host("web1").run("systemctl stop nginx"), 0.0),
        ("app1", lambda: lab.host("app1").run("systemctl stop 'gunicorn-guestbook.*'"), 0.0),
        ("web2", lambda: lab.kill("web2"), 0.0),
        ("app2", lambda: lab.kill("app2"), 0.0),
    ],
    ids=["haproxy stopped", "nginx stopped", "application stopped", "web server killed", "app server killed"],
)
def test_the_site_goes_on_without_one_machine(host: str, event: Callable[[], object], allowed: float) -> None:
    with traffic() as visitors:
        time.sleep(2)
        event()
        time.sleep(8)
        settled = time.monotonic()
        time.sleep(2)
    reads = [failure for failure in visitors.failures if failure.method == "GET"]
    assert [failure for failure in visitors.failures if failure.due > settled] == [], visitors.summary()
    assert visitors.outage() <= allowed or not reads, visitors.summary()


def test_a_run_limited_to_one_tier_changes_nothing() -> None:
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", played("site", "--limit", "web"), re.MULTILINE)
    assert sorted(recap) == [("web1", "0"), ("web2", "0")]


@pytest.mark.parametrize("mode", ["offload", "passthrough"])
def test_one_variable_changes_how_the_whole_site_does_tls(mode: str) -> None:
    try:
        played("site", "--limit", "lb:web", "-e", f"webstack_tls_mode={mode}")
        for vip in PUBLIC:
            parts = wait_for(lambda vip=vip: served_by(visitor(vip).get(f"https://{SITE}/", timeout=5).text), 20)
            assert parts["Database, writes"] == "db1"
        # From a balancer: the firewall lets nobody else in.
        plain = lab.host("lb1").run(f"curl -s --max-time 3 http://{HOSTS['web1']['tier_address']}/nginx-healthz")
        assert (plain.rc == 0) == (mode == "offload")
    finally:
        played("site", "--limit", "lb:web")
    wait_for(whole, 60)


def test_no_secret_is_shown_or_readable() -> None:
    secrets = [path.read_text().strip() for path in (INVENTORY / ".secrets").iterdir()]
    assert len(secrets) >= 2
    for name in HOSTS:
        host = lab.host(name)
        told = host.run("journalctl --no-pager --output cat; cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
        patterns = " ".join(f"-e {secret}" for secret in secrets)
        files = "find /etc /srv /var /usr/local -xdev -type f -perm -o=r -size -1M"
        readable = host.run(f"{files} -exec grep -lF {patterns} {{}} +")
        assert [secret for secret in secrets if secret in told] == [], f"{name} tells a secret"
        assert readable.stdout == "", f"{name} has a secret in a file for everybody"


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine: apt-get install chromium")
def test_a_browser_shows_the_page_with_its_style_and_image(tmp_path: Path) -> None:
    """The screenshot in the README; SCREENSHOT=path keeps a new one."""
    picture = Path(os.environ.get("SCREENSHOT", tmp_path / "page.png"))
    program = str(ROOT / "tests" / "screenshot.py")
    subprocess.run([sys.executable, program, f"https://{PUBLIC[0]}/", AUTHORITY, str(picture)], check=True)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
