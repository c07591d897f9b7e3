"""Where releases come from, and what installs them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from labtest import wait_for
from releasing import HOSTS, SCENARIO, deploy, edit, lab, load, play, recap, running


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The files of a folder over HTTP, for this machine alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def test_an_artefact_has_to_have_its_checksum(source: Path, tmp_path: Path) -> None:
    before = running()
    artefact = tmp_path / "probe.tar.gz"
    edit(source, "artefact")
    with tarfile.open(artefact, "w:gz") as archive:
        archive.add(source, ".")
    checksum = f"sha256:{hashlib.sha256(artefact.read_bytes()).hexdigest()}"
    with served(tmp_path) as url:
        words = {"probe_url": f"{url}/probe.tar.gz", "gunicorn_app_only": ["probe"]}
        wrong = play("deploy", probe_checksum=f"sha256:{'0' * 64}", **words)
        assert wrong.returncode != 0 and "did not match" in wrong.stdout and running() == before, recap(wrong)
        done = play("deploy", probe_checksum=checksum, **words)
        assert done.returncode == 0, recap(done)
    assert running() != before
    answer = requests.get("http://198.18.3.31:8001/parts", timeout=5).json()
    assert answer["imported"].startswith("artefact of ")


@pytest.mark.thorough
def test_a_revision_from_git(source: Path, tmp_path: Path) -> None:
    edit(source, "revision")
    git = ["git", "-C", str(source), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)
    edit(source, "not yet committed")
    done = play("deploy", probe_git=str(source), probe_revision="v1", gunicorn_app_only=["probe"])
    assert done.returncode == 0, recap(done)
    assert requests.get("http://198.18.3.31:8001/parts", timeout=5).json()["imported"].startswith("revision of ")
    before = running()
    done = play("deploy", probe_git=str(source), probe_revision="v2", gunicorn_app_only=["probe"])
    assert done.returncode != 0 and "v2" in done.stdout and running() == before, recap(done)


@pytest.mark.thorough
def test_uv_installs_the_wheels_of_the_controller(source: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp_path, "uv"], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("uv-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/scripts/uv"))
        (tmp_path / "uv").write_bytes(wheel.read(name))
    (tmp_path / "uv").chmod(0o755)
    for host in HOSTS:
        lab.docker("cp", str(tmp_path / "uv"), f"{lab.container(host)}:/usr/local/bin/uv")
    edit(source, "uv")
    (source / "requirements.txt").write_text("itsdangerous==2.2.0\n")
    done = deploy(source, gunicorn_app_installer="uv")
    assert done.returncode == 0, recap(done)
    for host in HOSTS:
        lab.host(host).check_output("/srv/probe/current/venv/bin/python -c 'import itsdangerous'")


@pytest.mark.thorough
def test_metrics_go_to_a_statsd_server() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        # The lab's gateway: this machine, as the hosts see it.
        server.bind(("198.18.3.1", 0))
        server.settimeout(5)
        port = server.getsockname()[1]
        with load():
            done = play(str(SCENARIO / "converge.yml"), "--limit", "app", gunicorn_app_statsd=f"198.18.3.1:{port}")
            assert done.returncode == 0, recap(done)
        # What was sent until now may be from the release's trial.
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while server.recv(4096):
                pass
        server.settimeout(5)

        def counted() -> bool:
            requests.get("http://198.18.3.31:8001/parts", timeout=5)
            return b"probe.gunicorn.request" in server.recv(4096)

        assert wait_for(counted, 20)


@pytest.mark.thorough
def test_metrics_are_there_for_prometheus() -> None:
    where, converge = "http://198.18.3.31:9102/metrics", str(SCENARIO / "converge.yml")
    wrong = play(converge, "--limit", "app", gunicorn_app_prometheus_port=9102, gunicorn_app_statsd="198.18.3.1:9125")
    assert wrong.returncode != 0 and "gunicorn sends its metrics to one place" in " ".join(wrong.stdout.split())
    with load() as clients:
        done = play(converge, "--limit", "app", gunicorn_app_prometheus_port=9102)
        assert done.returncode == 0, recap(done)

        def counted() -> str:
            requests.get("http://198.18.3.31:8001/parts", timeout=5)
            text = requests.get(where, timeout=5).text
            return text if 'gunicorn_responses_total{application="probe",status="200"}' in text else ""

        text = wait_for(counted, 20)
        assert re.search(r'^gunicorn_request_duration_seconds_count\{application="probe"\} [1-9]', text, re.MULTILINE)
        assert re.search(r'^gunicorn_workers\{application="probe"\} [1-9]', text, re.MULTILINE)
        again = play(converge, "--limit", "app", gunicorn_app_prometheus_port=9102)
        assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, recap(again)
        done = play(converge, "--limit", "app")
        assert done.returncode == 0, recap(done)
    assert not clients.failures, clients.summary()
    with pytest.raises(requests.ConnectionError):
        requests.get(where, timeout=5)
    again = play(converge, "--limit", "app")
    assert set(re.findall(r"changed=(\d+)", again.stdout)) == {"0"}, recap(again)
