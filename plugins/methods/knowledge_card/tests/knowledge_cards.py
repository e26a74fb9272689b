"""Scripted knowledge cards: what their prompts are for, what they are shown, and how one question is asked."""

from __future__ import annotations

import re

from moco_core import Example, Question
from moco_method_knowledge_card.method import KnowledgeCard
from moco_method_knowledge_card.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method

QUESTION = Question(id="q", prompt="Which metal is liquid?", answer_format="End with: the answer is X.")
CHOICE = Question(
    id="c",
    prompt="Which metal is liquid?",
    choices=("iron", "mercury", "tin"),
    answer_kind="choice",
    answer_format="A letter.",
)
PASSAGE = re.compile(r"Passage \d+:\n<quote>\n(.*?)\n</quote>", re.DOTALL)
TEXT_ONLY = frozenset({"generate"})


def shown(call) -> list[str]:
    return PASSAGE.findall(call.prompt)


def kind(call) -> str:
    for mark, name in (
        ("background facts", "passage"),
        ("Do you need more", "more"),
        ("What kind of information", "missing"),
        ("Which of these sources", "choose"),
        ("Sum up this passage", "shorter"),
        ("Is this passage true", "check"),
    ):
        if mark in call.prompt:
            return name
    return "answer"


def by_kind(**scripts):
    def say(call):
        said = scripts.get(kind(call), "the answer is A")
        return said(call) if callable(said) else said

    return say


def card(text):
    return by_kind(passage=text)


def ask(pool, question=QUESTION, dev=(), method=KnowledgeCard, **options):
    return run_method(method(Options(**{"answerer": 0, **options})), pool, questions=[question], dev=dev).reply


def answers(pool):
    return [c for c in pool.history if c.kind == "generate" and c.messages and kind(c) == "answer"]


def dev_pool(alone, reading):
    """Models right on so many of four dev questions, alone and with passages."""

    def say(call):
        if kind(call) == "passage":
            return f"fact {call.model}"
        found = re.search(r"dev <(\d)>", call.transcript)
        right = (reading if shown(call) else alone)[call.model]
        return f"the answer is {'a' if found and int(found[1]) < right else 'b'}"

    dev = [Example(question=Question(id=f"d{i}", prompt=f"dev <{i}>"), references=("a",)) for i in range(4)]
    return ScriptedPool(dict.fromkeys(alone, say)), dev
