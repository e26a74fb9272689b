"""How often whole runs end in KEEP, with their controls, over 200 draws of questions: nothing is simulated but the models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import moco_core as moco
from moco_core import (
    Context,
    Dataset,
    DatasetFacts,
    Example,
    Method,
    Model,
    NoOptions,
    Pool,
    PoolSource,
    Question,
    Reply,
    Split,
    System,
    compare,
    make_reports,
    option,
)
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedCall, ScriptedPool
from moco_toolkit_comparison import Comparison, judge

DRAWS = 200
SERVED: list[tuple[Any, ...]] = []
"""Every call that an engine answered."""


def drawn(*parts: object) -> float:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16) / 16**12


class Skilled(PoolSource[NoOptions]):
    """Two models that are right on six questions of ten; asked for their best, on seven. Half of it is the question's ease."""

    def models(self) -> Sequence[Model]:
        def says(call: ScriptedCall) -> str:
            SERVED.append((call.model, call.prompt, call.seed, tuple(sorted(call.params.items(), key=str))))
            skill = 0.7 if "Do your best" in call.prompt else 0.6
            question = call.prompt.split(":")[-1]
            ease = question if drawn("shared", call.model, call.prompt) < 0.5 else (call.model, call.prompt, call.seed)
            return f"The answer is {int(drawn(ease) < skill)}."

        return ScriptedPool({"a": says, "b": says}, fields={name: {"prices": None} for name in "ab"}).models()


@attrs.frozen(kw_only=True)
class DrawOptions:
    """Which questions."""

    draw: int = option(0, help="which draw")
    size: int = option(400, help="how many test questions")


class Drawn(Dataset[DrawOptions]):
    """Questions for all of which 1 is right."""

    Options = DrawOptions
    facts = DatasetFacts(title="Drawn", metric="exact_match")

    def examples(self, split: Split) -> Iterator[Example]:
        for i in range(self.options.size if split == "test" else 20):
            prompt = f"Answer: {self.options.draw} {split} {i}?"
            yield Example(question=Question(id=f"{split}{i}", prompt=prompt, answer_kind="integer"), references=("1",))


class IdleSystem(System):
    """Asks one of the models, whichever."""

    before = ""

    async def respond(self, question: Question, context: Context) -> Reply:
        model = context.rng("which").choice(self.pool)
        return Reply.of(await context.generate(model, f"{self.before}{question.text()}"))


class Idle(Method[NoOptions]):
    """A router that knows nothing."""

    system: type[System] = IdleSystem

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> System:
        return self.system(pool, self.options)


@attrs.define(eq=False, slots=False)
class LearnerSystem(System):
    """Asks the model that was chosen."""

    chosen: str

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.pool.named(self.chosen), question))


class Learner(Method[NoOptions]):
    """Chooses one of the models by its dev score."""

    system = LearnerSystem

    def learns(self) -> bool:
        return True

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> System:
        evaluation = await context.evaluate(pool, dev)
        return LearnerSystem(pool, self.options, pool[evaluation.best()].name)


class BetterSystem(IdleSystem):
    """Is right ten points more often."""

    before = "Do your best. "


class Better(Idle):
    """A collaboration that helps."""

    system = BetterSystem


def decision(comparison: Comparison, method: str, judged: str) -> str:
    """Return what the rule says of a method, or of one of its controls, put into the method's place."""
    (standing,) = (s for s in comparison.standings if s.label == method)
    if not judged:
        assert standing.verdict is not None
        return standing.verdict.decision
    controls, best = comparison.controls(standing.row), comparison.report.best
    assert best is not None
    against = {"best single": best, "equal budget": controls["equal budget"]}
    found = {name: compare(controls[judged].units, row.units, 0, comparison.rule.level) for name, row in against.items()}
    return judge({name: (c.low, c.high) for name, c in found.items() if c}, comparison.rule.gain).decision


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    kinds = {"skilled": Skilled, "drawn": Drawn, "idle": Idle, "learner": Learner, "better": Better}
    for name, cls in kinds.items():
        moco.register(cls, name)

    def count(method: str, size: int, draws: int, judged: str = "") -> int:
        found = 0
        for draw in range(draws):
            SERVED.clear()
            dataset = {"name": "drawn", "draw": draw, "size": size}
            controls = ["equal_budget", *([judged] if judged else [])]
            runs = moco.run(pool="skilled", method=method, dataset=dataset, controls=controls, out=f"runs/{draw}").runs
            assert len(SERVED) == len({*SERVED})  # the union of the distinct calls, no more
            found += decision(Comparison(make_reports(runs)[0]), method, judged) == "KEEP"
        print(f"{judged or method}: KEEP in {found} of {draws} draws of {size} questions")
        return found

    return count


def draws(few: int) -> Any:
    return pytest.mark.parametrize("draws", [few, pytest.param(DRAWS, marks=pytest.mark.slow)])


@draws(few=3)
def test_an_idle_method_is_kept_in_at_most_one_draw_of_twenty(kept: Any, draws: int) -> None:
    assert kept("idle", 100, draws) <= 0.05 * draws


@draws(few=3)
def test_a_placebo_in_its_methods_place_is_kept_in_at_most_one_draw_of_twenty(kept: Any, draws: int) -> None:
    assert kept("learner", 100, draws, "placebo") <= 0.05 * draws


@draws(few=2)
def test_a_gain_of_ten_points_among_400_questions_is_kept_in_four_draws_of_five(kept: Any, draws: int) -> None:
    # of two draws, one: that none is kept would be one chance in twenty-five
    assert kept("better", 400, draws) >= (0.8 * draws if draws == DRAWS else 1)
