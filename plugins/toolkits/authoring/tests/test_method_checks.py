"""Every method check fails on a method with exactly that fault, and on no other."""

from __future__ import annotations

import asyncio
import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from conforming import GoodMethod, GoodOptions, GoodSystem

from moco_core import Context, Cost, Example, ModelCallError, Needs, Pool, Question, Reply, option
from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import checks_of, run_checks
from moco_toolkit_authoring import method as method_module

Failures = Callable[..., list[str]]


class CopiesOptions(GoodMethod):
    """Keeps a copy of its options."""

    def __init__(self, options: GoodOptions) -> None:
        super().__init__(attrs.evolve(options))


class NegativeCost(GoodMethod):
    """Names an unknown capability."""

    def needs(self) -> Needs:
        return Needs(capabilities={"generate", "telepathy"})


class _Lenient(Needs):
    def problems(self, pool: Sequence[Any]) -> list[str]:
        return []


class AcceptsAnyPool(GoodMethod):
    """Its needs never object."""

    def needs(self) -> Needs:
        return _Lenient(capabilities={"generate"}, min_models=2)


class _NoReply(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        return (await super().respond(question, context)).text  # type: ignore[return-value]


class AnswersWithText(GoodMethod):
    """Returns text instead of a Reply."""

    system = _NoReply


_numbers = itertools.count()


class _Salted(GoodSystem):
    salt = ""

    async def respond(self, question: Question, context: Context) -> Reply:
        return attrs.evolve(await super().respond(question, context), text=self.salt)

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "salt": self.salt}


class _SaltedMethod(GoodMethod):
    system = _Salted

    @abstractmethod
    def salt(self) -> str: ...

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        system = await super().fit(pool, dev, context)
        system.salt = self.salt()  # type: ignore[attr-defined]
        return system

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> GoodSystem:
        system = super().restore(pool, state, folder)
        system.salt = state["salt"]  # type: ignore[attr-defined]
        return system


class DrawsFromNowhere(_SaltedMethod):
    """Its replies depend on a number that is not derived from the seed."""

    def salt(self) -> str:
        return str(next(_numbers))


@attrs.frozen(kw_only=True)
class _Seeded(GoodOptions):
    seed: int = option(0, help="a seed")


class DrawsFromItsOwnSeed(_SaltedMethod):
    """What it learns depends on its option alone, so that several runs are one."""

    Options = _Seeded

    def salt(self) -> str:
        return str(getattr(self.options, "seed", 0))


_fits: dict[int, int] = {}
_alive: list[object] = []


class CountsItsFits(_SaltedMethod):
    """A second fit of one instance gives another system."""

    def salt(self) -> str:
        _alive.append(self)  # ids of dead objects are used again
        _fits[id(self)] = _fits.get(id(self), 0) + 1
        return str(_fits[id(self)])


class RemembersItsFit(GoodMethod):
    """Leaves what it learnt on the method."""

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        self.learnt = list(dev)
        return await super().fit(pool, dev, context)


class ForgetsItsState(_SaltedMethod):
    """A restored system lacks what fitting learnt."""

    def salt(self) -> str:
        return "learnt"

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> GoodSystem:
        return GoodMethod.restore(self, pool, state, folder)


class _Crowded(GoodSystem):
    def __init__(self, pool: Pool, order: Sequence[int]) -> None:
        super().__init__(pool, order)
        self.busy = 0

    async def respond(self, question: Question, context: Context) -> Reply:
        self.busy += 1
        try:
            reply = await super().respond(question, context)
        finally:
            together, self.busy = self.busy, 0
        return attrs.evolve(reply, text=f"{reply.text} ({together} together)")


class DependsOnCompany(GoodMethod):
    """Its replies depend on how many questions are worked on."""

    system = _Crowded


class _Counting(GoodSystem):
    def __init__(self, pool: Pool, order: Sequence[int]) -> None:
        super().__init__(pool, order)
        self.asked = 0

    async def respond(self, question: Question, context: Context) -> Reply:
        self.asked += 1
        number = self.asked
        return attrs.evolve(await super().respond(question, context), text=f"reply {number}")


