"""Abstention by cooperation: verdicts, thresholds, what they are worth on dev."""

from __future__ import annotations

import math
import random
import re

import pytest
from feedback_calls import TEXT_ONLY, ask, by_kind, dev_of, kind, read, telling

from moco_core import ConfigError, ModelCallError
from moco_method_multiagent_feedback.abstaining import NEVER, Counts, choose_threshold, read_verdict
from moco_method_multiagent_feedback.method import MultiagentFeedback
from moco_method_multiagent_feedback.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method


def chair(verdict, **more):
    return by_kind(verdict=verdict, answer=telling, **more)


def always(word):
    """The label that means ``word`` in the order shown."""
    return lambda call: "A" if f"A) {word}" in call.prompt else "B"


@pytest.mark.parametrize(
    ("verdict", "wrong", "abstained"),
    [
        (always("true"), 0.0, False),
        (always("false"), 1.0, True),
        ("A", 0.5, True),
        ("B", 0.5, True),
        ("hm", 0.5, True),
        ("The proposed answer is true.", 0.0, False),
        ("", 0.5, True),
    ],
)
def test_the_verdict_counts_over_both_orders_of_the_labels(verdict, wrong, abstained):
    pool = ScriptedPool(dict.fromkeys("abcd", chair(verdict)), capabilities=TEXT_ONLY)
    reply = ask(pool, final="abstain", summarizer="b", proposer="a")
    assert (reply.text, reply.meta["wrong"], reply.abstained) == ("the answer is a", wrong, abstained)
    verdicts = [c for c in pool.history if kind(c) == "verdict"]
    assert {c.model for c in verdicts} == {"b"} and len({c.prompt for c in verdicts}) == 2
    assert all(set(read(c)) == {"Proposed answer", "Review 1", "Review 2", "Review 3"} for c in verdicts)
    assert len(pool.history) == 1 + 3 + 2


def test_verdicts_are_read_by_letter_or_word():
    for labels, said, expected in [
        (("true", "false"), "A", 0.0), (("false", "true"), "A", 1.0), (("true", "false"), "Answer: B) false", 1.0),
        (("true", "false"), "It is false.", 1.0), (("true", "false"), "C", None), (("true", "false"), "", None),
    ]:  # fmt: skip
        assert read_verdict(said, labels) == expected, said


@pytest.mark.parametrize(
    ("chances", "wrong"),
    [
        (lambda prompt: (0.9, 0.1), 0.5),  # always the letter A
        (lambda prompt: (0.4, 0.1) if "A) false" in prompt else (0.1, 0.4), 0.8),  # knows, in either order
        (lambda prompt: (0.6, 0.2) if "A) false" in prompt else (0.3, 0.3), (0.75 + 0.5) / 2),
    ],
)
def test_a_preference_for_a_letter_cancels_in_probabilities(chances, wrong):
    def scores(call):
        assert call.given["continuations"] == ["A", "B"]
        return [(math.log(chance),) for chance in chances(call.prompt)]

    pool = ScriptedPool(dict.fromkeys("ab", telling), scores=scores)
    reply = ask(pool, final="abstain", summarizer="b", proposer="a", threshold=0.8)
    assert reply.meta["wrong"] == pytest.approx(wrong) and reply.abstained == (reply.meta["wrong"] >= 0.8)


def test_one_failed_verdict_is_half_and_two_are_an_error():
    once = lambda c: ModelCallError("down") if "A) true" in c.prompt else "A"  # noqa: E731
    pool = ScriptedPool(dict.fromkeys("ab", chair(once)), capabilities=TEXT_ONLY)
    assert ask(pool, final="abstain", summarizer="b", proposer="a").meta["wrong"] == 0.75
    down = ScriptedPool(dict.fromkeys("ab", chair(lambda c: ModelCallError("down"))), capabilities=TEXT_ONLY)
    with pytest.raises(ModelCallError, match="down"):
        ask(down, final="abstain", summarizer="b", proposer="a")


