"""Accounts and grants: hashes that MySQL made, and the way from one state to another."""

from __future__ import annotations

import pytest
from ansible_collections.scaleup.webstack.plugins.module_utils.mysql_access import (
    grant_statements,
    normal_object,
    normal_privilege,
    parse_grants,
    password_matches,
    sha256_crypt,
    wanted_grants,
)


def test_sha_crypt_is_that_of_its_specification() -> None:
    # U. Drepper's test vectors (SHA-crypt.txt), and what glibc's crypt(3) makes of two more.
    for password, salt, rounds, digest in [
        (b"Hello world!", b"saltstring", 5000, "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
        (b"Hello world!", b"saltstringsaltst", 10000, "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA"),
        (b"x" * 70, b"anotherlongsalts", 1400, "gDQLoos7INCcjpLZMNPZw5WaaKNCcAW7tfAnfy6jzE5"),
    ]:
        assert sha256_crypt(password, salt, rounds) == digest


def test_a_hash_is_recognized_and_another_is_not() -> None:
    salt = b"abcdefghijklmnopqrst"
    stored = b"$A$00A$" + salt + sha256_crypt(b"secret", salt, 10000).encode()
    assert password_matches("secret", stored)
    assert not password_matches("Secret", stored)
    assert not password_matches("secret", b"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19")
    assert not password_matches("", b"")


def test_objects_and_privileges_have_one_form() -> None:
    assert normal_object("shop.*") == "`shop`.*"
    assert normal_object("my_shop.*") == "`my\\_shop`.*"
    assert normal_object("my_shop.orders") == "`my_shop`.`orders`"
    assert normal_object("*.*") == "*.*"
    assert normal_privilege("all") == "ALL PRIVILEGES"
    assert normal_privilege("select (b, a)") == "SELECT (`a`, `b`)"
    for wrong in ("shop", "*.orders", ".x"):
        with pytest.raises(ValueError, match="no object"):
            normal_object(wrong)
    with pytest.raises(ValueError, match="no privilege"):
        normal_privilege("SELECT; DROP")


def test_what_the_server_shows_is_what_was_wanted() -> None:
    shown = [
        "GRANT USAGE ON *.* TO `shop`@`10.0.0.1`",
        "GRANT SELECT, INSERT (`a`, `b`) ON `my\\_shop`.* TO `shop`@`10.0.0.1`",
        "GRANT REPLICATION SLAVE ON *.* TO `shop`@`10.0.0.1` WITH GRANT OPTION",
        "GRANT `role`@`%` TO `shop`@`10.0.0.1`",
    ]
    wanted = wanted_grants(
        {"my_shop.*": ["select", "INSERT (b,a)"], "*.*": ["replication slave", "grant option"]},
    )
    assert parse_grants(shown) == wanted
    assert grant_statements(parse_grants(shown), wanted) == []


def test_only_the_difference_is_granted_and_revoked() -> None:
    have = {"`shop`.*": {"SELECT", "DROP"}, "*.*": {"PROCESS"}}
    wanted = {"`shop`.*": {"SELECT", "INSERT"}}
    assert grant_statements(have, wanted) == [
        "GRANT INSERT ON `shop`.* TO {account}",
        "REVOKE PROCESS ON *.* FROM {account}",
        "REVOKE DROP ON `shop`.* FROM {account}",
    ]


def test_all_privileges_are_revoked_before_single_ones_are_granted() -> None:
    assert grant_statements({"`shop`.*": {"ALL PRIVILEGES"}}, {"`shop`.*": {"SELECT"}}) == [
        "REVOKE ALL PRIVILEGES ON `shop`.* FROM {account}",
        "GRANT SELECT ON `shop`.* TO {account}",
    ]
