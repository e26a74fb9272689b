"""The cascade on scripted models: who answers, what it costs, what is learnt from dev, and what is refused."""

from __future__ import annotations

import asyncio
import json
import math
import random

import attrs
import pytest

from moco_core import (
    CapabilityError,
    ConfigError,
    Example,
    Generation,
    Message,
    ModelCallError,
    Question,
    Sampling,
    Usage,
)
from moco_core.models import Pool
from moco_core.options import build
from moco_method_cascade.diagnostics import auroc
from moco_method_cascade.method import Cascade, CascadeSystem
from moco_method_cascade.options import Options
from moco_method_cascade.prompts import FALSE, TRUE
from moco_toolkit_authoring import (
    SCRIPTED_CAPABILITIES,
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    open_state,
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
        {"confidence": "deferral"},
        {"confidence": "scorer"},
    ],
    identical_is_single=True,
)

INF = math.inf

# ---------------------------------------------------------------- answering

QUESTIONS = example_questions(5)


def generation(text: str, *logs: float) -> Generation:
    return Generation(text=text, token_logprobs=logs, usage=Usage(10, len(logs)))


def three(**keywords) -> ScriptedPool:
    return ScriptedPool({"weak": "weak says", "mid": "mid says", "strong": "strong says"}, **keywords)


class Given(Cascade):
    """Thresholds as a fit may set them: infinities leave a level out or accept unseen, and no option states them."""

    def __init__(self, options: Options, taus: tuple[float, ...]) -> None:
        super().__init__(options)
        self.taus = taus

    async def fit(self, pool, dev, context):
        return CascadeSystem(pool, self.options, self.taus)


def fixed(*taus: float, **options) -> Cascade:
    if all(map(math.isfinite, taus)):
        return Cascade(Options(select="fixed", thresholds=taus, **options))
    return Given(Options(**options), taus)


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


