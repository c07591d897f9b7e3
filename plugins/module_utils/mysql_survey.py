# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask all nodes of the tier at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Relative: the health agent has these files in a folder of their own.
from . import mysql_server, mysql_topology


def connection_to(
    node: dict[str, Any],
    user: str,
    password: str,
    ca: str,
    me: str = "",
    unix_socket: str = "",
    local_user: str = "root",
) -> dict[str, Any]:
    """How to reach a node: this host's own over its socket, any other over TLS."""
    if me and node["name"] == me:
        return mysql_server.by_socket(local_user, unix_socket)
    return mysql_server.by_network(node["address"], node["port"], user, password, ca)


def ask(node: dict[str, Any], connection: dict[str, Any], timeout: float = 3) -> mysql_topology.Node:
    """One node's state; one that does not answer is a fact, not an error."""
    try:
        with mysql_server.Session(node["name"], connection, timeout, read_timeout=10) as session:
            state = mysql_server.read_state(session)
        return mysql_topology.Node.from_state(node["name"], node["address"], node["port"], state)
    except mysql_server.ServerError as error:
        return mysql_topology.Node(node["name"], node["address"], node["port"], reachable=False, error=str(error))


def survey(
    nodes: Sequence[dict[str, Any]],
    user: str,
    password: str,
    ca: str,
    me: str = "",
    unix_socket: str = mysql_server.SOCKET,
    settle: float = 0,
    timeout: float = 3,
) -> list[mysql_topology.Node]:
    """The state of all nodes.

    :param settle: seconds that a replica which is only just connecting to an answering source gets.
    :param timeout: seconds that a node gets to accept a connection.
    """
    connections = {n["name"]: connection_to(n, user, password, ca, me, unix_socket) for n in nodes}

    def ask_again(node: mysql_topology.Node) -> mysql_topology.Node:
        plain = {"name": node.name, "address": node.address, "port": node.port}
        return ask(plain, connections[node.name], timeout)

    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        found = list(pool.map(lambda n: ask(n, connections[n["name"]], timeout), nodes))
        deadline = time.monotonic() + settle
        while time.monotonic() < deadline and any(_connecting(n, found) for n in found):
            time.sleep(0.5)
            found = list(pool.map(ask_again, found))
    # A busy primary is read last. A semi-synchronous one commits only after a replica has acknowledged, so it gets a
    # moment to execute what a replica already shows.
    for index, node in enumerate(found):
        if node.writable:
            theirs = [o.gtid_executed for o in found if o is not node and o.reachable and o.gtid_executed]
            found[index] = _catch_up(node, connections[node.name], ",".join(theirs))
    return found


def _connecting(node: mysql_topology.Node, everyone: list[mysql_topology.Node]) -> bool:
    if not node.reachable or node.replica is None or node.replica.sql_error:
        return False
    source_answers = any(o.reachable and o is not node and node.follows(o) for o in everyone)
    return source_answers and node.replica.io_running == "Connecting"


def _catch_up(node: mysql_topology.Node, connection: dict[str, Any], gtids: str) -> mysql_topology.Node:
    if not gtids:
        return node
    try:
        with mysql_server.Session(node.name, connection, read_timeout=10) as session:
            mysql_server.wait_for_gtids(session, gtids, 2)
            node.gtid_executed = mysql_server.read_executed(session)
    except mysql_server.ServerError as error:
        return mysql_topology.Node(node.name, node.address, node.port, reachable=False, error=str(error))
    return node
