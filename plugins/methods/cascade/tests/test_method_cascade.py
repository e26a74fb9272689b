"""The cascade against its closed forms, a brute-force optimiser and scripted models."""

from __future__ import annotations

import itertools
import math
import random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import (
    CapabilityError,
    ConfigError,
    ContinuationScore,
    Example,
    Generation,
    ModelCallError,
    Question,
    Sampling,
    Usage,
)
from moco_core.models import Pool
from moco_core.options import build
from moco_method_cascade import Cascade, CascadeOptions
from moco_method_cascade.confidence import chow_average, chow_quantile, chow_sum
from moco_method_cascade.prompts import FALSE, TRUE
from moco_method_cascade.thresholds import Table, by_fraction, oracle, search, simulate
from moco_toolkit_authoring import (
    ScriptedEngine,
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    run_method,
)

test_conformance = method_checks(
    "cascade",
    settings=[
        {},
        {"confidence": "p_true", "select": "target", "target": 0.9},
        {"confidence": "agreement", "report": False},
        {"confidence": "self_report", "select": "fixed", "thresholds": 0.5},
        {"confidence": "chow_quantile", "select": "budget", "budget": 1.0, "max_depth": 2},
    ],
    identical_is_single=True,
)

LOGS = [-0.1, -2.0, -0.5, -0.4]
INF = math.inf


# ---------------------------------------------------------------- confidence


def test_chow_scores_by_hand():
    assert chow_sum(LOGS) == pytest.approx(-3.0)
    assert chow_average(LOGS) == pytest.approx(-0.75)
    assert chow_quantile(LOGS, 0.0) == min(LOGS)
    assert chow_quantile(LOGS, 1.0) == max(LOGS)
    assert chow_quantile(LOGS, 0.5) == pytest.approx(-0.45)
    assert all(math.isnan(f) for f in (chow_sum([]), chow_average([]), chow_quantile([], 0.5)))


@settings(deadline=None)
@given(st.lists(st.floats(-50, 0), min_size=1, max_size=20), st.floats(0, 1))
def test_chow_scores_agree_with_numpy(logs, level):
    numpy = pytest.importorskip("numpy")
    assert chow_quantile(logs, level) == pytest.approx(float(numpy.quantile(logs, level)), abs=1e-9)
    assert chow_average(logs) == pytest.approx(chow_sum(logs) / len(logs))


# ---------------------------------------------------------------- thresholds


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
def test_accepted_shares_are_conditional_on_what_arrives(n, fraction, rng):
    """With distinct confidences every level accepts f of the questions that reach it, up to one question."""
    rows = [rng.sample(range(1000), n) for _ in range(3)]
    thresholds, _ = by_fraction(rows, [fraction] * 3)
    alive = list(range(n))
    for row, tau in zip(rows, thresholds, strict=True):
        if not alive:
            break
        accepted = [j for j in alive if row[j] >= tau]
        assert abs(len(accepted) - fraction * len(alive)) <= 1
        alive = [j for j in alive if row[j] < tau]


def test_fractions_by_hand():
    """0.25 accepts the top quarter, 0.75 the top three quarters; level 2 counts only what level 1 deferred."""
    first = [0.1, 0.9, 0.5, 0.3]
    assert by_fraction([first], [0.25]) == ([0.9], [0.25])
    assert by_fraction([first], [0.75]) == ([0.3], [0.75])
    thresholds, shares = by_fraction([first, [0.7, 1.0, 0.8, 0.6]], [0.25, 1 / 3])
    assert thresholds == [0.9, 0.8] and shares == pytest.approx([0.25, 1 / 3])


def test_equal_confidences_take_the_nearest_share_and_nan_never_counts():
    assert by_fraction([[1.0, 1.0, 1.0, 0.0]], [0.5]) == ([1.0], [0.75])
    assert by_fraction([[0.5, 0.5]], [0.5]) == ([0.5], [1.0])
    assert by_fraction([[math.nan, -INF, 0.2, 0.4]], [0.5]) == ([0.2], [0.5])
    assert by_fraction([[math.nan, -INF]], [0.5]) == ([INF], [0.0])
    assert by_fraction([[0.5, 0.5], [0.1, 0.2]], [0.5, 0.5])[0] == [0.5, 0.2]  # nobody left: all questions count


