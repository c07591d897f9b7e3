"""The additional server sees every tier of the real site, and tells what goes wrong in it."""

from __future__ import annotations

import pytest
from labtest import wait_for
from visiting import HOSTS, PUBLIC, lab


def query(expression: str) -> str:
    """What Prometheus finds, a line each."""
    return str(lab.host("ops1").check_output("promtool query instant http://127.0.0.1:9090 %s", expression))


def test_it_sees_every_host_of_every_tier_and_what_a_visitor_gets() -> None:
    def seen() -> bool:
        for job, tier in (("web", "web"), ("app", "app"), ("haproxy", "lb")):
            what = "up" if job == "haproxy" else "probe_success"
            found = query(f'{what}{{job="{job}"}} == 1')
            if not all(f'instance="{name}"' in found for name in HOSTS if name.startswith(tier)):
                return False
        pages = query('probe_success{job=~"vips|pages"} == 1')
        return all(address in pages for address in PUBLIC) and len(pages.splitlines()) == 2 * len(PUBLIC)

    wait_for(seen, 60)
    # One primary; the others are replicas that keep up.
    assert query('sum(probe_success{job="db_primary"})').split()[2] == "1"
    assert query('count(probe_success{job="db_primary"} + on (instance) probe_success{job="db_replica"} == 0)') == ""
    wait_for(lambda: query("ALERTS") == "", 90)


@pytest.mark.parametrize(
    ("host", "service", "alert"),
    [("web2", "nginx", "WebServerDown"), ("app2", "'gunicorn-guestbook.*'", "ApplicationDown")],
)
def test_a_server_that_is_gone_is_told(host: str, service: str, alert: str) -> None:
    lab.host(host).check_output(f"systemctl stop {service}")
    try:
        wait_for(lambda: f'instance="{host}"' in query(f'ALERTS{{alertname="{alert}"}}'), 30)
    finally:
        lab.host(host).check_output(f"systemctl start {'gunicorn-guestbook.socket' if host == 'app2' else service}")
    wait_for(lambda: query(f'ALERTS{{alertname="{alert}"}}') == "", 30)
