# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses, networks and host ranges, as integers: ten thousand hosts are named and numbered in milliseconds.

An address is one integer, its *key*: an IPv4 address is its 32-bit value, an IPv6 address its 128-bit value plus
`IPV6`. So keys are unique over both families, and neighbours in a network are neighbours as integers.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

IPV6 = 1 << 128

_RANGE = re.compile(r"\[([^\[\]]*)\]")
# What `ansible-playbook --limit` can still address: no separators, wildcards, quotes or white space.
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.:-]*[A-Za-z0-9_])?\Z")


def parse_address(text: object) -> int | None:
    """Key of a plain IPv4 or IPv6 address (no prefix, port or zone), or None when the text is none."""
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        address = ipaddress.ip_address(str(text))
    except ValueError:
        return None
    return int(address) + (IPV6 if address.version == 6 else 0)


def format_address(key: int) -> str:
    """The text of an address from its key; IPv6 in the short form of RFC 5952."""
    if key < IPV6:
        return f"{key >> 24}.{key >> 16 & 255}.{key >> 8 & 255}.{key & 255}"
    return str(ipaddress.IPv6Address(key - IPV6))


def is_ipv6(key: int) -> bool:
    """Whether the key is that of an IPv6 address."""
    return key >= IPV6


def server_id(key: int) -> int:
    """MySQL server_id of an address: the IPv4 address as an integer; for IPv6 a hash of it in 1..2^32-1.

    The range is that of MySQL's `server_id` (0 means: does not replicate). The hash depends on nothing else than the
    address, so the id stays when hosts come and go; that it is unique is checked where ids are given out.
    """
    if key < IPV6:
        return key
    return _hashed_id((key - IPV6).to_bytes(16, "big"))


def name_server_id(name: str) -> int:
    """MySQL server_id of a host whose address the inventory does not know: a hash of its name, in 1..2^32-1."""
    return _hashed_id(str(name).encode())


def _hashed_id(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") % (2**32 - 1) + 1


@dataclass(frozen=True, slots=True)
class Network:
    """A network by its first and last address (keys) and its prefix length in bits."""

    text: str
    first: int
    last: int
    prefix: int

    def __contains__(self, key: int) -> bool:
        return self.first <= key <= self.last

    def reserved(self, key: int) -> str:
        """What the address is in this network when no host can have it, else nothing (RFC 3021: not in a /31)."""
        if is_ipv6(key) or self.prefix >= 31:
            return ""
        if key == self.first:
            return "network address"
        return "broadcast address" if key == self.last else ""


def parse_network(text: str) -> Network | str:
    """A network from `10.0.0.0/24` or `2001:db8::/64`, or a message that says what is wrong with the text."""
    if "/" not in text:
        return f"'{text}' has no prefix length: write it like 10.0.0.0/24"
    try:
        network = ipaddress.ip_network(str(text))
    except ValueError:
        try:
            network = ipaddress.ip_network(str(text), strict=False)
        except ValueError:
            return f"'{text}' is no network: write it like 10.0.0.0/24 or 2001:db8::/64"
        return f"'{text}' has host bits set: the network is {network}"
    offset = IPV6 if network.version == 6 else 0
    return Network(
        str(network),
        int(network.network_address) + offset,
        int(network.broadcast_address) + offset,
        network.prefixlen,
    )


def valid_host_name(name: str) -> bool:
    """Whether Ansible's host patterns can address a host of this name."""
    return _HOST_NAME.match(name) is not None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host name with ranges like `web[01:12]`, `rack[a:c]-[1:9:2]`: how many hosts it stands for, and their names."""

    literals: tuple[str, ...]
    ranges: tuple[range | str, ...]
    widths: tuple[int, ...]

    def __len__(self) -> int:
        count = 1
        for values in self.ranges:
            count *= len(values)
        return count

    def __iter__(self) -> Iterator[str]:
        if not self.ranges:
            yield self.literals[0]
        elif len(self.ranges) == 1 and isinstance(self.ranges[0], range):  # nearly all patterns; worth a short way
            head, tail = self.literals
            width = self.widths[0]
            for number in self.ranges[0]:
                yield f"{head}{number:0{width}d}{tail}"
        else:
            columns = [
                values if isinstance(values, str) else [f"{number:0{width}d}" for number in values]
                for values, width in zip(self.ranges, self.widths, strict=False)
            ]
            for parts in product(*columns):
                yield "".join(a + b for a, b in zip(self.literals, (*parts, ""), strict=False))


def parse_host_pattern(text: str) -> HostPattern | str:
    """A host pattern, or a message that says what is wrong with it.

    The syntax is that of Ansible's inventory (docs: "Adding ranges of hosts"): inclusive bounds, equal widths when
    padded with zeros, one-letter bounds for letters, an optional step. Stricter than Ansible: an empty or reversed
    range is an error and not "no hosts".
    """
    parts = _RANGE.split(text)
    literals, bodies = tuple(parts[0::2]), parts[1::2]
    if any("[" in part or "]" in part for part in literals):
        return f"'{text}' has brackets that do not pair: a range is written like web[1:3]"
    ranges: list[range | str] = []
    widths: list[int] = []
    for body in bodies:
        parsed = _parse_range(text, body)
        if isinstance(parsed, str):
            return parsed
        ranges.append(parsed[0])
        widths.append(parsed[1])
    pattern = HostPattern(literals, tuple(ranges), tuple(widths))
    example = "".join(a + b for a, b in zip(literals, [*(str(values[0]) for values in ranges), ""], strict=False))
    if not valid_host_name(example):
        return f"'{text}' is no host name: use letters, digits, '.', '-' and '_' (and ranges like web[1:3])"
    return pattern


def _parse_range(text: str, body: str) -> tuple[range | str, int] | str:
    bounds = body.split(":")
    if len(bounds) not in (2, 3) or not bounds[0] or not bounds[1]:
        return f"'{text}' has a range that is not [first:last] or [first:last:step]"
    first, last = bounds[0], bounds[1]
    step_text = bounds[2] if len(bounds) == 3 else "1"
    if not _is_number(step_text) or len(step_text) > 9 or int(step_text) == 0:
        return f"'{text}' has a range with the step '{step_text}': it must be a number from 1"
    step = int(step_text)
    letters = string.ascii_letters
    if len(first) == 1 and len(last) == 1 and first in letters and last in letters:
        if first.islower() != last.islower():
            return f"'{text}' has a range from '{first}' to '{last}': both must be small letters, or both capitals"
        if first > last:
            return f"'{text}' has a reversed range: write [{last}:{first}]"
        return letters[letters.index(first) : letters.index(last) + 1 : step], 0
    if not _is_number(first) or not _is_number(last):
        return f"'{text}' has a range from '{first}' to '{last}': both must be numbers, or both single letters"
    if len(first) > 12 or len(last) > 12:
        return f"'{text}' has a range with a number of more than 12 digits"
    padded = len(first) > 1 and first.startswith("0")
    if padded and len(first) != len(last):
        width = max(len(first), len(last))
        return f"'{text}' has padded numbers of unequal widths: write [{first.zfill(width)}:{last.zfill(width)}]"
    if int(first) > int(last):
        return f"'{text}' has a reversed range: write [{last}:{first}]"
    return range(int(first), int(last) + 1, step), len(first) if padded else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
