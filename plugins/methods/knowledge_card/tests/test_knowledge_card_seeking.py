"""Top-down knowledge cards: whether more is needed, and which card is asked for it."""

from __future__ import annotations

from collections import Counter

import pytest
from knowledge_cards import QUESTION, answers, ask, by_kind, card, kind, shown

from moco_method_knowledge_card.seeking import named_card, wants_more
from moco_toolkit_authoring import ScriptedPool


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("Yes", True), ("yes.", True), ("Yes, I do not know the date", True), ("Answer: **Yes**", True), ("No", False),
        ("I know enough", False), ("", False), ("No, yes would be wrong", False), ("Yesterday", False), ("maybe", False),
    ],
)  # fmt: skip
def test_only_a_clear_yes_asks_for_more(text, more):
    assert wants_more(text) is more


def test_a_named_card_is_the_only_one_that_is_named():
    names = ["law", "medicine", "medicine-2"]
    assert [named_card(t, names) for t in ("Law.", "I ask medicine", "medicine-2", "law or medicine", "outlaw", "")] == [
        0, 1, 2, None, None, None
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["top_down_auto", "top_down_explicit"])
def test_an_answerer_that_needs_nothing_answers_alone(mode):
    pool = ScriptedPool({"r": by_kind(more="No"), "a": card("fact")})
    reply = ask(pool, mode=mode)
    assert len(pool.history) == 2 and [m.content for m in answers(pool)[0].messages] == [QUESTION.text()]
    assert reply.meta["steps"] == []


@pytest.mark.parametrize("mode", ["top_down_auto", "top_down_explicit"])
def test_an_answerer_that_always_needs_more_is_given_max_seek_passages(mode):
    pool = ScriptedPool(
        {"r": by_kind(more="Yes", missing="metals", choose="b"), "a": card("x"), "b": card(lambda c: f"fact {c.seed}")}
    )
    reply = ask(pool, mode=mode, max_seek=4, descriptions=("", "law", "metals"))
    assert Counter(map(kind, pool.history)) == {
        "more": 4, "passage": 4, "answer": 1, "missing" if mode == "top_down_auto" else "choose": 4
    }  # fmt: skip
    assert {c.model for c in pool.history if kind(c) == "passage"} == {"b"}
    assert len(shown(answers(pool)[0])) == 4 and [s["card"] for s in reply.meta["steps"]] == ["b"] * 4
    sought = [shown(c) for c in pool.history if kind(c) == "more"]
    assert [len(s) for s in sought] == [0, 1, 2, 3] and sought[3][1:] == sought[2]  # the newest stands first
    assert all(QUESTION.answer_format not in c.prompt for c in pool.history if kind(c) != "answer")


def test_the_card_is_chosen_by_its_description():
    pool = ScriptedPool({"r": by_kind(more="Yes", missing="the chemistry of metals"), "a": card("A"), "b": card("B")})
    reply = ask(pool, mode="top_down_auto", max_seek=1, descriptions=("reader", "law and history", "chemistry, metals"))
    assert reply.meta["steps"] == [
        {"by": "description", "request": "the chemistry of metals", "card": "b", "new": "yes"}
    ]  # fmt: skip


def test_a_choice_that_names_nobody_falls_back_to_descriptions():
    for said in ("something about metals", "law or metals: a, b"):
        pool = ScriptedPool({"r": by_kind(more="Yes", choose=said), "a": card("A"), "b": card("B")})
        reply = ask(pool, mode="top_down_explicit", max_seek=1, descriptions=("", "history", "metals"))
        assert reply.meta["steps"][0]["by"] == "description" and reply.meta["steps"][0]["card"] == "b"


def test_a_card_that_has_nothing_new_the_second_time_ends_the_search():
    pool = ScriptedPool({"r": by_kind(more="Yes", missing="?"), "a": card("always the same")})
    reply = ask(pool, mode="top_down_auto", max_seek=9)
    assert [s["new"] for s in reply.meta["steps"]] == ["yes", "no"] and shown(answers(pool)[0]) == ["always the same"]
