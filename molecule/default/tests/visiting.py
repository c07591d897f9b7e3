"""What the tests of the whole site share: visitors, and the collection's playbooks."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
from cryptography import x509
from labtest import Lab, inventories
from load import Load, Request
from requests.adapters import HTTPAdapter

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
INVENTORY = Path(os.environ.get("LAB_INVENTORY", ROOT / "molecule" / "default" / "inventory"))
SITE = "www.lab.test"
lab = Lab()


def inventory() -> dict[str, Any]:
    """Host name to its variables, by the project's own plugin."""
    words = ["ansible-inventory", "-i", str(INVENTORY), "--list"]
    environment = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections")}
    text = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    found: dict[str, Any] = json.loads(text)["_meta"]["hostvars"]
    return found


HOSTS = inventory()
VIPS = {vip["name"]: vip["address"] for vip in HOSTS["lb1"]["webstack_vips"]}
PUBLIC = [VIPS["public1"], VIPS["public2"]]
AUTHORITY = str(INVENTORY / ".pki" / "ca.pem")


class ByName(HTTPAdapter):
    """Sends requests for the site to one VIP, as the site's DNS would."""

    def __init__(self, vip: str) -> None:
        self.vip = vip
        super().__init__()

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.poolmanager.connection_pool_kw |= {"server_hostname": SITE, "assert_hostname": SITE}
        request.url = request.url.replace(f"https://{SITE}", f"https://{self.vip}")
        request.headers["Host"] = SITE
        return super().send(request, *args, **kwargs)


def visitor(vip: str) -> requests.Session:
    session = requests.Session()
    session.verify = AUTHORITY
    # Otherwise a variable such as REQUESTS_CA_BUNDLE would win over that.
    session.trust_env = False
    session.mount(f"https://{SITE}", ByName(vip))
    return session


def served_by(page: str) -> dict[str, str]:
    return dict(re.findall(r"<li><span>([^<]+)</span><strong>([^<]+)</strong>", page))


def whole() -> bool:
    """Every VIP answers, each on a balancer of its own, and every tier has both of its machines in use."""
    balancers = set()
    for vip in PUBLIC:
        answers = [served_by(visitor(vip).get(f"https://{SITE}/", timeout=3).text) for _ in range(8)]
        if {a["Web server"] for a in answers} != {"web1", "web2"} or "none" in str(answers):
            return False
        if {a["Application"] for a in answers} != {"app1", "app2"}:
            return False
        balancers |= {a["Balancer"] for a in answers}
    return balancers == {"lb1", "lb2"}


def traffic(reads: tuple[str, ...] = ("/", "/", "/"), **settings: Any) -> Load:
    """Reads and writes through both VIPs.

    The page answers without its entries when no database does; `/entries` answers 503 then.
    """
    asks = []
    for vip in PUBLIC:
        write = Request(
            f"https://{SITE}/entries",
            method="POST",
            body=json.dumps({"author": "load", "message": "under load"}).encode(),
            headers={"Content-Type": "application/json"},
            connect_to=vip,
        )
        asks += [*(Request(f"https://{SITE}{path}", connect_to=vip) for path in reads), write]
        asks += [Request(f"https://{SITE}/static/style.css", connect_to=vip)]
    return Load(asks, rate=40, timeout=10, context=ssl.create_default_context(cafile=AUTHORITY), **settings)


def play(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one of the collection's playbooks on what is up."""
    words = ["ansible-playbook", *inventories(INVENTORY), *options, str(ROOT / "playbooks" / f"{name}.yml")]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LAB_CHECKOUT": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)


def played(name: str, *options: str) -> str:
    """The same, and it must succeed; returns what it printed."""
    done = play(name, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def every_certificate() -> tuple[str, ...]:
    """Options with which the site's play issues every host's certificate anew, however young it is."""
    ends = [
        x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        for path in (INVENTORY / ".pki" / "certs").glob("*.pem")
    ]
    days = (max(ends) - datetime.now(timezone.utc)).days + 1
    return ("-e", f"site_ca_renew_days={days}", "-e", f"site_ca_certificate_days={days + 1}")
