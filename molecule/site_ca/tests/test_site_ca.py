"""The certificates as a client verifies them, and what happens to them later."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from labtest import Lab, inventories

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
SCENARIO = ROOT / "molecule" / "site_ca"
AUTHORITY = SCENARIO / "inventory" / ".pki"
lab = Lab("webstack-ca")


def verify(*options: str) -> subprocess.CompletedProcess[str]:
    """Verify the host's certificate with openssl, on this machine."""
    pem = lab.host("lb1").file("/etc/ssl/webstack/host.pem").content_string
    words = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-CAfile",
        str(AUTHORITY / "ca.pem"),
        *options,
    ]
    return subprocess.run(words, input=pem, capture_output=True, text=True)


def serial() -> str:
    return lab.host("lb1").run("sha256sum /etc/ssl/webstack/host.pem").stdout


def converge(*options: str, **variables: object) -> str:
    """Run the play again; returns what it printed."""
    words = [
        "ansible-playbook",
        *inventories(SCENARIO / "inventory"),
        "-e",
        json.dumps(variables),
        *options,
        str(SCENARIO / "converge.yml"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        ("-verify_hostname", "lb1"),
        ("-verify_hostname", "www.lab.test"),
        ("-verify_ip", "198.18.6.11"),
        ("-verify_ip", "198.18.6.101"),
        ("-verify_ip", "2001:db8::101"),
    ],
)
def test_the_certificate_is_good_for_every_name(name: tuple[str, str]) -> None:
    assert verify(*name).returncode == 0


def test_the_certificate_is_good_for_no_other_name() -> None:
    assert verify("-verify_hostname", "www.example.org").returncode != 0


def test_keys_are_where_they_belong() -> None:
    key = lab.host("lb1").file("/etc/ssl/webstack/host.pem.key")
    assert (key.user, key.mode) == ("root", 0o600)
    assert "ENCRYPTED" in (AUTHORITY / "ca.key").read_text()
    assert (AUTHORITY / "ca.key").stat().st_mode & 0o077 == 0
    assert not list(AUTHORITY.glob("**/host*.key")), "a host's key stays on its host"


def test_a_host_may_have_the_authority_only() -> None:
    names = lab.host("app1").run("ls /etc/ssl/webstack").stdout.split()
    assert names == ["ca.pem"]


def test_a_certificate_near_its_end_is_issued_anew_and_its_key_stays() -> None:
    before, key = serial(), lab.host("lb1").file("/etc/ssl/webstack/host.pem.key").sha256sum
    assert "changed=0" in converge()
    assert serial() == before
    # 397 days are left: with a longer notice than that, it is time.
    converge("--check", site_ca_renew_days=398, site_ca_certificate_days=399)
    assert serial() == before, "check mode changes nothing"
    converge(site_ca_renew_days=398, site_ca_certificate_days=399)
    assert serial() != before
    assert lab.host("lb1").file("/etc/ssl/webstack/host.pem.key").sha256sum == key
    assert verify("-verify_hostname", "www.lab.test").returncode == 0


def test_impossible_periods_are_refused() -> None:
    words = [
        "ansible-playbook",
        *inventories(SCENARIO / "inventory"),
        "-e",
        "site_ca_renew_days=400",
        str(SCENARIO / "converge.yml"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    assert "site_ca_renew_days (400) must be less than" in done.stdout + done.stderr
