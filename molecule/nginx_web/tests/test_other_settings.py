"""What other settings do: one web server gets all of them at once, and loses them again."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from labtest import wait_for
from test_nginx_web import ADDRESS, CA, SCENARIO, SITE, context, curl, lab, played, words

OWN = "/etc/ssl/own.pem"


@pytest.fixture(scope="module", autouse=True)
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """web2 with impatience, a limit of connections, and a site from an archive with a certificate of its own."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "index.html").write_text("from an archive")
    archive = folder / "packed.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "index.html", "index.html")
    make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=own -keyout {OWN}.key"
    lab.host("web2").run_expect([0], f"{make} -out {OWN} -addext subjectAltName=DNS:packed.lab.test -days 2")
    sites = yaml.safe_load((SCENARIO / "inventory/group_vars/web.yml").read_text())["nginx_web_sites"]
    site = {"name": "packed", "server_names": ["packed.lab.test"], "certificate": OWN, "key": f"{OWN}.key"}
    variables = {
        "nginx_web_client_timeout": "2s",
        "nginx_web_connection_limit": 3,
        "nginx_web_sites": [*sites, site | {"static": {"src": str(archive)}}],
    }
    played("--limit", "web2", "-e", json.dumps(variables))
    yield
    played("--limit", "web2")


def talk(text: bytes) -> bytes:
    """Send a part of a request, and return what comes until the server hangs up."""
    with (
        socket.create_connection((ADDRESS["web2"], 443), 15) as plain,
        context().wrap_socket(plain, server_hostname="www.lab.test") as tls,
    ):
        tls.sendall(text)
        got = b""
        try:
            while part := tls.recv(4096):
                got += part
        except (ConnectionResetError, ssl.SSLEOFError):
            pass
        return got


@pytest.mark.parametrize("more", [b"", b"Content-Length: 100\r\n\r\nabc"], ids=["headers", "body"])
def test_a_client_that_never_ends_is_cut_off(more: bytes) -> None:
    began = time.monotonic()
    got = talk(b"POST /page HTTP/1.1\r\nHost: www.lab.test\r\n" + more)
    # Not at once: it had its two seconds.
    assert time.monotonic() - began > 1.5
    assert got == b"" or b" 408 " in got.splitlines()[0], got[:200]


def test_an_address_may_have_so_many_requests_open_at_once() -> None:
    def ask(found: list[int]) -> None:
        found.append(curl(f"{SITE}/slow/3", web="web2").status)

    found: list[int] = []
    clients = [threading.Thread(target=ask, args=(found,)) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert sorted(found) == [200] * 3 + [429] * 3


def test_a_site_from_an_archive_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_text(lab.host("web2").file(OWN).content_string)
    url = "https://packed.lab.test/"
    command = words(url, "web2", 443, "--cacert", str(own))
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.endswith("from an archive"), run.stdout
    # The other sites keep theirs.
    assert curl(f"{SITE}/page", "--cacert", str(CA), web="web2").status == 200


def test_a_stop_waits_for_requests_on_their_way() -> None:
    """Debian's own unit cuts them off after five seconds."""
    found: list[int] = []
    name = os.urandom(4).hex()
    client = threading.Thread(target=lambda: found.append(curl(f"{SITE}/slow/8?{name}", web="web2").status))
    client.start()
    try:
        wait_for(lambda: "Active connections: 2" in status(), 5)
        assert lab.host("web2").run("systemctl stop nginx").rc == 0
        client.join()
        assert found == [200]
        assert curl(f"{SITE}/page", web="web2").status == 0
    finally:
        lab.host("web2").run("systemctl start nginx")
    wait_for(lambda: curl(f"{SITE}/page", web="web2").status == 200, 10)


def status() -> str:
    """nginx's own numbers; the one who asks is among them."""
    code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8406/status').read().decode())"
    return lab.host("web2").run("python3 -c %s", code).stdout
