"""The state that survives a reload: what HAProxy may go on believing, and what the new configuration changed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[3] / "roles" / "haproxy_keepalived" / "files" / "haproxy-servers"

HEADER = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_use_ssl srv_port
"""
CONFIG = """
defaults
    server ignored 10.0.0.1:1
backend web
    balance roundrobin
    server web1 10.0.0.21:443 check ssl verify required
    server web2 [fd00::22]:443 check ssl
backend app
    server app1 10.0.0.31:8000 check
frontend https
    default_backend web
"""


def test_servers_are_read_from_backends_only(program: ModuleType) -> None:
    assert program.configured(CONFIG) == {
        ("web", "web1"): ("10.0.0.21:443", True),
        ("web", "web2"): ("[fd00::22]:443", True),
        ("app", "app1"): ("10.0.0.31:8000", False),
    }


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("7 web 1 web1 10.0.0.21 2 8 1 443", True),
        ("7 web 2 web2 fd00::22 2 8 1 443", True),
        ("8 app 1 app1 10.0.0.31 0 0 0 8000", True),
        ("7 web 1 web1 10.0.0.99 2 8 1 443", False),
        ("7 web 1 web1 10.0.0.21 2 8 1 8443", False),
        ("7 web 1 web1 10.0.0.21 2 8 0 443", False),
        ("7 web 3 web3 10.0.0.23 2 8 1 443", False),
        ("9 old 1 web1 10.0.0.21 2 8 1 443", False),
    ],
    ids=["same", "same by IPv6", "plain", "address", "port", "tls", "server gone", "backend gone"],
)
def test_what_the_configuration_changed_is_forgotten(program: ModuleType, row: str, kept: bool) -> None:
    assert program.still_true(HEADER + row + "\n", CONFIG) == HEADER + (row + "\n" if kept else "")


def test_statistics_are_read_by_name(program: ModuleType) -> None:
    stat = "# pxname,svname,scur,status,type,\nweb,FRONTEND,1,OPEN,0,\nweb,web1,3,UP,2,\nweb,BACKEND,3,UP,1,\n"
    assert [(row["svname"], row["scur"]) for row in program.servers(stat)] == [("web1", "3")]


def test_a_server_that_is_drained_and_down_is_drained(program: ModuleType) -> None:
    rows = "7 web 1 web1 10.0.0.21 0 8 1 443\n7 web 2 web2 10.0.0.22 0 0 1 443\n8 app 1 app1 10.0.0.31 2 9 0 8000\n"
    assert program.drained(HEADER + rows) == {("web", "web1"), ("app", "app1")}


@pytest.mark.parametrize(
    ("row", "counted"),
    [
        ("733             master          1 [failed: 0]   0d00h03m13s     2.6.12-1+deb12u4", (1, 0)),
        ("928             master          12 [failed: 2]  0d00h08m01s     3.0.11-1+deb13u5", (12, 2)),
    ],
    ids=["HAProxy 2.6", "HAProxy 3.0"],
)
def test_the_master_says_whether_a_reload_failed(program: ModuleType, row: str, counted: tuple[int, int]) -> None:
    text = f"#<PID>          <type>          <reloads>\n{row}\n# workers\n1 worker 3 0d 3\n"
    assert program.reloads(text) == counted


def test_an_answer_of_the_master_that_is_not_understood_is_said(program: ModuleType) -> None:
    with pytest.raises(OSError, match="not understood"):
        program.reloads("")
