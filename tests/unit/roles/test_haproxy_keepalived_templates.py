"""What the balancers' templates say, rendered for the example site without any host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FACTS = {"distribution_major_version": "13", "default_ipv4": {"interface": "ens3"}}
TEMPLATES = ["haproxy.cfg.j2", "keepalived.conf.j2"]


def render(to: Path, limit: str = "lb", **variables: Any) -> dict[str, str]:
    """File name to text, ``lb1-haproxy.cfg`` and so on."""
    settings: dict[str, Any] = {
        "render_role": str(ROOT / "roles" / "haproxy_keepalived"),
        "render_templates": TEMPLATES,
        "render_facts": FACTS,
        "render_to": str(to),
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    extra = json.dumps(settings | variables)
    words = [program, "-i", ROOT / "inventory" / "site.tiers.yml", "-e", extra, "--limit", limit]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    playbook = Path(__file__).with_name("render.yml")
    done = subprocess.run([*map(str, words), str(playbook)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path.read_text() for path in to.iterdir()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("site"))


def section(text: str, head: str) -> list[str]:
    """The lines of one section of haproxy.cfg."""
    match = re.search(rf"^{re.escape(head)}\n((?:[ \t].*\n|\n)*)", text, re.MULTILINE)
    assert match, f"no section {head}"
    return [line.strip() for line in match[1].splitlines() if line.strip() and not line.strip().startswith("#")]


def instance(text: str, name: str) -> str:
    match = re.search(rf"^vrrp_instance {name} {{\n(.*?)^}}", text, re.MULTILINE | re.DOTALL)
    assert match, f"no instance {name}"
    return match[1]


def test_priorities_are_mirrored_and_peers_are_unicast(site: dict[str, str]) -> None:
    for vip, (first, second) in {"public1": (250, 249), "public2": (249, 250)}.items():
        for host, priority, peer in (("lb1", first, "10.0.0.12"), ("lb2", second, "10.0.0.11")):
            text = instance(site[f"{host}-keepalived.conf"], vip)
            assert f"    priority {priority}\n" in text
            assert f"        {peer} min_ttl 255 max_ttl 255\n" in text
            assert "state BACKUP" in text
            assert "authentication" not in text


def test_public_vips_carry_http_and_the_internal_one_the_database(site: dict[str, str]) -> None:
    text = site["lb1-haproxy.cfg"]
    binds = [line for line in section(text, "frontend https") if line.startswith("bind")]
    assert [line.split()[1] for line in binds] == ["10.0.0.101:443", "10.0.0.102:443"]
    assert "bind 10.0.0.103:3306" in section(text, "frontend mysql_writer")
    reader = section(text, "frontend mysql_reader")
    assert "use_backend mysql_reader if { nbsrv(mysql_reader) gt 0 }" in reader
    assert "use_backend mysql_writer if { nbsrv(mysql_writer) gt 0 }" in reader
    # Without a primary, what the replica has is still read.
    assert "default_backend mysql_last" in reader
    assert section(text, "backend mysql_last")


def test_the_web_tier_is_spoken_to_by_name_and_verified(site: dict[str, str]) -> None:
    servers = [line for line in section(site["lb2-haproxy.cfg"], "backend web") if line.startswith("server")]
    assert [line.split()[1:3] for line in servers] == [["web1", "10.0.0.21:443"], ["web2", "10.0.0.22:443"]]
    assert all("verify required" in line and f"sni str({line.split()[1]})" in line for line in servers)


def test_a_limited_run_renders_the_same(site: dict[str, str], tmp_path: Path) -> None:
    limited = render(tmp_path, "lb2")
    assert limited == {name: text for name, text in site.items() if name.startswith("lb2-")}


def test_offload_speaks_plain_http_to_the_web_tier(tmp_path: Path) -> None:
    text = render(tmp_path, "lb1", webstack_tls_mode="offload")["lb1-haproxy.cfg"]
    servers = [line for line in section(text, "backend web") if line.startswith("server")]
    assert [line.split()[2] for line in servers] == ["10.0.0.21:80", "10.0.0.22:80"]
    assert not any("ssl" in line for line in servers)


def test_passthrough_leaves_tls_to_the_web_tier(tmp_path: Path) -> None:
    text = render(tmp_path, "lb1", webstack_tls_mode="passthrough")["lb1-haproxy.cfg"]
    assert "mode tcp" in section(text, "frontend https")
    assert not any("ssl crt" in line for line in section(text, "frontend https"))
    servers = [line for line in section(text, "backend web") if line.startswith("server")]
    assert servers and all("send-proxy-v2" in line for line in servers)


def test_debian_12_gets_no_curve_that_it_does_not_know(tmp_path: Path) -> None:
    facts = FACTS | {"distribution_major_version": "12"}
    text = render(tmp_path, "lb1", render_facts=facts)["lb1-haproxy.cfg"]
    assert "MLKEM" not in text


def test_routes_and_extra_lines_are_in_the_frontend(tmp_path: Path) -> None:
    routes = [{"host": "api.example.org", "path": "/v1/", "backend": "app"}, {"path": "/admin/", "backend": "app"}]
    variables = {"haproxy_keepalived_routes": routes, "haproxy_keepalived_extra_frontend": "option nolinger"}
    text = render(tmp_path, "lb1", **variables)["lb1-haproxy.cfg"]
    frontend = section(text, "frontend https")
    assert "use_backend app if { req.hdr(host),host_only -i api.example.org } { path_beg /v1/ }" in frontend
    assert "use_backend app if { path_beg /admin/ }" in frontend
    assert "option nolinger" in frontend


def test_the_challenges_of_an_authority_are_answered_before_the_redirect(tmp_path: Path) -> None:
    variables = {
        "haproxy_keepalived_acme_directory": "https://ca.test/dir",
        "haproxy_keepalived_acme_names": ["a.test"],
    }
    text = render(tmp_path, "lb1", haproxy_keepalived_acme_dir="/nonexistent", **variables)["lb1-haproxy.cfg"]
    rules = [line for line in section(text, "frontend http") if line.startswith("http-request")]
    assert "acme-challenge" in rules[0]
    assert "redirect" in rules[1]


def test_debian_12_checks_keepalived_before_the_reload_only(site: dict[str, str], tmp_path: Path) -> None:
    facts = FACTS | {"distribution_major_version": "12"}
    assert "reload_check_config" in site["lb1-keepalived.conf"]
    assert "reload_check_config" not in render(tmp_path, "lb1", render_facts=facts)["lb1-keepalived.conf"]
