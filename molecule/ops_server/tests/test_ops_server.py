"""The additional server: what it sees, what it raises, and what the archive lets in."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from labtest import Lab, inventories, wait_for

ROOT = Path(os.environ.get("MOLECULE_PROJECT_DIRECTORY", Path(__file__).parents[3]))
SCENARIO = ROOT / "molecule" / "ops_server"
OPS = "198.18.7.51"
lab = Lab("webstack-ops")


def query(expression: str) -> str:
    """What Prometheus finds, a line each."""
    return str(lab.host("ops1").check_output("promtool query instant http://127.0.0.1:9090 %s", expression))


def alerts() -> str:
    """What Alertmanager has been told."""
    return str(lab.host("ops1").check_output("amtool --alertmanager.url=http://127.0.0.1:9093 alert query"))


def play(*options: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Converge the server with other variables."""
    words = ["ansible-playbook", *inventories(SCENARIO / "inventory"), "--limit", "ops", "-e", json.dumps(variables)]
    words += options
    return subprocess.run([*words, str(SCENARIO / "converge.yml")], capture_output=True, text=True, cwd=ROOT)


def sftp(commands: str, *options: str, key: str = "/root/client") -> tuple[int, str]:
    """Enter the archive from another host; the exit code and what was said."""
    words = f"sftp -b - -P 2022 -i {key} -o BatchMode=yes -o StrictHostKeyChecking=accept-new {' '.join(options)}"
    done = lab.host("web1").run(f"printf '%b' '{commands}' | {words} webstack-archive@{OPS}")
    return done.rc, done.stdout + done.stderr


def test_every_target_is_seen() -> None:
    wait_for(lambda: "web1" in query('probe_success{job="web"} == 1'), 20)
    assert query("up == 0") == ""


def test_a_web_server_that_is_gone_is_told_and_so_is_its_return() -> None:
    host = lab.host("web1")
    host.check_output("systemctl stop nginx")
    try:
        wait_for(lambda: "NginxGone" in alerts(), 30)
        # The role's own alert takes its time: half a minute of silence might be a reboot.
        assert 'alertstate="' in query('ALERTS{alertname="WebServerDown", instance="web1"}')
    finally:
        host.check_output("systemctl start nginx")
    wait_for(lambda: query('ALERTS{alertname=~"NginxGone|WebServerDown"}') == "", 30)


def test_only_the_archive_answers_to_others() -> None:
    host = lab.host("web1")
    for port, opens in ((2022, True), (9090, False), (9093, False), (9115, False), (9100, False)):
        done = host.run(f"timeout 2 bash -c 'exec 3<>/dev/tcp/{OPS}/{port}'")
        assert (done.rc == 0) is opens, port


def test_the_archive_takes_what_a_client_writes_and_shows_nothing_else() -> None:
    lab.host("web1").check_output("echo content > /tmp/backup.test")
    code, said = sftp("put /tmp/backup.test\\nrename backup.test kept.test\\nls -l\\nget kept.test /tmp/back\\n")
    assert code == 0, said
    assert lab.host("web1").check_output("cat /tmp/back") == "content"
    assert lab.host("ops1").check_output("cat /srv/backup/archive/kept.test") == "content"
    for path in ("/etc/passwd", "/srv", "../../etc"):
        assert sftp(f"ls {path}\\n")[0] != 0, path
    assert sftp("put /tmp/backup.test /outside\\n")[0] != 0, "the folder above is root's"


