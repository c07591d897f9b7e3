"""What the balancer costs beside a minimal haproxy.cfg written by hand, and how much sooner it is taken over.

`./lab bench lb` converges the Molecule scenario haproxy_keepalived (or uses its hosts when they stand), and measures
in each TLS mode, on the same balancer and in the same run, by turns A B B A: requests per second that wrk gets on
kept-alive connections, and the CPU time of HAProxy's process per request. The other configuration has what one writes
by hand for the same work: TLS, balancing, checks, X-Forwarded headers, a log. Medians; a ratio under 0.95 is a miss.

The takeover: the time without an answer on a VIP whose balancer is cut off, as the role sets it up, and with
keepalived's customary advert_int 1; under 3 times faster is a miss.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = ROOT / "molecule" / "haproxy_keepalived"
sys.path[:0] = [str(ROOT / "molecule" / "shared"), str(SCENARIO / "tests")]

from cluster import ADDRESS, VIPS, api, at_home, holders_on, lab, load, play, running  # noqa: E402
from labtest import wait_for  # noqa: E402

# Where the back ends' nginx answers: to the balancers' TLS, in plain text, and to TLS with the PROXY protocol.
PORTS = {"bridge": 8443, "offload": 8081, "passthrough": 8444}
MINIMAL_PORT = 9443

NGINX = """
user www-data;
worker_processes 1;
events { worker_connections 4096; }
http {
    access_log off;
    ssl_certificate /etc/ssl/webstack/host.pem;
    ssl_certificate_key /etc/ssl/webstack/host.pem.key;
    keepalive_requests 1000000;
    server {
        listen 8081;
        listen 8443 ssl;
        listen 8444 ssl proxy_protocol;
        location / { default_type text/plain; return 200 "%s"; }
    }
}
""" % ("0123456789abcde\\n" * 64)

MINIMAL = """
global
    log /dev/log local0
    user haproxy
    group haproxy
    maxconn 4000
    stats socket /run/minimal.sock
defaults
    mode {mode}
    log global
    option {log}
    timeout connect 3s
    timeout client 60s
    timeout server 60s
frontend https
    bind {address}:{port} {bind}
    {headers}
    default_backend web
backend web
    balance roundrobin
    server web1 198.18.1.21:{to} check {server1}
    server web2 198.18.1.22:{to} check {server2}
"""
TLS_BIND = "ssl crt /etc/haproxy/certs/site.pem alpn h2,http/1.1"


def minimal(mode: str) -> str:
    """The configuration of one mode."""
    http = mode != "passthrough"
    tls = "ssl verify required ca-file /etc/haproxy/certs/ca.crt sni str({})"
    server = {"bridge": tls, "offload": "", "passthrough": "send-proxy-v2"}[mode]
    return MINIMAL.format(
        mode="http" if http else "tcp",
        log="httplog" if http else "tcplog",
        address=ADDRESS["lb1"],
        port=MINIMAL_PORT,
        bind=TLS_BIND if http else "",
        headers="option forwardfor\n    http-request set-header X-Forwarded-Proto https" if http else "",
        to=PORTS[mode],
        server1=server.format("web1"),
        server2=server.format("web2"),
    )


def put(host: str, path: str, text: str) -> None:
    """Write a file on a host."""
    words = ["docker", "exec", "-i", lab.container(host), "sh", "-c", f"cat > {path}"]
    subprocess.run(words, input=text, text=True, check=True)


def prepare() -> None:
    """Back ends that are fast enough not to be what is measured."""
    for host in ("web1", "web2"):
        command = "command -v nginx > /dev/null || apt-get install -qq --no-install-recommends nginx > /dev/null 2>&1"
        lab.host(host).check_output(f"{command}; systemctl disable --now nginx 2> /dev/null")
        put(host, "/etc/nginx-bench.conf", NGINX)
        lab.host(host).check_output(
            "systemctl stop bench-nginx 2> /dev/null; systemctl reset-failed bench-nginx 2> /dev/null; "
            "systemd-run --quiet --unit bench-nginx nginx -c /etc/nginx-bench.conf -g 'daemon off;'"
        )


def clean() -> None:
    """Nothing of this stays on the hosts."""
    for host, unit in (("web1", "bench-nginx"), ("web2", "bench-nginx"), ("lb1", "bench-haproxy")):
        lab.host(host).run(f"systemctl stop {unit}")


def cpu(pid: str) -> float:
    """CPU seconds of a process so far."""
    fields = lab.host("lb1").check_output(f"cat /proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wrk(url: str, pid: str, seconds: int, connections: int) -> tuple[float, float]:
    """Requests per second, and microseconds of HAProxy's CPU per request."""
    before = cpu(pid)
    said = lab.host("client").check_output(f"wrk -t1 -c{connections} -d{seconds}s -H 'Host: www.lab.test' {url}")
    used = cpu(pid) - before
    count = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if not count or not rate or "Non-2xx" in said:
        raise SystemExit(f"wrk on {url}: {said}")
    return float(rate[1]), used / int(count[1]) * 1e6


