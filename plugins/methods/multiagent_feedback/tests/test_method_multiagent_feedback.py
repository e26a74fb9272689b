"""Multi-agent feedback on scripted models: who reviews whom, revision, summary, what it costs, bad input."""

from __future__ import annotations

import re
from collections import Counter

import attrs
import pytest
from feedback_calls import CHOICE, QUESTION, TEXT_ONLY, ask, by_kind, dev_of, kind, read, telling

from moco_core import ConfigError, Example, Generation, ModelCallError, build, plain
from moco_method_multiagent_feedback.method import MultiagentFeedback
from moco_method_multiagent_feedback.options import Options
from moco_toolkit_authoring import ScriptedPool, example_questions, method_checks, run_method

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
