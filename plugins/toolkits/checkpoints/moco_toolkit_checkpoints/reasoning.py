"""Separating what a model thinks aloud from what it answers: the one table of tags of every engine and every reader."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache, lru_cache

import attrs

__all__ = ["DEFAULT_TAGS", "Separated", "left_open", "markers", "separate", "split"]

Tags = Sequence[tuple[str, str]]

_NAMES = (
    "think",
    "thinking",
    "thought",
    "reasoning",
    "reason",
    "scratchpad",
    "analysis",
    "seed:think",
    "longcat_think",
)

DEFAULT_TAGS: tuple[tuple[str, str], ...] = (
    *((f"<{name}>", f"</{name}>") for name in _NAMES),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
"""Opening and closing tags in use by published reasoning models.

Case does not matter, and a tag of the form ``<name>`` may have attributes. The channels of gpt-oss (the harmony format)
and the headings between which Granite, Apriel and Solar write are no pair of tags: they are understood wherever there is
any tag.
"""

_CHANNEL = "<|channel|>"
_HARMONY = frozenset(
    {_CHANNEL, *(f"<|{name}|>" for name in ("start", "message", "constrain", "end", "return", "call"))}
)


@attrs.frozen
class Separated:
    """A reply in two. ``cut``: it ended while the model was still thinking, so that there is no answer."""

    reasoning: str
    answer: str
    cut: bool = False


def left_open(prompt: str, tags: Tags) -> str:
    """Return the closing tag of a block that a prompt ends inside of, else the empty string."""
    end = prompt.rstrip()
    return next((closing for opening, closing in tags if end.endswith(opening)), "")


def markers(special: Collection[str], tags: Tags) -> set[str]:
    """Return those of a tokenizer's special tokens that decoding must leave in the text for :func:`split` to see."""
    known = set(special)
    kept = known & {tag for pair in tags for tag in pair}
    return kept | (known & _HARMONY) if tags and _CHANNEL in known else kept


def split(text: str, tags: Tags, opened: str = "") -> tuple[str, str]:
    """Return ``(reasoning, answer)`` of a reply; see :func:`separate`."""
    found = separate(text, tags, opened)
    return found.reasoning, found.answer


def separate(text: str, tags: Tags = DEFAULT_TAGS, opened: str = "") -> Separated:
    """Separate a reply into reasoning and answer.

    ``opened`` is the closing tag of a block that the prompt opened. A block that is never closed is all reasoning (the
    budget ran out while thinking: there is no answer); a closing tag without an opening one ends a block that the model
    began without saying so, and what stands before it is reasoning. Of gpt-oss channels the last final one is the answer,
    also where the special tokens around their names were lost ("analysis...assistantfinal..."). A tag between backticks is
    spoken of, and is none. A reply without tags is returned unchanged, as the answer.
    """
    if not tags:
        return Separated("", text)
    parts = _channels(text) or _headed(text)
    if parts is not None:
        return parts
    pattern, signs = _default() if tags is DEFAULT_TAGS else _pattern(tuple((a, b) for a, b in tags))
    begins = _places(text, signs)
    if not opened and not begins:
        return Separated("", text)
    thoughts: list[str] = []
    kept: list[str] = []
    position = 0
    inside = [closing for _, closing in tags].index(opened) if opened else _OUTSIDE
    for begin in begins:
        match = pattern.match(text, begin) if begin >= position else None
        if match is None or _quoted(text, match):
            continue
        number, closes = divmod((match.lastindex or 1) - 1, 2)
        if inside == _OUTSIDE:
            kept.append(text[position : match.start()])
            if closes:  # opened without saying so: all before it was reasoning
                thoughts += kept
                kept = []
            else:
                inside = number
        elif inside == number and closes:
            thoughts.append(text[position : match.start()])
            inside = _OUTSIDE
        else:
            continue
        position = match.end()
        if closes and (space := _SPACE.match(text, position)):
            position = space.end()
    if inside != _OUTSIDE:
        return Separated(_joined([*thoughts, *kept, text[position:]]), "", cut=True)
    answer = "".join([*kept, text[position:]])
    return Separated(_joined(thoughts), _FRAME.sub("", answer) if position else answer)


def _quoted(text: str, match: re.Match[str]) -> bool:
    """Return whether a tag stands between backticks: then it is spoken of."""
    return match.start() > 0 and text.startswith("`", match.start() - 1) and text.startswith("`", match.end())


_FRAME = re.compile(
    r"<\|(?:START_RESPONSE|END_RESPONSE|begin_of_solution|end_of_solution|begin_of_box|end_of_box)\|>\s*"
)
"""Tags that some models put around what follows their reasoning."""

_OUTSIDE = -1
_SPACE = re.compile(r"\s+")


def _joined(thoughts: Sequence[str]) -> str:
    return "\n\n".join(t.strip() for t in thoughts if t.strip())