CONFIDENCE = [[0.9, 0.2, 0.8, 0.4, 0.6, 0.1], [0.3, 0.9, 0.5, 0.7, 0.1, 0.8]]
SCORE = [[1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]]
COST = [[1, 1, 2, 1, 1, 2], [3, 4, 3, 5, 3, 4], [10, 12, 9, 11, 10, 13]]
CHECK = [[0.5] * 6, [0.25] * 6, [0.0] * 6]
TABLE = Table(confidence=CONFIDENCE, score=SCORE, cost=COST, check=CHECK)


def brute_force(table: Table, *, budget=None, target=None, max_depth=99):
    """Every threshold that separates questions, at every level, by simulation; None if nothing is feasible."""
    grids = [[INF, -INF, *sorted({c for c in row if math.isfinite(c)})] for row in table.confidence]
    best = None
    for taus in itertools.product(*grids):
        score, cost, _ = simulate(table, taus)
        alive = [tau for tau in (*taus, -INF) if tau != INF]
        depth = next((k + 1 for k, tau in enumerate(alive) if tau == -INF), len(alive))
        if depth > max_depth or (budget is not None and cost > budget + 1e-12):
            continue
        if target is not None and score < target - 1e-12:
            continue
        key = (
            (-round(cost, 9), round(score, 9), -depth)
            if target is not None
            else (round(score, 9), -round(cost, 9), -depth)
        )
        if best is None or key > best[0]:
            best = (key, score, cost, depth)
    return best and best[1:]


@pytest.mark.parametrize("budget", [1.0, 1.4, 2.0, 3.0, 4.7, 5.0, 7.0, 9.0, 11.0, 20.0])
@pytest.mark.parametrize("max_depth", [2, 3])
def test_budget_search_equals_brute_force(budget, max_depth):
    found = search(TABLE, grid=40, budget=budget, max_depth=max_depth)
    expected = brute_force(TABLE, budget=budget, max_depth=max_depth)
    if expected is None:
        assert found is None
        return
    assert (found.score, found.cost, found.depth) == pytest.approx(expected)
    assert found.cost <= budget
    assert simulate(TABLE, found.thresholds)[:2] == pytest.approx((found.score, found.cost))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
def test_target_search_equals_brute_force(share):
    found = search(TABLE, grid=40, target=share)
    assert (found.score, found.cost, found.depth) == pytest.approx(brute_force(TABLE, target=share))
    assert found.score >= share


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 4), st.integers(1, 6), st.floats(0.5, 12))
def test_searches_equal_brute_force_on_random_tables(rng, levels, n, budget):
    row = lambda draw: [draw() for _ in range(n)]  # noqa: E731
    table = Table(
        confidence=[row(lambda: rng.choice([0.1, 0.2, 0.5, 0.9, math.nan, -INF])) for _ in range(levels - 1)],
        score=[row(lambda: rng.choice([0, 0.5, 1])) for _ in range(levels)],
        cost=[row(lambda: rng.randint(1, 9)) for _ in range(levels)],
        check=[row(lambda: rng.choice([0, 1])) for _ in range(levels)],
    )
    for goal in ({"budget": budget}, {"target": rng.random()}):
        found, expected = search(table, grid=40, **goal), brute_force(table, **goal)
        assert (found is None) == (expected is None)
        if found is not None:
            assert (found.score, found.cost, found.depth) == pytest.approx(expected)


def test_a_coarse_grid_stays_within_the_budget():
    rng = random.Random(1)
    n = 200
    table = Table(
        confidence=[[rng.random() for _ in range(n)] for _ in range(3)],
        score=[[float(rng.random() < p) for _ in range(n)] for p in (0.4, 0.5, 0.6, 0.7)],
        cost=[[c * rng.uniform(0.5, 1.5) for _ in range(n)] for c in (1, 3, 9, 27)],
        check=[[0.0] * n] * 4,
    )
    before = 0.0
    for budget in (2, 5, 10, 20, 40):
        found = search(table, grid=5, budget=budget)
        assert found.cost <= budget and found.score >= before
        before = found.score


