"""The preflight stops every play that has no site under it, whatever ansible.cfg and --limit say; run for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.plugin_utils.checks import site_problems, tiers_files

GOOD = """\
plugin: scaleup.webstack.tiers
tiers:
  lb: {hosts: {"lb[1:2]": {address_start: 10.0.0.11}}}
  web: {hosts: {web1: {address: 10.0.0.21}}}
  app: {hosts: {app1: {address: 10.0.0.31}}}
  db: {hosts: {"db[1:2]": {address_start: 10.0.0.41}}, primary: {host: db1}}
"""
BROKEN = GOOD.replace("host: db1", "host: db3")
STATIC = (
    "[lb]\nlb1\n[web]\nweb1\n[app]\napp1\n[db:children]\ndb_primary\ndb_replica\n[db_primary]\ndb1\n[db_replica]\ndb2\n"
)
PLAY = """\
- import_playbook: scaleup.webstack.preflight
- hosts: all
  gather_facts: false
  tasks: [{ansible.builtin.debug: {msg: "TOUCHED {{ inventory_hostname }}"}}]
"""


def play(site: Any, root: Path, *arguments: str, playbook: str = PLAY) -> subprocess.CompletedProcess[str]:
    """ansible-playbook with no configuration but the collection's place: as on a user's machine."""
    (site.folder / "ansible.cfg").write_text("", encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")} | {
        "ANSIBLE_CONFIG": str(site.folder / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(root / ".ansible" / "collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "PWD": str(site.folder),
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), site.write("play.yml", playbook), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site.folder)


@pytest.mark.parametrize("limit", [("--limit", "web"), ("--limit", "web", "--tags", "other")])
def test_a_good_site_passes_under_any_limit(site: Any, root: Path, limit: tuple[str, ...]) -> None:
    done = play(site, root, "-i", site.write("site.tiers.yml", GOOD), *limit)
    assert done.returncode == 0, done.stdout + done.stderr
    touched = {line.split()[-1].rstrip('"') for line in done.stdout.splitlines() if "TOUCHED" in line}
    assert touched == (
        set() if "--tags" in limit else {"web1"} if limit else {"lb1", "lb2", "web1", "app1", "db1", "db2"}
    )


@pytest.mark.parametrize("limit", [(), ("--limit", "web")])
def test_a_broken_file_alone_stops_the_play(site: Any, root: Path, limit: tuple[str, ...]) -> None:
    """Ansible itself would say "no hosts matched" and end with 0."""
    path = site.write("site.tiers.yml", BROKEN)
    done = play(site, root, "-i", path, *limit)
    assert done.returncode != 0
    assert "The inventory has no hosts, so there is nothing to configure." in done.stderr
    told = "".join(done.stderr.split())  # older cores break lines anywhere
    assert (
        "".join(f"{path}:6: tiers.db.primary.host: 'db3' is no host of the tier 'db' (hosts: db1, db2).".split())
        in told
    )


@pytest.mark.parametrize("limit", [("--limit", "db2")])
def test_a_broken_file_beside_a_good_source_stops_the_play(site: Any, root: Path, limit: tuple[str, ...]) -> None:
    site.write("inventory/hosts.ini", STATIC)
    hosts = site.write("inventory/hosts", STATIC)
    path = site.write("inventory/zz.tiers.yml", BROKEN.replace("db[1:2]", "db[8:9]"))
    done = play(site, root, "-i", str(Path(hosts).parent), *limit)
    assert done.returncode != 0
    assert "TOUCHED" not in done.stdout
    assert f"{path} was not read" in done.stdout + done.stderr


def test_an_encrypted_broken_file_stops_the_play(site: Any, root: Path) -> None:
    hosts, path, password = site.write("hosts.ini", STATIC), site.write("zz.yml", BROKEN), site.write("password", "x")
    vault = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", "--vault-password-file", password, path]
    subprocess.run(vault, check=True, capture_output=True)
    done = play(site, root, "-i", hosts, "-i", path, "--vault-password-file", password)
    assert done.returncode != 0
    assert f"{path} was not read" in done.stdout + done.stderr


def test_a_forgotten_inventory_stops_the_play(site: Any, root: Path) -> None:
    done = play(site, root)
    assert done.returncode != 0
    assert "No host is in one of the groups lb, web, app, db, ops" in done.stdout
    assert "TOUCHED" not in done.stdout


def test_the_syntax_can_be_checked_without_an_inventory(site: Any, root: Path) -> None:
    """As ansible-lint and Galaxy's importer do."""
    done = play(site, root, "--syntax-check")
    assert done.returncode == 0, done.stderr


