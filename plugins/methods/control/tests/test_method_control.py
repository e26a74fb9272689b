"""Controls on scripted models: budgets and votes by hand, what a placebo keeps and loses, and who pays for what."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import attrs
import pytest

from moco_core import (
    ConfigError,
    Context,
    Example,
    Generation,
    Method,
    NoOptions,
    Plugin,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
    Usage,
)
from moco_core.catalogue import installed
from moco_core.options import build
from moco_method_control.method import Control
from moco_method_control.options import Options
from moco_method_control.views import shuffled
from moco_toolkit_authoring import ScriptedCall, ScriptedPool, method_checks, open_state, run_method

test_conformance = method_checks(
    "control",
    settings=[
        {"kind": "self", "method": "majority_vote"},
        {"kind": "equal_budget", "method": {"name": "majority_vote", "samples": 2}},
        {"kind": "placebo", "method": "cascade"},
    ],
)

QUESTIONS = [Question(id=f"q{i}", prompt=f"{i} what?") for i in range(4)]
DEV = [Example(question=Question(id=f"d{i}", prompt=f"{i} dev?"), references=(str(i % 2),)) for i in range(8)]
GREEDY, COLD = Sampling(temperature=0.0, max_new_tokens=64), Sampling(temperature=0.3, max_new_tokens=64)


class AllSystem(System):
    async def respond(self, question: Question, context: Context) -> Reply:
        replies = await context.gather(context.generate(m, question) for m in self.pool)
        return Reply.of(replies[-1], models=list(self.pool.names))


class All(Method[NoOptions]):
    """Asks everybody once, the last one speaks."""

    system = AllSystem

    async def fit(self, pool: Pool, dev: Any, context: Context) -> AllSystem:
        return AllSystem(pool, self.options)


@attrs.frozen(eq=False, slots=False)
class RouterSystem(System):
    table: dict[str, int]

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.pool[self.table[question.prompt[0]]], question))


class Router(Method[NoOptions]):
    """Learns from dev which model is right on questions that begin alike."""

    system = RouterSystem

    def cost(self, models: int, dev: int) -> Any:
        return attrs.evolve(super().cost(models, dev), fit=models * dev, respond=1)

    async def fit(self, pool: Pool, dev: Any, context: Context) -> RouterSystem:
        async def learn() -> dict[str, int]:
            found = await context.evaluate(pool, dev)
            table: dict[str, int] = {}
            for kind in "ab":
                places = [j for j, e in enumerate(dev) if e.question.prompt[0] == kind]
                sums = [sum(row[j] or 0.0 for j in places) for row in found.scores]
                table[kind] = max(range(len(pool)), key=lambda i: sums[i])
            return table

        what = {"kind": "toy router", "dev": [e.id for e in dev], "models": [m.fingerprint for m in pool]}
        return RouterSystem(pool, self.options, await context.once(what, learn))


def plugin(cls: type[Method[Any]], name: str = "toy") -> Plugin:
    return Plugin(kind="method", name=name, given={}, options=NoOptions(), cls=cls)


def control(kind: str, cls: type[Method[Any]] = All, **options: Any) -> Control:
    return Control(Options(kind=kind, method=plugin(cls), **options))  # type: ignore[arg-type]


def says(text: str, prompt: int, completion: int, logprob: float | None = None) -> Generation:
    logprobs = () if logprob is None else (logprob,)
    return Generation(text=text, usage=Usage(prompt, completion), token_logprobs=logprobs, token_ids=(1,) * len(logprobs))


def right_on_dev(call: ScriptedCall) -> Generation:
    return says(f"The answer is {int(call.prompt[0]) % 2}" if "dev" in call.prompt else "The answer is 7", 10, 5)


def wrong(call: ScriptedCall) -> Generation:
    return says("The answer is 9", 20, 10)


# ---------------------------------------------------------------- equal budget


def test_the_best_model_is_asked_until_it_has_used_what_the_method_used() -> None:
    pool = ScriptedPool({"bad": wrong, "best": right_on_dev}, fields={m: {"prices": None} for m in ("bad", "best")})
    got = run_method(control("equal_budget"), pool, dev=DEV, questions=QUESTIONS, sampling=GREEDY)
    # the method reads and writes 30 + 15 tokens per question, a reply of the best model 15: three replies
    assert {r.meta["samples"] for r in got.replies.values()} == {3}
    meta = got.replies["q0"].meta
    assert (meta["budget"], meta["spent"], meta["unit"]) == (45, 45, "tokens") and got.replies["q0"].text == "The answer is 7"
    asked = [c for c in pool.history if c.model == "best" and "what" in c.prompt]
    temperatures = Counter(c.params["temperature"] for c in asked)
    # its own greedy reply, which the method asked for too, and two samples of each question
    assert temperatures == {0.0: 4, 0.7: 8}


def test_money_is_the_budget_where_all_models_have_a_price_and_the_last_sample_may_go_over_it() -> None:
    fields = {"bad": {"prices": (10.0, 20.0)}, "best": {"prices": (1.0, 2.0)}}
    got = run_method(
        control("equal_budget", max_samples=30), ScriptedPool({"bad": wrong, "best": right_on_dev}, fields=fields),
        dev=DEV, questions=QUESTIONS[:1], sampling=COLD,
    )  # fmt: skip
    meta = got.replies["q0"].meta
    # (20 * 10 + 10 * 20 + 10 * 1 + 5 * 2) / 1e6 over (10 * 1 + 5 * 2) / 1e6
    assert meta["unit"] == "money" and meta["budget"] == pytest.approx(420e-6) and meta["samples"] == 21
    fewer = run_method(
        control("equal_budget", max_samples=4), ScriptedPool({"bad": wrong, "best": right_on_dev}, fields=fields),
        dev=DEV, questions=QUESTIONS[:1],
    )  # fmt: skip
    assert fewer.replies["q0"].meta["samples"] == 4


def budgeted(*texts: tuple[str, float | None]) -> Reply:
    """The control's reply where the best model says these texts, one after the other."""
    queue = [says(text, 10, 5, logprob) for text, logprob in texts]
    state = {"next": 0}

    def best(call: ScriptedCall) -> Generation:
        if "dev" in call.prompt:
            return right_on_dev(call)
        state["next"] += 1
        return queue[state["next"] - 1]

    def dear(call: ScriptedCall) -> Generation:
        return says("The answer is 9", 15 * (len(texts) - 1), 0)

    pool = ScriptedPool({"dear": dear, "best": best}, fields={m: {"prices": None} for m in ("dear", "best")})
    got = run_method(control("equal_budget"), pool, dev=DEV, questions=QUESTIONS[:1], sampling=GREEDY)
    return got.replies["q0"]


