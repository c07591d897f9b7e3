"""The record of releases: which one runs, which one a rollback goes to, which ones stay."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils import app_release
from ansible_collections.scaleup.webstack.plugins.module_utils.app_release import ReleaseError, Releases
from ansible_collections.scaleup.webstack.plugins.modules import app_release as module


def built(root: Path, *names: str) -> Releases:
    for name in names:
        (root / "releases" / name).mkdir(parents=True)
        (root / "releases" / name / ".built").write_text(json.dumps({"environment": "e", "python": app_release.PYTHON}))
    return Releases(str(root))


def history(*names: str, failed: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "history": [{"release": n, "ok": n not in failed, "action": "switch", "at": "x"} for n in names],
        "void": {},
        "applied": {},
        "beside": "",
    }


def test_the_link_is_switched_and_read(tmp_path: Path) -> None:
    releases = built(tmp_path, "a", "b")
    assert releases.current() == ""
    for name in ("a", "b"):
        releases.switch(name)
        assert releases.current() == name
        assert (tmp_path / "current/.built").exists()
    releases.switch("")
    assert releases.current() == ""


def test_a_release_without_its_mark_is_not_there(tmp_path: Path) -> None:
    releases = built(tmp_path, "a")
    (tmp_path / "releases/half/app").mkdir(parents=True)
    (tmp_path / "releases/old").mkdir()
    (tmp_path / "releases/old/.built").write_text(json.dumps({"environment": "e", "python": "2.7"}))
    assert releases.built() == ["a"]


@pytest.mark.parametrize(
    ("ran", "current", "void", "failed", "expected"),
    [
        ("abc", "c", "", (), "b"),
        ("abcb", "b", "c", (), "a"),
        ("abcba", "a", "cb", (), ""),
        ("abc", "b", "", ("c",), "a"),
        ("ab", "b", "", (), "a"),
        ("a", "a", "", (), ""),
        ("xab", "a", "", (), "b"),
        ("abd", "d", "b", (), "a"),
    ],
)
def test_a_rollback_goes_to_the_last_good_release(
    tmp_path: Path, ran: str, current: str, void: str, failed: tuple[str, ...], expected: str
) -> None:
    releases = built(tmp_path, *"abcd")
    releases.switch(current)
    state = history(*ran, failed=failed)
    state["void"] = {name: {"at": "", "reason": ""} for name in void}
    assert releases.previous(state) == expected


def test_the_record_is_kept(tmp_path: Path) -> None:
    releases = built(tmp_path, "a")
    releases.switch("a")
    state = releases.load()
    assert state == {"history": [], "void": {}, "applied": {}, "beside": ""}
    state["history"] = history(*"ab")["history"] * 100
    releases.save(state)
    again = releases.load()
    assert again["current"] == "a" and len(again["history"]) == app_release.HISTORY
    assert (tmp_path / "releases.json").stat().st_mode & 0o777 == 0o644
    (tmp_path / "releases.json").write_text("{")
    with pytest.raises(ReleaseError, match=r"releases\.json is damaged"):
        releases.load()


def instance(root: Path, **asked: Any) -> module.Instance:
    words = {"root": str(root), "unit": "gunicorn-x", "config": [], "keep": 2, "retry_void": False, "release": "a"}
    return module.Instance(words | asked)


def test_what_runs_beside_the_service_stays_and_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    releases = built(tmp_path, *"abcde")
    releases.switch("d")
    state = history("d") | {"beside": "a"}
    state["history"].append({"release": "a", "action": "beside", "ok": True})
    instance(tmp_path).prune(state)
    assert sorted(releases.built()) == ["a", "d"]
    assert releases.previous(state) == ""


def test_what_ran_last_stays_and_what_is_void_goes(tmp_path: Path) -> None:
    releases = built(tmp_path, *"abcde")
    releases.switch("d")
    state = history(*"abcd")
    state["void"] = {"e": {"at": "", "reason": ""}}
    instance(tmp_path).prune(state)
    assert set(releases.built()) == {"c", "d"}


def test_a_void_release_is_refused_and_says_why(tmp_path: Path) -> None:
    built(tmp_path, "a")
    state = history("a") | {"void": {"a": {"at": "2026-01-01T00:00:00Z", "reason": "it leaks"}}}
    with pytest.raises(ReleaseError, match="a is void since 2026-01-01T00:00:00Z: it leaks"):
        module.target(instance(tmp_path), state)
    assert module.target(instance(tmp_path, retry_void=True), state) == "a"
    with pytest.raises(ReleaseError, match="b is not on this host"):
        module.target(instance(tmp_path, release="b"), state)


def test_an_environment_file_is_read_as_systemd_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "environment"
    path.write_text('# A="no"\nA="1"\nB="it\'s \\"5\\" \\$HOME \\\\ \\`x`\nand more"\nEMPTY=""\n')
    assert app_release.read_environment(str(path)) == {"A": "1", "B": 'it\'s "5" $HOME \\ `x`\nand more', "EMPTY": ""}
    assert app_release.read_environment(str(tmp_path / "none")) == {}


class Answer(http.server.BaseHTTPRequestHandler):
    status, text = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http_server.server_port}"
        http_server.shutdown()


@pytest.mark.parametrize(
    ("status", "text", "release", "expected"),
    [
        (200, b'{"release": "abc"}', "abc", ""),
        (200, b'{"release": "abc"}', "", ""),
        (200, b'{"release": "old"}', "abc", "names another release than abc"),
        (503, b"no database", "abc", "answers 503: no database"),
    ],
)
def test_health(
    server: str, monkeypatch: pytest.MonkeyPatch, status: int, text: bytes, release: str, expected: str
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    monkeypatch.setattr(Answer, "text", text)
    wrong = app_release.ask_health(server, "/healthz", release)
    assert expected in wrong and bool(wrong) == bool(expected)


def test_health_of_what_does_not_listen(tmp_path: Path) -> None:
    assert "does not answer" in app_release.ask_health("127.0.0.1:1", "/healthz", "")
    assert "does not answer" in app_release.ask_health(str(tmp_path / "none.sock"), "/healthz", "")