KINDS = ["chow_sum", "chow_average", "chow_quantile", "p_true", "self_report", "agreement"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scoring", [True, False])
def test_the_reported_cost_is_the_sum_over_all_calls_whatever_the_confidence(kind, scoring):
    """Every confidence defers here, so that all three levels are asked and two of them checked."""
    capabilities = SCRIPTED_CAPABILITIES if scoring else SCRIPTED_CAPABILITIES - {"score"}
    pool = ScriptedPool(dict.fromkeys(("weak", "mid", "strong"), fallible), capabilities=capabilities)

    async def measured():
        async with open_state(sampling=Sampling(temperature=0.7, max_new_tokens=64)) as state:
            system = fixed(2.0, 2.0, confidence=kind).restore(pool.pool, {"thresholds": [2.0, 2.0]}, None)
            context = state.context("respond", QUESTIONS[0])
            reply = await system.respond(QUESTIONS[0], context)
            return reply, [call.usage for call in context.calls]

    reply, usages = asyncio.run(measured())
    assert reply.meta["level"] == 3 and all(u.prompt_tokens for u in usages)
    assert len(usages) == 3 + {"p_true": 2, "self_report": 2, "agreement": 10}.get(kind, 0)
    spent = sum(u.prompt_tokens * 1.0 + u.completion_tokens * 2.0 for u in usages) / 1e6
    assert reply.meta["cost"] == pytest.approx(spent)
    assert sum(level["cost"] for level in reply.meta["levels"]) == pytest.approx(spent)


def test_what_a_call_cost_is_unknown_without_usage_and_what_the_engine_says_otherwise():
    def call(**fields):
        return lambda c: Generation(text="a reply", token_logprobs=(-1.0,), **fields)

    def cost(say, **options):
        pool = ScriptedPool({"a": say, "b": "b"})
        return run_method(fixed(-9.0, **options), pool, questions=QUESTIONS[:1]).replies["t0"].meta["cost"]

    assert cost(call()) is None  # no usage: unknown, not free
    assert cost(call(usage=Usage(10, 1), meta={"cost": 0.25})) == 0.25
    assert cost(call(usage=Usage(10, 1), meta={"cost": None})) is None
    assert cost(call(usage=Usage(10, 1), meta={"cost": 0.25}), prices=(2.0, 2.0)) == pytest.approx(22e-6)
    dev, pool = ranked(8)
    pool.engine.scripts["mid"] = lambda c: attrs.evolve(ranked(8)[1].engine.scripts["mid"](c), usage=Usage())
    with pytest.raises(ConfigError, match=r"budget needs the cost of every dev reply, and what 8 of 'mid' cost is unknown"):
        run_method(Cascade(Options(select="budget", budget=1.0)), pool, dev=dev)
    assert run_method(Cascade(Options()), pool, dev=dev).noted("cost") is None


def test_an_empty_reply_a_missing_confidence_and_a_failed_call_defer():
    pool = ScriptedPool(
        {"empty": " ", "none": lambda c: generation("none"), "down": lambda c: ModelCallError("down"), "last": "last"}
    )
    outcome = run_method(fixed(-1e9, -1e9, -1e9), pool, questions=QUESTIONS[:1])
    reply = outcome.replies["t0"]
    assert reply.text == "last" and reply.meta["levels"][2] == {"model": "down", "failed": "down"}


def down(call):
    return ModelCallError("down")


@pytest.mark.parametrize("taus", [(0.0, 0.0), (0.0, INF)])
def test_if_the_last_level_fails_the_deepest_reply_stands_and_says_so(taus):
    pool = ScriptedPool({"weak": lambda c: generation("weak", -1.0), "mid": down, "strong": down})
    reply = run_method(fixed(*taus), pool, questions=QUESTIONS[:1]).replies["t0"]
    assert reply.text == "weak" and reply.meta["fallback"] is True
    assert (reply.meta["level"], reply.meta["model"]) == (1, "weak")
    assert reply.meta["levels"][-1] == {"model": "strong", "failed": "down"}
    assert reply.meta["cost"] == pytest.approx((10 + 2) / 1e6)
    accepted = run_method(fixed(-9.0, -9.0), pool, questions=QUESTIONS[:1]).replies["t0"]
    assert "fallback" not in accepted.meta


def test_a_question_that_no_level_says_anything_about_fails():
    assert "down" in str(
        run_method(fixed(0.0), ScriptedPool({"a": " ", "b": down}), questions=QUESTIONS[:1]).errors["t0"]
    )


def test_dev_counts_an_earlier_reply_where_the_last_level_fails_as_a_test_does():
    """Scores of 'mid' on the dev questions: half right; 'strong' fails on all of them."""
    dev, pool = ranked(8)
    pool.engine.scripts["strong"] = down
    outcome = run_method(Cascade(Options()), pool, dev=dev, questions=[e.question for e in dev])
    assert not outcome.errors and any("fallback" in r.meta for r in outcome.replies.values())
    assert outcome.noted("alone") == {"weak": 0.25, "mid": 0.5, "strong": 0.5}


def test_identical_models_give_the_single_models_reply_for_any_threshold():
    for tau in (-INF, -1.0, -0.5, 0.0, INF):
        pool = ScriptedPool.copies(3, fallible)
        outcome = run_method(fixed(tau, tau), pool, questions=QUESTIONS)
        assert outcome.texts == {q.id: outcome.texts[q.id] for q in QUESTIONS}
        single = run_method(fixed(-INF, -INF), ScriptedPool.copies(3, fallible), questions=QUESTIONS)
        assert outcome.texts == single.texts


def judged(call):
    """Scores of the verdict by what is quoted: log odds of 2 for a good reply, -2 for any other."""
    assert call.given["continuations"] == [TRUE, FALSE]
    return [(-0.5,), (-2.5,)] if "good reply" in call.prompt else [(-2.5,), (-0.5,)]


@pytest.mark.parametrize("kind", ["p_true", "self_report"])
def test_verification_is_the_normalised_probability_of_true(kind):
    pool = ScriptedPool({"a": "bad reply", "b": "good reply", "c": "last"}, scores=judged)
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


def test_the_verifier_sees_earlier_turns_and_nothing_quoted_ends_its_quotation():
    history = (Message("user", "Say cat."), Message("assistant", "cat"))
    question = Question(id="h", prompt="And in French? </question>", history=history)
    pool = ScriptedPool({"a": "chat </quote> True", "b": "b"})
    run_method(fixed(0.0, confidence="p_true"), pool, questions=[question])
    (call,) = [c for c in pool.history if c.kind == "score"]
    assert call.prompt.startswith("<question>\nuser: Say cat.\n\nassistant: cat\n\nuser: And in French? < /question>\n")
    assert call.prompt.count("</question>") == call.prompt.count("</quote>") == 1


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
    method = Cascade(Options(accept_fraction=fraction))
    outcome = run_method(method, pool, dev=dev, questions=[e.question for e in dev])
    levels = [reply.meta["level"] for reply in outcome.replies.values()]
    reaching = 40
    for level in (1, 2):
        accepted = levels.count(level)
        assert abs(accepted - fraction * reaching) <= 1
        reaching -= accepted


@pytest.mark.parametrize("kind", ["p_true", "agreement"])
def test_a_budget_holds_where_confidences_cost_something(kind):
    """The verification counts with its prompt: what the chosen setting spends on dev is within the budget."""
    dev, pool = ranked(20)
    every = run_method(Cascade(Options(confidence=kind)), pool, dev=dev)
    low = every.noted("levels")[0]["cost"]
    for budget in (low * 1.05, low * 1.5, low * 2):
        method = Cascade(Options(confidence=kind, select="budget", budget=budget))
        outcome = run_method(method, pool, dev=dev, questions=[e.question for e in dev])
        assert sum(r.meta["cost"] for r in outcome.replies.values()) / 20 <= budget * (1 + 1e-9)


def test_budget_and_target_fit_on_dev():
    dev, pool = ranked(40)
    score = [0.25, 0.5, 0.75]
    cheap = Cascade(Options(select="target", target=1.0, prices=(1.0, 2.0, 4.0)))
    outcome = run_method(cheap, pool, dev=dev, questions=[e.question for e in dev])
    right = sum("is a" in r.text for r in outcome.replies.values()) / 40
    assert right >= score[2]
    with pytest.raises(ConfigError, match=r"cascade\.budget: 1e-06 is below the cheapest level's 1.1e-05"):
        run_method(Cascade(Options(select="budget", budget=1e-6, prices=(1.0, 2.0, 4.0))), pool, dev=dev)
    spend = Cascade(Options(select="budget", budget=2e-5, prices=(1.0, 2.0, 4.0)))
    outcome = run_method(spend, pool, dev=dev, questions=[e.question for e in dev])
    assert sum(r.meta["cost"] for r in outcome.replies.values()) / 40 <= 2e-5 + 1e-12


def test_a_wrong_order_is_told():
    dev, pool = ranked(40)
    backwards = Pool(reversed(list(pool.pool)))
    warnings = run_method(Cascade(Options()), backwards, dev=dev).warnings
    assert len(warnings) == 1 and "strong (0.750) before mid (0.500)" in warnings[0]
    assert run_method(Cascade(Options()), pool, dev=dev).warnings == []


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 3),
        ({"report": False}, 2),
        ({"select": "fixed", "thresholds": 0.0}, 0),
        ({"confidence": "p_true"}, 5),
        ({"confidence": "agreement", "samples": 4, "report": False}, 10),
        ({"confidence": "deferral", "report": False}, 3),
        ({"confidence": "deferral", "select": "fixed", "thresholds": 0.5}, 3),
    ],
)
def test_fit_makes_the_calls_it_predicts(options, calls):
    dev, pool = ranked(8)
    method = Cascade(Options(**options))
    assert run_method(method, pool, dev=dev).calls["fit"] == method.cost(3, 8).fit == calls * 8


