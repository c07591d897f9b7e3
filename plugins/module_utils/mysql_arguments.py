# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules take that talk to every database node; documented in doc_fragments/mysql_nodes.py."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_server

NODES: dict[str, Any] = {
    "nodes": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 3306},
        },
    },
    "me": {"type": "str", "required": True},
    "primary": {"type": "str", "default": ""},
    "bootstrap": {"type": "str", "default": ""},
    "user": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "ca": {"type": "path", "required": True},
    "unix_socket": {"type": "path", "default": mysql_server.SOCKET},
}
REPLICATION: dict[str, Any] = {
    "replication_user": {"type": "str", "required": True},
    "replication_password": {"type": "str", "required": True, "no_log": True},
    "copy_port": {"type": "int", "default": 9201},
    "certificate": {"type": "path", "default": "/etc/mysql/webstack/host.pem"},
    "key": {"type": "path", "default": "/etc/mysql/webstack/host.pem.key", "no_log": False},
}


def start(*specifications: dict[str, Any]) -> AnsibleModule:
    """A module with these arguments, after making sure that it can talk to a server."""
    merged: dict[str, Any] = {}
    for specification in specifications:
        merged.update(specification)
    module = AnsibleModule(argument_spec=merged, supports_check_mode=True)
    if mysql_server.PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=str(mysql_server.PYMYSQL_ERROR))
    return module
