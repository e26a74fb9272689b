"""Reading decisions out of replies: always the last tag, and nothing at all where that is no decision."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from moco_toolkit_answers import strip_reasoning

__all__ = [
    "ACTIONS",
    "final_answer",
    "mentions",
    "parse_action",
    "parse_agents",
    "parse_experts",
    "parse_ids",
    "parse_vote",
]

ACTIONS = ("plan", "step", "verify", "critique", "finalize")

# "ACTION: plan", "**Action:** plan", "<action>plan</action>", "action = [plan]"; group 1 is the rest of the line
_TAG = r"(?<![/\w]){name}[\s*_`\"'\])]*[:=>][\s*_`\"'<(\[]*([^\n]*)"


def _last(text: str, name: str) -> re.Match[str] | None:
    """Return the last tag of that name outside a reasoning block."""
    visible = strip_reasoning(text) or ""
    tags = list(re.finditer(_TAG.format(name=name), visible, re.IGNORECASE))
    return tags[-1] if tags else None


def parse_action(text: str) -> str | None:
    """Return the action that the last ACTION tag names; None if there is none, or if it lists several."""
    tag = _last(text, "action")
    if tag is None:
        return None
    word = re.match(r"([a-z]+)(?:\W+(?:(?:or|and|then)\b\W*)?([a-z]+))?", tag[1], re.IGNORECASE)
    if word is None or (word[2] or "").lower() in ACTIONS:
        return None
    action = word[1].lower().replace("finalise", "finalize")
    return action if action in ACTIONS else None


def final_answer(text: str) -> str | None:
    """Return what follows the last DECISION tag that says final, "" if it says continue, None if neither can be read."""
    tag = _last(text, "decision")
    if tag is None:
        return None
    word = re.match(r"(final|continue)(?![a-z])[*_`\"'>\])./]*", tag[1], re.IGNORECASE)
    if word is None:
        return None
    if word[1].lower() == "continue":
        return ""
    rest = tag.string[tag.start(1) + word.end() :]
    return re.sub(r"^\s*</?decision>", "", rest, flags=re.IGNORECASE).strip() or None


def parse_agents(text: str, names: Sequence[str]) -> list[str] | None:
    """Return which of ``names`` the last AGENTS tag lists, in their own order; None if there is no tag or it names nobody."""
    tag = _last(text, "agents?")
    if tag is None:
        return None
    said = _plain(tag[1])
    found = [name for name in names if re.search(rf"(?<!\w){re.escape(_plain(name))}(?!\w)", said)]
    return found or None


def parse_ids(text: str, name: str, known: Collection[int]) -> tuple[int, ...] | None:
    """Return the entries that the last tag of that name lists, unknown ones dropped; None if there is no tag."""
    tag = _last(text, name)
    if tag is None:
        return None
    return tuple(dict.fromkeys(n for n in map(int, re.findall(r"\d{1,9}", tag[1])) if n in known))


def parse_experts(text: str) -> list[tuple[str, str]] | None:
    """Return the (identity, ability) pairs of a reply with one "identity: ability" a line; None if there is none."""
    found = []
    for line in (strip_reasoning(text) or "").splitlines():
        pair = re.match(r"\s*(?:[-*•]|\d+[.)])?\s*\**([^:*\n]{1,80}?)\**\s*:\**\s*(\S.*)", line)
        if pair:
            found.append((pair[1].strip(), pair[2].strip()))
    return found or None


def parse_vote(text: str, count: int) -> int | None:
    """Return the index of the conclusion mentioned last; None (an abstention) if there is none, or none of that number.

    A reply that is nothing but a number names it too.
    """
    visible = strip_reasoning(text) or ""
    numbers = re.findall(r"conclusions?[\s*_`]*(?:#|no\.?|number)?[\s*_`:]*(\d{1,9})", visible, re.IGNORECASE)
    if not numbers:
        numbers = re.findall(r"^\W*(\d{1,9})\W*$", visible)
    number = int(numbers[-1]) if numbers else 0
    return number - 1 if 1 <= number <= count else None


def mentions(text: str, known: Collection[int]) -> tuple[int, ...]:
    """Return the entries of the board that a text refers to as #number."""
    return tuple(dict.fromkeys(n for n in map(int, re.findall(r"#(\d{1,9})", text)) if n in known))


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", " ", name).strip().casefold()
