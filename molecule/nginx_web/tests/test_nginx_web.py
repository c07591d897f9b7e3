"""The web servers from outside: as a client of the network, and as a balancer (lb1, whose word they take)."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from labtest import Lab, wait_for

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
SCENARIO = ROOT / "molecule" / "nginx_web"
CA = SCENARIO / "inventory" / ".pki" / "ca.pem"
ADDRESS = {"web1": "198.18.2.21", "web2": "198.18.2.22", "app1": "198.18.2.31", "app2": "198.18.2.32"}
WEB = ("web1", "web2")
CLIENT, BALANCER = "198.18.2.1", "198.18.2.11"
SITE = "https://www.lab.test"
SECURITY = ("x-content-type-options", "x-frame-options", "referrer-policy", "strict-transport-security", "x-request-id")
lab = Lab("webstack-nginx")


@dataclass
class Answer:
    """What curl got; ``error`` is its exit status, 0 when there was an answer."""

    status: int
    headers: dict[str, str]
    body: str
    error: int = 0

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def parse(output: str, error: int) -> Answer:
    head, _, body = output.replace("\r\n", "\n").partition("\n\n")
    lines = head.splitlines()
    if not lines or error:
        return Answer(0, {}, "", error or 1)
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    return Answer(int(lines[0].split()[1]), {name.lower(): value for name, value in fields.items()}, body)


def words(url: str, web: str, port: int, *options: str) -> list[str]:
    fixed = ["curl", "--silent", "--include", "--max-time", "20", "--connect-to", f"::{ADDRESS[web]}:{port}"]
    return [*fixed, *options, url]


def curl(url: str, *options: str, web: str = "web1", port: int = 443) -> Answer:
    """Ask from this machine: to the web servers it is anybody."""
    run = subprocess.run(words(url, web, port, "--cacert", str(CA), *options), capture_output=True, text=True)
    return parse(run.stdout, run.returncode)


def balancer(url: str, *options: str, web: str = "web1", port: int = 443) -> Answer:
    """Ask from lb1: the web servers take it for a balancer."""
    command = words(url, web, port, "--insecure", *options)
    run = lab.host("lb1").run(" ".join(["%s"] * len(command)), *command)
    return parse(run.stdout, run.rc)


def play(*arguments: str, playbook: str = "role.yml") -> subprocess.CompletedProcess[str]:
    """Run a playbook of the scenario on its hosts."""
    environment = os.environ | {
        "LAB_CHECKOUT": str(ROOT),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
    }
    inventories = ["-i", str(ROOT / "molecule/shared/inventory"), "-i", str(SCENARIO / "inventory")]
    command = ["ansible-playbook", *inventories, str(SCENARIO / playbook), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def played(*arguments: str, playbook: str = "role.yml") -> str:
    """The same, and it must succeed."""
    run = play(*arguments, playbook=playbook)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    return run.stdout


def workers(web: str = "web1") -> set[str]:
    return set(lab.host(web).run("pgrep --full 'nginx: worker process$'").stdout.split())


def master(web: str = "web1") -> str:
    return lab.host(web).run("systemctl show --property=MainPID --value nginx").stdout.strip()


def log(request_id: str, web: str = "web1") -> dict[str, Any]:
    """The access log's line of one request."""
    lines = wait_for(lambda: lab.host(web).run("grep %s /var/log/nginx/access.log", request_id).stdout, 5)
    return json.loads(lines.splitlines()[-1])


def everybody_answers() -> bool:
    """Each web server reaches both application servers."""
    return all({curl(f"{SITE}/", web=web).json["server"] for _ in range(6)} == {"app1", "app2"} for web in WEB)


@pytest.fixture(autouse=True, scope="session")
def whole() -> None:
    wait_for(everybody_answers, 30)


@pytest.fixture
def both_up() -> Iterator[None]:
    """For tests that stop application servers."""
    yield
    for app in ("app1", "app2"):
        lab.host(app).run("systemctl start stub")
    wait_for(everybody_answers, 30)


# --- first routing


@pytest.mark.parametrize("web", ["web1", "web2"])
def test_static_files_are_served_by_nginx_and_the_rest_by_the_application(web: str) -> None:
    assert curl(f"{SITE}/static/plain.css", web=web).body == (SCENARIO / "files/site/plain.css").read_text()
    assert {curl(f"{SITE}/some/page?q=1", web=web).json["server"] for _ in range(4)} == {"app1", "app2"}
    assert curl(f"{SITE}/some/page?q=1", web=web).json["path"] == "/some/page?q=1"


def test_the_certificate_is_the_host_s_own() -> None:
    # The balancer asks for the inventory name and checks it.
    command = ["openssl", "s_client", "-connect", f"{ADDRESS['web2']}:443", "-servername", "web2"]
    command += ["-verify_return_error", "-verify_hostname", "web2", "-CAfile", str(CA)]
    run = subprocess.run(command, input="", capture_output=True, text=True)
    assert run.returncode == 0 and "Verify return code: 0" in run.stdout, run.stdout + run.stderr


def test_connections_to_the_application_are_kept() -> None:
    answers = [curl(f"{SITE}/") for _ in range(40)]
    used = {(answer.json["server"], answer.json["connection"]) for answer in answers}
    # Two workers, two servers: a connection each, and a few more where two requests met.
    assert len(used) <= 8


def test_what_nobody_knows_gets_no_answer() -> None:
    assert curl("https://web1/").status == 0
    assert balancer("https://unknown.test/").status == 0


