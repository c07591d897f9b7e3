"""docs/operations.md names every playbook of the collection, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
PLAYBOOKS = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
# "… name" and "scaleup.webstack.name" are commands.
NAMED = set(re.findall(r"(?:… |scaleup\.webstack\.)([a-z_]+)", GUIDE)) - {"nothing"}


def test_every_playbook_is_in_the_guide_and_every_command_there_is_a_playbook() -> None:
    assert NAMED == PLAYBOOKS


def test_every_alert_is_in_the_guide_and_in_the_role_s_own() -> None:
    role = ROOT / "roles" / "ops_server"
    alerts = {
        alert["alert"] for alert in yaml.safe_load((role / "vars" / "main.yml").read_text())["__ops_server_alerts"]
    }
    assert alerts
    for text in (GUIDE, (role / "README.md").read_text()):
        assert [alert for alert in alerts if f"`{alert}`" not in text] == []


def test_every_option_in_the_guide_is_one_of_the_playbooks_or_roles() -> None:
    said = "".join(
        path.read_text() for path in [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/defaults/main.yml")]
    )
    options = set(re.findall(r"-e ([a-z_]+)=", GUIDE))
    assert [name for name in options if not re.search(rf"\b{name}\b", said)] == []


def test_every_link_in_the_guide_leads_somewhere() -> None:
    heads = {re.sub(r"[^a-z -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^## (.*)$", GUIDE, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        assert target[1:] in heads if target.startswith("#") else (ROOT / "docs" / target).exists(), target


def test_the_readme_and_the_lab_agree_with_the_guide_on_who_must_know() -> None:
    table = dict(re.findall(r"^\| (lb|web|app|db) \| `([a-z:]+)` \|$", GUIDE, re.MULTILINE))
    lab = dict(re.findall(r'"(lb|web|app|db)": "([a-z:]+)"', (ROOT / "lab").read_text()))
    assert table == lab
