{{ ansible_managed | comment }}
{% set cpus = __gunicorn_app_host.cpus %}
{% set budget = __gunicorn_app_host.memory_mb * gunicorn_app_memory_percent // 100 // __gunicorn_app_full | length %}
{% set proxies = [] %}
{% for host in (gunicorn_app_web_hosts + gunicorn_app_lb_hosts) | unique | sort %}
{% set _ = proxies.append(hostvars[host].tier_address | default(hostvars[host].ansible_host) | default(host)) %}
{% endfor %}
import datetime
import json
{% if __gunicorn_app.worker_memory_limit_mb %}
import os
{% endif %}
import pathlib
import re
import sys

{% if __gunicorn_app_statsd %}
from gunicorn.instrument.statsd import Statsd
{% else %}
from gunicorn.glogging import Logger
{% endif %}

# The release that this process was started from, whatever `current` names by now: a worker that starts later must not
# be half of one release and half of another.
_release = pathlib.Path(sys.prefix).parent
{% if __gunicorn_app.worker_memory_limit_mb %}
_page = os.sysconf("SC_PAGE_SIZE")
{% endif %}
_environment = pathlib.Path({{ (__gunicorn_app_config_path ~ '/environment') | to_json }}).read_text()

wsgi_app = {{ __gunicorn_app.module | to_json }}
chdir = str(_release / "app")
# Read here and not only by systemd, so that a reload applies it.
raw_env = [
    f"{name}=" + re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
    for name, value in re.findall(r'^(\w+)="((?:[^"\\]|\\.)*)"$', _environment, re.MULTILINE | re.DOTALL)
] + [f"RELEASE={_release.name}"]

{% if __gunicorn_app.workers %}
workers = {{ __gunicorn_app.workers }}
{% else %}
# The least of 2 x {{ cpus }} processors + 1, and {{ budget }} MiB / {{ __gunicorn_app.worker_memory_mb }} MiB.
workers = {{ [1, [2 * cpus + 1, budget // __gunicorn_app.worker_memory_mb] | min] | max }}
{% endif %}
worker_class = {{ __gunicorn_app.worker_class | to_json }}
{% if __gunicorn_app.worker_class == 'gthread' %}
threads = {{ __gunicorn_app.threads }}
{% endif %}
timeout = {{ __gunicorn_app.timeout }}
graceful_timeout = {{ __gunicorn_app.graceful_timeout }}
keepalive = {{ __gunicorn_app.keepalive }}
max_requests = {{ __gunicorn_app.max_requests }}
max_requests_jitter = {{ __gunicorn_app.max_requests_jitter }}
# A heartbeat on a disk stops with the disk.
worker_tmp_dir = "/dev/shm"

# The web tier and the balancers: who else sends X-Forwarded headers is not believed.
forwarded_allow_ips = {{ ('*' if __gunicorn_app.socket else (proxies | join(',') or '127.0.0.1')) | to_json }}
errorlog = "-"
control_socket_disable = True
{% if __gunicorn_app_statsd %}
statsd_host = {{ __gunicorn_app_statsd | to_json }}
statsd_prefix = {{ __gunicorn_app.name | to_json }}
{% endif %}

# One JSON object for each request, with the id that the balancer gave it. Without the query: it may hold a secret.
accesslog = None


class _AccessLog({{ 'Statsd' if __gunicorn_app_statsd else 'Logger' }}):
    def access(self, resp, req, environ, request_time):
        super().access(resp, req, environ, request_time)
        status, path = int(str(resp.status).split()[0]), environ.get("PATH_INFO", "")
        if path == {{ __gunicorn_app.health_path | to_json }} and status == 200:
            return
        line = {
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
            "request_id": environ.get("HTTP_X_REQUEST_ID"),
            "method": environ.get("REQUEST_METHOD"),
            "path": path,
            "status": status,
            "bytes": getattr(resp, "sent", None),
            "seconds": round(request_time.total_seconds(), 6),
            "peer": environ.get("REMOTE_ADDR"),
            "forwarded_for": environ.get("HTTP_X_FORWARDED_FOR"),
            "agent": environ.get("HTTP_USER_AGENT"),
            "release": _release.name,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


logger_class = _AccessLog


def on_reload(server):
    """gunicorn keeps the logger that it began with, and with it where the metrics went then."""
    server.log = server.cfg.logger_class(server.cfg)
{% if __gunicorn_app.worker_memory_limit_mb %}


def post_request(worker, req, environ, resp):
    """A worker that has grown too large ends when its requests are answered; another takes its place."""
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * _page
    if worker.alive and resident > {{ __gunicorn_app.worker_memory_limit_mb }} << 20:
        worker.log.warning("worker %s uses %s MiB: it is replaced", worker.pid, resident >> 20)
        worker.alive = False
{% endif %}
