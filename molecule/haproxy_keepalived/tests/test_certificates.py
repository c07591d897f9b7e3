"""Certificates: replaced while HAProxy runs, issued by an authority, and what a scanner says of the endpoint."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import ADDRESS, SCENARIO, SITE, VIPS, at_home, holders_on, lab, load, play, process
from labtest import wait_for

DIRECTORY = "https://198.18.1.31:14000/dir"


def shown(vip: str) -> tuple[str, str]:
    """Issuer and serial number of the certificate that a VIP shows."""
    pem = ssl.get_server_certificate((VIPS[vip], 443), timeout=5)
    words = ["openssl", "x509", "-noout", "-issuer", "-serial"]
    issuer, serial = subprocess.run(words, input=pem, check=True, capture_output=True, text=True).stdout.splitlines()
    return issuer, serial


def test_a_new_certificate_is_served_by_the_process_that_runs() -> None:
    """No reload, no failed request: the runtime API."""
    other = f"""
        cd /etc/ssl/webstack
        openssl ecparam -name prime256v1 -genkey -noout -out new.pem.key
        openssl req -new -x509 -key new.pem.key -out new.pem -subj /CN=replaced -addext subjectAltName=DNS:{SITE}
    """
    for name in ADDRESS:
        lab.host(name).check_output(other)
    before = {name: process(name) for name in ADDRESS}
    new = "/etc/ssl/webstack/new.pem"
    whole = False
    try:
        done = play(haproxy_keepalived_tls_certificate=new, haproxy_keepalived_tls_key=f"{new}.key")
        assert done.returncode == 0, done.stdout
        for vip in ("public1", "public2"):
            assert shown(vip)[0].endswith("replaced")
        # And back, while clients are there. (They do not verify: the new one is of no authority.)
        back = "cat /etc/ssl/webstack/host.pem{0} > /etc/haproxy/certs/site.pem{0}; "
        with load(verify=False) as clients:
            time.sleep(1)
            for name in ADDRESS:
                command = back.format("") + back.format(".key") + "haproxy-certificates load"
                assert lab.host(name).check_output(command) == "replaced"
            time.sleep(1)
        assert clients.failures == [], clients.summary()
        for vip in ("public1", "public2"):
            assert not shown(vip)[0].endswith("replaced")
        assert {name: process(name) for name in ADDRESS} == before
        whole = True
    finally:
        if not whole:
            play()


def test_a_reload_does_what_the_runtime_api_cannot() -> None:
    """A chain longer than what a command may be (tune.bufsize)."""
    host = lab.host("lb1")
    before = process("lb1")
    path = "/etc/haproxy/certs/site.pem"
    host.check_output(f"cp -p {path} /tmp/site.pem; for i in $(seq 40); do cat /tmp/site.pem; done > {path}")
    try:
        assert host.check_output("haproxy-certificates load") == "reloaded"
        assert process("lb1") != before
    finally:
        host.check_output(f"cp -p /tmp/site.pem {path}")
    assert host.check_output("haproxy-certificates load") == "replaced"
    assert host.check_output("haproxy-certificates load") == "unchanged"


@pytest.fixture
def authority() -> Iterator[None]:
    """The balancers with their certificate from an authority."""
    settings = {"haproxy_keepalived_acme_directory": DIRECTORY, "haproxy_keepalived_acme_names": [SITE]}
    done = play(**settings)
    assert done.returncode == 0, done.stdout + done.stderr
    again = play(**settings)
    assert again.stdout.count("changed=0 ") == 2, again.stdout
    try:
        yield
    finally:
        assert play().returncode == 0


def renewal(name: str) -> str:
    """The command of a balancer's service."""
    command = lab.host(name).check_output("systemctl show --property ExecStart haproxy-certificates.service")
    return str(command.split("argv[]=", 1)[1].split(" ;", 1)[0])


def renew(name: str) -> str:
    """Have the certificate renewed before its time."""
    return str(lab.host(name).check_output(f"{renewal(name)} --force"))


