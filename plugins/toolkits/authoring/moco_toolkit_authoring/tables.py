"""Generated parts of documentation: tables between markers, always in step with what they describe.

A marked part looks like this; everything between the two lines is generated::

    <!-- moco:options -->
    ...
    <!-- /moco:options -->
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from moco_core.cli.describing import describe
from moco_core.errors import ConfigError
from moco_core.options import plain

__all__ = ["markdown_table", "marked", "option_table", "replace_marked"]


def option_table(options: type) -> str:
    """Return the options of a plugin's class as a Markdown table, or one sentence if it has none."""
    infos = describe(options)
    if not infos:
        return "It takes no options."
    with_paper = any(i.paper for i in infos)
    header = ["option", "type", "default", *(["paper"] if with_paper else []), "what it does"]
    rows = []
    for info in infos:
        kind = f"{info.type} {info.range}" if info.range else info.type
        default = "required" if info.required else f"`{_text(info.default)}`"
        rows.append([f"`{info.name}`", kind, default, *([info.paper or "–"] if with_paper else []), info.help])
    return markdown_table(header, rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; bars and line breaks inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def marked(text: str, name: str) -> str | None:
    """Return what stands between the markers of ``name``, stripped; None if the markers are missing."""
    found = _pattern(name).search(text)
    return found["body"].strip() if found else None


def replace_marked(text: str, name: str, body: str, where: str = "") -> str:
    """Return ``text`` with the part between the markers of ``name`` replaced. Raises ConfigError without markers."""
    if not _pattern(name).search(text):
        raise ConfigError(f"{where or 'text'}: the markers <!-- moco:{name} --> and <!-- /moco:{name} --> are missing")
    return _pattern(name).sub(lambda m: f"{m['open']}\n{body.strip()}\n{m['close']}", text, count=1)


def _pattern(name: str) -> re.Pattern[str]:
    tag = re.escape(f"moco:{name}")
    return re.compile(rf"(?P<open><!-- {tag} -->)(?P<body>.*?)(?P<close><!-- /{tag} -->)", re.DOTALL)


def _text(value: Any) -> str:
    value = plain(value)
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
