{{ ansible_managed | comment }}
{% set cpus = __gunicorn_app_host.cpus %}
{% set budget = __gunicorn_app_host.memory_mb * gunicorn_app_memory_percent // 100 // __gunicorn_app_full | length %}
{% set proxies = [] %}
{% for host in (gunicorn_app_web_hosts + gunicorn_app_lb_hosts) | unique | sort %}
{% set _ = proxies.append(hostvars[host].tier_address | default(hostvars[host].ansible_host) | default(host)) %}
{% endfor %}
import pathlib
import re
import sys

# The release that this process was started from, whatever `current` names by now: a worker that starts later must not
# be half of one release and half of another.
_release = pathlib.Path(sys.prefix).parent
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
accesslog = "-"
errorlog = "-"
control_socket_disable = True