@pytest.mark.parametrize("name", ["web1", "www.lab.test"])
def test_the_health_check_is_answered_by_nginx_alone(name: str, both_up: None) -> None:
    for app in ("app1", "app2"):
        lab.host(app).run("systemctl stop stub")
    answer = balancer(f"https://{name}/nginx-healthz")
    assert (answer.status, answer.body) == (200, "ok\n")


def test_another_name_is_redirected_to_the_first() -> None:
    answer = curl("https://lab.test/a?b=c")
    assert (answer.status, answer.headers["location"]) == (301, f"{SITE}/a?b=c")


# --- whom it believes


CLAIMS = ["-H", "X-Forwarded-For: 203.0.113.7", "-H", "X-Request-ID: from-outside", "-H", "X-Served-By-LB: lb1"]


def test_the_balancers_are_believed() -> None:
    answer = balancer(f"{SITE}/", *CLAIMS, "-H", "X-Forwarded-Proto: https", "-H", "X-Forwarded-Port: 8443")
    seen = answer.json["headers"]
    assert seen["X-Forwarded-For"] == "203.0.113.7"
    assert seen["X-Request-ID"] == answer.headers["x-request-id"] == "from-outside"
    assert (seen["X-Served-By-LB"], seen["X-Served-By-Web"]) == ("lb1", "web1")
    assert (seen["X-Forwarded-Proto"], seen["X-Forwarded-Port"]) == ("https", "8443")
    assert (seen["Host"], seen["X-Forwarded-Host"]) == ("www.lab.test", "www.lab.test")


def test_nobody_else_is() -> None:
    answer = curl(f"{SITE}/", *CLAIMS, "-H", "X-Forwarded-Proto: http", "-H", "X-Real-IP: 203.0.113.7")
    seen = answer.json["headers"]
    assert seen["X-Forwarded-For"] == CLIENT
    assert seen["X-Request-ID"] == answer.headers["x-request-id"] != "from-outside"
    assert seen["X-Forwarded-Proto"] == "https"
    assert not {"X-Served-By-LB", "X-Real-IP", "Forwarded"} & set(seen)


# --- headers, error pages


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/", [], 200),
        ("/static/plain.css", [], 200),
        ("/static/missing", [], 404),
        ("/status/404", [], 404),
        ("/static/plain.css", ["-H", "If-None-Match: ETAG"], 304),
    ],
)
def test_security_headers_are_everywhere(path: str, options: list[str], status: int) -> None:
    if status == 304:
        etag = curl(f"{SITE}{path}").headers["etag"]
        options = [option.replace("ETAG", etag) for option in options]
    answer = curl(f"{SITE}{path}", *options)
    assert answer.status == status
    assert set(SECURITY) <= set(answer.headers)
    assert answer.headers["server"] == "nginx"


def test_they_are_on_redirects_too() -> None:
    assert set(SECURITY) <= set(curl("https://lab.test/").headers)


def test_the_application_s_own_header_wins() -> None:
    answer = curl(f"{SITE}/framed")
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/.git/config", "/.env", "/static/.hidden", "/static/.git/a.0123abcd.css"])
def test_hidden_files_are_denied(path: str) -> None:
    answer = curl(f"{SITE}{path}")
    assert answer.status == 404 and "app" not in answer.body


# --- change


def test_a_bad_configuration_changes_nothing() -> None:
    before = lab.host("web1").run("md5sum /etc/nginx/nginx.conf").stdout
    running = workers()
    run = play("--limit", "web1", "-e", json.dumps({"nginx_web_extra_http": "no_such_directive on;"}))
    assert run.returncode != 0
    assert re.search(r'unknown directive "no_such_directive" in /etc/nginx/nginx.conf.rejected:\d+', run.stdout)
    assert lab.host("web1").run("md5sum /etc/nginx/nginx.conf").stdout == before
    assert workers() == running, "nginx was not even reloaded"
    assert curl(f"{SITE}/").status == 200
    # The next run is not blocked by it.
    assert "changed=0" in played("--limit", "web1")


def test_a_change_is_a_reload() -> None:
    running, started = workers(), master()
    try:
        played("--limit", "web1", "-e", "nginx_web_hsts_max_age=100")
        assert curl(f"{SITE}/").headers["strict-transport-security"] == "max-age=100"
        assert workers() and not workers() & running
    finally:
        played("--limit", "web1")
    assert master() == started


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"nginx_web_sites": [{"name": "a", "server_names": ["a.test"]}]}, "a has nothing to serve"),
        (
            {"nginx_web_sites": [{"name": "a", "server_names": ["a.test"], "upstream": {"hosts": ["app7"]}}]},
            "the inventory has no host app7",
        ),
        (
            {"nginx_web_sites": [{"name": "a", "server_names": ["a.test"], "static": {"src": "/tmp", "prefix": "/x"}}]},
            "must begin and end with a slash",
        ),
    ],
)
def test_a_mistake_is_told_before_anything_happens(variables: dict[str, Any], says: str) -> None:
    run = play("--limit", "web1", "-e", json.dumps(variables))
    assert run.returncode != 0 and says in re.sub(r"\s+", " ", run.stdout)


# --- the service


def test_the_sandbox_is_tight() -> None:
    said = lab.host("web1").run("systemd-analyze security nginx.service --no-pager").stdout
    assert float(re.search(r"exposure level for nginx.service: ([0-9.]+)", said).group(1)) <= 3.0  # type: ignore[union-attr]
