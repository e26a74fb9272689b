"""Abstention by competition: proposers that are swayed by a passage against them."""

from __future__ import annotations

import attrs
import pytest
from feedback_calls import CHOICE, QUESTION, ask, by_kind, kind, read

from moco_toolkit_authoring import ScriptedPool


def test_a_proposer_that_ignores_context_never_abstains():
    for seed in range(10):
        pool = ScriptedPool(dict.fromkeys("abc", by_kind(passage="Two, I swear.", answer="B")))
        assert not ask(pool, CHOICE, final="compete", proposer="a", seed=seed).abstained


def test_a_proposer_that_is_swayed_abstains():
    swayed = by_kind(
        passage=lambda c: c.prompt[-8:], challenged=lambda c: "C" if "three" in read(c)["Passage"] else "A", answer="B"
    )
    pool = ScriptedPool(dict.fromkeys("abc", swayed))
    reply = ask(pool, CHOICE, final="compete", proposer="a")
    assert reply.abstained and reply.text == "B" and reply.meta["changed"] and reply.meta["choice"] in (0, 2)
    (passage,) = [c for c in pool.history if kind(c) == "passage"]
    assert passage.model == reply.meta["challenger"] != "a" and CHOICE.answer_format not in passage.prompt
    assert passage.prompt.endswith(f"{CHOICE.letters[reply.meta['choice']]}) {CHOICE.choices[reply.meta['choice']]}")
    (again,) = [c for c in pool.history if kind(c) == "challenged"]
    assert again.model == "a" and again.prompt.endswith(CHOICE.answer_format) and len(pool.history) == 3


def test_the_challenged_choice_is_another_one_drawn_by_the_seed():
    pool = ScriptedPool(dict.fromkeys("abcd", by_kind(passage="No.", answer="B")))
    replies = [ask(pool, CHOICE, final="compete", proposer="a", seed=seed).meta for seed in range(40)]
    assert {r["choice"] for r in replies} == {0, 2} and {r["challenger"] for r in replies} == set("bcd")


@pytest.mark.parametrize(
    ("question", "answer", "passage", "why"),
    [
        (QUESTION, "the answer is A", "x", "no choices"),
        (CHOICE, "no idea", "x", "no choice was read"),
        (attrs.evolve(CHOICE, choices=("one",)), "A", "x", "there is no other choice"),
        (CHOICE, "B", "", "the passage is empty"),
    ],
)
def test_what_cannot_be_challenged_is_answered(question, answer, passage, why):
    pool = ScriptedPool(dict.fromkeys("ab", by_kind(passage=passage, answer=answer)))
    reply = ask(pool, question, final="compete", proposer="a")
    assert not reply.abstained and reply.text == answer and reply.meta["why_not"] == why
