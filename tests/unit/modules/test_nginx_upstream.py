"""Which lines of a configuration a drained server is marked in."""

from __future__ import annotations

import subprocess
import time

from ansible_collections.scaleup.webstack.plugins.modules.nginx_upstream import begun, marked

CONFIGURATION = """
upstream site {
    zone upstream_site 64k;
    server 198.18.0.31:8000 max_fails=3 fail_timeout=5s; # app1
    server 198.18.0.32:8000 max_fails=3 fail_timeout=5s; # app2
    server 198.18.0.31:8000 max_fails=0 backup; # app1
    server 198.18.0.33:8000; # app11
}
server { listen 443; } # app1
"""


def test_every_line_of_the_server_and_no_other() -> None:
    drained = marked(CONFIGURATION, "app1", True)
    assert [line for line in drained.splitlines() if " down;" in line] == [
        "    server 198.18.0.31:8000 max_fails=3 fail_timeout=5s down; # app1",
        "    server 198.18.0.31:8000 max_fails=0 backup down; # app1",
    ]


def test_there_and_back_is_what_it_was() -> None:
    drained = marked(CONFIGURATION, "app1", True)
    assert marked(drained, "app1", True) == drained
    assert marked(drained, "app1", False) == CONFIGURATION
    assert marked(CONFIGURATION, "app1", False) == CONFIGURATION


def test_a_name_is_no_pattern() -> None:
    assert marked(CONFIGURATION, "app.", True) == CONFIGURATION


def test_when_a_process_began() -> None:
    before = time.time()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            time.sleep(0.3)
            assert before - 0.05 <= begun(process.pid) <= before + 0.25
        finally:
            process.kill()
