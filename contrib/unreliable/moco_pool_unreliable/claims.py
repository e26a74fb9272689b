"""What a text asks and what a reply claims, and a false claim in its place: pure functions of text."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

__all__ = ["altered", "asked", "claim_of", "letters_in"]

_LETTER = re.compile(r"^([A-Z])\) \S", re.MULTILINE)
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_DECLARED = re.compile(
    rf"(?:\banswer is:?|\banswer:|####|\\boxed\{{)[\s*($\"']*(?P<claim>{_NUMBER}(?![\w%])|[^\n.)}}*$\"']+)",
    re.IGNORECASE,
)
_OPPOSITES = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_WORDS = ("amber", "cobalt", "harbour", "juniper", "lantern", "meadow", "quartz", "saffron", "thistle", "velvet")


def asked(text: str) -> str:
    """Return the question that a prompt opens with: up to the paragraph with its lettered choices, else the first one.

    What a method puts behind the question, such as the replies of others, is left out, so that a question is known again in
    every round.
    """
    paragraphs = re.split(r"\n\s*\n", text.strip())
    last = next((i for i, paragraph in enumerate(paragraphs) if len(letters_in(paragraph)) > 1), 0)
    return "\n\n".join(paragraphs[: last + 1])


def letters_in(text: str) -> tuple[str, ...]:
    """Return the letters in front of choices, each once."""
    return tuple(dict.fromkeys(_LETTER.findall(text)))


def claim_of(text: str, letters: Sequence[str] = ()) -> tuple[int, int] | None:
    """Return where a reply claims its answer, as start and end; None where it claims nothing.

    The last declared answer counts; without one the last letter of a choice, or the last number.
    """
    letter = re.compile(rf"\b(?P<claim>{'|'.join(map(re.escape, letters))})\b") if letters else None
    for found in reversed(list(_DECLARED.finditer(text))):
        start, end = found.span("claim")
        if letter is None:
            return start, start + len(text[start:end].rstrip(" ,;:"))
        if inner := letter.match(text, start, end):
            return inner.span("claim")
    loose = list((letter or re.compile(rf"(?P<claim>{_NUMBER})")).finditer(text))
    return loose[-1].span("claim") if loose else None


def altered(text: str, letters: Sequence[str], rng: random.Random) -> str:
    """Return the reply with another claim in the place of its own; one that claims nothing becomes a bare claim."""
    found = claim_of(text, letters)
    if found is None:
        return f"The answer is {_other('', letters, rng)}."
    start, end = found
    return text[:start] + _other(text[start:end], letters, rng) + text[end:]


def _other(value: str, letters: Sequence[str], rng: random.Random) -> str:
    """Return an answer of the same form that is not ``value``."""
    if letters:
        return rng.choice([letter for letter in letters if letter != value] or list(letters))
    if re.fullmatch(_NUMBER, value):
        whole, point, part = value.replace(",", "").partition(".")
        return f"{int(whole) + rng.randint(1, 9)}{point}{part}"
    if value.lower() in _OPPOSITES:
        other = _OPPOSITES[value.lower()]
        return other.capitalize() if value[0].isupper() else other
    return rng.choice([word for word in _WORDS if word != value.lower()])
