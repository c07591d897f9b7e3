#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a running MySQL server to the settings of its configuration, as far as that needs no restart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_settings
short_description: Apply settings to a running MySQL server, and say which need a restart
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
  check_mode: {description: "Can run in check mode, where every difference counts as one that can be set", support: partial}
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

import re  # noqa: E402
from typing import Any, Dict, List  # noqa: E402

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402

from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_server  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_topology import Node  # noqa: E402

_ROLE = ("read_only", "super_read_only")
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}


def normal(value: Any) -> Any:
    """A value as it is compared: numbers with their suffix read, ON and OFF as numbers, text in lower case."""
    text = str(value).strip()
    if text.upper() in ("ON", "TRUE"):
        return 1
    if text.upper() in ("OFF", "FALSE"):
        return 0
    if found := re.fullmatch(r"(\d+)([KMGTP])", text.upper()):
        return int(found.group(1)) * _SIZES[found.group(2)]
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    return text.lower()


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
    applied: List[str] = []
    restart: List[str] = []
    before: Dict[str, Any] = {}
    after: Dict[str, Any] = {}
    try:
        with mysql_server.Session("this host", mysql_server.by_socket("root", module.params["unix_socket"])) as session:
            fresh = Node.from_state("", "", 0, mysql_server.read_state(session)).fresh
            have = {r["Variable_name"].lower(): r["Value"] for r in session.run("SHOW GLOBAL VARIABLES")}
            for key, value in module.params["settings"].items():
                name = key.lower().replace("-", "_")
                name = name[len("loose_") :] if name.startswith("loose_") else name
                if name in _ROLE or name.startswith(("plugin_load", "skip_replica_start")):
                    continue
                if name not in have:
                    restart.append(name)  # of a plugin that is not loaded yet
                elif normal(have[name]) != normal(value):
                    if module.check_mode or _set(session, name, normal(value), value):
                        applied.append(name)
                        before[name], after[name] = have[name], value
                    else:
                        restart.append(name)
    except mysql_server.ServerError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(applied), applied=applied, restart=restart, fresh=fresh, diff={"before": before, "after": after}
    )


def _set(session: mysql_server.Session, name: str, plain: Any, value: Any) -> bool:
    """Whether the running server took the value.

    :raises ServerError: it is a value that the setting cannot have.
    """
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    try:
        session.run(f"SET GLOBAL `{name}` = %s", (str(value) if isinstance(plain, str) else plain,))
    except mysql_server.ServerError as error:
        # 1238: read only variable; 3658 and 1292 would be the operator's mistake.
        if "(MySQL error 1238)" in str(error):
            return False
        raise mysql_server.ServerError(f"{name} = {value}: {error}") from error
    now = session.one(f"SELECT @@GLOBAL.`{name}` AS value")["value"]
    # The server may round (a buffer pool to whole chunks); what it made of the value is what a restart would give.
    return now is not None


if __name__ == "__main__":
    main()