def test_figures_by_hand():
    """Answered & right 5, abstained & right 1, answered & wrong 2, abstained & wrong 2."""
    figures = Counts(5, 1, 2, 2).figures()
    assert figures["reliable_accuracy"] == pytest.approx(5 / 7)
    assert figures["effective_reliability"] == pytest.approx(3 / 10)
    assert figures["abstain_accuracy"] == pytest.approx(7 / 10)
    assert figures["abstain_precision"] == pytest.approx(2 / 3)
    assert figures["abstain_recall"] == pytest.approx(1 / 2)
    assert figures["abstain_rate"] == pytest.approx(3 / 10)
    assert Counts.of([1, 1, 0, 0.5], [False, True, True, False]) == Counts(1.5, 1, 0.5, 1)
    assert Counts.of([1], [False]).figures()["abstain_precision"] is None


def test_the_threshold_is_the_largest_of_the_best():
    """By hand: withholding from 0.8 on gets 4 of 5 right, and so does withholding from 0.6 on; the larger one wins."""
    assert choose_threshold([1, 1, 0, 1, 0], [0.1, 0.2, 0.6, 0.6, 0.8]) == 0.8
    assert choose_threshold([1, 1], [0.3, 0.9]) == NEVER
    assert choose_threshold([0, 0], [0.3, 0.9]) == 0.3
    assert choose_threshold([0, 1], [0.0, 0.0]) == NEVER


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_all_by_search(seed):
    rng = random.Random(seed)
    scores = [float(rng.random() < 0.5) for _ in range(30)]
    chances = [min(1.0, max(0.0, rng.gauss(0.6 - 0.3 * s, 0.3))) for s in scores]

    def accuracy(t):
        return Counts.of(scores, [chance >= t for chance in chances]).figures()["abstain_accuracy"]

    best = max(accuracy(t / 1000) for t in range(1, 2001))
    assert accuracy(choose_threshold(scores, chances)) == pytest.approx(best)


def test_abstaining_on_dev_is_told():
    """The proposer is right on even dev questions; the chair says so but for question 1, where it trusts a wrong answer."""

    def number(call):
        return int(re.search(r"dev <(\d)>", call.transcript)[1])

    say = by_kind(
        verdict=lambda c: always("true" if number(c) % 2 == 0 or number(c) == 1 else "false")(c),
        answer=lambda c: f"the answer is {'a' if number(c) % 2 == 0 else 'b'}",
    )
    pool = ScriptedPool(dict.fromkeys("xy", say), capabilities=TEXT_ONLY)
    method = MultiagentFeedback(Options(final="abstain", summarizer="y", proposer="x"))
    outcome = run_method(method, pool, dev=dev_of(6))
    told = outcome.noted("dev_abstention")
    assert told["abstain_rate"] == pytest.approx(2 / 6) and told["abstain_precision"] == 1.0
    assert told["abstain_recall"] == pytest.approx(2 / 3) and told["abstain_accuracy"] == pytest.approx(5 / 6)
    assert outcome.state["threshold"] == 0.5


def test_a_graded_threshold_is_chosen_on_dev_and_saved():
    pool = ScriptedPool(dict.fromkeys("xy", by_kind(answer="the answer is b")))
    method = MultiagentFeedback(Options(final="abstain", summarizer="y", proposer="x"))
    outcome = run_method(method, pool, dev=dev_of(4), questions=[dev_of(1)[0].question])
    assert outcome.noted("threshold") == outcome.state["threshold"] < 1  # always wrong: the lowest chance withholds all
    assert outcome.noted("dev_abstention")["abstain_rate"] == 1.0 and outcome.replies["d0"].abstained
    with pytest.raises(ConfigError, match=r"chosen on dev and there are no dev examples.*method\.threshold"):
        ask(pool, final="abstain", summarizer="y", proposer="x")
