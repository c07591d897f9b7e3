"""What a client and an attacker on the host see of an application that the role has put there."""

from __future__ import annotations

import json
import re
import uuid

import pytest
import requests
from labtest import Lab, wait_for

lab = Lab("webstack-app")
HOSTS = {"app1": "198.18.3.31", "app2": "198.18.3.32"}
SECRET = "not-to-be-found-anywhere"


def url(host: str, path: str = "/") -> str:
    return f"http://{HOSTS[host]}:8000{path}"


def pid(host: str) -> str:
    return lab.host(host).check_output("systemctl show -P MainPID gunicorn-guestbook.service")


def test_all_hosts_answer_with_the_same_release() -> None:
    answers = {host: requests.get(url(host, "/healthz"), timeout=5).json() for host in HOSTS}
    assert {host: a["host"] for host, a in answers.items()} == {host: host for host in HOSTS}
    (release,) = {a["release"] for a in answers.values()}
    assert re.fullmatch("[0-9a-f]{12}", release)
    for host in HOSTS:
        assert lab.host(host).file("/srv/guestbook/current").linked_to == f"/srv/guestbook/releases/{release}"


@pytest.mark.parametrize("host", HOSTS)
def test_the_page_renders_without_a_database(host: str) -> None:
    page = requests.get(url(host), timeout=20)
    assert page.status_code == 200
    assert "The database does not answer" in page.text and host in page.text


@pytest.mark.parametrize("host", HOSTS)
def test_only_the_application_reads_its_secrets(host: str) -> None:
    machine = lab.host(host)
    file = machine.file("/etc/webstack/guestbook/environment")
    assert (file.user, file.group, oct(file.mode)) == ("root", "guestbook", "0o640")
    assert machine.run("runuser -u guestbook -- grep -c %s %s", SECRET, file.path).stdout == "1\n"
    assert machine.run("runuser -u nobody -- cat /etc/webstack/guestbook/environment").rc != 0
    # Nowhere else: not on a command line, not in a unit, not in the journal, not in a file that everyone reads.
    assert machine.run(f"cat /proc/[0-9]*/cmdline | grep -c {SECRET[:-1]}[{SECRET[-1]}]").stdout == "0\n"
    assert machine.run(f"systemctl cat 'gunicorn-*' | grep {SECRET}").rc == 1
    assert machine.run(f"journalctl --no-pager | grep {SECRET}").rc == 1
    assert (
        machine.run(f"find /etc /srv /var /opt /home /tmp -type f -perm -o=r -exec grep -l {SECRET} {{}} +").stdout
        == ""
    )


@pytest.mark.parametrize("host", HOSTS)
def test_the_application_may_not_write_its_own_code(host: str) -> None:
    machine = lab.host(host)
    assert machine.run("find /srv/guestbook /etc/webstack/guestbook ! -type l -user guestbook").stdout == ""
    assert machine.run("find /srv/guestbook /etc/webstack/guestbook ! -type l -perm /o=w").stdout == ""
    processes = [line.split(None, 1) for line in machine.check_output("ps -eo user:32,args").splitlines()]
    assert {user for user, line in processes if line.startswith("/srv/guestbook/")} == {"guestbook"}


def test_a_killed_worker_and_a_killed_master_come_back() -> None:
    machine, master = lab.host("app1"), pid("app1")
    worker = machine.check_output(f"pgrep -P {master}").split()[0]
    # A request that the killed process had accepted is lost with it; the socket stays open for all others.
    machine.check_output(f"kill -9 {worker}")
    assert wait_for(lambda: requests.get(url("app1", "/healthz"), timeout=20).status_code == 200)
    machine.check_output(f"kill -9 {master}")
    assert wait_for(lambda: pid("app1") not in ("0", master))
    assert wait_for(lambda: requests.get(url("app1", "/healthz"), timeout=20).status_code == 200)


