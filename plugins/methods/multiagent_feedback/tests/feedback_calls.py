"""What the prompts of a feedback round are for, scripts by kind, and how one question is asked."""

from __future__ import annotations

import re

import attrs

from moco_core import Example, Question
from moco_method_multiagent_feedback.method import MultiagentFeedback
from moco_method_multiagent_feedback.options import Options
from moco_toolkit_authoring import run_method

QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: the answer is X.")
CHOICE = Question(
    id="c",
    prompt="Which one?",
    choices=("one", "two", "three"),
    answer_kind="choice",
    answer_format="Reply with a letter.",
)
QUOTE = re.compile(r"([A-Z][\w' ]*):\n<quote>\n(.*?)\n</quote>", re.DOTALL)
TEXT_ONLY = frozenset({"generate"})


def read(call) -> dict[str, str]:
    return dict(QUOTE.findall(call.prompt))


def kind(call) -> str:
    for mark, name in (
        ("Judge whether", "review"),
        ("Weigh the reviews", "revise"),
        ("one final answer", "summary"),
        ("Is the proposed answer", "verdict"),
        ("Write a short passage", "passage"),
        ("A passage that may be wrong", "challenged"),
        ("Write down", "knowledge"),
    ):
        if mark in call.prompt:
            return name
    return "answer"


def by_kind(**scripts):
    """A script that says something else for every kind of prompt, a function of the call or a text."""

    def say(call):
        said = scripts.get(kind(call), scripts.get("answer", "the answer is A"))
        return said(call) if callable(said) else said

    return say


def telling(call):
    """Reviews name reviewer and what is reviewed; answers name their author."""
    if kind(call) == "review":
        return f"{call.model} on {read(call)['Answer'].split()[-1]}"
    return f"the answer is {call.model}"


def ask(pool, question=QUESTION, dev=(), **options):
    return run_method(MultiagentFeedback(Options(**options)), pool, questions=[question], dev=dev).reply


def dev_of(count):
    return [
        Example(question=attrs.evolve(QUESTION, id=f"d{i}", prompt=f"dev <{i}>"), references=("a",))
        for i in range(count)
    ]
