"""What Prometheus is told to watch, rendered for the example site without any host."""

from __future__ import annotations

from pathlib import Path

import yaml
from test_haproxy_keepalived_templates import ROOT, render

ROLE = ROOT / "roles" / "ops_server"
# app1 has two applications, app2 one of them, and one on a socket that nobody can probe.
APPLICATIONS = """{{ [{'name': 'shop', 'port': 8000}]
  + ([{'name': 'desk', 'port': 8100}] if inventory_hostname == 'app1'
     else [{'name': 'none', 'socket': '/run/none'}]) }}"""


def test_each_host_is_asked_for_its_own_applications(tmp_path: Path) -> None:
    texts = render(
        tmp_path,
        "ops",
        render_role=str(ROLE),
        render_templates=["prometheus.yml.j2"],
        gunicorn_app_applications=APPLICATIONS,
    )
    jobs = yaml.safe_load(next(iter(texts.values())))["scrape_configs"]
    probes = next(job for job in jobs if job["job_name"] == "app")["static_configs"]
    found = {(probe["labels"]["instance"], probe["labels"]["application"]) for probe in probes}
    assert found == {("app1", "shop"), ("app1", "desk"), ("app2", "shop")}
    assert {probe["targets"][0].rpartition(":")[2] for probe in probes} == {"8000", "8100"}
