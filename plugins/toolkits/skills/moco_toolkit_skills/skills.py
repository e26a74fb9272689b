"""The four skills: how a question of each sub-skill is drawn, and what right and wrong replies to it look like.

A reply first commits to a piece of work and then gives the answer that follows from it, so a wrong reply is one that
did another sub-skill's work (or recalled another value), not a random string.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from moco_toolkit_skills.world import PEOPLE, VALUES, fact

LETTERS = "abcdefghijklmnopqrstuvwxyz"

FORMATS = {
    "integer": 'End with "The answer is" and the number.',
    "tokens": 'End with "The answer is" and the items.',
    "text": 'End with "The answer is" and the word.',
    "choice": 'End with "The answer is" and the option.',
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A question before it has an id or a split.

    `key` states the content alone: equal keys are the same question. `prompt` has neither options nor answer format.
    `mistakes` are complete replies, each wrong.
    """

    key: str
    prompt: str
    choices: tuple[str, ...] | None
    gold: int | str
    answer_kind: str
    worked: str
    mistakes: tuple[str, ...]


def answer_format(kind: str) -> str:
    """The sentence that tells a model how to end its reply to a question of this answer kind."""
    return FORMATS[kind]


def _reply(work: str, answer: str) -> str:
    return f"{work} The answer is {answer}."


# --- arithmetic: a two-digit number changed twice -------------------------------------------------------------------

_SIGNS = {"sum": "++", "remove": "--", "gain": "+-", "fall": "-+"}
_ARITHMETIC = {
    "sum": "What is the sum of {a}, {b} and {c}?",
    "remove": "What remains of {a} after removing {b} and {c}?",
    "gain": "What becomes of {a} by gaining {b} and losing {c}?",
    "fall": "Where does {a} end after falling {b} and rising {c}?",
}


def _two_steps(signs: str, a: int, b: int, c: int) -> tuple[str, int]:
    middle = a + b if signs[0] == "+" else a - b
    end = middle + c if signs[1] == "+" else middle - c
    return _reply(f"{a} {signs[0]} {b} = {middle}, {middle} {signs[1]} {c} = {end}.", str(end)), end


def _arithmetic(sub: str, rng: random.Random) -> Draft:
    # 30..79 keeps every result at two digits; unequal steps keep the four results apart.
    a = rng.randint(30, 79)
    b, c = rng.sample(range(2, 7), 2)
    worked, gold = _two_steps(_SIGNS[sub], a, b, c)
    mistakes = tuple(_two_steps(signs, a, b, c)[0] for name, signs in _SIGNS.items() if name != sub)
    prompt = _ARITHMETIC[sub].format(a=a, b=b, c=c)
    return Draft(f"{sub}|{a}|{b}|{c}", prompt, None, str(gold), "integer", worked, mistakes)


# --- letters: four different letters, rearranged ------------------------------------------------------------

_REARRANGE: dict[str, tuple[str, str, Callable[[list[str]], list[str]]]] = {
    "drop": ("Remove the first letter of {s}.", "Removed:", lambda s: s[1:]),
    "rotate": ("Move the first letter of {s} to the end.", "Moved:", lambda s: [*s[1:], s[0]]),
    "front": ("Write {s} with the first letter twice.", "Repeated:", lambda s: [s[0], *s]),
    "double": ("Write {s} with the last letter twice.", "Doubled:", lambda s: [*s, s[-1]]),
}


def _letters(sub: str, rng: random.Random) -> Draft:
    letters = rng.sample(LETTERS, 4)

    def reply(name: str) -> str:
        _, label, rearrange = _REARRANGE[name]
        result = " ".join(rearrange(letters))
        return _reply(f"{label} {result}.", result)

    template, _, rearrange = _REARRANGE[sub]
    given = " ".join(letters)
    mistakes = tuple(reply(name) for name in _REARRANGE if name != sub)
    return Draft(
        f"{sub}|{given}", template.format(s=given), None, " ".join(rearrange(letters)), "tokens", reply(sub), mistakes
    )


# --- facts: the invented village ------------------------------------------------------------------------------------

_FACT_TEMPLATES = (
    "What is the {relation} of {person}?",
    "Name the {relation} of {person}.",
    "Which {relation} does {person} have?",
    "Tell me the {relation} of {person}.",
    "State the {relation} that {person} has.",
    "{person} has which {relation}?",
)


def _facts(relation: str, rng: random.Random) -> Draft:
    person = rng.choice(PEOPLE)
    template = rng.randrange(len(_FACT_TEMPLATES))
    stem = _FACT_TEMPLATES[template].format(relation=relation, person=person)
    right = fact(relation, person)
    others = [value for value in VALUES[relation] if value != right]

    def work(value: str) -> str:
        return f"The {relation} of {person} is {value}."

    if rng.random() < 0.5:
        mistakes = tuple(_reply(work(value), value) for value in others)
        return Draft(f"{relation}|{person}|{template}", stem, None, right, "text", _reply(work(right), right), mistakes)
    options = [right, *rng.sample(others, 3)]
    rng.shuffle(options)
    replies = {value: _reply(work(value), value) for value in options}
    return Draft(
        f"{relation}|{person}|{template}|{'|'.join(options)}",
        stem,
        tuple(options),
        options.index(right),
        "choice",
        replies[right],
        tuple(reply for value, reply in replies.items() if value != right),
    )


# --- order: three different digits -------------------------------------------------------------

_PICK = {"largest": 2, "smallest": 0, "middle": 1}


def _order(sub: str, rng: random.Random) -> Draft:
    numbers = rng.sample(range(1, 10), 3)
    ordered = sorted(numbers)
    work = f"In order: {', '.join(map(str, ordered))}."
    shown = ", ".join(map(str, numbers))
    key = f"{sub}|{shown}"
    if sub == "sort":
        wrong = [[ordered[i] for i in order] for order in ((2, 1, 0), (1, 0, 2), (0, 2, 1))]
        gold = " ".join(map(str, ordered))
        mistakes = tuple(_reply(work, " ".join(map(str, order))) for order in wrong)
        return Draft(key, f"Sort the numbers {shown}.", None, gold, "tokens", _reply(work, gold), mistakes)
    picked = ordered[_PICK[sub]]
    rest = [number for number in ordered if number != picked]
    if rng.random() < 0.5:
        prompt = f"Which is the {sub} of {shown}?"
        mistakes = tuple(_reply(work, str(number)) for number in rest)
        return Draft(key, prompt, None, str(picked), "integer", _reply(work, str(picked)), mistakes)
    options = tuple(map(str, numbers))
    return Draft(
        f"{key}|choice",
        f"Which is the {sub} number?",
        options,
        numbers.index(picked),
        "choice",
        _reply(work, str(picked)),
        tuple(_reply(work, str(number)) for number in rest),
    )


SKILLS: dict[str, tuple[str, ...]] = {
    "arithmetic": tuple(_ARITHMETIC),
    "letters": tuple(_REARRANGE),
    "facts": tuple(VALUES),
    "order": (*_PICK, "sort"),
}

_DRAWERS: dict[str, Callable[[str, random.Random], Draft]] = {
    "arithmetic": _arithmetic,
    "letters": _letters,
    "facts": _facts,
    "order": _order,
}


def draw(skill: str, sub_skill: str, rng: random.Random) -> Draft:
    """One question of `sub_skill`, drawn from `rng`. Raises KeyError for an unknown skill or sub-skill."""
    if sub_skill not in SKILLS[skill]:
        raise KeyError(sub_skill)
    return _DRAWERS[skill](sub_skill, rng)