def test_a_static_inventory_passes(site: Any, root: Path) -> None:
    done = play(site, root, "-i", site.write("hosts.ini", STATIC), "--limit", "app")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TOUCHED app1" in done.stdout


def test_a_static_inventory_without_a_database_stops_the_play(site: Any, root: Path) -> None:
    done = play(site, root, "-i", site.write("hosts.ini", STATIC.split("[db:")[0]))
    assert done.returncode != 0
    assert "The group 'db_primary' has no host: add one to it." in done.stdout
    assert "TOUCHED" not in done.stdout


def test_the_diagram_is_written(site: Any, root: Path) -> None:
    playbook = "- import_playbook: scaleup.webstack.diagram\n"
    folder = site.folder / "docs"
    folder.mkdir()
    arguments = ["-i", site.write("site.tiers.yml", GOOD), "--limit", "web", "-e", "diagram_dir=docs"]
    done = play(site, root, *arguments, playbook=playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<svg" in (folder / "webstack.svg").read_text(encoding="utf-8")
    assert "host_db1 -. GTID .-> host_db2" in (folder / "webstack.mmd").read_text(encoding="utf-8")


@pytest.mark.parametrize("before", [[], ["hosts.yml"]], ids=["alone", "after a YAML source"])
def test_ansible_inventory_shows_plain_text(site: Any, root: Path, before: list[str]) -> None:
    """From core 2.19 strings without trust would appear as {"__ansible_unsafe": …}; vars in the file keep theirs.

    Core takes the trust of every source to be that of the first, so a source before ours must not change it.
    """
    sources = [word for name in before for word in ("-i", site.write(name, "all: {vars: {first: set by another}}\n"))]
    config = GOOD.replace("10.0.0.21", "10.0.0.21, vars: {greeting: 'I am {{ inventory_hostname }}'}")
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-inventory"),
            *sources,
            "-i",
            site.write("site.tiers.yml", config),
            "--list",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(root / ".ansible" / "collections")},
        cwd=site.folder,
    )
    assert "__ansible_unsafe" not in done.stdout
    assert "I am {{ inventory_hostname }}" in done.stdout
    done = play(
        site,
        root,
        "-i",
        site.write("site.tiers.yml", config),
        playbook="- hosts: web\n  gather_facts: false\n  tasks: [{ansible.builtin.debug: {var: greeting}}]\n",
    )
    assert "I am web1" in done.stdout


# --- the checks themselves ---


def groups(**changes: list[str]) -> dict[str, list[str]]:
    good = {"lb": ["lb1"], "web": ["web1"], "app": ["app1"], "db": ["db1", "db2"], "db_primary": ["db1"]}
    return {**good, "db_replica": ["db2"], **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"ops": ["ops1"]}, []),
        ({"web": []}, ["The group 'web' has no host: add one to it."]),
        ({"web": ["lb1"]}, ["The host 'lb1' is in two tiers, lb and web: keep it in one of them."]),
        ({"db_primary": []}, ["The group 'db_primary' has no host: put one of db1, db2 into it."]),
        (
            {"db_primary": ["db1", "db2"], "db_replica": []},
            ["The group 'db_primary' has 2 hosts (db1, db2): keep one in it."],
        ),
        (
            {"db_replica": ["db1", "db2"]},
            ["The host 'db1' is in db_primary and in db_replica: keep it in one of them."],
        ),
        ({"db_replica": []}, ["In the group 'db', db2 has no role: put it into db_replica."]),
        ({"db": []}, ["The group 'db' lacks its children: make db_primary and db_replica children of it."]),
    ],
)
def test_site_problems(changes: dict[str, list[str]], expected: list[str]) -> None:
    inventory = groups(**changes)
    hostvars: dict[str, dict[str, Any]] = {name: {} for names in inventory.values() for name in names}
    assert site_problems(inventory, hostvars) == expected


def test_a_site_says_which_groups_it_needs() -> None:
    inventory = {"web": ["web1"]}
    assert site_problems(inventory, {"web1": {"webstack_required_groups": ["web"]}}) == []
    assert site_problems(inventory, {"web1": {"webstack_required_groups": ["web", "cache"]}}) == [
        "The group 'cache' has no host: add one to it."
    ]


def test_files_of_the_plugin_are_found_where_ansible_looks(site: Any) -> None:
    found = [site.write("inventory/a.yml", GOOD), site.write("inventory/deeper/b.yaml", GOOD)]
    site.write("inventory/group_vars/all.yml", GOOD)
    site.write("inventory/.hidden.yml", GOOD)
    site.write("inventory/hosts.yml", "all: {}\n")
    other = site.write("other.yml", GOOD)
    assert tiers_files([str(site.folder / "inventory"), other, "web1,web2", str(site.folder / "none")]) == [
        *found,
        other,
    ]
