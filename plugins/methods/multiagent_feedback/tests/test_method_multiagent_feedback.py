"""Multi-agent feedback: who reviews whom, when it abstains, what that is worth, what it costs, on scripted models."""

from __future__ import annotations

import math
import random
import re
from collections import Counter

import attrs
import pytest

from moco_core import ConfigError, Example, Generation, ModelCallError, Question, build, plain
from moco_core.types import ContinuationScore
from moco_method_multiagent_feedback.abstaining import NEVER, Counts, choose_threshold, read_verdict
from moco_method_multiagent_feedback.method import MultiagentFeedback
from moco_method_multiagent_feedback.options import Options
from moco_toolkit_authoring import (
    ScriptedCall,
    ScriptedEngine,
    ScriptedPool,
    example_questions,
    method_checks,
    run_method,
)

test_conformance = method_checks(
    "multiagent_feedback",
    settings=[
        {},
        {"final": "vote", "include_self": True, "rounds": 2},
        {"summarizer": "best_summarizer", "dev_sample": 3, "feedback_count": 1},
        {"final": "abstain", "dev_sample": 4},
        {"final": "compete", "proposer": 0, "dev_sample": 2},
    ],
)

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
    outcome = run_method(MultiagentFeedback(Options(**options)), pool, questions=[question], dev=dev)
    for error in outcome.errors.values():
        raise error
    return outcome.replies[question.id]


# ---------------------------------------------------------------- review and revision


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_every_answer_gets_distinct_reviewers_and_never_its_author(count, include_self):
    names = [f"m{i}" for i in range(5)]
    pool = ScriptedPool(dict.fromkeys(names, telling))
    ask(pool, rounds=2, feedback_count=count, include_self=include_self, final="vote")
    reviews = Counter((read(c)["Answer"].split()[-1], c.model) for c in pool.history if kind(c) == "review")
    assert set(reviews.values()) <= {1, 2}  # at most once per round
    for author in names:
        assert sum(n for (a, _), n in reviews.items() if a == author) == 2 * (min(count, 4) + include_self)
        assert reviews[author, author] == (2 if include_self else 0)


def test_reviewers_are_drawn_uniformly_and_by_seed_alone():
    def drawn(questions, **options):
        pool = ScriptedPool(dict.fromkeys("abcd", telling))
        options = Options(feedback_count=1, final="vote", **options)
        outcome = run_method(MultiagentFeedback(options), pool, questions=questions)
        return {q: r.meta["reviews"][0]["a"]["by"] for q, r in outcome.replies.items()}

    questions = [attrs.evolve(QUESTION, id=f"q{i}") for i in range(300)]
    whole = drawn(questions)
    assert {**drawn(questions[:100]), **drawn(questions[100:])} == whole != drawn(questions, seed=1)
    counts = Counter(by for (by,) in whole.values())
    assert set(counts) == set("bcd") and all(70 <= n <= 130 for n in counts.values())  # 100 expected, deviation 8


def test_reviewers_see_one_answer_and_authors_only_their_own_reviews():
    pool = ScriptedPool(dict.fromkeys("abcd", telling))
    ask(pool, rounds=1, feedback_count=2, final="vote")
    for call in pool.history:
        if kind(call) == "review":
            assert set(read(call)) == {"Answer"} and read(call)["Answer"] != f"the answer is {call.model}"
            assert QUESTION.answer_format not in call.prompt and call.prompt.startswith(QUESTION.prompt)
        if kind(call) == "revise":
            seen = read(call)
            assert set(seen) == {"Your own answer", "Review 1", "Review 2"}
            assert seen["Your own answer"] == f"the answer is {call.model}"
            assert all(seen[f"Review {i}"].endswith(f" on {call.model}") for i in (1, 2))
            assert call.prompt.startswith(QUESTION.text()) and call.prompt.endswith(QUESTION.answer_format)


def test_an_identity_reviser_keeps_every_answer():
    def script(call):
        return read(call)["Your own answer"] if kind(call) == "revise" else telling(call)

    reply = ask(ScriptedPool(dict.fromkeys("abc", script)), rounds=4, final="vote")
    assert reply.meta["answers"] == [["a", "b", "c"]] * 5


def test_without_a_usable_review_nobody_revises():
    for review in ("", "<think>cut off", lambda c: ModelCallError("down")):
        pool = ScriptedPool(dict.fromkeys("abc", by_kind(review=review, answer=telling)))
        reply = ask(pool, rounds=1, final="vote")
        assert Counter(map(kind, pool.history)) == {"answer": 3, "review": 6}
        assert reply.meta["answers"] == [["a", "b", "c"]] * 2
        assert sorted(reply.meta["reviews"][0]["a"]["lost"]) == ["b", "c"]


