"""The commands of docs/operations.md that no other test runs, as an operator types them; on the whole site, under load.

tests/unit/status/test_operations_guide.py says which test runs which command.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from labtest import wait_for
from visiting import HOSTS, INVENTORY, PUBLIC, ROOT, SITE, every_certificate, lab, play, played, traffic, visitor, whole

pytestmark = pytest.mark.thorough


def entries() -> set[int]:
    """What the primary has."""
    for name in ("db1", "db2"):
        query = "SELECT IF(@@read_only, '', GROUP_CONCAT(id)) FROM guestbook.entries"
        done = lab.host(name).run(f'mysql -NBe "SET group_concat_max_len = 1 << 30; {query}"')
        if done.rc == 0 and done.stdout.strip():
            return {int(number) for number in done.stdout.split(",")}
    raise AssertionError("no writable database answers")


def page() -> str:
    return str(visitor(PUBLIC[0]).get(f"https://{SITE}/", timeout=5).text)


def release() -> set[str]:
    """The releases that answer."""
    return {visitor(vip).get(f"https://{SITE}/", timeout=5).headers["X-Release"] for vip in PUBLIC for _ in range(6)}


def primary() -> str:
    """The database that may be written to."""
    found = [n for n in ("db1", "db2") if lab.host(n).run("mysql -NBe 'SELECT @@read_only'").stdout.strip() == "0"]
    assert len(found) == 1, found
    return found[0]


def test_what_only_looks_changes_nothing(tmp_path: Path) -> None:
    played("preflight")
    played("diagram", "-e", f"diagram_dir={tmp_path}")
    assert {path.name for path in tmp_path.iterdir()} == {"webstack.svg", "webstack.mmd"}
    said = played("site", "--check", "--diff")
    assert re.findall(r"^(\S+) +: ok=\d+ +changed=[1-9]", said, re.MULTILINE) == []
    said = played("rolling_update", "--check", "-e", "update_packages=none", "-e", "update_reboot=waiting")
    assert re.findall(r"^(\S+) +: ok=\d+ +changed=[1-9]", said, re.MULTILINE) == []
    # What a host says when somebody looks at it, as the tables of the guide have it.
    for host, unit in (("web1", "nginx"), ("app1", "gunicorn-guestbook"), ("db1", "mysql"), ("db2", "mysql-health")):
        assert lab.host(host).check_output(f"journalctl --no-pager -n 5 -u {unit}")
    assert "running" in lab.host("lb1").check_output("systemctl status haproxy keepalived")
    # It runs where an ACME authority issues the certificate.
    assert "haproxy-certificates" in lab.host("lb1").run("systemctl status haproxy-certificates").stdout
    assert "UTC" in lab.host("web1").run("timedatectl 2>&1 || date -u").stdout
    lab.host("web1").check_output("systemctl status nginx")
    lab.host("web1").check_output("journalctl --vacuum-size=200M")
    lab.host("web1").check_output("apt install --yes nginx=$(dpkg-query --show --showformat '${Version}' nginx)")


@pytest.mark.usefixtures("healed")
@pytest.mark.parametrize("host", ["web2", "app1", "db2", "lb1"])
def test_the_site_s_play_over_one_host_puts_back_what_somebody_broke(host: str) -> None:
    broken = {
        "web2": "rm /etc/nginx/nginx.conf",
        "app1": "rm /etc/systemd/system/gunicorn-guestbook.socket",
        "db2": "rm /etc/mysql/mysql.conf.d/zz-webstack.cnf",
        "lb1": "echo nonsense >> /etc/haproxy/haproxy.cfg",
    }
    lab.host(host).check_output(broken[host])
    with traffic() as visitors:
        assert re.search(rf"^{host} +: ok=\d+ +changed=[1-9]", played("site", "--limit", host), re.MULTILINE)
    assert visitors.failures == [], visitors.summary()
    played("site", "--limit", "lb")


def test_a_release_is_taken_back_and_one_beside_it_is_finished_or_taken_back(tmp_path: Path) -> None:
    source = tmp_path / "molecule" / "shared" / "app"
    shutil.copytree(ROOT / "molecule" / "shared" / "app", source)
    template = source / "guestbook" / "templates" / "index.html"

    def change(mark: str) -> tuple[str, str]:
        # Another release each time: what was rolled back is void.
        template.write_text(f"{template.read_text()}<!-- {mark} --><!-- {time.time_ns()} -->\n")
        return ("-e", f"lab_checkout={tmp_path}")

    first = release()
    assert len(first) == 1
    with traffic() as visitors:
        played("deploy", *change("one"))
        assert len(release()) == 1 and release() != first and "<!-- one -->" in page()
        played("rollback")
        assert release() == first
        beside = change("two")
        played("blue_green", *beside, "-e", "gunicorn_app_blue_green=start")
        assert "<!-- two -->" in page()
        done = play("deploy", *change("nobody's"))
        said = done.stdout + done.stderr
        assert done.returncode != 0 and "runs beside the service on app1" in said, said[-1500:]
        played("blue_green", *beside, "-e", "gunicorn_app_blue_green=back")
        assert release() == first
        beside = change("three")
        played("blue_green", *beside, "-e", "gunicorn_app_blue_green=start")
        played("blue_green", *beside, "-e", "gunicorn_app_blue_green=finish")
        assert "<!-- three -->" in page() and len(release()) == 1
        played("site", "--limit", "app")
    assert visitors.failures == [], visitors.summary()
    assert release() == first


@pytest.mark.usefixtures("healed")
def test_the_primary_moves_and_one_that_is_lost_is_replaced_and_comes_back() -> None:
    acknowledged: set[int] = set()

    def note(_: object, answer: object) -> None:
        if answer.status == 201:  # type: ignore[attr-defined]
            acknowledged.add(json.loads(answer.body)["id"])  # type: ignore[attr-defined]

    first = primary()
    other = {"db1": "db2", "db2": "db1"}[first]
    with traffic(on_result=note) as visitors:
        played("switchover")
        assert primary() == other
        played("switchover")
        assert primary() == first
    assert visitors.failures == [], visitors.summary()
    with traffic(on_result=note) as visitors:
        time.sleep(2)
        lab.kill(first)
        time.sleep(2)
        done = play("failover", "-e", "mysql_replication_primary_is_dead=true")
        assert "is writable" in done.stdout, done.stdout[-3000:]
        count = len(acknowledged)
        wait_for(lambda: len(acknowledged) > count + 10, 30)
        lab.start(first)
        if play("rejoin", "-e", f"mysql_replication_rejoin={first}").returncode:
            # What nobody acknowledged was on its disk only: it is thrown away on the operator's word.
            played("rejoin", "-e", f"mysql_replication_rejoin={first}", "-e", "mysql_replication_clone=true")
        # A switchover refuses a replica that has yet to catch up.
        wait_for(lambda: "Source: 0" in lab.host(first).run("mysql -e 'SHOW REPLICA STATUS' --vertical").stdout, 60)
        played("switchover", "-e", f"mysql_replication_candidate={first}")
    assert [failure for failure in visitors.failures if failure.method == "GET"] == [], visitors.summary()
    assert acknowledged <= entries()


@pytest.mark.usefixtures("healed")
def test_a_host_that_is_lost_is_forgotten() -> None:
    def scale(size: str) -> None:
        done = subprocess.run([ROOT / "lab", "scale", size], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    scale("web=3")
    lab.docker("rm", "--force", "--volumes", lab.container("web3"))
    with traffic() as visitors:
        # Its exit code tells of the host that does not answer.
        play("decommission", "-e", "host=web3", "-e", "host_is_dead=true")
        assert "web3" not in lab.host("lb1").check_output("haproxy-servers show")
    assert visitors.failures == [], visitors.summary()
    subprocess.run([ROOT / "lab", "inventory"], check=True)
    sizes = INVENTORY.parent / "sizes.json"
    sizes.write_text(json.dumps(json.loads(sizes.read_text()) | {"web": 2}))
    subprocess.run([ROOT / "lab", "inventory"], check=True)
    wait_for(whole, 60)


def test_the_lab_says_what_runs_and_runs_playbooks() -> None:
    done = subprocess.run([ROOT / "lab", "status"], capture_output=True, text=True)
    assert done.returncode == 0 and "The site is whole." in done.stdout, done.stdout
    done = subprocess.run([ROOT / "lab", "play", "status"], capture_output=True, text=True)
    assert done.returncode == 0 and "The site is whole." in done.stdout, done.stdout[-2000:]


def test_the_firewall_is_off_until_the_next_run() -> None:
    host = lab.host("web1")
    assert host.check_output("webstack-firewall off") == "changed"
    assert "webstack" not in host.check_output("nft list tables")
    played("site", "--limit", "web1")
    assert "webstack" in host.check_output("nft list tables") and host.check_output("webstack-firewall show")


@pytest.fixture
def backups(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The options by which the site has backups: on the additional server, for a key that only the controller has."""
    for name in ("client", "backup"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", tmp_path / name], check=True)
    ops = str(HOSTS["ops1"]["tier_address"])
    values = {
        "ops_server_archive_keys": [(tmp_path / "client.pub").read_text().strip()],
        "mysql_replication_backup_recipients": [(tmp_path / "backup.pub").read_text().strip()],
        "mysql_replication_backup_identity": (tmp_path / "backup").read_text(),
        "mysql_replication_backup_target": "ops:/archive",
        "mysql_replication_backup_ssh_key": (tmp_path / "client").read_text(),
        "mysql_replication_backup_rclone": "[ops]\ntype = sftp\n"
        f"host = {ops}\nport = 2022\nuser = webstack-archive\nkey_file = /etc/mysql/webstack/backup_ssh_key\n"
        "known_hosts_file = /etc/mysql/webstack/known_hosts\nshell_type = none\n",
    }
    options = tmp_path / "options.json"
    options.touch(0o600)
    options.write_text(json.dumps(values))
    played("site", "--limit", "ops", "-e", f"@{options}")
    key = lab.host("ops1").check_output("cat /etc/webstack-archive.key.pub")
    options.write_text(json.dumps(values | {"mysql_replication_backup_known_hosts": f"[{ops}]:2022 {key}\n"}))
    played("site", "--limit", "db", "-e", f"@{options}")
    yield ("-e", f"@{options}")
    played("site", "--limit", "db:ops")


def test_backups_are_taken_proven_and_restored(backups: tuple[str, ...]) -> None:
    played("backup", *backups)
    assert lab.host("db2").check_output("journalctl --no-pager -n 5 -u mysql-backup -u mysql-binlogs")
    played("backup_verify", *backups)
    before = entries()
    time.sleep(1)
    moment = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    time.sleep(1)
    lab.host(primary()).check_output("mysql -e 'DELETE FROM guestbook.entries ORDER BY id LIMIT 1'")
    assert entries() != before
    played("restore", *backups, "-e", f"mysql_replication_restore_before={moment}")
    played("restore", *backups, "-e", "mysql_replication_restore_into=absent")
    into = ("-e", "mysql_replication_restore_into=site")
    played("restore", *backups, "-e", f"mysql_replication_restore_before={moment}", *into)
    assert entries() == before
    wait_for(whole, 60)


def test_a_certificate_is_renewed_and_nobody_notices() -> None:
    with traffic() as visitors:
        said = played("site", *every_certificate())
    assert re.search(r"changed=[1-9]", said), said[-1500:]
    assert visitors.failures == [], visitors.summary()


def test_the_environment_is_that_of_the_lab() -> None:
    """`./lab up` once more brings up to date what is there."""
    if not os.environ.get("LAB_NETWORK"):
        pytest.skip("the network of this lab is not known here")
    done = subprocess.run([ROOT / "lab", "up"], capture_output=True, text=True)
    assert done.returncode == 0 and "changed=0" in done.stdout, done.stdout
