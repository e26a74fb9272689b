"""Small seeded material for tests: examples, a metric that reads them, and models that are right some of the time."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from moco_core.context import Context
from moco_core.data import Metric
from moco_core.options import NoOptions
from moco_core.types import Answer, Example, Question, Reply, Score, digest
from moco_toolkit_authoring.scripted import ScriptedCall

__all__ = ["LastWord", "able", "example_questions", "examples", "fallible", "unparsable"]


def examples(count: int, *, seed: int = 0, prefix: str = "q") -> list[Example]:
    """Return additions to do, every other one with four choices. Ids are ``<prefix>0``, ``<prefix>1``, ..."""
    out: list[Example] = []
    for index in range(count):
        rng = random.Random(int(digest("toy", seed, prefix, index)[:12], 16))
        a, b = rng.randint(0, 40), rng.randint(0, 40)
        prompt = f"Item {prefix}{index}: what is {a} + {b}?"
        if index % 2:
            wrong = rng.sample([n for n in range(90) if n != a + b], 3)
            place = rng.randrange(4)
            choices = [*map(str, wrong[:place]), str(a + b), *map(str, wrong[place:])]
            question = Question(
                id=f"{prefix}{index}",
                prompt=prompt,
                choices=choices,
                answer_kind="choice",
                answer_format="End with: The answer is X, where X is a letter.",
                subset="choice",
            )
            out.append(Example(question=question, references=(choices[place],), answer=place))
        else:
            question = Question(
                id=f"{prefix}{index}",
                prompt=prompt,
                answer_kind="integer",
                answer_format="End with: The answer is X.",
                subset="free",
            )
            out.append(Example(question=question, references=(str(a + b),)))
    return out


def example_questions(count: int, *, seed: int = 1, prefix: str = "t") -> list[Question]:
    """Return the questions of :func:`examples`, without their references."""
    return [e.question for e in examples(count, seed=seed, prefix=prefix)]


def fallible(call: ScriptedCall) -> str:
    """A script: adds correctly most of the time, always in a readable form. What it says depends on the call alone."""
    return _add(call, 0.6)


def able(share: float) -> Callable[[ScriptedCall], str]:
    """Return a script like :func:`fallible` that is right that share of the time."""
    return lambda call: _add(call, share)


def _add(call: ScriptedCall, share: float) -> str:
    luck = random.Random(int(digest(call.fingerprint, call.transcript, call.seed)[:12], 16))
    found = re.findall(r"what is (\d+) \+ (\d+)\?", call.transcript)
    value = int(found[-1][0]) + int(found[-1][1]) if found else luck.randrange(20)
    if luck.random() >= share:
        value += luck.randint(1, 3)
    choices = dict(re.findall(r"^([A-Z])\) (.*)$", call.transcript, flags=re.MULTILINE))
    if choices:
        letter = next((k for k, v in choices.items() if v == str(value)), luck.choice(sorted(choices)))
        return f"Let me see. The answer is {letter}."
    return f"Let me see. The answer is {value}."


_NOISE = (
    "",
    " ",
    "\n\n",
    "???",
    "\u0000\ufffd \u202e",
    "I would rather not say",
    "{",
    '{"answer":',
    "(((",
    "$$\\boxed{$$",
)


def unparsable(call: ScriptedCall) -> str:
    """A script that never says anything readable: nothing, symbols, broken markup, a very long line."""
    index = int(digest(call.fingerprint, call.transcript, call.seed)[:8], 16) % (len(_NOISE) + 1)
    return "blah " * 2000 if index == len(_NOISE) else _NOISE[index]


class LastWord(Metric[NoOptions]):
    """Reads what follows "the answer is"; compares it with the right letter or the references. For tests."""

    def read(self, question: Question, text: str) -> Answer:
        found = re.findall(r"answer is:?\s*\(?(-?\w+)", text, flags=re.IGNORECASE)
        if not found:
            return Answer(status="unparsed")
        key = found[-1].upper() if question.choices else found[-1].lower()
        if question.choices and key not in question.letters:
            return Answer(status="invalid", text=found[-1])
        return Answer(key=key, text=key, status="parsed")

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        answer = self.read(example.question, reply.text)
        right: set[Any] = {r.strip().lower() for r in example.references}
        if example.answer is not None:
            right = {example.question.letters[example.answer]}
        return Score(value=float(answer.key in right), answer=answer)
