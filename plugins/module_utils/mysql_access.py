# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and grants: password hashes, what SHOW GRANTS says, and the statements from one state to another. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

_ITOA64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Object, as "*.*", "`db`.*" or "`db`.`table`", to the privileges on it.
Grants = dict[str, set[str]]


def sha256_crypt(password: bytes, salt: bytes, rounds: int) -> str:
    """The digest part of SHA-crypt with SHA-256 (U. Drepper, "Unix crypt using SHA-256 and SHA-512", 2007)."""
    size = 32
    alternate = hashlib.sha256(password + salt + password).digest()
    start = password + salt + _repeat(alternate, len(password))
    bits = len(password)
    while bits:
        start += alternate if bits & 1 else password
        bits >>= 1
    digest = hashlib.sha256(start).digest()
    p = _repeat(hashlib.sha256(password * len(password)).digest(), len(password))
    s = _repeat(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))
    for number in range(rounds):
        text = p if number & 1 else digest
        if number % 3:
            text += s
        if number % 7:
            text += p
        text += digest if number & 1 else p
        digest = hashlib.sha256(text).digest()
    result = ""
    for a in range(10):
        i, j, k = (a * 21) % 30, (a * 21 + 10) % 30, (a * 21 + 20) % 30
        value = digest[i] << 16 | digest[j] << 8 | digest[k]
        result += "".join(_ITOA64[value >> shift & 63] for shift in (0, 6, 12, 18))
    value = digest[size - 1] << 8 | digest[size - 2]
    return result + "".join(_ITOA64[value >> shift & 63] for shift in (0, 6, 12))