def throughput(mode: str, turns: int, seconds: int, connections: int) -> bool:
    """One row; whether both ratios are good."""
    backend = {"name": "web", "hosts": ["web1", "web2"], "port": PORTS[mode], "tls": mode == "bridge"}
    plain = {"name": "web_plain", "mode": "tcp", "hosts": ["web1", "web2"], "port": 8080}
    done = play(haproxy_keepalived_tls_mode=mode, haproxy_keepalived_backends=[backend, plain])
    if done.returncode:
        raise SystemExit(done.stdout[-3000:])
    put("lb1", "/etc/haproxy/bench.cfg", minimal(mode))
    lab.host("lb1").check_output(
        "systemctl stop bench-haproxy 2> /dev/null; systemctl reset-failed bench-haproxy 2> /dev/null; "
        "haproxy -c -q -f /etc/haproxy/bench.cfg && "
        "systemd-run --quiet --unit bench-haproxy haproxy -db -f /etc/haproxy/bench.cfg"
    )
    wait_for(at_home, 30)
    mine = next(line.split()[1] for line in api("lb1", "show info").splitlines() if line.startswith("Pid:"))
    other = lab.host("lb1").check_output("systemctl show --property MainPID --value bench-haproxy")
    runs: dict[str, tuple[str, str]] = {
        "role": (f"https://{VIPS['public1']}/", mine),
        "minimal": (f"https://{ADDRESS['lb1']}:{MINIMAL_PORT}/", other),
    }
    got: dict[str, list[tuple[float, float]]] = {"role": [], "minimal": []}
    for name in runs:
        wait_for(lambda name=name: wrk(*runs[name], 1, connections), 20)
    order = ["role", "minimal", "minimal", "role"]
    for turn in range(turns):
        for name in order[:2] if turn % 2 == 0 else order[2:]:
            got[name].append(wrk(*runs[name], seconds, connections))
    rates = {name: statistics.median(rate for rate, _ in results) for name, results in got.items()}
    costs = {name: statistics.median(cost for _, cost in results) for name, results in got.items()}
    more = statistics.median(a[0] / b[0] for a, b in zip(got["role"], got["minimal"], strict=True))
    less = statistics.median(b[1] / a[1] for a, b in zip(got["role"], got["minimal"], strict=True))
    good = more >= 0.95 and less >= 0.95
    print(
        f"{mode:<12} {rates['role']:>9.0f} / {rates['minimal']:>7.0f} = {more:4.2f}"
        f" {costs['minimal']:>13.1f} / {costs['role']:>6.1f} = {less:4.2f}   >= 0.95  {'ok' if good else 'MISSED'}",
        flush=True,
    )
    return good


def takeover(turns: int) -> bool:
    """The row of the takeover; whether it is good."""
    outages: dict[float, list[float]] = {0.1: [], 1: []}
    for turn in range(turns):
        for interval in (0.1, 1) if turn % 2 == 0 else (1, 0.1):
            if play(haproxy_keepalived_advert_interval=interval).returncode:
                raise SystemExit("the balancers did not converge")
            wait_for(at_home, 60)
            with load() as clients:
                time.sleep(1)
                lab.cut("lb1")
                wait_for(lambda: holders_on("lb2") == set(VIPS), 20)
                time.sleep(1)
            outages[interval].append(clients.outage())
            lab.mend("lb1")
            wait_for(at_home, 60)
    role, usual = (statistics.median(outages[interval]) for interval in (0.1, 1))
    good = usual / role >= 3
    print(f"{'advert_int 1 / role':<24} {usual:6.2f} s / {role:5.2f} s = {usual / role:5.1f}", end="")
    print(f"   >= 3  {'ok' if good else 'MISSED'}", flush=True)
    return good


def molecule(action: str) -> None:
    """One step of the scenario."""
    environment = os.environ | {"LAB_CHECKOUT": str(ROOT), "ANSIBLE_HOME": str(ROOT / ".lab" / "molecule" / "bench")}
    program = Path(sys.executable).with_name("molecule")
    words = [str(program), action, "--scenario-name", SCENARIO.name]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-3000:])


def stands() -> bool:
    """Whether the scenario's hosts run already."""
    try:
        return all(running(host) for host in (*ADDRESS, "web1", "web2", "client"))
    except subprocess.CalledProcessError:
        return False


def main() -> int:
    """The command line; 1 where a ratio is missed."""
    parser = argparse.ArgumentParser(prog="./lab bench lb", description=__doc__)
    parser.add_argument("--turns", type=int, default=10, help="measurements of each configuration, at least five")
    parser.add_argument("--seconds", type=int, default=4, help="how long each takes")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--takeovers", type=int, default=5, help="of each kind; 0 leaves them out")
    parser.add_argument("--mode", nargs="*", default=list(PORTS), choices=list(PORTS), help="0 or more TLS modes")
    arguments = parser.parse_args()
    mine = not stands()
    if mine:
        molecule("converge")
    good = True
    try:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {arguments.turns}, by turns A B B A")
        print("             requests/s of the role / minimal    us of CPU per request, minimal / role")
        try:
            prepare()
            for mode in arguments.mode:
                good &= throughput(mode, arguments.turns, arguments.seconds, arguments.connections)
        finally:
            clean()
            play()
        if arguments.takeovers:
            print("time without an answer, of a VIP whose balancer is cut off")
            try:
                good &= takeover(arguments.takeovers)
            finally:
                play()
    finally:
        if mine:
            molecule("destroy")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
