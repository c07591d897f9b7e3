"""The playbook status: a whole site is called whole, and what is wrong is named with its host and an exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from labtest import wait_for
from visiting import VIPS, lab, play, whole


def status(folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """The exit code, what a machine reads, and what a human reads."""
    found, page = folder / "status.json", folder / "status.html"
    done = play("status", "-e", f"status_json={found}", "-e", f"status_html={page}", *options)
    assert found.exists(), done.stdout[-2000:]
    assert page.read_text().startswith("<!doctype html>")
    return done.returncode, json.loads(found.read_text()), done.stdout


def test_a_whole_site_is_called_whole(tmp_path: Path) -> None:
    wait_for(whole, 60)
    code, found, text = status(tmp_path)
    assert (code, found["problems"]) == (0, []), text[-3000:]
    assert "The site is whole." in text
    assert {vip["name"]: len(vip["holders"]) for vip in found["vips"]} == dict.fromkeys(VIPS, 1)
    assert len({row["what"][0] for row in found["hosts"] if row["tier"] == "app"}) == 1
    nodes = {node["name"]: node for node in found["database"]["nodes"]}
    assert nodes["db1"]["semi_sync"] and nodes["db2"]["source"] == "db1" and nodes["db2"]["lag"] <= 10
    assert all(300 < row["certificate_days"] < 400 for row in found["hosts"])
    # It asked only: the play has no host that it changed.
    assert "changed=0" in text and not [line for line in text.splitlines() if "changed=1" in line]


@pytest.mark.usefixtures("healed")
def test_what_is_wrong_is_named_with_its_host(tmp_path: Path) -> None:
    lab.host("web1").check_output("systemctl stop nginx")
    lab.host("db2").check_output("mysql -e 'STOP REPLICA SQL_THREAD'")
    lab.kill("app2")
    try:
        wait_for(lambda: "DOWN" in lab.host("lb1").check_output("haproxy-servers show | grep -w 'app2'"), 20)
        code, found, text = status(tmp_path)
    finally:
        lab.host("db2").check_output("mysql -e 'START REPLICA'")
        lab.start("app2")
    assert code == 2, text[-3000:]
    assert {problem["host"] for problem in found["problems"]} == {"web1", "db2", "app2"}, found["problems"]
    said = "\n".join(problem["text"] for problem in found["problems"])
    for words in ("web1: nginx.service is inactive", "app2: could not be asked", "db2: replication does not run"):
        assert words in said and words in text
    if not shutil.which("chromium"):
        return
    picture = tmp_path / "status.png"
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    page = f"file://{tmp_path}/status.html"
    subprocess.run([*browser, f"--screenshot={picture}", page], check=True, timeout=90, capture_output=True)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