def _places(text: str, signs: Sequence[str]) -> list[int]:
    """Return where any of the signs stands, in order: much faster than looking for any tag at every place."""
    places: list[int] = []
    for sign in signs:
        place = text.find(sign)
        while place >= 0:
            places.append(place)
            place = text.find(sign, place + 1)
    return sorted(places)


@lru_cache(maxsize=64)
def _pattern(tags: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return a pattern with a group for every opening and every closing tag, and the signs that they begin with."""
    both = [tag for pair in tags for tag in pair]
    pattern = re.compile("|".join(f"({_written(tag)})" for tag in both), re.I)
    signs = tuple(sorted({case for tag in both for case in (tag[0].lower(), tag[0].upper())}))
    return pattern, signs


@cache
def _default() -> tuple[re.Pattern[str], tuple[str, ...]]:
    return _pattern(DEFAULT_TAGS)  # the hash of the whole table is not free


def _written(tag: str) -> str:
    named = re.fullmatch(r"<(/?)([\w:]+)>", tag)
    if named is None:
        # Gemma writes the role of a channel behind its tag
        return re.escape(tag) + (r"(?:thought\b\s*)?" if tag == "<|channel>" else "")
    if named[1]:
        return rf"<\s{{0,4}}/\s{{0,4}}{named[2]}\s{{0,4}}>"
    return rf"<\s{{0,4}}{named[2]}(?:\s+\w+\s{{0,4}}=[^<>]*)?\s{{0,4}}>"


# ---------------------------------------------------------------- channels of gpt-oss

_NAMED = r"<\|channel\|>\s*(?P<name>\w+)(?:(?!<\|(?:channel|message|start|end)\|>).)*"
_HEADER = rf"(?:{_NAMED}|<\|start\|>\s*assistant\s*)<\|message\|>"
_MESSAGE = re.compile(_HEADER + r"(?P<body>.*?)(?=<\|(?:end|return|start|channel|call)\|>|\Z)", re.S)
_MARK = re.compile(r"<\|(?:start|channel|message|constrain|end|return|call)\|>(?:assistant\b)?")
_BARE_MARK = re.compile(r"(?:assistant|\A\s*)(?:analysis|commentary)(?=\S|\n)|assistant\Z")
_BARE_THOUGHT = re.compile(r"\s*(?:analysis|commentary)(?=[^\W_a-z])")
_BARE_FINAL = re.compile(r"\s*final(?=[^\W_a-z])")
_CONSTRAINED = re.compile(r"\s*json(?=\s*[{\[])")


def _channels(text: str) -> Separated | None:
    """Return the parts of a reply in channels, or None if it has none."""
    if "<" in text and _CHANNEL in text:
        found = [((m["name"] or "final").lower(), m["body"]) for m in _MESSAGE.finditer(text)]
        final = [body for name, body in found if name == "final"]
        thoughts = [body for name, body in found if name != "final"]
        if not final:
            return Separated(_joined(thoughts or [_MARK.sub(" ", text)]), "", cut=True)
        return Separated(_joined(thoughts), final[-1].strip())
    # the same where special tokens were skipped: the names alone are left
    start = text.lstrip()
    if not start.startswith(("analysis", "commentary", "final")):
        return None
    thought, mark, answer = start.rpartition("assistantfinal")
    if mark and _BARE_MARK.match(thought):
        answer = _CONSTRAINED.sub("", answer, count=1)
        return Separated(_joined(_BARE_MARK.split(thought)), answer.strip())
    if _BARE_THOUGHT.match(start):
        return Separated(_joined(_BARE_MARK.split(start)), "", cut=True)
    if _BARE_FINAL.match(start):
        return Separated("", _CONSTRAINED.sub("", start.removeprefix("final"), count=1).strip())
    return None


# ---------------------------------------------------------------- headings

_GRANITE = re.compile(
    r"\s*Here(?: is|'s) my thought process:(?P<thought>.*?)Here(?: is|'s) my response:(?P<answer>.*)", re.S
)
_APRIEL = re.compile(r"(?P<thought>.*)\[BEGIN FINAL RESPONSE\](?P<answer>.*?)(?:\[END FINAL RESPONSE\].*|\Z)", re.S)
_SOLAR = re.compile(r"(?:<\|think\|>)?(?P<thought>.*)<\|content\|>(?P<answer>.*?)(?:<\|end\|>.*|\Z)", re.S)
_SOLAR_TURN = re.compile(r"<\|end\|>\s*<\|begin\|>\s*(?:assistant)?\s*\Z")


def _headed(text: str) -> Separated | None:
    """Return the parts of a reply that says in words, or by the mark of a new turn, where its answer begins; else None."""
    if "[" in text and "[BEGIN FINAL RESPONSE]" in text:
        match = _APRIEL.match(text)
    elif "<" in text and "<|content|>" in text:
        match = _SOLAR.match(text)
    elif "my thought process:" in text:
        match = _GRANITE.match(text)
    else:
        return None
    return match and Separated(_SOLAR_TURN.sub("", match["thought"]).strip(), match["answer"].strip())