def test_an_empty_or_failed_revision_keeps_the_answer():
    revise = lambda c: "" if c.model == "a" else ModelCallError("down")  # noqa: E731
    reply = ask(ScriptedPool(dict.fromkeys("ab", by_kind(revise=revise, answer=telling))), rounds=1, final="vote")
    assert reply.meta["answers"] == [["a", "b"]] * 2
    assert sorted((k["model"], k["reason"]) for k in reply.meta["kept"]) == [("a", "empty reply"), ("b", "down")]


def test_a_summary_reads_all_last_answers_and_falls_back_to_the_vote():
    pool = ScriptedPool(dict.fromkeys("abc", by_kind(summary="the answer is S", answer=telling)))
    reply = ask(pool, summarizer="b")
    (summary,) = [c for c in pool.history if kind(c) == "summary"]
    assert reply.text == "the answer is S" and summary.model == "b" and summary.params["temperature"] == 0
    assert sorted(read(summary).values()) == [f"the answer is {name}" for name in "abc"]
    mute = by_kind(summary="no idea", answer="the answer is A")
    assert ask(ScriptedPool(dict.fromkeys("ab", mute)), summarizer="b").meta["final"] == "vote_after_unparsed_summary"
    silent = ask(ScriptedPool({"a": "I am A", "b": "I am B"}), summarizer="b")
    assert silent.text == "I am B" and silent.meta["unparsed"] is True


def test_reviews_have_their_own_length_and_temperature():
    pool = ScriptedPool(dict.fromkeys("ab", telling))
    ask(pool, final="vote")
    params = {kind(c): (c.params["temperature"], c.params["max_new_tokens"]) for c in pool.history}
    assert params == {"answer": (0.7, 64), "review": (1.0, 200), "revise": (0.7, 64)}


def test_the_requests_to_one_reviewer_make_one_batch():
    """Two rounds activate each of five models twice per round: once to review, once to revise."""
    pool = ScriptedPool(dict.fromkeys("abcde", telling))
    ask(pool, rounds=2, feedback_count=4, final="vote")
    assert len(pool.engine.batches) == 5 * (1 + 2 * 2)
    assert sorted(pool.engine.batches)[-10:] == [4] * 10


def test_a_single_model_reviews_itself_from_perspectives_after_writing_down_what_it_knows():
    def script(call):
        return f"known: {call.messages[0].content}" if kind(call) == "knowledge" else telling(call)

    pool = ScriptedPool({"a": script})
    ask(pool, rounds=1, final="vote", feedback_count=2)
    assert Counter(map(kind, pool.history)) == {"answer": 1, "knowledge": 2, "review": 2, "revise": 1}
    reviews = {c.messages[0].content: read(c) for c in pool.history if kind(c) == "review"}
    assert set(reviews) == {f"You review answers from a {p} perspective." for p in ("factual", "multi-hop")}
    assert all(seen["What you know"] == f"known: {role}" for role, seen in reviews.items())


def test_no_model_is_named_to_another():
    pool = ScriptedPool({"xeno": "the answer is A", "yara": "the answer is B", "zora": "the answer is C"})
    ask(pool, summarizer=0)
    assert not any(re.search("xeno|yara|zora", c.transcript) for c in pool.history)


# ---------------------------------------------------------------- Cooperate


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


class Chair(ScriptedEngine):
    """Gives the labels A and B the probabilities that a function of the prompt says."""

    def __init__(self, chances):
        super().__init__()
        self.chances = chances

    def answer(self, call):
        if call.kind != "score":
            return super().answer(call)
        self.history.append(ScriptedCall.of(call))
        assert list(call.input["continuations"]) == ["A", "B"]
        return tuple(
            ContinuationScore(token_ids=(1,), token_logprobs=(math.log(chance),)) for chance in self.chances(call)
        )


@pytest.mark.parametrize(
    ("chances", "wrong"),
    [
        (lambda call: (0.9, 0.1), 0.5),  # always the letter A
        (lambda call: (0.4, 0.1) if "A) false" in str(call.input) else (0.1, 0.4), 0.8),  # knows, in either order
        (lambda call: (0.6, 0.2) if "A) false" in str(call.input) else (0.3, 0.3), (0.75 + 0.5) / 2),
    ],
)
def test_a_preference_for_a_letter_cancels_in_probabilities(chances, wrong):
    pool = ScriptedPool(dict.fromkeys("ab", telling), engine=Chair(chances))
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


def dev_of(count):
    return [
        Example(question=attrs.evolve(QUESTION, id=f"d{i}", prompt=f"dev <{i}>"), references=("a",))
        for i in range(count)
    ]


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


# ---------------------------------------------------------------- Compete


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


# ---------------------------------------------------------------- cost, size, bad input