def test_the_most_frequent_answer_wins_and_ties_go_to_the_most_probable_reply_or_the_first() -> None:
    reply = budgeted(("The answer is 1", None), ("The answer is 2", None), ("So the answer is 2", None))
    assert reply.text == "The answer is 2" and reply.meta["answers"] == ["1", "2", "2"]
    assert budgeted(("The answer is 1", None), ("The answer is 2", None)).text == "The answer is 1"
    assert budgeted(("The answer is 1", -0.9), ("The answer is 2", -0.1)).text == "The answer is 2"


def test_where_nothing_can_be_read_the_most_probable_reply_stands() -> None:
    reply = budgeted(("", -0.9), ("", -0.2), ("", -0.5))
    assert reply.meta["answers"] == [None] * 3


def test_the_methods_calls_are_its_own_and_only_the_new_ones_are_made() -> None:
    async def main() -> tuple[Any, Any]:
        pool = ScriptedPool({"bad": wrong, "best": right_on_dev})
        async with open_state(sampling=GREEDY) as state:
            system = await control("equal_budget").fit(pool.pool, DEV, state.context("fit"))
            scope = state.context("respond", QUESTIONS[0])
            await system.respond(QUESTIONS[0], scope)
            return {(phase, model): tally.calls for phase, model, tally in state.ledger}, (scope.calls, pool)

    tallies, (calls, pool) = asyncio.run(main())
    assert tallies["reference", "bad"] == tallies["reference", "best"] == 1
    assert {c.model for c in calls} == {"best"} and tallies["respond", "best"] == len(calls)
    assert ("respond", "bad") not in tallies
    # 16 on dev, the method's two, and the further samples: the first reply of the best model is the method's
    assert len(pool.history) == 16 + 2 + len(calls) - 1


# ---------------------------------------------------------------- self


def test_the_self_control_asks_copies_of_the_best_model_that_sample_apart() -> None:
    pool = ScriptedPool({"bad": wrong, "best": right_on_dev, "worse": wrong})
    got = run_method(control("self"), pool, dev=DEV, questions=QUESTIONS[:1], sampling=GREEDY, reload_with=control("self"))
    assert got.replies["q0"].meta["models"] == ["best", "best#2", "best#3"] and got.replies["q0"].text == "The answer is 7"
    asked = [c for c in pool.history if "what" in c.prompt]
    assert {c.params["temperature"] for c in asked} == {0.7} and len({c.seed for c in asked}) == 3


def test_a_run_that_samples_keeps_its_temperature() -> None:
    pool = ScriptedPool({"bad": wrong, "best": right_on_dev})
    run_method(control("self"), pool, dev=DEV, questions=QUESTIONS[:1], sampling=COLD)
    assert {c.params["temperature"] for c in pool.history} == {0.3}


def test_what_the_method_needs_is_asked_of_copies_of_every_model() -> None:
    class Fussy(All):
        def needs(self) -> Any:
            return attrs.evolve(super().needs(), check=lambda pool: [f"dislikes {pool[0].name}"])

    problems = control("self", Fussy).needs().problems(ScriptedPool({"a": "x", "b": "x"}).models())
    assert problems == ["copies of one model: dislikes a", "copies of one model: dislikes b"]


