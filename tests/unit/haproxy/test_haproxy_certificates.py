"""When a certificate is renewed, what is compared with what HAProxy shows, and the thumbprint of an account."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.scaleup.webstack.plugins.filter.acme_thumbprint import acme_thumbprint
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PROGRAM = Path(__file__).parents[3] / "roles" / "haproxy_keepalived" / "files" / "haproxy-certificates"
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
KEY = ec.generate_private_key(ec.SECP256R1())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def alternatives(names: list[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(each) for each in names])


def certificate(issuer: str = "authority", names: tuple[str, ...] = ("a.test",), days: int = 90) -> x509.Certificate:
    builder = x509.CertificateBuilder(name(issuer), name("site"), KEY.public_key(), 1)
    builder = builder.not_valid_before(BEGIN).not_valid_after(BEGIN + timedelta(days=days))
    return builder.add_extension(alternatives(list(names)), False).sign(KEY, hashes.SHA256())


def request(*names: str) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(name("site"))
    return builder.add_extension(alternatives(list(names)), False).sign(KEY, hashes.SHA256())


@pytest.mark.parametrize(
    ("has", "wants", "after", "due"),
    [
        ({}, ["a.test"], 59, False),
        ({}, ["a.test"], 61, True),
        ({"days": 6}, ["a.test"], 3, False),
        ({"days": 6}, ["a.test"], 5, True),
        ({}, ["a.test", "b.test"], 1, True),
        ({"issuer": "site"}, ["a.test"], 1, True),
        ({"names": ("b.test", "a.test")}, ["a.test", "b.test"], 1, False),
    ],
    ids=["young", "last third", "short and young", "short, last third", "a name more", "provisional", "other order"],
)
def test_a_certificate_is_renewed_in_the_last_third_of_its_time(
    program: ModuleType, has: dict[str, Any], wants: list[str], after: int, due: bool
) -> None:
    assert program.due(certificate(**has), request(*wants), BEGIN + timedelta(days=after)) is due


def test_what_haproxy_shows_is_compared_by_fingerprint_and_length_of_the_chain(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate().public_bytes(Encoding.PEM).decode()
    mine = program.fingerprints(pem)[0]
    shown = f"Filename: /x.pem\nStatus: Used\nSHA1 FingerPrint: {mine}\nChain Subject: /CN=a\n"
    monkeypatch.setattr(program, "ask", lambda command: shown)
    assert program.serves("cert", Path("/x.pem"), pem + pem) is True
    assert program.serves("cert", Path("/x.pem"), pem) is False, "the chain is another one"
    assert program.serves("cert", Path("/y.pem"), pem) is None, "the process does not use it"


# RFC 7638, 3.1.
MODULUS = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
    "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM"
    "QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJ"
    "zKnqDKgw"
)


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    modulus = int.from_bytes(base64.urlsafe_b64decode(MODULUS + "=="), "big")
    key = rsa.RSAPublicNumbers(65537, modulus).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert acme_thumbprint(pem) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_private_key_has_the_thumbprint_of_its_public_half() -> None:
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert acme_thumbprint(private) == acme_thumbprint(public)


def test_no_key_has_no_thumbprint() -> None:
    with pytest.raises(AnsibleFilterError, match="no key in PEM"):
        acme_thumbprint("nothing")