@pytest.mark.parametrize(
    ("models", "options", "fit", "respond"),
    [
        (4, {"rounds": 2}, 4 * 5, 4 + 2 * 4 * 4 + 1),
        (4, {"rounds": 1, "final": "vote", "feedback_count": 2}, 0, 4 + 4 * 3),
        (3, {"rounds": 1, "include_self": True, "summarizer": 0}, 0, 3 + 3 * 4 + 1),
        (3, {"summarizer": "best_summarizer", "dev_sample": 2}, 3 * 5 + (12 + 3) * 2, 3 + 3 * 3 + 1),
        (4, {"final": "abstain"}, 4 * 5 + 6 * 5, 1 + 3 + 2),
        (3, {"final": "abstain", "include_self": True, "summarizer": 0, "proposer": 1}, 6 * 5, 1 + 3 + 2),
        (3, {"final": "compete"}, 3 * 5 + 3 * 5, 3),
        (1, {"rounds": 1}, 0, 1 + (2 * 3 + 1) + 1),
        (1, {"final": "abstain", "dev_sample": 2}, (1 + 2 * 3 + 2) * 2, 1 + 2 * 3 + 2),
    ],
)
def test_it_makes_the_calls_it_predicts(models, options, fit, respond):
    pool = ScriptedPool({f"m{i}": by_kind(answer="B") for i in range(models)})
    method = MultiagentFeedback(Options(**options))
    dev = [Example(question=attrs.evolve(CHOICE, id=f"d{i}"), references=("B",), answer=1) for i in range(5)]
    outcome = run_method(method, pool, dev=dev, questions=[CHOICE])
    assert outcome.calls["fit"] == method.cost(models, 5).fit == fit
    assert outcome.calls_per_question["c"] == method.cost(models, 5).respond == respond


@pytest.mark.parametrize("n", [1, 2, 5, 16, 32])
def test_pools_of_any_size_work(n):
    pool = ScriptedPool({f"m{i}": telling for i in range(n)})
    method = MultiagentFeedback(Options(summarizer=0))
    outcome = run_method(method, pool, questions=example_questions(1))
    (calls,) = outcome.calls_per_question.values()
    assert calls == method.cost(n, 0).respond
    assert max(len(read(c)) for c in pool.history if kind(c) == "revise") <= 1 + 3


def test_without_rounds_nobody_reviews():
    pool = ScriptedPool({"a": "the answer is A", "b": "the answer is B", "c": "the answer is B"})
    reply = ask(pool, rounds=0, final="vote")
    assert reply.text == "the answer is B" and len(pool.history) == 3


def test_a_budget_too_small_for_the_quotes_is_an_error_that_says_the_numbers():
    fields = {name: {"context_length": 210} for name in "ab"}
    pool = ScriptedPool(dict.fromkeys("ab", lambda c: Generation(text="word " * 60 + "the answer is A")), fields=fields)
    with pytest.raises(ModelCallError, match=r"context of 210 tokens, 200 are for the reply and about .* for 1 quotes"):
        ask(pool, final="vote")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"summarizer": "alfa"}, "summarizer: no model 'alfa' in the pool (alpha, beta), did you mean 'alpha'?"),
        ({"proposer": 7}, "proposer: model index 7 is out of range"),
        ({"proposer": "best_summarizer"}, "proposer: no model 'best_summarizer'"),
        ({"feedback_max_new_tokens": 4000}, "leave nothing of the context of 'alpha', 4000 tokens"),
        ({"final": "abstain", "verdict": "score", "summarizer": 0}, "the area chair 'alpha' cannot score labels"),
    ],
)
def test_what_does_not_fit_the_pool_is_told_before_any_call(options, problem):
    fields = {"alpha": {"context_length": 4000}}
    pool = ScriptedPool(dict.fromkeys(["alpha", "beta"], telling), capabilities=TEXT_ONLY, fields=fields).pool
    assert any(problem in line for line in MultiagentFeedback(build(Options, options)).needs().problems(pool))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rounds": -1}, "rounds: expected int >= 0, got -1"),
        ({"perspectives": []}, "perspectives: expected at least one"),
        ({"final": "vote", "summarizer": "best_summarizer"}, "is for final: summarize"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, problem):
    with pytest.raises(ConfigError, match=problem):
        build(Options, options)


def test_a_chair_chosen_on_dev_that_cannot_score_is_told():
    pool = ScriptedPool(dict.fromkeys("ab", telling), capabilities=TEXT_ONLY)
    with pytest.raises(ConfigError, match="area chair 'a' cannot score labels"):
        ask(pool, dev=dev_of(2), final="abstain", verdict="score")


def test_a_saved_system_is_the_fitted_one():
    pool = ScriptedPool(dict.fromkeys("ab", telling))
    state = {"summarizer": "b", "proposer": "a", "threshold": 0.4, "skills": [0.5, 1.0]}
    assert plain(MultiagentFeedback(Options(final="abstain")).restore(pool.pool, state, None).state()) == state
    with pytest.raises(ConfigError, match=r"multiagent_feedback.proposer: no model 'z'"):
        MultiagentFeedback(Options()).restore(pool.pool, {**state, "proposer": "z"}, None)