def test_oracle_stops_at_the_first_best_level():
    assert oracle(TABLE) == pytest.approx((1.0, (1 + 5 + 2 + 17 + 4 + 19) / 6))


# ---------------------------------------------------------------- answering

QUESTIONS = example_questions(5)


def generation(text: str, *logs: float) -> Generation:
    return Generation(text=text, token_logprobs=logs, usage=Usage(10, len(logs)))


def three(**keywords) -> ScriptedPool:
    return ScriptedPool({"weak": "weak says", "mid": "mid says", "strong": "strong says"}, **keywords)


def fixed(*taus: float, **options) -> Cascade:
    return Cascade(CascadeOptions(select="fixed", thresholds=taus, **options))


def test_minus_infinity_takes_the_first_and_asks_nobody_else():
    pool = three()
    outcome = run_method(fixed(-INF, -INF), pool, questions=QUESTIONS, dev=examples(3))
    assert set(outcome.texts.values()) == {"weak says"}
    assert {c.model for c in pool.history} == {"weak"} and len(pool.history) == len(QUESTIONS)


def test_plus_infinity_takes_the_last_and_leaves_out_the_rest():
    pool = three()
    outcome = run_method(fixed(INF, INF), pool, questions=QUESTIONS)
    assert set(outcome.texts.values()) == {"strong says"}
    assert {c.model for c in pool.history} == {"strong"}


def test_the_first_level_at_or_above_its_threshold_answers():
    pool = ScriptedPool(
        {"weak": lambda c: generation("weak", -1.0, -3.0), "mid": lambda c: generation("mid", -1.0), "strong": "strong"}
    )
    ask = lambda *taus: run_method(fixed(*taus), pool, questions=QUESTIONS[:1]).replies["t0"]  # noqa: E731
    assert ask(-2.0, -9.0).text == "weak"  # equality accepts
    assert ask(-1.9, -1.0).text == "mid"
    assert ask(0.0, 0.0).text == "strong"  # a threshold of exactly 0 is a threshold
    reply = ask(-1.9, -1.0)
    assert reply.meta["level"] == 2 and [row["model"] for row in reply.meta["levels"]] == ["weak", "mid"]


def test_the_reported_cost_is_that_of_the_calls_made():
    """Scripted prices: 1 and 2 money per million tokens read and written."""
    pool = ScriptedPool(
        {"weak": lambda c: generation("weak", -5.0, -5.0), "mid": lambda c: generation("mid", -1.0), "strong": "strong"}
    )
    reply = run_method(fixed(-2.0, -2.0), pool, questions=QUESTIONS[:1]).replies["t0"]
    assert reply.meta["cost"] == pytest.approx(((10 + 2 * 2) + (10 + 2 * 1)) / 1e6)
    assert reply.meta["cost_unit"] == "money"
    own = run_method(fixed(-2.0, -2.0, prices=(1.0, 10.0, 100.0)), pool, questions=QUESTIONS[:1]).replies["t0"]
    assert own.meta["cost"] == pytest.approx((12 * 1 + 11 * 10) / 1e6)
    free = Pool([attrs.evolve(m, prices=None) for m in pool.pool])
    by_size = run_method(fixed(-2.0, -2.0), free, questions=QUESTIONS[:1]).replies["t0"]
    assert by_size.meta["cost"] == pytest.approx(0.001 * 23) and "parameters" in by_size.meta["cost_unit"]


def test_an_empty_reply_a_missing_confidence_and_a_failed_call_defer():
    pool = ScriptedPool(
        {"empty": " ", "none": lambda c: generation("none"), "down": lambda c: ModelCallError("down"), "last": "last"}
    )
    outcome = run_method(fixed(-1e9, -1e9, -1e9), pool, questions=QUESTIONS[:1])
    reply = outcome.replies["t0"]
    assert reply.text == "last" and reply.meta["levels"][2] == {"model": "down", "failed": "down"}


def test_the_question_fails_with_the_last_level():
    pool = ScriptedPool({"a": " ", "b": lambda c: ModelCallError("down")})
    assert "down" in str(run_method(fixed(0.0), pool, questions=QUESTIONS[:1]).errors["t0"])


