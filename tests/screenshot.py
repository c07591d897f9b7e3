"""A picture of a page in headless Chromium, as a visitor sees it. Usage: screenshot.py URL AUTHORITY PICTURE

Exits with an error when a part of the page (style, image) did not come, or the server's certificate is not the
authority's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=900,760",
    "--virtual-time-budget=5000",
)


def key_of(url: str, authority: str) -> str:
    """The digest of the server's public key, after its certificate was verified (the browser knows no such authority).

    :raises ssl.SSLError: the certificate is not the authority's, or not for this name.
    """
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=authority)
    plain = socket.create_connection((parts.hostname or "", parts.port or 443), 10)
    with context.wrap_socket(plain, server_hostname=parts.hostname) as secure:
        certificate = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def came(net_log: Path) -> dict[str, int]:
    """URL path to status, of all that the browser fetched."""
    text = net_log.read_text(errors="replace")
    events = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")["events"]
    paths: dict[int, str] = {}
    statuses: dict[str, int] = {}
    for event in events:
        parameters, source = event.get("params", {}), event["source"]["id"]
        if "url" in parameters and "method" in parameters:
            paths[source] = urlsplit(parameters["url"]).path
        for header in parameters.get("headers", []) if isinstance(parameters.get("headers"), list) else []:
            if source in paths and (match := re.match(r"(?:HTTP/[\d.]+|:status:) ?(\d{3})", header)):
                statuses[paths[source]] = int(match[1])
    return statuses


def main(url: str, authority: str, picture: str) -> None:
    """Take the picture.

    :raises SystemExit: a part of the page did not come.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        own = (f"--user-data-dir={folder}/profile", f"--log-net-log={log}", f"--screenshot={picture}")
        pin = f"--ignore-certificate-errors-spki-list={key_of(url, authority)}"
        subprocess.run(["chromium", *FLAGS, *own, pin, url], check=True, timeout=90, capture_output=True)
        fetched = came(log)
    # 304: asked for again (as the page's icon) after it came.
    wanted = {"/", "/static/style.css", "/static/logo.svg"}
    if missing := {path for path in wanted if fetched.get(path) not in (200, 304)}:
        sys.exit(f"did not come: {', '.join(sorted(missing))}; fetched: {fetched}")
    print("\n".join(f"{status} {path}" for path, status in sorted(fetched.items())))


if __name__ == "__main__":
    main(*sys.argv[1:4])
