"""Answers with passages: read again without them, or the likeliest choice with any of them; the best reader."""

from __future__ import annotations

import math
import random

import pytest
from knowledge_cards import CHOICE, answers, ask, by_kind, card, dev_pool, shown

from moco_method_knowledge_card.method import KnowledgeCard
from moco_method_knowledge_card.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method


def test_an_answer_that_cannot_be_read_is_asked_for_without_passages():
    confused = by_kind(answer=lambda c: "I am confused" if shown(c) else "the answer is B")
    reply = ask(ScriptedPool({"r": confused, "a": card("fact")}))
    assert reply.text == "the answer is B" and reply.meta["retried"] and "unparsed" not in reply.meta
    lost = ask(ScriptedPool({"r": by_kind(answer="hm"), "a": card("fact")}))
    assert lost.text == "hm" and lost.meta["unparsed"] is True


def likeliest(logprobs, facts=("x", "y")):
    """Choices scored by a function of the passages shown."""
    names = [f"c{i}" for i in range(len(facts))]
    scripts = {"r": "", **{name: card(text) for name, text in zip(names, facts, strict=True)}}
    pool = ScriptedPool(scripts, scores=lambda call: [(x,) for x in logprobs(shown(call))])
    return ask(pool, CHOICE, answering="max_prob"), pool


def test_the_likeliest_choice_with_any_passage_or_none_by_hand():
    """Without a passage A has 0.6; with x, B has 0.5; with y, C has 0.7, the most of all."""
    table = {(): (0.6, 0.3, 0.1), ("x",): (0.25, 0.5, 0.25), ("y",): (0.2, 0.1, 0.7)}
    reply, pool = likeliest(lambda given: [math.log(p) - 3 for p in table[tuple(given)]])  # not normalised
    assert reply.text == "C" and reply.meta["chances"] == pytest.approx([0.6, 0.5, 0.7])
    assert reply.meta["passages"][reply.meta["passage"]]["text"] == "y"
    assert sum(c.kind == "score" for c in pool.history) == 3 and not answers(pool)


def test_uninformative_passages_change_nothing_and_more_passages_only_raise_chances():
    same, _ = likeliest(lambda given: [-1.0, -0.5, -2.0])
    assert same.text == "B" and same.meta["passage"] is None

    rng = random.Random(0)
    rows = {name: [rng.uniform(-3, 0) for _ in range(3)] for name in ("", "u", "v", "w")}
    few, _ = likeliest(lambda given: rows["".join(given)], facts=("u", "v"))
    more, _ = likeliest(lambda given: rows["".join(given)], facts=("u", "v", "w"))
    assert all(b >= a for a, b in zip(few.meta["chances"], more.meta["chances"], strict=True))


def test_questions_without_choices_are_answered_in_words():
    pool = ScriptedPool({"r": "the answer is A", "a": card("fact")})
    assert ask(pool, answering="max_prob").text == "the answer is A" and shown(answers(pool)[0]) == ["fact"]


def test_the_best_reader_need_not_be_the_best_alone():
    for answerer, expected in (("best", "y"), ("best_reader", "z")):
        pool, dev = dev_pool({"x": 1, "y": 4, "z": 2}, {"x": 3, "y": 2, "z": 3})
        outcome = run_method(KnowledgeCard(Options(answerer=answerer)), pool, dev=dev)
        assert outcome.state == {"answerer": expected}  # z ties with x as a reader and is better alone
    assert outcome.noted("reader_scores") == {"x": 0.75, "y": 0.5, "z": 0.75}
    read = [tuple(sorted(shown(c))) for c in pool.history if shown(c)]
    assert set(read) == {("fact x", "fact y", "fact z")}  # all read the same