def test_infinite_thresholds_survive_saving():
    method = fixed(INF, -INF)
    outcome = run_method(method, three(), questions=QUESTIONS[:1], reload_with=fixed(0.0, 0.0))
    assert outcome.state == {"thresholds": ["inf", "-inf"], "heads": []} and outcome.replies["t0"].text == "mid says"


def test_a_system_that_an_earlier_version_saved_is_read():
    system = fixed(0.0, 0.0).restore(three().pool, json.loads('{"thresholds": ["inf", -0.25]}'), None)
    assert system.thresholds == (INF, -0.25) and system.heads == ()


def test_the_fit_log_says_how_well_each_confidence_tells_right_from_wrong():
    dev, pool = ranked(40)
    outcome = run_method(Cascade(Options()), pool, dev=dev)
    first, second, last = outcome.noted("levels")
    # at every level the confidence is a random permutation: near a half, and by brute force
    right = [float(j % 4 < 1) for j in range(40)]
    order = random.Random(3).sample(range(1, 41), 40)
    assert first["auroc"] == pytest.approx(auroc([-o for o in order], right))
    assert 0 < second["auroc"] < 1 and "auroc" not in last
    assert len(outcome.noted("curve")) == 11
    assert "verdict_mass" not in first
    pool = ScriptedPool({"a": "bad reply", "b": "good reply", "c": "last"}, scores=judged)
    noted = run_method(Cascade(Options(confidence="p_true")), pool, dev=examples(4)).noted("levels")
    assert noted[0]["verdict_mass"] == pytest.approx(math.exp(-0.5) + math.exp(-2.5))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"select": "budget"}, "budget: missing, select=budget needs it"),
        ({"select": "fixed"}, "thresholds: missing"),
        ({"accept_fraction": 1.0}, "accept_fraction: expected number > 0 and < 1"),
        ({"max_depth": 2}, "max_depth: goes with select=budget or target"),
    ],
)
def test_bad_options(data, message):
    with pytest.raises(ConfigError, match=message):
        build(Options, data)


def test_bad_pools():
    blind = Pool([attrs.evolve(m, capabilities=frozenset({"generate"})) for m in three().pool])
    needs = Cascade(Options()).needs()
    problems = needs.problems(blind)
    assert len(problems) == 2 and "'weak'" in problems[0] and "logprobs" in problems[0]
    only_last = Pool([*three().pool[:2], blind[2]])
    assert needs.problems(only_last) == []
    assert "needs at least 2 models" in needs.problems(only_last[:1])[0]
    assert fixed(0.0).needs().problems(three().pool) == ["thresholds: 3 levels need 2 values, got 1"]
    with pytest.raises(ConfigError, match="needs dev examples"):
        run_method(Cascade(Options()), three())
    assert issubclass(CapabilityError, Exception)


def test_equal_confidences_are_told_and_odd_numbers_are_not():
    """Of 15 questions 3 reach the second level, half of which is 1 or 2; where all are equally sure, it is all or none."""
    dev, pool = ranked(15)
    cascade = Cascade(Options(accept_fraction=(0.8, 0.5)))
    assert not any("equal" in w for w in run_method(cascade, pool, dev=dev).warnings)
    alike = ScriptedPool(dict.fromkeys(("weak", "mid", "strong"), lambda call: generation("the answer is a", -1.0)))
    told = [w for w in run_method(cascade, alike, dev=dev).warnings if "equal" in w]
    assert "level 1 accepts 100% of the dev questions that reach it instead of 80%" in told[0]
