#!/usr/bin/python
# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases, accounts and grants of a MySQL server as data."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mysql_accounts
short_description: Databases, accounts and grants of a MySQL or MariaDB server as data
version_added: 0.1.0
description:
  - Brings all listed databases and accounts into the described state with one call, entered as root by the socket.
  - A listed account name is owned by the list. Its accounts at other hosts are dropped, and privileges that are not
    listed are revoked.
  - Passwords are compared with the server's hashes (C(caching_sha2_password), on MariaDB
    C(mysql_native_password)), so that a second run changes nothing.
author: The scaleup.webstack maintainers (@scaleup)
options:
  unix_socket:
    description: Socket of the server.
    type: path
    default: /run/mysqld/mysqld.sock
  databases:
    description: Databases that exist. None is ever dropped.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name., type: str, required: true}
      charset: {description: Default character set., type: str, default: utf8mb4}
      collation:
        description: Default collation. Empty takes V(utf8mb4_0900_ai_ci), on MariaDB V(utf8mb4_uca1400_ai_ci).
        type: str
        default: ""
  accounts:
    description: Accounts that exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name without the host., type: str, required: true}
      hosts:
        description: Where it may come from, as MySQL has it (an address, a network with its mask, V(localhost)).
        type: list
        elements: str
        required: true
      password: {description: Password of an account that comes over the network., type: str}
      socket_user:
        description: Instead of a password, the operating system's user that may enter by the socket.
        type: str
      privileges:
        description: Lists of privileges by their object, for example V(shop.*).
        type: dict
        default: {}
  retain_passwords:
    description: A changed password leaves the old one valid beside it, so that no client is locked out.
    type: bool
    default: true
  discard_old_passwords:
    description: End the validity of passwords that an earlier change left behind.
    type: bool
    default: false
  replicated:
    description:
      - V(false) keeps the changes on this node, out of its binary log, and makes them on a fenced node too
        (C(super_read_only) is lifted meanwhile, C(read_only) is not).
    type: bool
    default: true
  secure:
    description:
      - Drop anonymous accounts, root from elsewhere and an empty database C(test); root enters by the socket only.
    type: bool
    default: false
requirements: [PyMySQL]
attributes:
  check_mode: {description: Can run in check mode, support: full}
  diff_mode: {description: Lists the changes without secrets, support: full}
"""

EXAMPLES = r"""
- name: The application has its database
  scaleup.webstack.mysql_accounts:
    databases: [{name: shop}]
    accounts:
      - name: shop
        hosts: [198.18.0.11, 198.18.0.12]
        password: "{{ vault_shop_password }}"
        privileges:
          shop.*: [SELECT, INSERT, UPDATE, DELETE]
"""

RETURN = r"""
changes: {description: "One line for each change, without secrets.", returned: always, type: list, elements: str}
"""

from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402
from ansible_collections.scaleup.webstack.plugins.module_utils import mysql_access, mysql_server  # noqa: E402

# (what an operator reads, statement, values)
Change = tuple[str, str, Sequence[Any]]


def plan_databases(session: mysql_server.Session, databases: list[dict[str, str]]) -> list[Change]:
    """What the listed databases lack."""
    usual = mysql_access.VENDORS[session.dialect.vendor].collation
    rows = session.run(
        "SELECT SCHEMA_NAME AS name, DEFAULT_CHARACTER_SET_NAME AS charset, DEFAULT_COLLATION_NAME AS collation "
        "FROM information_schema.SCHEMATA"
    )
    have = {r["name"]: (r["charset"], r["collation"]) for r in rows}
    changes: list[Change] = []
    for database in databases:
        name, charset, collation = database["name"], database["charset"], database["collation"] or usual
        quoted = "`" + name.replace("`", "``").replace("%", "%%") + "`"
        if name not in have:
            changes.append(
                (
                    f"database {name} created",
                    f"CREATE DATABASE {quoted} CHARACTER SET %s COLLATE %s",
                    (charset, collation),
                )
            )
        elif have[name] != (charset, collation):
            changes.append(
                (
                    f"database {name}: default {charset}, {collation}",
                    f"ALTER DATABASE {quoted} CHARACTER SET %s COLLATE %s",
                    (charset, collation),
                )
            )
    return changes


def plan_account(
    session: mysql_server.Session, account: dict[str, Any], have: dict[str, dict[str, Any]], params: dict[str, Any]
) -> list[Change]:
    """What one name's accounts lack; ``have`` are its accounts on the server by their host."""
    changes: list[Change] = []
    vendor = mysql_access.VENDORS[session.dialect.vendor]
    wanted = mysql_access.wanted_grants(account["privileges"], vendor.other_names)
    name, tls = account["name"], "NONE" if account["socket_user"] else "SSL"
    how, secrets = vendor.way(account)
    for host in account["hosts"]:
        shown, who = f"account {name}@{host}", (name, host)
        row = have.get(host)
        if row is None:
            changes.append((f"{shown} created", f"CREATE USER %s@%s IDENTIFIED {how} REQUIRE {tls}", (*who, *secrets)))
            current: mysql_access.Grants = {}
        else:
            changes += _authentication(vendor, row, account, shown, who, tls, params)
            lines = session.run("SHOW GRANTS FOR %s@%s", who)
            current = mysql_access.parse_grants(str(next(iter(line.values()))) for line in lines)
        for statement in mysql_access.grant_statements(current, wanted):
            text = statement.format(account="").replace(" TO ", "").replace(" FROM ", "")
            changes.append((f"{shown}: {text}", statement.replace("%", "%%").format(account="%s@%s"), who))
    for host in sorted(set(have) - set(account["hosts"])):
        changes.append((f"account {name}@{host} dropped", "DROP USER %s@%s", (name, host)))
    return changes