def test_an_authority_issues_and_renews_the_certificate(authority: None) -> None:
    """Issued once, served by both; renewed by whoever has the VIP; not one request is lost."""
    first = shown("public1")
    assert "Pebble" in first[0]
    assert shown("public2") == first, "both have the same one"
    for name in ADDRESS:
        lab.host(name).check_output("systemctl start haproxy-certificates.service")
        assert lab.host(name).check_output("systemctl is-active haproxy-certificates.timer") == "active"
    assert shown("public1") == first, "it is not due"

    processes = {name: process(name) for name in ADDRESS}
    with load(verify=False) as clients:
        assert renew("lb1") == "replaced"
        second = shown("public1")
        assert second != first
        lab.host("lb2").check_output("systemctl start haproxy-certificates.service")
        assert shown("public2") == second
    assert clients.failures == [], clients.summary()

    # The other balancer has the VIP: it is asked for the answer, and renews.
    lab.host("lb1").check_output("systemctl stop keepalived")
    wait_for(lambda: holders_on("lb2") == set(VIPS), 10)
    assert renew("lb2") == "replaced"
    third = shown("public1")
    assert third != second
    lab.host("lb1").check_output("systemctl start haproxy-certificates.service")
    lab.host("lb1").check_output("systemctl start keepalived")
    wait_for(at_home, 30)
    assert shown("public1") == third
    assert {name: process(name) for name in ADDRESS} == processes, "nothing was reloaded"

    lab.host("client").check_output("systemctl stop pebble")
    try:
        refused = lab.host("lb1").run(f"{renewal('lb1')} --force")
        assert refused.rc == 1
        assert f"{DIRECTORY} did not issue the certificate: " in refused.stderr
    finally:
        lab.host("client").check_output("systemctl start pebble")
    assert shown("public1") == third, "the certificate stays"


def provided(folder: Path) -> str:
    """A certificate from elsewhere, as public authorities issue them: for 90 days, with an address of revocations.

    :returns: its path on the balancers; the key is beside it.
    """
    pki = SCENARIO / "inventory" / ".pki"
    (folder / "extensions").write_text(
        f"subjectAltName=DNS:{SITE}\nextendedKeyUsage=serverAuth\nkeyUsage=digitalSignature\n"
        f"basicConstraints=CA:FALSE\ncrlDistributionPoints=URI:http://{SITE}/ca.crl\n"
    )
    commands = (
        "openssl ecparam -name prime256v1 -genkey -noout -out site.pem.key",
        f"openssl req -new -key site.pem.key -subj /CN={SITE} -out site.csr",
        f"openssl x509 -req -in site.csr -CA {pki}/ca.pem -CAkey {pki}/ca.key -days 90 -extfile extensions"
        " -out site.pem",
    )
    for command in commands:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    for name in ADDRESS:
        for file in ("site.pem", "site.pem.key"):
            words = ["docker", "exec", "-i", lab.container(name), "sh", "-c", f"umask 077; cat > /root/{file}"]
            subprocess.run(words, input=(folder / file).read_bytes(), check=True)
    return "/root/site.pem"


def scan() -> list[dict[str, str]]:
    """What testssl.sh finds, without the checks that its client could not make.

    That has an OpenSSL without GOST, and leaves a TLS 1.3 connection before a ticket is there, by chance.
    """
    report = "/tmp/testssl.json"
    began = time.monotonic()
    lab.host("client").run(
        f"rm -f {report}; testssl --quiet --color 0 --warnings off --sneaky --ip {VIPS['public1']} "
        "--add-ca /etc/ssl/webstack/ca.pem --protocols --server-defaults --server-preference --fs --headers "
        f"--vulnerable --jsonfile {report} https://{SITE}"
    )
    print(f"testssl.sh took {time.monotonic() - began:.0f} s")
    findings = json.loads(lab.host("client").check_output(f"cat {report}"))
    of_the_client = {"engine_problem", "sessionresumption_ticket", "sessionresumption_ID"}
    return [f for f in findings if f["severity"] != "WARN" or f["id"] not in of_the_client]


def test_a_scanner_finds_nothing_above_low(tmp_path: Path) -> None:
    path = provided(tmp_path)
    try:
        done = play(haproxy_keepalived_tls_certificate=path, haproxy_keepalived_tls_key=f"{path}.key")
        assert done.returncode == 0, done.stdout[-3000:]
        findings = scan()
        # A check that did not come about on a busy machine says nothing of the endpoint.
        if any(finding["severity"] == "WARN" for finding in findings):
            findings = scan()
    finally:
        assert play().returncode == 0
    by_id = {finding["id"]: finding for finding in findings}
    assert by_id["TLS1_3"]["severity"] == "OK", findings
    assert "h2" in by_id["ALPN_HTTP2"]["finding"], findings
    above = [f for f in findings if f["severity"] not in ("OK", "INFO", "LOW", "DEBUG")]
    assert [f"{f['id']}: {f['finding']}" for f in above] == []