def test_the_application_is_confined() -> None:
    machine = lab.host("app1")
    report = machine.run("systemd-analyze security --no-pager gunicorn-probe.service").stdout.splitlines()[-1]
    exposure = re.search(r"([0-9.]+) \w+", report)
    assert exposure and float(exposure[1]) <= 1.5, report
    for path in ("/srv/probe/x", "/etc/x", "/var/x", "/home/x", "/srv/probe/current/app/part.txt"):
        answer = requests.get("http://198.18.3.31:8001/write", params={"path": path}, timeout=5).json()
        assert answer["written"] is not True, path
    own = requests.get("http://198.18.3.31:8001/write", params={"path": "/tmp/x"}, timeout=5).json()
    assert own["written"] is True and not machine.file("/tmp/x").exists


def test_settings_arrive_as_they_were_written() -> None:
    answer = requests.get("http://198.18.3.31:8001/setting", timeout=5).json()
    assert answer["awkward"] == 'it\'s 5 $HOME `x` "quoted" \\ back\nand a second line'


def test_only_the_web_tier_is_believed_about_the_client() -> None:
    """Who says https from the web server's address is right; anybody else who says so is not believed."""
    url, header = "http://198.18.3.31:8001/who", {"X-Forwarded-Proto": "https"}
    assert requests.get(url, headers=header, timeout=5).json()["scheme"] == "http"
    ask = f"import urllib.request as u; print(u.urlopen(u.Request({url!r}, headers={header})).read().decode())"
    assert json.loads(lab.host("web1").check_output("python3 -c %s", ask))["scheme"] == "https"


def test_the_access_log_is_json_with_the_balancers_id() -> None:
    mark = uuid.uuid4().hex
    requests.get("http://198.18.3.31:8001/parts?password=x", headers={"X-Request-ID": mark}, timeout=5)
    line = wait_for(
        lambda: lab.host("app1").run(f"journalctl -u gunicorn-probe -o cat --no-pager | grep {mark}").stdout
    )
    entry = json.loads(line)
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/parts", 200)
    assert "password" not in line


def test_background_processes_are_of_the_same_release() -> None:
    machine = lab.host("app1")
    release = requests.get("http://198.18.3.31:8001/healthz", timeout=5).json()["release"]
    said = machine.check_output("journalctl -u gunicorn-probe.beat -o cat --no-pager | grep ^beat | tail -n 1")
    assert said == f'beat {release} {release} 100% $HOME a "word"'
    assert machine.service("gunicorn-probe.beat").is_running
    assert machine.check_output("systemctl is-active gunicorn-probe.nightly.timer") == "active"
    machine.check_output("systemctl start gunicorn-probe.nightly.service")
    assert f"beat {release} {release} --once" in machine.run("journalctl -u gunicorn-probe.nightly -o cat").stdout


def test_a_worker_that_has_grown_too_large_is_replaced() -> None:
    machine = lab.host("app2")
    master = machine.check_output("systemctl show -P MainPID gunicorn-probe.service")
    before = machine.check_output(f"pgrep -P {master}").split()
    grown = requests.get("http://198.18.3.32:8001/grow?mb=200", timeout=10)
    assert grown.status_code == 200, "its last request is answered"

    def replaced() -> bool:
        now = machine.run(f"pgrep -P {master}").stdout.split()
        return len(now) == len(before) and str(grown.json()["pid"]) not in now

    assert wait_for(replaced, 20)
    assert machine.check_output("systemctl show -P MainPID gunicorn-probe.service") == master


def test_an_application_may_have_a_unix_socket() -> None:
    ask = (
        "import http.client, socket; c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX);"
        "c.sock.connect('/run/quiet.sock'); c.request('GET', '/healthz'); print(c.getresponse().read().decode())"
    )
    for host in HOSTS:
        machine = lab.host(host)
        release = machine.file("/srv/quiet/current").linked_to.rpartition("/")[2]
        # As the account of a web server on the same host.
        assert json.loads(machine.check_output("runuser -u www-data -- python3 -c %s", ask))["release"] == release
