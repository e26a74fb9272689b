"""Every check of conduct fails on a method with exactly that fault, and on no other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from conforming import GoodMethod, GoodSystem

from moco_core import Context, Cost, Example, ModelCallError, Pool, Question, Reply, Sampling, System
from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import checks_of, run_checks
from moco_toolkit_authoring.conduct import CHECKS
from moco_toolkit_authoring.method_case import MethodCase, MethodPlan

USUAL = [2, 0, 1]
"""How the models rank that every method is tried on first."""


class AsksBesideTheCache(GoodMethod):
    """Asks a model in a way that is not kept."""

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        given = {"messages": [["user", "Are you there?"]]}
        await context.call(pool[0], "generate", given, Sampling().params(), cached=False)
        return await super().fit(pool, dev, context)


class TrainsAnew(GoodMethod):
    """Does by hand, at every fit, what an artifact would keep."""

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        site: Any = None
        job: Any = None
        with contextlib.suppress(Exception):
            pool[0].engine.train(pool[0], job, site)
        return await super().fit(pool, dev, context)


class _Forgetful(GoodSystem):
    def state(self) -> Mapping[str, Any]:
        return {"order": USUAL if self.order == USUAL else sorted(USUAL)}


class LosesItsRanking(GoodMethod):
    """Saves whether the ranking is the usual one, not what it is."""

    system = _Forgetful


class _Hashed(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        models = list({m.name: m for m in self.pool}.values())
        place = hash(question.id)
        reply = await context.generate(models[place % len(models)], question)
        return Reply.of(reply, place=place % 1000)


class PicksByHash(GoodMethod):
    """Chooses a model by a question's hash()."""

    system = _Hashed


class _Sure(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        replies = await context.gather(context.generate(m, question) for m in self.pool)
        return Reply.of(max(replies, key=lambda r: sum(r.token_logprobs) / max(len(r.token_logprobs), 1)))


class LooksAtLogprobs(GoodMethod):
    """Takes the surest reply without saying what it needs."""

    system = _Sure


class Overestimates(GoodMethod):
    """Expects a thousand times the work."""

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=1000 * models * dev, respond=models)


