# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts and grants: password hashes, what SHOW GRANTS says, and the statements from one state to another. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

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


def normal_privilege(text: str) -> str:
    """``select`` as ``SELECT``; ``ALL`` as ``ALL PRIVILEGES``.

    :raises ValueError: it has characters that no privilege has.
    """
    words = " ".join(text.split())
    name, bracket, columns = words.partition("(")
    name = name.strip().upper()
    if not re.fullmatch(r"[A-Z_ ]+", name) or (bracket and not re.fullmatch(r"[\w`$, ]+\)", columns)):
        raise ValueError(f"'{text}' is no privilege")
    if name == "ALL":
        name = "ALL PRIVILEGES"
    if not bracket:
        return name
    listed = sorted(c.strip().strip("`") for c in columns[:-1].split(","))
    return f"{name} ({', '.join(f'`{c}`' for c in listed)})"


def wanted_grants(privileges: dict[str, Iterable[str]]) -> Grants:
    """From the variable to the form in which they are compared."""
    return {normal_object(o): {normal_privilege(p) for p in names} for o, names in privileges.items()}


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
