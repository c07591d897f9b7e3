"""The web servers from outside: as a client of the network, and as a balancer (lb1, whose word they take)."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from labtest import Lab, inventories, wait_for
from load import Load, Request

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
SCENARIO = ROOT / "molecule" / "nginx_web"
CA = SCENARIO / "inventory" / ".pki" / "ca.pem"
ADDRESS = {"web1": "198.18.2.21", "web2": "198.18.2.22", "app1": "198.18.2.31", "app2": "198.18.2.32"}
WEB = ("web1", "web2")
CLIENT, BALANCER = "198.18.2.1", "198.18.2.11"
SITE = "https://www.lab.test"
APP = ("app1", "app2")
YEAR = "public, max-age=31536000, immutable"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
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
    command = ["ansible-playbook", *inventories(SCENARIO / "inventory"), str(SCENARIO / playbook), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def played(*arguments: str, playbook: str = "role.yml") -> str:
    """The same, and it must succeed."""
    run = play(*arguments, playbook=playbook)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    return run.stdout


def context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CA))


def s_client(*options: str) -> str:
    command = ["openssl", "s_client", "-connect", f"{ADDRESS['web1']}:443", "-servername", "www.lab.test", *options]
    return subprocess.run(command, input="", capture_output=True, text=True).stdout


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


def test_an_image_comes_without_what_only_documents_heed() -> None:
    image = curl(f"{SITE}/static/dot.gif", "--head")
    assert (image.status, image.headers["content-type"]) == (200, "image/gif")
    assert image.headers["x-content-type-options"] == "nosniff"
    assert not {"x-frame-options", "referrer-policy", "permissions-policy"} & set(image.headers)
    # SVG can be a document, with scripts.
    assert set(SECURITY) <= set(curl(f"{SITE}/static/logo.svg").headers)


def test_the_application_s_own_header_wins() -> None:
    answer = curl(f"{SITE}/framed")
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/.git/config", "/.env", "/static/.hidden", "/static/.git/a.0123abcd.css"])
def test_hidden_files_are_denied(path: str) -> None:
    answer = curl(f"{SITE}{path}")
    assert answer.status == 404 and "app" not in answer.body


@pytest.mark.parametrize(("path", "status"), [("/gone", 410), ("/old", 301), ("/ops/", 403), ("/media/x", 404)])
def test_they_are_on_what_nginx_answers_itself(path: str, status: int) -> None:
    answer = curl(f"{SITE}{path}")
    assert answer.status == status
    assert set(SECURITY) <= set(answer.headers)


# --- locations


def test_a_redirect() -> None:
    assert curl(f"{SITE}/old").headers["location"] == "/new"


def test_a_location_with_an_upstream_of_its_own() -> None:
    assert {curl(f"{SITE}/second/").json["server"] for _ in range(4)} == {"app2"}


def test_a_location_for_some_addresses_only() -> None:
    assert balancer(f"{SITE}/ops/").status == 200
    assert balancer(f"{SITE}/ops/", "-H", "X-Forwarded-For: 203.0.113.7").status == 403


def test_an_upload_limit_per_location(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 12 * 2**20)
    refused = curl(f"{SITE}/page", "--data-binary", f"@{big}")
    assert refused.status == 413 and refused.headers["x-request-id"] in refused.body, "with the error page"
    assert curl(f"{SITE}/upload/", "--data-binary", f"@{big}", "-H", "Expect:").json["received"] == 12 * 2**20


def test_a_rate_limit_by_the_real_address() -> None:
    def login(client: str) -> int:
        return balancer(f"{SITE}/login/", "-H", f"X-Forwarded-For: {client}").status

    # One at once, a burst of two, then no more; another client is not concerned.
    assert [login("203.0.113.1") for _ in range(5)] == [200, 200, 200, 429, 429]
    assert login("203.0.113.2") == 200


def test_websocket() -> None:
    with (
        socket.create_connection((ADDRESS["web1"], 443), 5) as plain,
        ssl.create_default_context(cafile=str(CA)).wrap_socket(plain, server_hostname="www.lab.test") as tls,
    ):
        head = "GET /ws HTTP/1.1\r\nHost: www.lab.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        tls.sendall(
            (head + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
        )
        answer = tls.recv(4096)
        assert b" 101 " in answer.split(b"\r\n")[0]
        tls.sendall(bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello")
        echo = answer.partition(b"\r\n\r\n")[2]
        while len(echo) < 7:
            more = tls.recv(100)
            assert more, "closed before the echo came"
            echo += more
        assert echo == bytes([0x81, 5]) + b"HELLO"


# --- static files


def test_fingerprinted_files_are_cached_for_a_year_and_others_revalidated() -> None:
    assert curl(f"{SITE}/static/assets/app.0123abcd.css").headers["cache-control"] == YEAR
    plain = curl(f"{SITE}/static/plain.css")
    assert plain.headers["cache-control"] == "no-cache"
    assert curl(f"{SITE}/static/plain.css", "-H", f"If-None-Match: {plain.headers['etag']}").status == 304
    assert "cache-control" not in curl(f"{SITE}/static/assets/none.0123abcd.css").headers or YEAR not in str(
        curl(f"{SITE}/static/assets/none.0123abcd.css").headers
    )


def test_both_web_servers_know_a_file_by_the_same_tag() -> None:
    tags = {curl(f"{SITE}/static/plain.css", web=web).headers["etag"] for web in WEB}
    assert len(tags) == 1


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_compressed_at_deployment(encoding: str) -> None:
    answer = curl(
        f"{SITE}/static/assets/app.0123abcd.css",
        "-H",
        f"Accept-Encoding: {encoding}",
        "--output",
        "/dev/null",
        "--dump-header",
        "-",
    )
    assert answer.headers["content-encoding"] == encoding
    assert "Accept-Encoding" in answer.headers["vary"]
    assert int(answer.headers["content-length"]) < 1000


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/app.webmanifest", "application/manifest+json"), ("/module.mjs", "text/javascript"), ("/", "text/html")],
)
def test_types(path: str, kind: str) -> None:
    assert curl(f"https://spa.lab.test{path}").headers["content-type"].split(";")[0] == kind


def test_a_single_page_application() -> None:
    page = (SCENARIO / "files/spa/index.html").read_text()
    for path in ("/", "/some/view"):
        answer = curl(f"https://spa.lab.test{path}")
        assert (answer.body, answer.headers["cache-control"]) == (page, "no-cache")
    assert curl("https://spa.lab.test/assets/gone-0123abcd.js").status == 404, "no page in place of a script"
    assert curl("https://spa.lab.test/api/x").json["path"] == "/api/x"


def test_files_first_and_the_application_for_the_rest() -> None:
    assert "<script" in curl("https://mixed.lab.test/").body
    assert curl("https://mixed.lab.test/page").json["path"] == "/page"


# --- failures of the application


def test_one_application_server_dies(both_up: None) -> None:
    url = f"{SITE}/page"
    with Load([Request(url, connect_to=ADDRESS["web1"])], rate=40, context=context()) as load:
        lab.host("app1").run("systemctl kill --signal=KILL --kill-whom=all stub; systemctl stop stub")
        wait_for(lambda: len(load.results) > 100, 20)
    assert not load.failures, load.summary()


def test_both_die_and_come_back(both_up: None) -> None:
    for app in ("app1", "app2"):
        lab.host(app).run("systemctl stop stub")
    for _ in range(10):
        answer = curl(f"{SITE}/page")
        assert answer.status == 502
        assert (
            set(SECURITY) <= set(answer.headers)
            and "502" in answer.body
            and answer.headers["x-request-id"] in answer.body
        )
    assert curl(f"{SITE}/static/plain.css").status == 200
    lab.host("app1").run("systemctl start stub")
    wait_for(lambda: lab.host("app1").run("ss -Hltn sport = 8000").stdout, 10)
    # At once, although both were left out: the last resort is always tried.
    assert [curl(f"{SITE}/page").status for _ in range(5)] == [200] * 5


def test_what_an_application_cannot_take_is_refused_at_once() -> None:
    """Three requests at once for each of the two, of twelve that come together."""
    done: list[Answer] = []

    def visit() -> None:
        done.append(curl("https://bounded.lab.test/slow/3"))

    visitors = [threading.Thread(target=visit) for _ in range(12)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    # Those that are refused do not wait for the others.
    assert [answer.status for answer in done] == [503] * 6 + [200] * 6
    assert all("retry-after" in answer.headers for answer in done[:6])
    assert sorted(answer.json["server"] for answer in done[6:]) == ["app1"] * 3 + ["app2"] * 3


def times_sent(path: str) -> int:
    """How often the application servers were asked to change something there."""
    asked = [lab.host(app).run("python3 -c %s http://localhost:8000/", FETCH).stdout for app in APP]
    return sum(json.loads(answer)["posts"].count(path) for answer in asked)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("place", ["www", "mixed"])
def test_what_may_change_something_is_sent_once(method: str, place: str) -> None:
    path = f"/die/{os.urandom(4).hex()}"
    answer = curl(f"https://{place}.lab.test{path}", "--request", method, "--data", "x=1")
    assert answer.status == 502 and set(SECURITY) <= set(answer.headers)
    assert answer.headers["x-request-id"] in answer.body, "the error page"
    assert times_sent(path) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_method_arrives_whole(method: str) -> None:
    for url in (f"{SITE}/page?q=1", f"{SITE}/upload/a%20b?q=1", "https://mixed.lab.test/page?q=1"):
        answer = curl(url, "--request", method, "--data-binary", "x" * 5000).json
        assert (answer["method"], answer["received"]) == (method, 5000)
        assert answer["path"] == url.partition(".test")[2]


# --- micro-cache


def test_the_micro_cache() -> None:
    url = f"{SITE}/cached/{os.urandom(4).hex()}"
    first, second = curl(url), curl(url)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    assert first.body == second.body
    for personal in ("Cookie: a=b", "Authorization: Basic eA=="):
        answer = curl(url, "-H", personal)
        assert answer.headers["x-cache"] == "BYPASS" and answer.body != first.body
    assert "x-cache" not in curl(f"{SITE}/page").headers
    # An answer with a cookie belongs to one visitor.
    assert {curl("https://mixed.lab.test/cookie").headers["x-cache"] for _ in range(2)} == {"MISS"}


def test_a_stale_answer_is_better_than_none(both_up: None) -> None:
    url = f"{SITE}/cached/{os.urandom(4).hex()}"
    first = curl(url)
    for app in APP:
        lab.host(app).run("systemctl stop stub")
    answer = wait_for(lambda: (found := curl(url)).headers.get("x-cache") != "HIT" and found, 5)
    assert answer.headers["x-cache"] in ("STALE", "UPDATING") and answer.body == first.body


def test_an_old_answer_is_given_while_a_new_one_is_fetched() -> None:
    url = f"https://mixed.lab.test/slow/1?{os.urandom(4).hex()}"
    first = curl(url)
    assert first.headers["x-cache"] == "MISS"
    old = wait_for(lambda: (found := curl(url)).headers["x-cache"] != "HIT" and found, 5)
    assert old.headers["x-cache"] in ("STALE", "UPDATING") and old.body == first.body
    wait_for(lambda: curl(url).body != first.body, 10)


@pytest.mark.thorough
def test_the_cache_forgets_on_request() -> None:
    # No shorter way to see it than an answer that lives long.
    played("--limit", "web1", "-e", "nginx_web_cache_valid=10m")
    try:
        one, other = (f"{SITE}/cached/{os.urandom(4).hex()}" for _ in range(2))
        for url in (one, other):
            curl(url)
            assert curl(url).headers["x-cache"] == "HIT"
        played("-e", f"entry=purge_cache nginx_web_purge_url={one}", "--limit", "web1", playbook="entry.yml")
        assert (curl(one).headers["x-cache"], curl(other).headers["x-cache"]) == ("MISS", "HIT")
        played("-e", "entry=purge_cache", "--limit", "web1", playbook="entry.yml")
        assert curl(other).headers["x-cache"] == "MISS"
    finally:
        played("--limit", "web1")


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


def test_fifty_reloads_under_load() -> None:
    urls = [f"{SITE}/page", f"{SITE}/static/plain.css"]
    with Load([Request(url, connect_to=ADDRESS["web1"]) for url in urls], rate=40, context=context()) as load:
        run = lab.host("web1").run("for i in $(seq 50); do systemctl reload nginx && sleep 0.2 || exit 1; done")
    assert run.rc == 0
    assert len(load.results) > 300 and not load.failures, load.summary()


def test_a_release_is_switched_under_load(tmp_path: Path) -> None:
    """A visitor who loads a page and then its script, from whichever web server, gets the script of that page."""
    # A content that no run before this one had: it would be void since.
    source, new = tmp_path / "spa", os.urandom(4).hex()
    shutil.copytree(SCENARIO / "files/spa", source)
    (source / "assets/main-00000001.js").unlink()
    (source / f"assets/main-{new}.js").write_text(f'release("{new}")')
    (source / "index.html").write_text(f'<!doctype html><script src="/assets/main-{new}.js"></script>')
    sites = yaml.safe_load((SCENARIO / "inventory/group_vars/web.yml").read_text())["nginx_web_sites"]
    next(site for site in sites if site["name"] == "spa")["static"]["src"] = str(source)
    pages: dict[str, int] = {}
    stop, wrong = threading.Event(), []

    def get(path: str, web: str) -> Answer:
        answer = curl(f"https://spa.lab.test{path}", web=web)
        # A server that ends says goodbye on a new HTTP/2 connection, too; what it has not taken browsers ask again on
        # another one (RFC 9113, 6.8), and curl gives up with 16.
        return curl(f"https://spa.lab.test{path}", web=web) if answer.error == 16 else answer

    def visit(number: int) -> None:
        while not stop.wait(0.1):
            web = WEB[number % 2]
            number += 1
            page = get("/", web)
            if not (found := re.search(r"/assets/main-([0-9a-f]+)\.js", page.body)):
                wrong.append(page)
                continue
            pages[found[1]] = pages.get(found[1], 0) + 1
            script = get(found[0], WEB[number % 2])
            if script.body.strip() != f'release("{found[1]}")' or script.headers.get("cache-control") != YEAR:
                wrong.append(script)

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(2)]
    for visitor in visitors:
        visitor.start()
    try:
        played("-e", json.dumps({"nginx_web_sites": sites}))
        wait_for(lambda: pages.get(new, 0) > 20, 20)
    finally:
        stop.set()
        for visitor in visitors:
            visitor.join()
    assert not wrong, wrong[:3]
    assert pages["00000001"] > 5, pages

    # And back: the release before, at once; the role does not deploy the void one again, a changed one it does.
    played("--limit", "web", "-e", "entry=rollback nginx_web_rollback_site=spa", playbook="entry.yml")
    for web in WEB:
        assert "main-00000001.js" in curl("https://spa.lab.test/", web=web).body
        assert curl(f"https://spa.lab.test/assets/main-{new}.js", web=web).status == 200
    assert "was rolled back" in played("-e", json.dumps({"nginx_web_sites": sites}))
    assert "main-00000001.js" in curl("https://spa.lab.test/").body
    # The sources as they were: the very release that is in service, and so nothing to do.
    assert "changed=0" in played("--limit", "web2")


def test_old_releases_go() -> None:
    kept = lab.host("web1").run("ls /var/www/spa/releases").stdout.split()
    assert 1 <= len(kept) <= 5


def test_an_application_server_is_drained_without_a_failed_request() -> None:
    urls = [Request(f"{SITE}/slow/0.2", connect_to=ADDRESS[web]) for web in WEB]
    urls += [Request(f"{SITE}/page", "POST", b"x=1", connect_to=ADDRESS[web]) for web in WEB]
    # A connection for each request: a kept-alive one that a reload closes is the client's to open again, POST or not.
    with Load(urls, rate=20, keep_alive=0, context=context()) as load:
        played("-e", "entry=drain_upstream", "--limit", "app1", playbook="entry.yml")
        # Nothing is on its way there: it may be stopped hard.
        lab.host("app1").run("systemctl kill --signal=KILL stub; systemctl stop stub")
        before = len(load.results)
        wait_for(lambda: len(load.results) > before + 40, 20)
        lab.host("app1").run("systemctl start stub")
        wait_for(lambda: lab.host("app1").run("ss -Hltn sport = 8000").stdout, 10)
        again = play("-e", "entry=drain_upstream", "--limit", "app2", playbook="entry.yml")
        assert again.returncode != 0 and "nobody would be left" in re.sub(r"\s+", " ", again.stdout)
        played("-e", "entry=undrain_upstream", "--limit", "app1", playbook="entry.yml")
    assert not load.failures, load.summary()
    wait_for(everybody_answers, 10)
    assert "changed=0" in played("--limit", "web1"), "drained and undrained is what it was"


def test_a_drain_that_was_written_and_not_loaded_is_made_good_by_the_next() -> None:
    for web in WEB:
        lab.host(web).check_output("sed -i 's/; # app1$/ down; # app1/' /etc/nginx/nginx.conf")
    assert "app1" in {curl(f"{SITE}/page").json["server"] for _ in range(6)}
    played("-e", "entry=drain_upstream", "--limit", "app1", playbook="entry.yml")
    assert {curl(f"{SITE}/page").json["server"] for _ in range(6)} == {"app2"}
    assert "changed=0" in played("-e", "entry=drain_upstream", "--limit", "app1", playbook="entry.yml")
    played("-e", "entry=undrain_upstream", "--limit", "app1", playbook="entry.yml")
    wait_for(everybody_answers, 10)


@pytest.mark.thorough
def test_maintenance() -> None:
    played("--limit", "web1", "-e", "nginx_web_maintenance=true")
    try:
        for path in ("/page", "/static/plain.css"):
            answer = curl(f"{SITE}{path}")
            assert (answer.status, answer.headers["retry-after"]) == (503, "300")
            assert "Back soon" in answer.body and set(SECURITY) <= set(answer.headers)
        assert balancer(f"{SITE}/nginx-healthz").status == 200
    finally:
        played("--limit", "web1")
    assert curl(f"{SITE}/page").status == 200


# --- TLS


@pytest.mark.parametrize(("version", "accepted"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_tls_versions(version: str, accepted: bool) -> None:
    assert ("Cipher is (NONE)" not in s_client(version)) is accepted


def test_post_quantum_key_exchange_where_openssl_has_it() -> None:
    if lab.host("web1").run(". /etc/os-release; echo $VERSION_ID").stdout.strip() == "13":
        said = (
            lab.host("web2")
            .run(
                "openssl s_client -connect %s:443 -servername www.lab.test -groups X25519MLKEM768 </dev/null",
                ADDRESS["web1"],
            )
            .stdout
        )
        assert "X25519MLKEM768" in said
    assert "X25519" in s_client("-groups", "X25519")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_http_versions(version: str) -> None:
    run = subprocess.run(words(f"{SITE}/", "web1", 443, "--cacert", str(CA), version), capture_output=True, text=True)
    assert run.stdout.startswith({"--http2": "HTTP/2 200", "--http1.1": "HTTP/1.1 200"}[version])


@pytest.mark.thorough
def test_the_mode_offload() -> None:
    played("--limit", "web2", "-e", "webstack_tls_mode=offload")
    try:
        url = "http://www.lab.test/"
        answer = balancer(url, "-H", "X-Forwarded-Proto: https", web="web2", port=80)
        assert answer.json["headers"]["X-Forwarded-Proto"] == "https" and "strict-transport-security" in answer.headers
        assert "strict-transport-security" not in curl(url, web="web2", port=80).headers
        assert balancer("http://lb1/nginx-healthz", web="web2", port=80).status == 200
        assert curl(f"{SITE}/", web="web2").status == 0, "nothing listens on 443"
    finally:
        played("--limit", "web2")


PROXIED = r"""
import socket, ssl, struct, sys
plain = socket.create_connection((sys.argv[1], 443), 5)
address = socket.inet_aton("203.0.113.9") + socket.inet_aton(sys.argv[1]) + struct.pack("!HH", 40000, 443)
plain.sendall(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(address)) + address)
tls = ssl._create_unverified_context().wrap_socket(plain, server_hostname="www.lab.test")
tls.sendall(b"GET / HTTP/1.1\r\nHost: www.lab.test\r\nX-Forwarded-For: 203.0.113.1\r\nX-Request-ID: mine\r\n"
            b"Connection: close\r\n\r\n")