def test_identical_models_give_the_single_models_reply_for_any_threshold():
    for tau in (-INF, -1.0, -0.5, 0.0, INF):
        pool = ScriptedPool.copies(3, fallible)
        outcome = run_method(fixed(tau, tau), pool, questions=QUESTIONS)
        assert outcome.texts == {q.id: outcome.texts[q.id] for q in QUESTIONS}
        single = run_method(fixed(-INF, -INF), ScriptedPool.copies(3, fallible), questions=QUESTIONS)
        assert outcome.texts == single.texts


class Judge(ScriptedEngine):
    """Scores the verdict by what is quoted: log odds of 2 for a good reply, -2 for any other."""

    def answer(self, call):
        if call.kind != "score":
            return super().answer(call)
        assert call.input["continuations"] == [TRUE, FALSE]
        good = "good reply" in call.input["messages"][-1][1]
        logs = (-0.5, -2.5) if good else (-2.5, -0.5)
        return tuple(ContinuationScore(token_ids=(1,), token_logprobs=(log,)) for log in logs)


@pytest.mark.parametrize("kind", ["p_true", "self_report"])
def test_verification_is_the_normalised_probability_of_true(kind):
    pool = ScriptedPool({"a": "bad reply", "b": "good reply", "c": "last"}, engine=Judge())
    reply = run_method(fixed(0.5, 0.5, confidence=kind), pool, questions=QUESTIONS[:1]).replies["t0"]
    sure = 1 / (1 + math.exp(-2))
    assert reply.text == "good reply"
    assert [row["confidence"] for row in reply.meta["levels"]] == pytest.approx([1 - sure, sure])


@pytest.mark.parametrize(
    ("verdict", "winner"), [("True.", "a"), ("False", "b"), ("I am not confident", "b"), ("not True", "b")]
)
def test_a_model_that_cannot_score_is_asked_in_words(verdict, winner):
    def say(call):
        return verdict if TRUE in call.prompt and FALSE in call.prompt else "a reply"

    pool = ScriptedPool({"a": say, "b": "b"}, capabilities=frozenset({"generate"}))
    method = fixed(0.5, confidence="self_report")
    assert not method.needs().problems(pool.pool)
    reply = run_method(method, pool, questions=QUESTIONS[:1]).replies["t0"]
    assert reply.meta["model"] == winner
    verifications = [c for c in pool.history if TRUE in c.prompt]
    assert [c.params["max_new_tokens"] for c in verifications] == [16]


def test_the_task_prompt_is_unmodified_and_greedy():
    pool = three()
    run_method(fixed(0.0, 0.0), pool, questions=QUESTIONS, sampling=Sampling(temperature=0.7, max_new_tokens=9))
    for call in pool.history:
        assert call.prompt in {q.text() for q in QUESTIONS}
        assert call.params == {"max_new_tokens": 9, "temperature": 0.0}


def test_agreement_is_the_share_of_the_most_frequent_answer():
    said = iter(["the answer is A", "the answer is A", "nothing", "the answer is B", "the answer is A"])
    pool = ScriptedPool(
        {"a": lambda c: next(said) if c.params["temperature"] else "the answer is Z", "b": "the answer is B"}
    )
    reply = run_method(fixed(0.6, confidence="agreement", samples=5), pool, questions=[Question(id="q", prompt="?")])
    found = reply.replies["q"]
    assert found.text == "the answer is Z"
    assert found.meta["levels"][0]["confidence"] == pytest.approx(3 / 5)
    assert len(pool.history) == 6


# ---------------------------------------------------------------- fitting


def ranked(n: int) -> tuple[list[Example], ScriptedPool]:
    """Dev questions whose level-i confidence is a permutation of -1..-n."""
    dev = [Example(question=Question(id=f"d{j}", prompt=f"item <{j}>"), references=("a",)) for j in range(n)]
    rng = random.Random(3)
    orders = [rng.sample(range(1, n + 1), n) for _ in range(3)]

    def at(level: int):
        def say(call):
            j = int(call.prompt.split("<")[1].split(">")[0])
            return generation("the answer is a" if j % 4 < level + 1 else "the answer is b", -float(orders[level][j]))

        return say

    return dev, ScriptedPool({"weak": at(0), "mid": at(1), "strong": at(2)})


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
def test_fitted_shares_hold_on_the_fit_set_at_every_level(fraction):
    dev, pool = ranked(40)
    method = Cascade(CascadeOptions(accept_fraction=fraction))
    outcome = run_method(method, pool, dev=dev, questions=[e.question for e in dev])
    levels = [reply.meta["level"] for reply in outcome.replies.values()]
    reaching = 40
    for level in (1, 2):
        accepted = levels.count(level)
        assert abs(accepted - fraction * reaching) <= 1
        reaching -= accepted


