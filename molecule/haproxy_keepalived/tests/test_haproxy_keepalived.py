"""The balancers as clients see them, through the VIPs; and what becomes of variables that are wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess

import pytest
from cluster import ADDRESS, SITE, VIPS, at_home, curl, lab, play, server, servers
from labtest import wait_for


@pytest.mark.parametrize("vip", ["public1", "public2"])
def test_each_vip_answers_with_a_certificate_that_verifies(vip: str) -> None:
    assert servers(vip=vip) == {"web1", "web2"}, "round robin over both web servers"


@pytest.mark.parametrize("vip", ["public1", "public2"])
def test_http_is_redirected(vip: str) -> None:
    words = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}"]
    answer = subprocess.run(
        [*words, "-H", f"Host: {SITE}", f"http://{VIPS[vip]}/a?b=c"], capture_output=True, text=True
    )
    assert answer.stdout == f"301 https://{SITE}/a?b=c"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_what_a_client_claims_of_itself_is_forgotten(version: str) -> None:
    claims = ["X-Forwarded-For: 6.6.6.6", "x-forwarded-proto: http", "X-Served-By-LB: evil", "Forwarded: for=6.6.6.6"]
    options = [version] + [word for claim in claims for word in ("-H", claim)]
    got = {name.lower(): value for name, value in json.loads(curl("public1", *options))["headers"].items()}
    assert "6.6.6.6" not in str(got)
    assert got["x-forwarded-proto"] == "https"
    assert got["x-served-by-lb"] == "lb1"
    assert re.fullmatch(r"198\.18\.1\.1", got["x-forwarded-for"])
    assert re.fullmatch(r"[0-9a-f-]{36}", got["x-request-id"])


def test_tls_is_modern_enough_and_speaks_http2() -> None:
    assert curl("public1", "--http2", "--output", "/dev/null", "--write-out", "%{http_version}") == "2"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError), socket.create_connection((VIPS["public1"], 443), 5) as plain:
        old.wrap_socket(plain, server_hostname=SITE)
    assert "strict-transport-security: max-age=63072000" in curl("public1", "--head").lower()


def test_a_tcp_service_is_on_the_internal_vip_only() -> None:
    with socket.create_connection((VIPS["internal"], 7000), 5) as service:
        service.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200" in service.recv(100)
    for vip, port in (("public1", 7000), ("public2", 7000), ("internal", 443), ("internal", 80)):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((VIPS[vip], port), 5).close()


def test_statistics_and_metrics_are_for_the_operators_hosts_only() -> None:
    page = f"http://{ADDRESS['lb1']}:8404/metrics"
    metrics = lab.host("lb2").run(f"curl --silent --show-error {page}").stdout
    assert 'haproxy_server_status{proxy="web",server="web1",state="UP"} 1' in metrics
    status = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", page], capture_output=True, text=True
    )
    assert status.stdout == "403", "this machine is none of them"
    for port in (8404, 8405):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((VIPS["public1"], port), 5).close()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"haproxy_keepalived_routes": [{"path": "/api/", "backend": "ap"}]}, "names the backend ap."),
        ({"haproxy_keepalived_extra_frontend": "http-request nonsense"}, "unknown keyword|expects"),
        ({"haproxy_keepalived_tls_mode": "brigde"}, "brigde"),
        ({"haproxy_keepalived_tls_key": "/etc/ssl/webstack/ca.pem"}, "host.pem with /etc/ssl/webstack/ca.pem: "),
    ],
    ids=["unknown backend", "bad line", "unknown mode", "bad key"],
)
def test_a_bad_variable_fails_the_play_and_the_site_goes_on(variables: dict[str, object], message: str) -> None:
    def configuration() -> str:
        return lab.host("lb1").run("cat /etc/haproxy/haproxy.cfg /etc/haproxy/certs/site.pem.key | sha256sum").stdout

    before = configuration()
    done = play(**variables)
    assert done.returncode != 0
    assert re.search(message, done.stdout + done.stderr), done.stdout
    assert configuration() == before
    assert lab.host("lb1").run("systemctl reload haproxy && haproxy -c -q -f /etc/haproxy/haproxy.cfg").rc == 0
    assert server()


def test_a_visitor_is_told_when_no_server_is_left() -> None:
    for name in ("web1", "web2"):
        lab.host(name).run("touch /run/unhealthy")
    try:
        wait_for(lambda: "Back in a moment" in curl("public1"), 15)
        assert "retry-after: 10" in curl("public1", "--include").lower()
        # Moving the VIP would mend nothing.
        assert at_home()
    finally:
        for name in ("web1", "web2"):
            lab.host(name).run("rm -f /run/unhealthy")
    wait_for(server, 15)


def test_protection_and_json_logs() -> None:
    protected = {
        "haproxy_keepalived_rate_limit": 20,
        "haproxy_keepalived_connection_limit": 5,
        "haproxy_keepalived_deny": [f"{ADDRESS['lb2']}/32"],
        "haproxy_keepalived_log_format": "json",
    }
    done = play(**protected)
    assert done.returncode == 0, done.stdout
    try:
        path = f"/{os.getpid()}?quote=%22"
        answer = curl("public1", "--include", path=path)
        number = re.search(r'"x-request-id": "([0-9a-f-]+)"', answer)
        assert number
        logs = lab.host("lb1").run("journalctl --unit haproxy --output cat --lines 50").stdout
        entry = next(json.loads(line) for line in logs.splitlines() if line.startswith("{") and path in line)
        assert entry["request_id"] == number[1]
        assert (entry["status"], entry["method"], entry["host"], entry["backend"]) == (200, "GET", SITE, "web")

        codes = [curl("public1", "--output", "/dev/null", "--write-out", "%{http_code}") for _ in range(30)]
        # Nineteen more to the twenty, were it not for what a reload or a slow machine shifts.
        assert codes[:15] == ["200"] * 15
        assert codes[-1] == "429"

        held = [socket.create_connection((VIPS["public1"], 443), 5) for _ in range(5)]
        try:
            with pytest.raises(subprocess.CalledProcessError):
                curl("public1")
        finally:
            for connection in held:
                connection.close()
        refused = lab.host("lb2").run(f"curl --silent --insecure --max-time 3 https://{VIPS['public1']}/")
        assert refused.rc != 0
    finally:
        assert play().returncode == 0