while part := tls.recv(4096):
    sys.stdout.write(part.decode())
"""


@pytest.mark.thorough
def test_the_mode_passthrough() -> None:
    played("--limit", "web2", "-e", "webstack_tls_mode=passthrough")
    try:
        run = lab.host("lb1").run("python3 -c %s %s", PROXIED, ADDRESS["web2"])
        answer = parse(run.stdout, run.rc)
        seen = answer.json["headers"]
        # The client of the PROXY header, and nothing that the client says of itself.
        assert seen["X-Forwarded-For"] == "203.0.113.9" and seen["X-Request-ID"] != "mine"
        assert seen["X-Forwarded-Proto"] == "https" and "strict-transport-security" in answer.headers
        assert curl(f"{SITE}/", web="web2").status == 0, "without a PROXY header there is no answer"
    finally:
        played("--limit", "web2")


# --- what it tells


def test_the_log_is_json_with_the_balancer_s_request_id() -> None:
    name = f"test-{os.urandom(4).hex()}"
    balancer(f"{SITE}/cached/{name}?q=%22", "-H", f"X-Request-ID: {name}", "-H", "X-Forwarded-For: 203.0.113.7")
    line = log(name)
    assert (line["request_id"], line["client"], line["peer"]) == (name, "203.0.113.7", BALANCER)
    assert (line["status"], line["cache"], line["method"], line["host"]) == (200, "MISS", "GET", "www.lab.test")
    assert line["upstream"].rpartition(":")[0] in (ADDRESS["app1"], ADDRESS["app2"])
    assert float(line["upstream_seconds"]) <= line["seconds"] + 0.01


def test_the_log_is_rotated() -> None:
    assert lab.host("web1").run("logrotate --force /etc/logrotate.d/nginx").rc == 0
    name = f"test-{os.urandom(4).hex()}"
    balancer(f"{SITE}/", "-H", f"X-Request-ID: {name}")
    assert log(name)["request_id"] == name
    assert lab.host("web1").file("/var/log/nginx/access.log.1").exists


def test_the_status_is_for_this_host_and_the_operators() -> None:
    url = f"http://{ADDRESS['web1']}:8406/status"
    assert "Active connections" in lab.host("web1").run("python3 -c %s %s", FETCH, url).stdout
    assert curl(url, port=8406).status == 403


@pytest.mark.skipif(shutil.which("gixy") is None, reason="gixy (PyPI) is not installed")
def test_gixy_finds_nothing(tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    config.write_text(lab.host("web1").file("/etc/nginx/nginx.conf").content_string)
    run = subprocess.run(["gixy", str(config)], capture_output=True, text=True)
    assert run.returncode == 0 and "No issues found" in run.stdout, run.stdout + run.stderr


# --- the service


def test_the_sandbox_is_tight() -> None:
    said = lab.host("web1").run("systemd-analyze security nginx.service --no-pager").stdout
    assert float(re.search(r"exposure level for nginx.service: ([0-9.]+)", said).group(1)) <= 3.0  # type: ignore[union-attr]
