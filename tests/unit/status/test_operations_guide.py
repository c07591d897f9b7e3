"""docs/operations.md names every playbook of the collection, and none that is not there; a test runs each command."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
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


# --- every command is run by a test of the whole site -----------------------------------------------------------------

TESTS = ROOT / "molecule" / "default" / "tests"
LOOKS = "test_operations::test_what_only_looks_changes_nothing"
RELEASES = "test_operations::test_a_release_is_taken_back_and_one_beside_it_is_finished_or_taken_back"
PRIMARY = "test_operations::test_the_primary_moves_and_one_that_is_lost_is_replaced_and_comes_back"
BACKUPS = "test_operations::test_backups_are_taken_proven_and_restored"
ONE_HOST = "test_operations::test_the_site_s_play_over_one_host_puts_back_what_somebody_broke"
FIREWALL = "test_operations::test_the_firewall_is_off_until_the_next_run"
LAB = "test_operations::test_the_lab_says_what_runs_and_runs_playbooks"
OUT = "test_maintenance::test_a_host_that_is_out_may_be_powered_off"
WHOLE = "test_status::test_a_whole_site_is_called_whole"
SCALE = "test_scale::test_a_tier_grows_and_shrinks"
# The guide's command: the test that runs it, and the words by which it is known there.
RUN: dict[str, tuple[str, tuple[str, ...]]] = {
    "--check --diff": (LOOKS, ("--check", "--diff")),
    "-e host_is_dead=true": ("test_operations::test_a_host_that_is_lost_is_forgotten", ("host_is_dead=true",)),
    "-e mysql_replication_restore_into=site": (BACKUPS, ("mysql_replication_restore_into=site",)),
    "-e status_html=FILE": (WHOLE, ("status_html=",)),
    "-e status_json=FILE": (WHOLE, ("status_json=",)),
    "-e update_reboot=waiting": (LOOKS, ("rolling_update", "update_reboot=waiting")),
    "-u gunicorn-NAME": (LOOKS, ("journalctl", "gunicorn-guestbook")),
    "./lab chaos": ("test_scale::test_an_event_happens", ("./lab", "chaos")),
    "./lab play NAME …": (LAB, ("lab", "play")),
    "./lab scale web=2": (SCALE, ("scale(", "(3, 2)")),
    "./lab scale web=3": (SCALE, ("scale(", "(3, 2)")),
    "./lab status": (LAB, ("lab", "status")),
    "./lab up": ("test_operations::test_the_environment_is_that_of_the_lab", ("lab", "up")),
    "=back": (RELEASES, ("gunicorn_app_blue_green=back",)),
    "=finish": (RELEASES, ("gunicorn_app_blue_green=finish",)),
    "ansible-playbook -i my-site scaleup.webstack.status": (WHOLE, ("status",)),
    "apt install NAME=VERSION": (LOOKS, ("apt install", "nginx=")),
    "journalctl --vacuum-size=200M": (LOOKS, ("journalctl --vacuum-size=200M",)),
    "journalctl -u UNIT": (LOOKS, ("journalctl", "-u {unit}")),
    "journalctl -u mysql": (LOOKS, ("journalctl", '"mysql"')),
    "journalctl -u mysql-backup -u mysql-binlogs": (BACKUPS, ("-u mysql-backup -u mysql-binlogs",)),
    "journalctl -u nginx": (LOOKS, ("journalctl", '"nginx"')),
    "systemctl status": (LOOKS, ("systemctl status nginx",)),
    "systemctl status haproxy keepalived": (LOOKS, ("systemctl status haproxy keepalived",)),
    "systemctl status haproxy-certificates": (LOOKS, ("systemctl status haproxy-certificates",)),
    "timedatectl": (LOOKS, ("timedatectl",)),
    "webstack-firewall off": (FIREWALL, ("webstack-firewall off",)),
    "webstack-firewall show": (FIREWALL, ("webstack-firewall show",)),
    "… backup": (BACKUPS, ('played("backup"',)),
    "… backup_verify": (BACKUPS, ('played("backup_verify"',)),
    "… blue_green -e gunicorn_app_blue_green=start": (RELEASES, ("blue_green", "gunicorn_app_blue_green=start")),
    "… decommission -e host=HOST": (SCALE, ("scale(",)),
    "… deploy": (RELEASES, ('played("deploy"',)),
    "… diagram": (LOOKS, ('played("diagram"',)),
    "… failover": (PRIMARY, ('play("failover"',)),
    "… maintenance -e host=HOST": (OUT, ('played("maintenance"', "host={host}")),
    "… maintenance -e host=HOST -e back=true": (OUT, ('played("maintenance"', "back=true")),
    "… preflight": (LOOKS, ('played("preflight"',)),
    "… rejoin -e mysql_replication_rejoin=HOST": (PRIMARY, ('"rejoin"', "mysql_replication_rejoin={first}")),
    "… restore": (BACKUPS, ('played("restore"',)),
    "… restore -e mysql_replication_restore_before=2026-11-28T03:00:00Z": (
        BACKUPS,
        ('played("restore"', "mysql_replication_restore_before={moment}"),
    ),
    "… restore -e mysql_replication_restore_into=absent": (BACKUPS, ("mysql_replication_restore_into=absent",)),
    "… rollback": (RELEASES, ('played("rollback"',)),
    "… rolling_update": ("test_rolling_update::test_all_hosts_restart_under_load", ('played("rolling_update"',)),
    "… site": ("test_operations::test_a_certificate_is_renewed_and_nobody_notices", ('played("site"',)),
    "… site --limit": (ONE_HOST, ('played("site", "--limit", host)',)),
    "… site --limit HOST": (ONE_HOST, ('played("site", "--limit", host)',)),
    "… site --limit TIER": ("test_site::test_a_run_limited_to_one_tier_changes_nothing", ('"--limit", "web"',)),
    "… site --limit lb": (ONE_HOST, ('played("site", "--limit", "lb")',)),
    "… status": (WHOLE, ("status",)),
    "… switchover": (PRIMARY, ('played("switchover")',)),
}
# Of a clock of its own, which a container has not.
NOT_IN_CONTAINERS = {"systemctl restart systemd-timesyncd"}
COMMAND = re.compile(
    r"(… [a-z]|ansible-playbook .*[a-z]$|\./lab|-e |-u |--check|=[a-z]|apt |(journal|system|timedate)ctl|webstack-)"
)


def test_every_command_of_the_guide_has_a_test() -> None:
    commands = {text for text in re.findall(r"`([^`]+)`", GUIDE) if COMMAND.match(text)}
    assert commands - NOT_IN_CONTAINERS == set(RUN)


@pytest.mark.parametrize("command", RUN)
def test_the_test_of_a_command_runs_it(command: str) -> None:
    (module, name), words = RUN[command][0].split("::"), RUN[command][1]
    text = (TESTS / f"{module}.py").read_text()
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    source = ast.get_source_segment(text, functions[name]) or ""
    # A helper of the module may hold the rest of the words.
    called = [n for n in functions if n != name and not n.startswith("test_") and re.search(rf"\b{n}\(", source)]
    source += "".join(ast.get_source_segment(text, functions[n]) or "" for n in called)
    assert [word for word in words if word not in source] == []
