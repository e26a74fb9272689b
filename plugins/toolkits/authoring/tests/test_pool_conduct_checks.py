"""Every check of a pool's conduct fails on a pool with exactly that fault, and on no other."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from conforming import GoodEngine, GoodPool

from moco_core import Call, Generation, Model, Sampling
from moco_core.catalogue import Catalogue
from moco_core.types import FinishReason, digest
from moco_toolkit_authoring import checks_of, pool_conduct, traces
from moco_toolkit_authoring.pool_case import PoolCase, PoolPlan
from moco_toolkit_authoring.suite import perform

Failures = Callable[..., list[str]]


class NumbersByHash(GoodPool):
    """Its fingerprints are what hash() says."""

    def models(self) -> Sequence[Model]:
        return [self.model(name, str(hash(name))) for name in ("one", "two")]


class _Forgetful(GoodEngine):
    def answer(self, call: Call) -> Any:
        if call.kind == "generate":
            call = attrs.evolve(call, input={"messages": call.input["messages"][-1:]})
        return super().answer(call)


class ReadsTheLastMessage(GoodPool):
    """Hands on the last message alone."""

    engine_class = _Forgetful


class _Single(GoodEngine):
    def answer(self, call: Call) -> Any:
        if call.kind != "generate":
            return super().answer(call)
        return self.write(Sampling.from_params(call.params), digest(call.input, call.seed))


class AsksOneModel(GoodPool):
    """Asks one model, whichever is meant."""

    engine_class = _Single


class _Renaming(GoodEngine):
    """Calls one reason by which a reply ended by the name of another."""

    was: ClassVar[FinishReason] = "eos"
    said: ClassVar[FinishReason] = "length"

    def write(self, sampling: Sampling, salt: str) -> Generation:
        found = super().write(sampling, salt)
        renamed = found.finish_reason == self.was and self.meant(found, sampling)
        return attrs.evolve(found, finish_reason=self.said) if renamed else found

    def meant(self, found: Generation, sampling: Sampling) -> bool:
        return True


class _Stopped(_Renaming):
    said = "stop"


class SaysStopAtItsEnd(GoodPool):
    """Gives the service's word for an end, which is another one here."""

    engine_class = _Stopped


class _Unaware(_Renaming):
    was, said = "length", "eos"


class NeverSaysLength(GoodPool):
    """Calls a reply whole that its budget cut."""

    engine_class = _Unaware


class AlwaysSaysLength(GoodPool):
    """Calls a reply cut that ended by itself."""

    engine_class = _Renaming


class _Filled(_Renaming):
    def meant(self, found: Generation, sampling: Sampling) -> bool:
        return found.usage.completion_tokens == sampling.max_new_tokens


class FillsItsBudget(GoodPool):
    """Has no room left to say that it ended."""

    engine_class = _Filled


class _Greedy(GoodEngine):
    def answer(self, call: Call) -> Any:
        answer = super().answer(call)
        if call.kind == "generate":
            call.input["messages"].append(["assistant", answer.text])
        return answer


class AppendsItsReply(GoodPool):
    """Goes on with the conversation in the list that it was given."""

    engine_class = _Greedy


class _Chatty(GoodEngine):
    def answer(self, call: Call) -> Any:
        print("asked")
        return super().answer(call)


class PrintsWhatItDoes(GoodPool):
    """Prints a line for every call."""

    engine_class = _Chatty


BROKEN = {
    "hash_order_changes_nothing": NumbersByHash,
    "every_message_is_read": ReadsTheLastMessage,
    "models_answer_for_themselves": AsksOneModel,
    "finish_reasons_are_true": SaysStopAtItsEnd,
    "calls_are_left_as_they_are": AppendsItsReply,
    "asking_leaves_nothing_behind": PrintsWhatItDoes,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_alone(name: str, catalogue: Catalogue, failures: Failures) -> None:
    catalogue.register(BROKEN[name], "broken")
    plan = {"max_new_tokens": 40} if name == "finish_reasons_are_true" else {}  # replies end by themselves
    assert failures("pool", "broken", catalogue, processes="hash" in name, **plan) == [name]


@pytest.mark.parametrize("cls", [NeverSaysLength, AlwaysSaysLength])
def test_a_reply_that_its_budget_cut_is_not_called_whole_nor_the_other_way_round(
    cls: type, catalogue: Catalogue, failures: Failures
) -> None:
    catalogue.register(cls, "broken")
    assert failures("pool", "broken", catalogue) == ["finish_reasons_are_true"]


def test_a_reply_that_fills_its_budget_to_the_last_token_may_be_called_cut(
    catalogue: Catalogue, failures: Failures
) -> None:
    catalogue.register(FillsItsBudget, "full")
    assert failures("pool", "full", catalogue, max_new_tokens=15) == []


def test_every_check_of_conduct_has_its_broken_pool() -> None:
    assert set(BROKEN) == {c.name for c in pool_conduct.CHECKS}


def _moves(engine: Any) -> None:
    os.chdir("/")


def _writes(engine: Any) -> None:
    Path("answers.txt").write_text("x")


def _seeds(engine: Any) -> None:
    random.seed(4)


def _sets_a_variable(engine: Any) -> None:
    os.environ["ASKED"] = "yes"


def _silences(engine: Any) -> None:
    warnings.simplefilter("ignore")


def _starts_a_thread(engine: Any) -> None:
    threading.Thread(target=time.sleep, args=(4,), name="keeps-watch", daemon=True).start()


def _keeps_workers(engine: Any) -> None:
    engine.workers = ThreadPoolExecutor(1, thread_name_prefix="worker")
    engine.workers.submit(int)


def _starts_a_program(engine: Any) -> None:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def _starts_a_process(engine: Any) -> None:
    multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), name="child").start()


def _opens(engine: Any) -> None:
    engine.file = Path(__file__).open()  # noqa: SIM115


_STARTS = (_starts_a_thread, _keeps_workers, _starts_a_program, _starts_a_process, _opens)


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (_moves, "the working directory is another one"),
        (_writes, "answers.txt was written"),
        (_seeds, "random, the module, is seeded"),
        (_sets_a_variable, "ASKED of the environment"),
        (_silences, "the filters of warnings"),
        (_starts_a_thread, "threads still run (keeps-watch"),
        (_keeps_workers, "threads still run (worker"),
        (_starts_a_program, "programs still run"),
        (_starts_a_process, "programs still run (child"),
        (_opens, "files are still open"),
    ],
)
def test_what_an_engine_does_to_its_process_is_named(
    does: Callable[[Any], None], told: str, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[Any] = []

    class Busy(GoodEngine):
        def answer(self, call: Call) -> Any:
            if does not in _STARTS:
                does(self)
            elif call.seed is not None and not began:  # once is enough
                began.append(self)
                does(self)
            return super().answer(call)

    class BusyPool(GoodPool):
        """Does something beside answering."""

        engine_class = Busy

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(traces, "_PATIENCE", 0.2)
    catalogue.register(BusyPool, "busy")
    case = PoolCase(catalogue, "pool", "busy", {}, PoolPlan(prompts=("A?", "B?")))
    known = {c.name: c for c in checks_of("pool")}
    with pytest.raises(AssertionError) as failed:
        perform(known["asking_leaves_nothing_behind"], case, known)
    assert told in str(failed.value)
    for engine in began:
        if does is _opens:
            engine.file.close()