def _authentication(
    vendor: mysql_access.MySQL,
    row: dict[str, Any],
    account: dict[str, Any],
    shown: str,
    who: tuple[str, str],
    tls: str,
    params: dict[str, Any],
) -> list[Change]:
    changes: list[Change] = []
    stored = bytes.fromhex(row["secret"] or "")
    how, values = vendor.way(account)
    plugin = vendor.socket_plugin if account["socket_user"] else vendor.password_plugin
    if row["plugin"] != plugin or not vendor.matches(account, stored):
        keep = params["retain_passwords"] and row["plugin"] == plugin == vendor.password_plugin and stored
        if keep:
            how, values = vendor.retain(how, values, stored)
        text = "password changed" + (", the old one stays valid beside it" if keep else "")
        changes.append((f"{shown}: {text}", f"ALTER USER %s@%s IDENTIFIED {how}", (*who, *values)))
    elif row["second"] and params["discard_old_passwords"]:
        clause, values = vendor.discard(how, values)
        changes.append((f"{shown}: old password discarded", f"ALTER USER %s@%s {clause}", (*who, *values)))
    if (row["ssl_type"] or "NONE") != {"SSL": "ANY", "NONE": "NONE"}[tls]:
        changes.append((f"{shown}: TLS required", f"ALTER USER %s@%s REQUIRE {tls}", who))
    return changes


def plan_security(session: mysql_server.Session, users: list[dict[str, Any]], listed: list[str]) -> list[Change]:
    """What a careful administrator removes from a new server."""
    changes: list[Change] = []
    vendor = mysql_access.VENDORS[session.dialect.vendor]
    for user in users:
        who = (user["name"], user["host"])
        if user["name"] == "" or (user["name"] == "root" and user["host"] != "localhost"):
            changes.append(
                (f"account {user['name'] or 'without a name'}@{user['host']} dropped", "DROP USER %s@%s", who)
            )
        elif user["name"] == "root" and (user["plugin"] != vendor.socket_plugin or user["second"]):
            changes.append(("root enters by the socket only", f"ALTER USER %s@%s {vendor.by_socket}", who))
    if "test" not in listed and session.run("SHOW DATABASES LIKE 'test'") and not session.run("SHOW TABLES IN `test`"):
        changes.append(("empty database test dropped", "DROP DATABASE `test`", ()))
    return changes


def main() -> None:
    """Entry point."""
    database = {
        "name": {"type": "str", "required": True},
        "charset": {"type": "str", "default": "utf8mb4"},
        "collation": {"type": "str", "default": ""},
    }
    account = {
        "name": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "str", "required": True},
        "password": {"type": "str", "no_log": True},
        "socket_user": {"type": "str"},
        "privileges": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "unix_socket": {"type": "path", "default": mysql_server.SOCKET},
            "databases": {"type": "list", "elements": "dict", "default": [], "options": database},
            "accounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": account,
                "required_one_of": [["password", "socket_user"]],
                "mutually_exclusive": [["password", "socket_user"]],
            },
            "retain_passwords": {"type": "bool", "default": True, "no_log": False},
            "discard_old_passwords": {"type": "bool", "default": False, "no_log": False},
            "replicated": {"type": "bool", "default": True},
            "secure": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if mysql_server.PYMYSQL_ERROR:
        module.fail_json(msg=missing_required_lib("PyMySQL"), exception=str(mysql_server.PYMYSQL_ERROR))
    params = module.params
    step: str | None = None
    try:
        with mysql_server.Session("this host", mysql_server.by_socket("root", params["unix_socket"])) as session:
            users = session.run(mysql_access.VENDORS[session.dialect.vendor].users)
            changes = (
                plan_security(session, users, [d["name"] for d in params["databases"]]) if params["secure"] else []
            )
            changes += plan_databases(session, params["databases"])
            for wanted in params["accounts"]:
                have = {u["host"]: u for u in users if u["name"] == wanted["name"]}
                changes += plan_account(session, wanted, have, params)
            if changes and not module.check_mode:
                lifted = False
                try:
                    if not params["replicated"]:
                        session.run("SET SESSION sql_log_bin = 0")
                        # Without a tight fence root writes anyway.
                        tight = session.dialect.fence_is_tight
                        if tight and session.one("SELECT @@GLOBAL.super_read_only AS fenced")["fenced"]:
                            session.run("SET GLOBAL super_read_only = OFF")
                            session.run("SET GLOBAL read_only = ON")
                            lifted = True
                    for step, statement, values in changes:  # noqa: B007
                        session.run(statement, values)
                finally:
                    if lifted:
                        mysql_server.set_fenced(session)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except mysql_server.ServerError as error:
        module.fail_json(msg=f"{step}: {error}" if step else str(error))
    lines = [text for text, _, _ in changes]
    module.exit_json(
        changed=bool(changes), changes=lines, diff={"before": "", "after": "".join(f"{line}\n" for line in lines)}
    )


if __name__ == "__main__":
    main()
