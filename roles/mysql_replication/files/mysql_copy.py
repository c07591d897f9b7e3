#!/usr/bin/python3
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a copy of this MariaDB server's data to another node of the tier: what CLONE is on MySQL.

systemd starts one for each connection, with the socket as standard input. Both sides show a certificate of the site's
authority, and the other one must know the password of the account by which the nodes change their roles.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from module_utils import mysql_server

CONFIGURATION = Path("/etc/mysql/webstack/copy.json")
CHUNK = 1 << 18  # bytes
PATIENCE = 60  # seconds without a sign of the other side


def allowed(settings: dict[str, Any], user: str, password: str) -> bool:
    """Whether this server lets that account in, which is the one that may have a copy."""
    if user != settings["user"]:
        return False
    address = mysql_server.by_network(settings["address"], settings["port"], user, password, settings["ca"])
    try:
        mysql_server.Session("this node", address).close()
    except mysql_server.ServerError:
        return False
    return True


def send(link: ssl.SSLSocket, settings: dict[str, Any]) -> str:
    """Send all data: blocks with their length before them, an empty one at the end; returns what went wrong."""
    with mysql_server.Session("this node", mysql_server.by_socket("root", settings["unix_socket"])) as session:
        # Read before the copy: the copy has all of it.
        row = session.one("SELECT @@GLOBAL.version AS version, @@GLOBAL.gtid_binlog_state AS state")
    link.sendall(json.dumps(row).encode() + b"\n")
    command = ["mariadb-backup", "--backup", "--stream=mbstream", "--user=root", f"--socket={settings['unix_socket']}"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        command.append(f"--target-dir={folder}")
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as reading:
            assert reading.stdout
            try:
                while block := reading.stdout.read(CHUNK):
                    link.sendall(len(block).to_bytes(4, "big") + block)
            except OSError:
                reading.kill()
                raise
        link.sendall(bytes(4))
        errors.seek(0)
        return errors.read().decode(errors="replace")[-600:] if reading.returncode else ""


def main() -> None:
    """Entry point."""
    settings = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings["certificate"], settings["key"])
    context.load_verify_locations(settings["ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    plain = socket.socket(fileno=sys.stdin.fileno())
    plain.settimeout(PATIENCE)
    try:
        with context.wrap_socket(plain, server_side=True) as link:
            with link.makefile("rb") as lines:
                asked = json.loads(lines.readline(4096))
            if not allowed(settings, str(asked["user"]), str(asked["password"])):
                link.sendall(
                    json.dumps({"error": "this node does not know that account and password"}).encode() + b"\n"
                )
                sys.exit("somebody with a wrong password asked for the data")
            failure = send(link, settings)
            link.sendall(json.dumps({"error": failure}).encode() + b"\n")
            if failure:
                sys.exit(failure)
    except (OSError, ValueError, KeyError, mysql_server.ServerError) as error:
        sys.exit(f"no copy was given: {error}")
    print("a copy of all data was given", flush=True)


if __name__ == "__main__":
    main()
