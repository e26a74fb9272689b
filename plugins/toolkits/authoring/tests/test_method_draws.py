"""Which seeds a method draws with: those that leave the run's out are named, with the line that gave them."""

from __future__ import annotations

import asyncio
import random
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from conforming import GoodMethod, GoodOptions, GoodSystem

from moco_core import Context, Example, Pool, option
from moco_core.catalogue import Catalogue
from moco_core.types import digest
from moco_toolkit_authoring import run_checks
from moco_toolkit_authoring.draws import seeds_watched

numpy = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")


class Drawing(GoodMethod):
    """Draws while it fits; nothing of it is told."""

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        self.draw(context)
        return await super().fit(pool, dev, context)

    @abstractmethod
    def draw(self, context: Context) -> None: ...


class SplitsAlike(Drawing):
    """Draws with a constant."""

    def draw(self, context: Context) -> None:
        random.Random(0).shuffle([1, 2, 3])


class SplitsByName(Drawing):
    """Draws with what it is given, which the run's seed is no part of."""

    def draw(self, context: Context) -> None:
        generator = random.Random()
        generator.seed(digest("split", self.options.name))
        generator.random()


@attrs.frozen(kw_only=True)
class Seeded(GoodOptions):
    """With a seed of its own."""

    seed: int = option(0, help="a seed")


class DrawsTwice(Drawing):
    """One of its draws follows the run's seed, one its option alone."""

    Options = Seeded

    def draw(self, context: Context) -> None:
        context.rng(self.options.seed).random()
        random.Random(self.options.seed).random()


class DrawsWithNumpy(Drawing):
    """As many do."""

    def draw(self, context: Context) -> None:
        numpy.random.default_rng(7).random()


class DrawsWithTheOlderNumpy(Drawing):
    """As many did."""

    def draw(self, context: Context) -> None:
        numpy.random.RandomState(7).rand()


class DrawsWithTorch(Drawing):
    """In a thread, so that the loop stays free."""

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        await asyncio.to_thread(self.draw, context)
        return await GoodMethod.fit(self, pool, dev, context)

    def draw(self, context: Context) -> None:
        torch.randperm(3, generator=torch.Generator().manual_seed(7))


class DrawsAsItShould(Drawing):
    """All its seeds come from the run's; what draws nothing may have any."""

    def draw(self, context: Context) -> None:
        seed = context.rng("draws").getrandbits(31)
        random.Random(seed).random()
        numpy.random.default_rng(seed).random()
        numpy.random.RandomState(seed).rand()
        torch.randperm(3, generator=torch.Generator().manual_seed(seed))
        for idle in (random.Random, numpy.random.default_rng, numpy.random.RandomState, torch.Generator().manual_seed):
            idle(0)


@pytest.mark.parametrize(
    ("method", "seed"),
    [
        (SplitsAlike, "0"),
        (SplitsByName, repr(digest("split", "x"))),
        (DrawsTwice, "0"),
        (DrawsWithNumpy, "7"),
        (DrawsWithTheOlderNumpy, "7"),
        (DrawsWithTorch, "7"),
    ],
)
@pytest.mark.usefixtures("no_processes")
def test_a_draw_that_leaves_the_runs_seed_out_is_named(catalogue: Catalogue, method: type[GoodMethod], seed: str) -> None:
    catalogue.register(method, "broken")
    (found,) = [r for r in run_checks("method", "broken", catalogue=catalogue) if not r.ok]
    assert found.name == "the_runs_seed_reaches_every_draw"
    told = f"draws with the seed {seed} whatever the run's seed is; draw from context.rng(...)"
    assert re.fullmatch(rf"tests/test_method_draws\.py:\d+ {re.escape(told)}", found.message)


def test_draws_that_follow_the_runs_seed_pass(catalogue: Catalogue, failures: Callable[..., list[str]]) -> None:
    catalogue.register(DrawsAsItShould, "drawing")
    assert failures("method", "drawing", catalogue) == []


def test_only_a_package_and_the_toolkits_that_it_calls_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def module(name: str, code: str, **names: Any) -> dict[str, Any]:
        space = {"__name__": name, "random": random, **names}
        exec(compile(code, f"/{name}/module.py", "exec"), space)
        return space

    toolkit = module("moco_toolkit_some", "def draw(seed): random.Random(seed).random()")
    library = module("library", "def draw(seed): random.Random(seed).random()")
    code = "def work():\n    random.Random(1).random()\n    toolkit(2)\n    library(3)"
    own = module("own", code, toolkit=toolkit["draw"], library=library["draw"])
    with seeds_watched("own") as draws:
        own["work"]()
        toolkit["draw"](4)
        random.Random(5).random()
    assert draws.found == {"own/module.py:2": {"1"}, "moco_toolkit_some/module.py:1": {"2"}}


def test_libraries_are_as_before_afterwards_and_know_what_was_made_before() -> None:
    made = numpy.random.RandomState(0), torch.Generator()
    before = random.Random.seed, numpy.random.default_rng, numpy.random.RandomState, torch.Generator, torch.manual_seed
    state = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with seeds_watched("own"):
        assert isinstance(made[0], numpy.random.RandomState) and isinstance(made[1], torch.Generator)
        assert isinstance(numpy.random.RandomState(1), type(made[0]))
        want = [one.manual_seed(3).get_state().tolist() for one in (made[1], torch.Generator())]
        assert want[0] == want[1]
        assert numpy.random.RandomState(0).rand() == made[0].rand()
    after = random.Random.seed, numpy.random.default_rng, numpy.random.RandomState, torch.Generator, torch.manual_seed
    assert before == after
    assert state == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
