"""The balancers as clients see them: through the VIPs, while things happen to them."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labtest import Lab, inventories, wait_for
from load import Load, Request

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
SCENARIO = ROOT / "molecule" / "haproxy_keepalived"
VIPS = {"public1": "198.18.1.101", "public2": "198.18.1.102", "internal": "198.18.1.103"}
ADDRESS = {"lb1": "198.18.1.11", "lb2": "198.18.1.12"}
SITE = "www.lab.test"
lab = Lab("webstack-haproxy")


def context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(SCENARIO / "inventory" / ".pki" / "ca.pem"))


def curl(vip: str, *options: str, path: str = "/") -> str:
    words = ["curl", "--silent", "--show-error", "--max-time", "5", "--cacert", f"{SCENARIO}/inventory/.pki/ca.pem"]
    words += ["--resolve", f"{SITE}:443:{VIPS[vip]}", *options, f"https://{SITE}{path}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def running(name: str) -> bool:
    return lab.docker("inspect", "--format", "{{.State.Running}}", lab.container(name)) == "true"


def holders_on(name: str) -> set[str]:
    """The VIPs that a balancer has."""
    addresses = lab.host(name).run("ip -4 -o address show").stdout
    return {vip for vip, address in VIPS.items() if f" {address}/" in addresses}


def load(rate: float = 100) -> Load:
    requests = [Request(f"https://{SITE}/{vip}", connect_to=VIPS[vip]) for vip in ("public1", "public2")]
    return Load(requests, rate=rate, timeout=5, context=context())


def at_home() -> bool:
    """Each balancer has its own VIP, and both answer."""
    return holders_on("lb1") == {"public1", "internal"} and holders_on("lb2") == {"public2"}


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    """Every test starts from, and leaves, a whole cluster."""
    wait_for(at_home, 60)
    yield
    for name in ADDRESS:
        if not running(name):
            lab.start(name)
        lab.mend(name)
        lab.host(name).run("pkill -CONT -x haproxy; systemctl start haproxy keepalived")
    wait_for(at_home, 60)


@pytest.mark.parametrize("vip", ["public1", "public2"])
def test_each_vip_answers_with_a_certificate_that_verifies(vip: str) -> None:
    served = {json.loads(curl(vip))["server"] for _ in range(4)}
    assert served == {"web1", "web2"}, "round robin over both web servers"


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
    ("event", "outage"),
    [
        ("pkill -KILL -x haproxy", 1.0),
        ("pkill -STOP -x haproxy", 3.0),
        ("systemctl stop keepalived", 0.3),
    ],
    ids=["haproxy killed", "haproxy hung", "keepalived stopped"],
)
def test_a_balancer_fails_and_the_other_takes_its_vip(event: str, outage: float) -> None:
    with load() as clients:
        time.sleep(1)
        lab.host("lb1").run(event)
        time.sleep(5)
        before_last_second = time.monotonic() - 1
    assert clients.outage() <= outage, clients.summary()
    assert not [failure for failure in clients.failures if failure.due > before_last_second], clients.summary()


@pytest.mark.parametrize("event", ["killed", "cut off"])
def test_a_balancer_is_gone_and_the_other_takes_its_vip(event: str) -> None:
    with load() as clients:
        time.sleep(1)
        lab.kill("lb1") if event == "killed" else lab.cut("lb1")
        wait_for(lambda: holders_on("lb2") == set(VIPS), 10)
        time.sleep(1)
        before_last_second = time.monotonic() - 0.5
        time.sleep(0.5)
    # The engine itself takes a moment to carry out the command, which counts against us.
    assert clients.outage() <= 1.0, clients.summary()
    assert not [failure for failure in clients.failures if failure.due > before_last_second], clients.summary()


def test_reloads_lose_no_request() -> None:
    host = lab.host("lb1")
    with load() as clients:
        for _ in range(50):
            assert host.run("systemctl reload haproxy").rc == 0
            time.sleep(0.1)
    assert len(clients.results) > 500
    assert clients.failures == [], clients.summary()


@pytest.mark.parametrize("event", ["killed", "unhealthy"])
def test_a_back_end_fails_and_no_request_does(event: str) -> None:
    host = lab.host("web1")
    with load() as clients:
        time.sleep(1)
        host.run(
            "systemctl kill -s KILL stub; systemctl stop stub" if event == "killed" else "touch /run/stub-unhealthy"
        )
        time.sleep(4)
        settled = time.monotonic()
        time.sleep(1)
        host.run("rm -f /run/unhealthy; systemctl start stub")
        wait_for(lambda: json.loads(curl("public1"))["server"] == "web1", 15)
    late = [failure for failure in clients.failures if failure.due > settled]
    assert late == [], clients.summary()
    if event == "killed":
        assert clients.failures == [], clients.summary()


def states(name: str) -> dict[str, str]:
    """Backend and server to status, on one balancer."""
    rows = json.loads(lab.host(name).check_output("haproxy-servers show --json"))
    return {f"{row['backend']}/{row['server']}": row["status"] for row in rows}


def test_a_back_end_is_drained_and_comes_back_and_no_request_fails() -> None:
    with load() as clients:
        time.sleep(1)
        for name in ADDRESS:
            assert lab.host(name).check_output("haproxy-servers drain web1") == "changed"
            assert lab.host(name).check_output("haproxy-servers drain web1") == "unchanged"
        assert {json.loads(curl("public1"))["server"] for _ in range(4)} == {"web2"}
        lab.host("web1").run("systemctl stop stub; systemctl start stub")
        for name in ADDRESS:
            lab.host(name).check_output("systemctl reload haproxy")
            assert states(name)["web/web1"].startswith("DRAIN"), "a reload keeps who is drained"
            assert states(name)["web_plain/web1"].startswith("DRAIN")
        for name in ADDRESS:
            assert lab.host(name).check_output("haproxy-servers ready web1") == "changed"
        wait_for(lambda: {json.loads(curl("public1"))["server"] for _ in range(4)} == {"web1", "web2"}, 15)
    assert clients.failures == [], clients.summary()


def test_draining_a_server_that_does_not_exist_says_which_there_are() -> None:
    done = lab.host("lb1").run("haproxy-servers drain web9")
    assert done.rc == 2
    assert "no backend has a server web9; there are: web1, web2" in done.stderr


def play(**variables: object) -> subprocess.CompletedProcess[str]:
    """Converge the balancers with other variables."""
    words = [
        "ansible-playbook",
        *inventories(SCENARIO / "inventory"),
        "--limit",
        "lb",
        "-e",
        json.dumps(variables),
        str(SCENARIO / "balancers.yml"),
    ]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT)


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
    assert json.loads(curl("public1"))["server"]


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
    wait_for(lambda: json.loads(curl("public1"))["server"], 15)


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