# ---------------------------------------------------------------- placebo


def routed(seed: int, kind: str | None) -> float:
    """How often a router, or its placebo, sends a question to the model that knows it; of two kinds, 10 dev examples each."""
    rng = random.Random(seed)
    dev = [Example(question=Question(id=f"d{i}", prompt=f"{'ab'[i % 2]}{i}"), references=("1",)) for i in range(20)]
    asked = [Question(id=f"t{i}", prompt=f"{'ab'[i % 2]}{100 + i}") for i in range(2)]

    def knows(kind: str) -> Any:
        return lambda call: "The answer is 1" if (call.prompt[0] == kind) == (hash_of(call) < 0.9) else "The answer is 0"

    def hash_of(call: ScriptedCall) -> float:
        return random.Random(f"{seed} {call.prompt}").random() if rng else 0.0

    pool = ScriptedPool({"a": knows("a"), "b": knows("b")})
    method = Router(NoOptions()) if kind is None else control(kind, Router)
    run_method(method, pool, dev=dev, questions=asked, sampling=GREEDY, seed=seed)
    right = [c for c in pool.history if c.prompt in ("a100", "b101")]
    return sum(c.model == c.prompt[0] for c in right) / len(right)


@pytest.mark.parametrize("seeds", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_over_many_seeds_a_router_knows_its_models_and_its_placebo_does_not(seeds: int) -> None:
    assert sum(routed(seed, None) for seed in range(10)) / 10 > 0.95
    placebo = sum(routed(seed, "placebo") for seed in range(seeds)) / seeds
    assert abs(placebo - 0.5) <= 3.2 * 0.354 / seeds**0.5  # chance is 1/2, of two questions a seed


def test_a_placebo_keeps_the_distribution_of_scores_and_gives_one_reply_one_score() -> None:
    seen: list[Any] = []

    class Watch(All):
        async def fit(self, pool: Pool, dev: Any, context: Context) -> AllSystem:
            found = await context.evaluate(pool, dev)
            grades = [(await context.grade(e, Reply.of(g))).value for e, g in zip(dev, found.replies[0], strict=True)]
            seen.append((found, grades, [e.references for e in dev]))
            return AllSystem(pool, self.options)

        def learns(self) -> bool:
            return True

    dev = [Example(question=Question(id=f"d{i}", prompt=f"{i % 10} dev?"), references=(str(i % 3),)) for i in range(300)]
    pool = ScriptedPool({"a": "The answer is 0", "b": "The answer is 1"})
    run_method(control("placebo", Watch), pool, dev=dev, questions=QUESTIONS[:1], sampling=GREEDY)
    ((found, grades, references),) = seen
    assert grades == list(found.scores[0])
    assert sum(map(sum, found.scores)) / 600 == pytest.approx(1 / 3, abs=0.06)
    # a third of the replies of each model is right; which, the placebo does not say
    agree = sum(score == float(e.references == ("0",)) for score, e in zip(found.scores[0], dev, strict=True))
    assert agree / 300 == pytest.approx(5 / 9, abs=0.09)
    assert sorted(references) == sorted(e.references for e in dev) and references != [e.references for e in dev]


def test_references_move_among_examples_of_one_form_alone() -> None:
    choice = [
        Example(question=Question(id=f"c{i}", prompt="?", choices=("x",) * (2 + i % 2), answer_kind="choice"), answer=i % 2)
        for i in range(20)
    ]
    moved = shuffled([*choice, *DEV], random.Random(0))
    assert [e.question for e in moved] == [e.question for e in (*choice, *DEV)]
    for size in (2, 3):
        mine = [i for i, e in enumerate(choice) if len(e.question.choices) == size]
        assert Counter(moved[i].answer for i in mine) == Counter(choice[i].answer for i in mine)
    assert all(e.references for e in moved[20:]) and not any(e.references for e in moved[:20])


def test_a_placebo_of_what_learns_nothing_says_so() -> None:
    got = run_method(control("placebo"), ScriptedPool({"a": wrong, "b": right_on_dev}), dev=DEV, questions=QUESTIONS)
    assert got.warnings == ["control: toy learns nothing from dev: its placebo is the method itself"]
    assert not All(NoOptions()).learns() and Router(NoOptions()).learns()


def test_without_dev_no_model_is_known_to_be_the_best() -> None:
    with pytest.raises(ConfigError, match="there are none; raise dev"):
        run_method(control("self"), ScriptedPool({"a": wrong, "b": wrong}), questions=QUESTIONS)


def test_a_method_is_named_in_the_options_of_its_control() -> None:
    with pytest.raises(ConfigError, match="method"):
        build(Options, {"kind": "self"}, plugins=installed())
    with pytest.raises(ConfigError, match="expected one of self, equal_budget, placebo, got 'selv', did you mean 'self'"):
        build(Options, {"kind": "selv", "method": "majority_vote"}, plugins=installed())
