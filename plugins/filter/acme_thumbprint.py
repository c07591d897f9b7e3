# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thumbprint of an ACME account's key (RFC 8555, 8.1; RFC 7638)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    MISSING = ""
except ImportError as error:
    MISSING = str(error)

DOCUMENTATION = r"""
name: acme_thumbprint
short_description: The thumbprint of an ACME account's key
version_added: 0.1.0
author: The scaleup.webstack maintainers (@scaleup)
description:
  - The JWK thumbprint (RFC 7638) of a key. Every answer to an HTTP challenge of ACME is the challenge's token, a dot,
    and this (RFC 8555, 8.1), so a web server that knows it answers all of them without being told any.
requirements: [cryptography (on the controller)]
options:
  _input: {description: The key in PEM, private or public, elliptic curve or RSA., type: str, required: true}
"""

EXAMPLES = r"""
- name: What HAProxy adds to a token
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', 'account.key') | scaleup.webstack.acme_thumbprint }}"
"""

RETURN = r"""
_value: {description: "The thumbprint, base64url without padding.", type: str}
"""


def base64url(octets: bytes) -> str:
    """RFC 7515, 2: without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def number(value: int, octets: int = 0) -> str:
    """RFC 7518, 2 and 6.2.1.2: big-endian; as many octets as it takes, or as many as the curve has."""
    return base64url(value.to_bytes(octets or (value.bit_length() + 7) // 8, "big"))


def acme_thumbprint(pem: str) -> str:
    """The thumbprint of a key in PEM.

    :raises AnsibleFilterError: it is no such key, or cryptography is missing on the controller.
    """
    if MISSING:
        raise AnsibleFilterError(f"acme_thumbprint needs the Python package cryptography on the controller: {MISSING}")
    text = pem.encode()
    try:
        if b"PRIVATE" in text:
            key: Any = load_pem_private_key(text, None).public_key()
        else:
            key = load_pem_public_key(text)
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"acme_thumbprint: this is no key in PEM without a passphrase: {error}") from error
    numbers = key.public_numbers()
    if isinstance(key, ec.EllipticCurvePublicKey):
        octets = (key.curve.key_size + 7) // 8
        jwk = {"crv": f"P-{key.curve.key_size}", "kty": "EC"}
        jwk |= {"x": number(numbers.x, octets), "y": number(numbers.y, octets)}
    elif isinstance(key, rsa.RSAPublicKey):
        jwk = {"e": number(numbers.e), "kty": "RSA", "n": number(numbers.n)}
    else:
        raise AnsibleFilterError("acme_thumbprint: ACME accounts have elliptic curve or RSA keys")
    # RFC 7638, 3: the required members only, in lexicographic order, without spaces.
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return base64url(hashlib.sha256(canonical.encode()).digest())


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """All filters of this file."""
        return {"acme_thumbprint": acme_thumbprint}