def _repeat(data: bytes, length: int) -> bytes:
    return (data * (length // len(data) + 1))[:length] if length else b""


def password_matches(password: str, stored: bytes) -> bool:
    """Whether ``stored`` (mysql.user.authentication_string) is the caching_sha2_password hash of a password.

    The form is ``$A$``, the rounds in thousands as three hexadecimal digits, ``$``, 20 bytes of salt, the digest.
    """
    found = re.match(rb"\$A\$([0-9A-Fa-f]{3})\$", stored)
    if not found or len(stored) != 7 + 20 + 43:
        return False
    salt, digest = stored[7:27], stored[27:]
    return sha256_crypt(password.encode(), salt, int(found.group(1), 16) * 1000).encode() == digest


def normal_object(text: str) -> str:
    """``shop.*`` or ``shop.orders`` or ``*.*`` as SHOW GRANTS writes it.

    A database's name is meant literally: ``_`` and ``%`` would be wildcards in a GRANT on a whole database.

    :raises ValueError: it is none of these.
    """
    database, dot, table = text.replace("`", "").rpartition(".")
    if not dot or not database or not table or (database == "*" and table != "*"):
        raise ValueError(f"'{text}' is no object of a grant: write *.*, database.* or database.table")
    if database == "*":
        return "*.*"
    if table == "*":
        return "`" + re.sub(r"([_%])", r"\\\1", database) + "`.*"
    return f"`{database}`.`{table}`"


def normal_privilege(text: str, other_names: Mapping[str, str] | None = None) -> str:
    """``select`` as ``SELECT``; ``ALL`` as ``ALL PRIVILEGES``.

    :param other_names: names that the server takes, and how it shows them.

    :raises ValueError: it has characters that no privilege has.
    """
    words = " ".join(text.split())
    name, bracket, columns = words.partition("(")
    name = name.strip().upper()
    if not re.fullmatch(r"[A-Z_ ]+", name) or (bracket and not re.fullmatch(r"[\w`$, ]+\)", columns)):
        raise ValueError(f"'{text}' is no privilege")
    if name == "ALL":
        name = "ALL PRIVILEGES"
    name = (other_names or {}).get(name, name)
    if not bracket:
        return name
    listed = sorted(c.strip().strip("`") for c in columns[:-1].split(","))
    return f"{name} ({', '.join(f'`{c}`' for c in listed)})"


def wanted_grants(privileges: dict[str, Iterable[str]], other_names: Mapping[str, str] | None = None) -> Grants:
    """From the variable to the form in which they are compared."""
    return {normal_object(o): {normal_privilege(p, other_names) for p in names} for o, names in privileges.items()}


def parse_grants(lines: Iterable[str]) -> Grants:
    """From the rows of SHOW GRANTS; GRANT OPTION counts as a privilege, USAGE as none, roles are left out."""
    result: Grants = {}
    for line in lines:
        found = re.match(r"GRANT (.+) ON (?:TABLE )?(\*\.\*|`.+`\.\*|`.+`\.`.+`) TO (.+)$", line)
        if not found:
            continue
        names, target, rest = found.groups()
        privileges = {normal_privilege(n) for n in re.split(r",(?![^(]*\))", names)}
        if rest.endswith("WITH GRANT OPTION"):
            privileges.add("GRANT OPTION")
        privileges.discard("USAGE")
        if privileges:
            result.setdefault(target, set()).update(privileges)
    return result


def grant_statements(current: Grants, wanted: Grants) -> list[str]:
    """``GRANT … ON … TO`` and ``REVOKE … ON … FROM`` without the account, grants first: no client misses one."""
    grants, revokes = [], []
    for target in sorted(set(current) | set(wanted)):
        missing = wanted.get(target, set()) - current.get(target, set())
        extra = current.get(target, set()) - wanted.get(target, set())
        if plain := sorted(missing - {"GRANT OPTION"}):
            option = " WITH GRANT OPTION" if "GRANT OPTION" in missing else ""
            grants.append(f"GRANT {', '.join(plain)} ON {target} TO {{account}}{option}")
        elif missing:
            grants.append(f"GRANT USAGE ON {target} TO {{account}} WITH GRANT OPTION")
        if extra:
            revokes.append(f"REVOKE {', '.join(sorted(extra))} ON {target} FROM {{account}}")
    # ALL PRIVILEGES would take away again what was granted one by one.
    return (revokes + grants) if any("ALL PRIVILEGES" in s for s in revokes) else (grants + revokes)


class MySQL:
    """How MySQL keeps its accounts."""

    password_plugin, socket_plugin = "caching_sha2_password", "auth_socket"
    collation = "utf8mb4_0900_ai_ci"
    other_names: Mapping[str, str] = {}
    # second: whether another way in is valid beside the first.
    users = (
        "SELECT User AS name, Host AS host, plugin, HEX(authentication_string) AS secret, ssl_type, "
        "JSON_CONTAINS_PATH(COALESCE(User_attributes, '{}'), 'one', '$.additional_password') AS second, "
        "account_locked = 'Y' AS locked FROM mysql.user"
    )
    # For root; and the end of an old password's validity.
    by_socket = "IDENTIFIED WITH auth_socket"

    def way(self, account: Mapping[str, Any]) -> tuple[str, list[str]]:
        """How an account shows who it is: the clause after IDENTIFIED, and its values."""
        if account["socket_user"]:
            return "WITH auth_socket AS %s", [account["socket_user"]]
        return "WITH caching_sha2_password BY %s", [account["password"]]

    def matches(self, account: Mapping[str, Any], stored: bytes) -> bool:
        """Whether what the server keeps is that."""
        if account["socket_user"]:
            return stored == str(account["socket_user"]).encode()
        return password_matches(account["password"], stored)

    def retain(self, how: str, values: list[str], stored: bytes) -> tuple[str, list[str]]:
        """The same clause, with which the old password stays valid beside the new one."""
        return f"{how} RETAIN CURRENT PASSWORD", values

    def discard(self, how: str, values: list[str]) -> tuple[str, list[str]]:
        """The clause that ends the old password."""
        return "DISCARD OLD PASSWORD", []


class MariaDB(MySQL):
    """How MariaDB keeps its accounts: several ways in may be joined by OR."""

    password_plugin, socket_plugin = "mysql_native_password", "unix_socket"
    collation = "utf8mb4_uca1400_ai_ci"
    other_names: Mapping[str, str] = {
        "REPLICATION CLIENT": "BINLOG MONITOR",
        "REPLICA MONITOR": "SLAVE MONITOR",
        "REPLICATION REPLICA": "REPLICATION SLAVE",
        "REPLICATION REPLICA ADMIN": "REPLICATION SLAVE ADMIN",
        "READ ONLY ADMIN": "READ_ONLY ADMIN",
        "DELETE VERSIONING ROWS": "DELETE HISTORY",
    }
    users = (
        "SELECT User AS name, Host AS host, JSON_VALUE(Priv, '$.plugin') AS plugin, "
        "HEX(JSON_VALUE(Priv, '$.authentication_string')) AS secret, "
        "IF(JSON_VALUE(Priv, '$.ssl_type') > 0, 'ANY', '') AS ssl_type, "
        "COALESCE(JSON_LENGTH(Priv, '$.auth_or'), 0) > 1 AS second, "
        "COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) AS locked "
        "FROM mysql.global_priv WHERE COALESCE(JSON_VALUE(Priv, '$.is_role'), 0) = 0"
    )
    by_socket = "IDENTIFIED VIA unix_socket"

    def way(self, account: Mapping[str, Any]) -> tuple[str, list[str]]:
        """How an account shows who it is.

        :raises ValueError: MariaDB before 11 cannot do it.
        """
        if account["socket_user"]:
            if account["socket_user"] != account["name"]:
                raise ValueError(f"{account['name']}: on MariaDB socket_user is the account's own name")
            return "VIA unix_socket", []
        # The hash: what is replicated holds no password.
        return "VIA mysql_native_password USING %s", [native_hash(account["password"])]

    def matches(self, account: Mapping[str, Any], stored: bytes) -> bool:
        """Whether what the server keeps is that."""
        return stored == (b"" if account["socket_user"] else native_hash(account["password"]).encode())

    def retain(self, how: str, values: list[str], stored: bytes) -> tuple[str, list[str]]:
        """The same clause, with which the old password stays valid beside the new one."""
        return f"{how} OR mysql_native_password USING %s", [*values, stored.decode()]

    def discard(self, how: str, values: list[str]) -> tuple[str, list[str]]:
        """The clause that ends the old password."""
        return f"IDENTIFIED {how}", values


VENDORS = {"mysql": MySQL(), "mariadb": MariaDB()}


def native_hash(password: str) -> str:
    """The hash of mysql_native_password."""
    return "*" + hashlib.sha1(hashlib.sha1(password.encode()).digest()).hexdigest().upper()
