# Copyright (c) 2026, the scaleup.webstack authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a site as a web page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from ansible_collections.scaleup.webstack.plugins.plugin_utils.status import COLUMNS, cells, verdict

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2330; --soft: #5b6675; --line: #dde3ea; --head: #f4f6f9;
  --good: #0f7a3d; --bad: #b3261e; --wait: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --back: #14181f; --text: #e6eaf0; --soft: #9aa6b5; --line: #2c3542;
  --head: #1c222c; --good: #5fcf8c; --bad: #ff8a80; --wait: #f0c04a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 76rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
h1.good { color: var(--good); } h1.bad { color: var(--bad); }
time { color: var(--soft); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem .75rem; border-top: 1px solid var(--line); vertical-align: top; }
th { background: var(--head); border-top: 0; font-size: .8rem; color: var(--soft); font-weight: 600; }
td:first-child { font-weight: 600; }
.degraded, .problems li { color: var(--bad); } .ok { color: var(--good); } .notes li { color: var(--wait); }
ul { margin: 0; padding-left: 1.2rem; }
"""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    titles = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    body = ""
    for row in rows:
        words = ""
        for word in row:
            mark = f' class="{word}"' if word in ("ok", "degraded") else ""
            words += f"<td{mark}>{escape(word)}</td>"
        body += f"<tr>{words}</tr>\n"
    return f"<div class=scroll><table><thead><tr>{titles}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"


def _list(kind: str, title: str, entries: Iterable[Mapping[str, str]]) -> str:
    items = "".join(f"<li>{escape(entry['text'])}</li>\n" for entry in entries)
    return f"<h2>{title}</h2>\n<ul class={kind}>\n{items}</ul>\n" if items else ""


def site_status_html(status: Mapping[str, Any], title: str = "Site") -> str:
    """The page: no script, no picture, no font from elsewhere."""
    vips = [[v["name"], v["address"], " and ".join(v["holders"]) or "nobody"] for v in status["vips"]]
    backups = [[b["kind"], b["at"], b["host"]] for b in status["backups"]]
    return (
        "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(title)}: {escape(verdict(status))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1 class={'good' if status['ok'] else 'bad'}>{escape(verdict(status))}</h1>\n"
        f"<time datetime='{escape(status['time'])}'>{escape(title)}, {escape(status['time'])}</time>\n"
        + _list("problems", "Wrong", status["problems"])
        + _list("notes", "Waiting", status["notes"])
        + "<h2>Hosts</h2>\n"
        + _table((name.capitalize() for name in COLUMNS), (cells(row) for row in status["hosts"]))
        + ("<h2>Virtual IPs</h2>\n" + _table(("Name", "Address", "Held by"), vips) if vips else "")
        + ("<h2>Backups</h2>\n" + _table(("Kind", "Last", "By"), backups) if backups else "")
        + "</body>\n</html>\n"
    )
