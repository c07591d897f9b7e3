#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a running MySQL server to the settings of its configuration, as far as that needs no restart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_settings
short_description: Apply settings to a running MySQL or MariaDB server, and say which need a restart
version_added: 0.1.0
description:
  - Compares settings with what the running server uses, and sets those that differ and can be set while it runs.
  - Never touches C(read_only) and C(super_read_only). They are a node's role.
author: The scaleup.webstack maintainers (@scaleup)
options:
  settings:
    description: Names and values as in the configuration file.
    type: dict
    required: true
  unix_socket:
    description: Socket of the server, entered as root.
    type: path
    default: /run/mysqld/mysqld.sock
requirements: [PyMySQL]
attributes:
  check_mode: {description: "Runs; every difference counts as one that can be set", support: partial}
  diff_mode: {description: Shows the values, support: full}
"""

EXAMPLES = r"""
- name: The running server has the settings
  scaleup.webstack.mysql_settings:
    settings: {max_connections: 500, innodb_buffer_pool_size: 2G}
"""

RETURN = r"""
applied: {description: Settings that were changed while the server runs., returned: always, type: list, elements: str}
restart: {description: Settings that only a restart will change., returned: always, type: list, elements: str}
fresh: {description: Whether the server holds no data yet., returned: always, type: bool}
"""

from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import Node  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_values import normal, variable  # noqa: E402

_ROLE = ("read_only", "super_read_only")
# Read only variable; only while replication stands still (twice).
_NEEDS_RESTART = (1238, 1198, 3017)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "unix_socket": {"type": "path", "default": mysql_server.SOCKET},
        },
        supports_check_mode=True,
    )
    if mysql_server.PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=str(mysql_server.PYMYSQL_ERROR))
    applied: list[str] = []
    restart: list[str] = []
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    try:
        with mysql_server.Session("this host", mysql_server.by_socket("root", module.params["unix_socket"])) as session:
            fresh = Node.from_state("", "", 0, mysql_server.read_state(session)).fresh
            have = {r["Variable_name"].lower(): r["Value"] for r in session.run("SHOW GLOBAL VARIABLES")}
            for key, value in module.params["settings"].items():
                name = key.lower().replace("-", "_")
                optional = name.startswith("loose_")
                name = name[len("loose_") :] if optional else name
                if name in _ROLE:
                    continue
                name = variable(name, value)
                if name not in have:
                    # Of a plugin that is not loaded yet; other options without a variable cannot be compared.
                    if optional:
                        restart.append(name)
                elif normal(have[name]) != normal(value):
                    done = True if module.check_mode else _set(session, name, normal(value), value)
                    if done is None:
                        restart.append(name)
                    elif done:
                        applied.append(name)
                        before[name], after[name] = have[name], value
    except mysql_server.ServerError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(applied), applied=applied, restart=restart, fresh=fresh, diff={"before": before, "after": after}
    )


def _set(session: mysql_server.Session, name: str, plain: Any, value: Any) -> bool | None:
    """Give the running server a value: whether that changed something, or None where only a restart can.

    The server may round a value (a buffer pool to whole chunks), so one that differs need not change anything.

    :raises ServerError: it is a value that the setting cannot have.
    """
    # ON and OFF go as words: as a number they would be the position in an enumeration such as gtid_mode's.
    sent = int(plain) if isinstance(plain, (int, float)) and normal(value) == plain and _numeric(value) else str(value)
    read = f"SELECT @@GLOBAL.`{name}` AS value"
    before = session.one(read)["value"]
    try:
        session.run(f"SET GLOBAL `{name}` = %s", (sent,))
    except mysql_server.ServerError as error:
        if any(f"(MySQL error {number})" in str(error) for number in _NEEDS_RESTART):
            return None
        raise mysql_server.ServerError(f"{name} = {value}: {error}") from error
    return bool(session.one(read)["value"] != before)


def _numeric(value: Any) -> bool:
    return str(value)[:1].isdigit() and not isinstance(value, bool)


if __name__ == "__main__":
    main()
