"""Scripted agents of a blackboard discussion, what their prompts are for, and how one question is discussed."""

from __future__ import annotations

import re

from moco_core import Question, Sampling
from moco_core.options import build
from moco_method_bbmas.method import Bbmas
from moco_method_bbmas.options import Options
from moco_toolkit_authoring import run_method

QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: The answer is X.")
GREEDY = Sampling(temperature=0.0, max_new_tokens=64)


def stage(call) -> str:
    """What a call is for."""
    order = call.prompt.rsplit("\n\n", 1)[-1]
    for found, mark in (
        ("select", "ACTION: and"),
        ("execute", "You chose to"),
        ("finalize", "The discussion ends now"),
        ("vote", "Which conclusion is right?"),
        ("experts", "experts who together"),
        ("control", "You choose who writes"),
        ("defend", "and wrote one of them"),
        ("resolve", "Write down in a few sentences"),
        ("perform", ", who "),
    ):
        if mark in order:
            return found
    return "alone"


def entries(call) -> list[str]:
    return re.findall(r"<entry>\n(.*?)\n</entry>", call.prompt, re.DOTALL)


def agent(action, says="the answer is A", vote="Conclusion #1"):
    """A script: ``action`` and ``says`` are texts or functions of the call."""

    def script(call):
        kind = stage(call)
        if kind == "select":
            chosen = action(call) if callable(action) else action
            return chosen if isinstance(chosen, Exception) else f"SECRET reasons.\nACTION: {chosen}"
        if kind == "vote":
            return vote(call) if callable(vote) else vote
        return says(call) if callable(says) else says

    return script


def discuss(pool, question=QUESTION, dev=(), sampling=GREEDY, **options):
    return run_method(Bbmas(build(Options, options)), pool, dev=dev, questions=[question], sampling=sampling).reply


def gold(dev):
    """What is right, by prompt."""
    return {
        e.question.text(): f"the answer is {e.references[0] if e.answer is None else e.question.letters[e.answer]}"
        for e in dev
    }
