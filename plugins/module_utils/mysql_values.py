# Copyright: The scaleup.webstack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of a MySQL server's settings, as an option file and as the running server write them."""

from __future__ import annotations

import re
from typing import Any

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


def variable(name: str, value: Any) -> str:
    """The variable that shows a setting: that of ``log_bin`` says only whether there are binary logs."""
    return "log_bin_basename" if name == "log_bin" and str(value).startswith("/") else name
