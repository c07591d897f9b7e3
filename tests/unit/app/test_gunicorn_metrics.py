"""What becomes of gunicorn's statsd lines."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

PROGRAM = Path(__file__).parents[3] / "roles" / "gunicorn_app" / "files" / "gunicorn-metrics"


def test_counters_gauges_and_the_histogram(program: ModuleType) -> None:
    metrics = program.Metrics()
    metrics.take("shop.gunicorn.requests:1|c|@1.0\nshop.gunicorn.request.status.200:1|c|@1.0")
    metrics.take("shop.gunicorn.requests:1|c|@1.0")
    metrics.take("shop.gunicorn.request.duration:12.5|ms\nshop.gunicorn.workers:3|g\nshop.gunicorn.workers:2|g")
    metrics.take("shop.gunicorn.log.error:1|c|@1.0")
    lines = metrics.text().splitlines()
    for line in (
        "# TYPE gunicorn_requests_total counter",
        'gunicorn_requests_total{application="shop"} 2',
        'gunicorn_responses_total{application="shop",status="200"} 1',
        'gunicorn_log_messages_total{application="shop",level="error"} 1',
        'gunicorn_workers{application="shop"} 2',
        'gunicorn_request_duration_seconds_bucket{application="shop",le="0.01"} 0',
        'gunicorn_request_duration_seconds_bucket{application="shop",le="0.025"} 1',
        'gunicorn_request_duration_seconds_bucket{application="shop",le="+Inf"} 1',
        'gunicorn_request_duration_seconds_sum{application="shop"} 0.0125',
        'gunicorn_request_duration_seconds_count{application="shop"} 1',
    ):
        assert line in lines


def test_two_applications_are_apart(program: ModuleType) -> None:
    metrics = program.Metrics()
    metrics.take("one.gunicorn.requests:1|c\ntwo.gunicorn.requests:4|c")
    assert (
        'gunicorn_requests_total{application="one"} 1\ngunicorn_requests_total{application="two"} 4' in metrics.text()
    )


def test_what_is_not_gunicorn_s_is_ignored_and_counted(program: ModuleType) -> None:
    metrics = program.Metrics()
    for line in ("nonsense", "shop.orders:1|c", "shop.gunicorn.requests:1|s", "shop.gunicorn.else:1|c", 'a"b.gunicorn'):
        metrics.take(line)
    assert "gunicorn_metrics_ignored_lines_total 5" in metrics.text().splitlines()
    assert "shop" not in metrics.text()