class NumbersItsReplies(GoodMethod):
    """Its replies depend on what was asked before."""

    system = _Counting


class _Scoring(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        await context.score(self.pool[0], question, ["yes"])
        return await super().respond(question, context)


class ScoresInSecret(GoodMethod):
    """Uses a capability that its needs do not name."""

    system = _Scoring

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=models * dev, respond=models + 1)


class _Pair(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        await context.generate(self.pool[1], question)
        return await super().respond(question, context)


class WantsTwo(GoodMethod):
    """Says it can do with one model, and uses two."""

    system = _Pair

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=models * dev, respond=models + 1)


class CostsMore(GoodMethod):
    """Makes more calls than it predicts."""

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=models * dev, respond=models - 1)


class _Trusting(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        reply = await super().respond(question, context)
        if not reply.text.split():
            raise IndexError("list index out of range")
        return attrs.evolve(reply, text=str(context.read(question, reply.text).key.upper()))  # type: ignore[union-attr]


class TrustsReplies(GoodMethod):
    """Takes for granted that every reply can be read."""

    system = _Trusting


class _Sulking(GoodSystem):
    def __init__(self, pool: Pool, order: Sequence[int]) -> None:
        super().__init__(pool, order)
        self.broken = False

    async def respond(self, question: Question, context: Context) -> Reply:
        if self.broken:
            raise ModelCallError("not after what happened")
        try:
            return await super().respond(question, context)
        except ModelCallError:
            self.broken = True
            raise


class GivesUp(GoodMethod):
    """One failing question fails all that come after it."""

    system = _Sulking


class _Careless(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        self.tasks = [asyncio.ensure_future(context.generate(m, question)) for m in self.pool]
        return Reply.of((await asyncio.gather(*(asyncio.shield(t) for t in self.tasks)))[0])


class LeavesTasks(GoodMethod):
    """Starts tasks that nobody cancels."""

    system = _Careless


class _Signing(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        reply = await super().respond(question, context)
        return attrs.evolve(reply, text=f"{reply.text} (by {len(self.pool)} models)")


class SignsItsReplies(GoodMethod):
    """Identical models do not give the single model's reply."""

    system = _Signing


BROKEN = {
    "constructor_only_stores_options": CopiesOptions,
    "needs_are_well_formed": NegativeCost,
    "refuses_unfit_pools": AcceptsAnyPool,
    "answers_every_question": AnswersWithText,
    "same_seed_same_replies": DrawsFromNowhere,
    "the_runs_seed_reaches_every_draw": DrawsFromItsOwnSeed,
    "fit_is_idempotent": CountsItsFits,
    "fit_changes_nothing": RemembersItsFit,
    "saved_system_restores": ForgetsItsState,
    "concurrency_changes_nothing": DependsOnCompany,
    "order_changes_nothing": NumbersItsReplies,
    "uses_only_declared_capabilities": ScoresInSecret,
    "smallest_pool_works": WantsTwo,
    "cost_is_an_upper_bound": CostsMore,
    "unparsable_replies_are_handled": TrustsReplies,
    "a_failing_call_loses_one_question": GivesUp,
    "cancellation_leaves_no_task": LeavesTasks,
    "identical_models_equal_the_single_model": SignsItsReplies,
}


def test_the_good_method_passes_everything(catalogue: Catalogue) -> None:
    catalogue.register(GoodMethod)
    results = run_checks("method", "good_method", catalogue=catalogue, identical_is_single=True)
    assert [r for r in results if r.status != "passed"] == []
    assert {c.name for c in method_module.CHECKS} <= {r.name for r in results}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_alone(name: str, catalogue: Catalogue, failures: Failures) -> None:
    catalogue.register(BROKEN[name], "broken")
    identical = name == "identical_models_equal_the_single_model"
    assert failures("method", "broken", catalogue, identical_is_single=identical) == [name]


def test_every_method_check_has_its_broken_method() -> None:
    assert set(BROKEN) == {c.name for c in method_module.CHECKS}
    assert {c.name for c in method_module.CHECKS} < {c.name for c in checks_of("method")}