class _Rash(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        replies = [await context.generate(m, question, tell=context.tell) for m in self.pool]
        return Reply.of(replies[-1])


class TellsTooSoon(GoodMethod):
    """Has every model's text read along, and takes the last one's."""

    system = _Rash


class _Silent(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        try:
            return await super().respond(question, context)
        except ModelCallError:
            return Reply(text="I do not know.")


class HidesErrors(GoodMethod):
    """Makes an answer of every error."""

    system = _Silent


class _Sleepy(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        time.sleep(0.001)
        return await super().respond(question, context)


class Sleeps(GoodMethod):
    """Waits a little between questions."""

    system = _Sleepy


class WritesADiary(GoodMethod):
    """Notes its ranking in a file of its own."""

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        system = await super().fit(pool, dev, context)
        Path("ranking.txt").write_text(str(system.order))
        return system


class _Background(GoodSystem):
    async def respond(self, question: Question, context: Context) -> Reply:
        self.later = asyncio.ensure_future(asyncio.sleep(3600))
        return await super().respond(question, context)


class WorksOn(GoodMethod):
    """Leaves something running."""

    system = _Background


BROKEN = [
    ("fitting_twice_makes_no_new_call", AsksBesideTheCache),
    ("fitting_twice_makes_no_new_call", TrainsAnew),
    ("what_was_learnt_is_saved", LosesItsRanking),
    ("hash_order_changes_nothing", PicksByHash),
    ("undeclared_fields_decide_nothing", LooksAtLogprobs),
    ("cost_is_no_wild_guess", Overestimates),
    ("what_is_told_is_not_taken_back", TellsTooSoon),
    ("failures_are_not_hidden", HidesErrors),
    ("the_loop_is_never_blocked", Sleeps),
    ("nothing_is_left_behind", WritesADiary),
    ("nothing_is_left_behind", WorksOn),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a broken method writes lie in a folder of the test's."""
    monkeypatch.chdir(tmp_path)


def ours(cls: type, catalogue: Catalogue) -> dict[str, str]:
    catalogue.register(cls, "sample")
    names = {c.name for c in CHECKS}
    return {r.name: r.status for r in run_checks("method", "sample", catalogue=catalogue) if r.name in names}


def alone(name: str, cls: type, catalogue: Catalogue) -> None:
    """Run one check of a method, and no other."""
    catalogue.register(cls, cls.__name__)
    (item,) = (c for c in checks_of("method") if c.name == name)
    item.run(MethodCase(catalogue, "method", cls.__name__, {}, MethodPlan()))


def test_a_good_method_passes(catalogue: Catalogue) -> None:
    assert set(ours(GoodMethod, catalogue).values()) == {"passed"}


@pytest.mark.parametrize(("check", "cls"), BROKEN, ids=[c.__name__ for _, c in BROKEN])
def test_a_fault_fails_its_own_check_alone(check: str, cls: type, catalogue: Catalogue) -> None:
    assert [name for name, status in ours(cls, catalogue).items() if status == "failed"] == [check]


def test_every_check_of_conduct_has_its_broken_method() -> None:
    assert {name for name, _ in BROKEN} == {c.name for c in CHECKS}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_state_that_is_no_json_is_named(value: float, catalogue: Catalogue) -> None:
    class Endless(GoodSystem):
        def state(self) -> Mapping[str, Any]:
            return {"order": self.order, "threshold": value}

    class Unbounded(GoodMethod):
        """Starts from an infinite threshold."""

        system = Endless

    catalogue.register(Unbounded, "sample")
    results = {r.name: r for r in run_checks("method", "sample", catalogue=catalogue)}
    assert results["saved_system_restores"].status == "failed"
    assert "infinity and NaN are not" in results["saved_system_restores"].message


def _prints() -> None:
    print("asking")


def _seeds() -> None:
    random.seed(4)


def _moves() -> None:
    os.chdir("/")


def _starts_a_program() -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def _starts_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(3,), name="keeps-watch", daemon=True).start()


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (_prints, "'asking\\n"),
        (_seeds, "use context.rng"),
        (_moves, "the working directory is another one"),
        (_starts_a_program, "programs still run"),
        (_starts_a_thread, "threads still run (keeps-watch"),
    ],
)
def test_what_a_method_does_to_its_process_is_named(
    does: Callable[[], None], told: str, catalogue: Catalogue
) -> None:
    class Busy(GoodSystem):
        async def respond(self, question: Question, context: Context) -> Reply:
            does()
            return await super().respond(question, context)

    class BusyMethod(GoodMethod):
        """Does something beside answering."""

        system = Busy

    catalogue.register(BusyMethod, "sample")
    with pytest.raises(AssertionError, match=re.escape(told)):
        alone("nothing_is_left_behind", BusyMethod, catalogue)


def test_files_are_saved_into_the_folder_given_and_nowhere_else(catalogue: Catalogue) -> None:
    class Beside(GoodSystem):
        def save_files(self, folder: Path) -> None:
            (folder.parent / "table.json").write_text("{}")

    class Strays(GoodMethod):
        """Writes beside the folder it is given."""

        system = Beside

    with pytest.raises(AssertionError, match=r"table\.json was written"):
        alone("nothing_is_left_behind", Strays, catalogue)


def test_examples_that_fit_changes_and_meta_that_is_no_json_are_named(catalogue: Catalogue) -> None:
    class Marks(GoodMethod):
        """Notes something on the examples."""

        async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> System:
            for example in dev:
                object.__setattr__(example.question, "prompt", "seen")
            return await super().fit(pool, dev, context)

    class Doubtful(GoodSystem):
        async def respond(self, question: Question, context: Context) -> Reply:
            return attrs.evolve(await super().respond(question, context), meta={"margin": float("nan")})

    class Doubts(GoodMethod):
        """Has no margin."""

        system = Doubtful

    with pytest.raises(AssertionError, match="fit changed the dev examples"):
        alone("fit_changes_nothing", Marks, catalogue)
    with pytest.raises(AssertionError, match="is not JSON"):
        alone("answers_every_question", Doubts, catalogue)


def test_a_method_of_the_weight_level_asks_for_weights(catalogue: Catalogue) -> None:
    class Heavy(GoodMethod):
        """Says that it merges."""

        level = "weight"

    with pytest.raises(AssertionError, match="asks for no model's weights"):
        alone("needs_are_well_formed", Heavy, catalogue)


def test_a_class_that_no_other_process_finds_is_told_and_not_taken_for_sound(catalogue: Catalogue) -> None:
    class Local(PicksByHash):
        """Chooses by a question's hash(), and is made while a function runs."""

    catalogue.register(Local, "broken")
    (found,) = [r for r in run_checks("method", "broken", catalogue=catalogue) if r.name == "hash_order_changes_nothing"]
    assert found.status == "skipped" and "define it at the top level of its file, or package it" in found.message