def test_budget_and_target_fit_on_dev():
    dev, pool = ranked(40)
    score = [0.25, 0.5, 0.75]
    cheap = Cascade(CascadeOptions(select="target", target=1.0, prices=(1.0, 2.0, 4.0)))
    outcome = run_method(cheap, pool, dev=dev, questions=[e.question for e in dev])
    right = sum("is a" in r.text for r in outcome.replies.values()) / 40
    assert right >= score[2]
    with pytest.raises(ConfigError, match=r"cascade\.budget: 1e-06 is below the cheapest level's 1.1e-05"):
        run_method(Cascade(CascadeOptions(select="budget", budget=1e-6, prices=(1.0, 2.0, 4.0))), pool, dev=dev)
    spend = Cascade(CascadeOptions(select="budget", budget=2e-5, prices=(1.0, 2.0, 4.0)))
    outcome = run_method(spend, pool, dev=dev, questions=[e.question for e in dev])
    assert sum(r.meta["cost"] for r in outcome.replies.values()) / 40 <= 2e-5 + 1e-12


def test_a_wrong_order_is_told():
    dev, pool = ranked(40)
    backwards = Pool(reversed(list(pool.pool)))
    warnings = run_method(Cascade(CascadeOptions()), backwards, dev=dev).warnings
    assert len(warnings) == 1 and "strong (0.750) before mid (0.500)" in warnings[0]
    assert run_method(Cascade(CascadeOptions()), pool, dev=dev).warnings == []


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 3),
        ({"report": False}, 2),
        ({"select": "fixed", "thresholds": 0.0}, 0),
        ({"confidence": "p_true"}, 5),
        ({"confidence": "agreement", "samples": 4, "report": False}, 10),
    ],
)
def test_fit_makes_the_calls_it_predicts(options, calls):
    dev, pool = ranked(8)
    method = Cascade(CascadeOptions(**options))
    assert run_method(method, pool, dev=dev).calls["fit"] == method.cost(3, 8).fit == calls * 8


def test_infinite_thresholds_survive_saving():
    method = fixed(INF, -INF)
    outcome = run_method(method, three(), questions=QUESTIONS[:1], reload_with=fixed(0.0, 0.0))
    assert outcome.state == {"thresholds": ["inf", "-inf"]} and outcome.replies["t0"].text == "mid says"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"confidence": "scorer"}, "confidence: scorer .* not available yet"),
        ({"select": "budget"}, "budget: missing, select=budget needs it"),
        ({"select": "fixed"}, "thresholds: missing"),
        ({"accept_fraction": 1.0}, "accept_fraction: expected number > 0 and < 1"),
        ({"max_depth": 2}, "max_depth: goes with select=budget or target"),
    ],
)
def test_bad_options(data, message):
    with pytest.raises(ConfigError, match=message):
        build(CascadeOptions, data)


def test_bad_pools():
    blind = Pool([attrs.evolve(m, capabilities=frozenset({"generate"})) for m in three().pool])
    needs = Cascade(CascadeOptions()).needs()
    problems = needs.problems(blind)
    assert len(problems) == 2 and "'weak'" in problems[0] and "logprobs" in problems[0]
    only_last = Pool([*three().pool[:2], blind[2]])
    assert needs.problems(only_last) == []
    assert "needs at least 2 models" in needs.problems(only_last[:1])[0]
    with pytest.raises(ConfigError, match=r"cascade\.thresholds: 3 levels need 2 values, got 1"):
        run_method(fixed(0.0), three())
    with pytest.raises(ConfigError, match="needs dev examples"):
        run_method(Cascade(CascadeOptions()), three())
    assert issubclass(CapabilityError, Exception)