def test_nobody_else_enters_and_nobody_gets_a_shell() -> None:
    host = lab.host("web1")
    host.check_output("rm -f /root/other; ssh-keygen -q -t ed25519 -N '' -f /root/other")
    assert "Permission denied" in sftp("ls\\n", key="/root/other")[1]
    enter = "-q -p 2022 -i /root/client -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
    assert "uid=" not in host.run(f"timeout 5 ssh {enter} webstack-archive@{OPS} id").stdout
    # A tunnel would lead to what answers on the loopback address only.
    ask = r"exec 3<>/dev/tcp/127.0.0.1/19090; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"
    tunnel = f"timeout 5 ssh {enter} -N -L 19090:127.0.0.1:9090 webstack-archive@{OPS}"
    assert "HTTP" not in host.run("timeout 10 bash -c %s", f"{tunnel} &\nsleep 2\n{ask}\nwait\n").stdout
    assert "HTTP" in lab.host("ops1").run("bash -c %s", ask.replace("19090", "9090")).stdout, "how it would look"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ops_server_web_hosts": ["web9"]}, "ops_server: not in the inventory: web9"),
        ({"ops_server_urls": ["www.example.org"]}, "www.example.org: a URL begins with https:// or http://"),
        ({"ops_server_alertmanager": {"route": {}}}, "route.receiver and receivers are needed"),
        ({"ops_server_extra_alerts": [{"alert": "Odd", "expr": "up =="}]}, "unexpected end of input"),
        (
            {"ops_server_alertmanager": {"route": {"receiver": "a", "nonsense": 1}, "receivers": [{"name": "a"}]}},
            "field nonsense not found",
        ),
    ],
)
def test_a_bad_variable_fails_the_play_and_nothing_is_replaced(variables: dict[str, object], message: str) -> None:
    host = lab.host("ops1")
    before = host.check_output("find /etc/prometheus /etc/default -type f -newermt @0 | sort | xargs sha256sum")
    done = play(**variables)
    assert done.returncode != 0
    assert message in (done.stdout + done.stderr).replace("\\\\n", " "), done.stdout
    assert host.check_output("find /etc/prometheus /etc/default -type f -newermt @0 | sort | xargs sha256sum") == before
    assert query("prometheus_config_last_reload_successful == 1") != ""


def test_what_amtool_cites_of_a_configuration_is_not_shown() -> None:
    said = play(ops_server_alertmanager={"route": {"receiver": "a"}, "receivers": "hunter2hunter2"})
    assert said.returncode != 0 and "hunter2" not in said.stdout + said.stderr, said.stdout
    assert "amtool" in said.stdout or "alertmanager.yml is refused" in said.stdout


def test_check_mode_foretells_an_archive_that_is_not_there_yet() -> None:
    host, unit = lab.host("ops1"), "/etc/systemd/system/webstack-archive.service"
    host.check_output(f"systemctl stop webstack-archive; mkdir /root/aside; mv {unit} /root/aside/")
    host.check_output("mv /etc/webstack-archive /etc/webstack-archive.key /root/aside/; rm -rf /run/sshd")
    host.check_output("systemctl daemon-reload")
    try:
        done = play("--check")
        assert done.returncode == 0, done.stdout
        assert not [name for name in ("webstack-archive", "webstack-archive.key") if host.file(f"/etc/{name}").exists]
    finally:
        host.check_output(f"mv /root/aside/webstack-archive.service {unit}")
        host.check_output("mv /root/aside/* /etc/; rmdir /root/aside; systemctl daemon-reload")
        assert play().returncode == 0
    assert sftp("ls\\n")[0] == 0


def test_new_alerts_are_read_without_a_restart_and_the_archive_closes_without_keys() -> None:
    host = lab.host("ops1")
    before = host.check_output("systemctl show --property MainPID --value prometheus")
    done = play(ops_server_extra_alerts=[{"alert": "Always", "expr": "vector(1)"}], ops_server_archive_keys=[])
    assert done.returncode == 0, done.stdout
    try:
        wait_for(lambda: "Always" in query("ALERTS"), 15)
        assert host.check_output("systemctl show --property MainPID --value prometheus") == before
        assert sftp("ls\\n")[0] != 0
        assert (
            "changed=0"
            in play(
                ops_server_extra_alerts=[{"alert": "Always", "expr": "vector(1)"}], ops_server_archive_keys=[]
            ).stdout
        )
    finally:
        assert play().returncode == 0
    assert sftp("ls kept.test\\n")[0] == 0, "what it keeps is still there"
