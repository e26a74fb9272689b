"""Every pool check fails on a pool with exactly that fault, and on no other."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from conforming import GoodEngine, GoodPool

from moco_core import Call, Generation, Inbox, Model, Sampling, Usage
from moco_core.catalogue import Catalogue
from moco_core.types import digest
from moco_toolkit_authoring import pool as pool_module
from moco_toolkit_authoring import run_checks

Failures = Callable[..., list[str]]
_numbers = itertools.count()


class NoFingerprint(GoodPool):
    """One model has no fingerprint."""

    def models(self) -> Sequence[Model]:
        first, second = super().models()
        return [first, attrs.evolve(second, fingerprint="")]


class LoadsEagerly(GoodPool):
    """Describing the models loads their weights."""

    def models(self) -> Sequence[Model]:
        self.weights = sys.modules["torch"].Tensor()
        return super().models()


class FakeTensor:
    """Looks like half a million float32 numbers."""

    def numel(self) -> int:
        return 1 << 19

    def element_size(self) -> int:
        return 4


class ChangesFingerprints(GoodPool):
    """Every source has its own fingerprints."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.number = next(_numbers) % 2

    def models(self) -> Sequence[Model]:
        return [attrs.evolve(m, tokenizer="t", fingerprint=f"{m.name}{self.number}") for m in super().models()]


class _Ignorant(GoodEngine):
    def write(self, sampling: Sampling, salt: str) -> Generation:
        return super().write(sampling, "0" * 64)


class _Endless(GoodEngine):
    def write(self, sampling: Sampling, salt: str) -> Generation:
        return super().write(attrs.evolve(sampling, max_new_tokens=1000), salt)


class IgnoresTheBudget(GoodPool):
    """Writes more tokens than it may."""

    engine_class = _Endless


class _Unstoppable(GoodEngine):
    def write(self, sampling: Sampling, salt: str) -> Generation:
        return super().write(attrs.evolve(sampling, stop=()), salt)


class IgnoresStops(GoodPool):
    """Writes on after a stop string."""

    engine_class = _Unstoppable


class _Positive(GoodEngine):
    def write(self, sampling: Sampling, salt: str) -> Generation:
        reply = super().write(sampling, salt)
        return attrs.evolve(reply, token_logprobs=[0.5 for _ in reply.token_ids])


class ProbabilitiesAboveOne(GoodPool):
    """Its log-probabilities are positive."""

    engine_class = _Positive


class _Uneven(GoodEngine):
    def answer(self, call: Call) -> Any:
        return tuple((1.0,) * len(t) for t in call.input["texts"]) if call.kind == "embed" else super().answer(call)


class UnevenEmbeddings(GoodPool):
    """Its embeddings differ in length."""

    engine_class = _Uneven


class _Moody(GoodEngine):
    def answer(self, call: Call) -> Any:
        if call.kind == "generate" and call.seed is not None:
            return self.write(Sampling.from_params(call.params), digest(next(_numbers)))
        return super().answer(call)


class SamplesFromAShared(GoodPool):
    """Samples from one generator for all calls."""

    engine_class = _Moody


class _Crowded(GoodEngine):
    def serve(self, model: Model, inbox: Inbox) -> None:
        while calls := inbox.take():
            good = [call for call in calls if self.accepts(call, inbox)]
            inbox.resolve([(call, self.crowd(self.answer(call), len(good))) for call in good])

    def crowd(self, answer: Any, count: int) -> Any:
        if count > 2 and isinstance(answer, Generation):
            return attrs.evolve(answer, text=answer.text[::-1])
        return answer


class DependsOnTheBatch(GoodPool):
    """Its replies depend on what else is in the batch."""

    engine_class = _Crowded


class _Willing(GoodEngine):
    def accepts(self, call: Call, inbox: Inbox) -> bool:
        return True


class AnswersAnything(GoodPool):
    """Answers calls that it does not declare."""

    engine_class = _Willing


class _ClosesOnce(GoodEngine):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


class ClosesOnce(GoodPool):
    """Cannot be closed twice."""

    engine_class = _ClosesOnce


class _Decorated(GoodEngine):
    def write(self, sampling: Sampling, salt: str) -> Generation:
        return attrs.evolve(super().write(sampling, salt), meta={"pair": (1, 2)})


class CannotBeStored(GoodPool):
    """Its results are not what JSON gives back."""

    engine_class = _Decorated


class _Loud(GoodEngine):
    loud = False

    def write(self, sampling: Sampling, salt: str) -> Generation:
        found = super().write(sampling, salt)
        return attrs.evolve(found, text=found.text.upper()) if self.loud else found


class MissesAnOption(GoodPool):
    """Its option `name` changes replies, its fingerprints do not tell."""

    engine_class = _Loud

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.engine.loud = options.name != "x"


class _Cold(GoodEngine):
    def answer(self, call: Call) -> Any:
        return super().answer(attrs.evolve(call, seed=None))


class IgnoresTheSeed(GoodPool):
    """Writes the same at any temperature and seed."""

    engine_class = _Cold


class _Miscounting(GoodEngine):
    def write(self, sampling: Sampling, salt: str) -> Generation:
        return attrs.evolve(super().write(sampling, salt), usage=Usage(3, 0))


class Miscounts(GoodPool):
    """Gives token ids that its usage does not count."""

    engine_class = _Miscounting


BROKEN = {
    "fingerprints_tell_options_apart": MissesAnOption,
    "temperature_is_heeded": IgnoresTheSeed,
    "models_are_described": NoFingerprint,
    "models_load_nothing": LoadsEagerly,
    "fingerprints_are_stable": ChangesFingerprints,
    "generation_works": IgnoresTheBudget,
    "stop_strings_stop": IgnoresStops,
    "logprobs_fit_their_tokens": ProbabilitiesAboveOne,
    "scores_embeddings_and_rewards_work": UnevenEmbeddings,
    "seeds_reproduce": SamplesFromAShared,
    "batches_change_nothing": DependsOnTheBatch,
    "undeclared_calls_are_refused": AnswersAnything,
    "engines_close_twice": ClosesOnce,
    "results_survive_the_cache": CannotBeStored,
}


def test_the_good_pool_passes_everything(catalogue: Catalogue) -> None:
    catalogue.register(GoodPool)
    results = run_checks("pool", "good_pool", catalogue=catalogue)
    assert [r for r in results if r.status != "passed"] == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_alone(
    name: str, catalogue: Catalogue, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "models_load_nothing":  # importing the real torch takes longer than all other tests of this folder
        fake = types.SimpleNamespace(Tensor=FakeTensor, nn=types.SimpleNamespace(Parameter=FakeTensor))
        monkeypatch.setitem(sys.modules, "torch", fake)
    catalogue.register(BROKEN[name], "broken")
    assert failures("pool", "broken", catalogue) == [name]


def test_tokens_that_are_given_are_counted(catalogue: Catalogue, failures: Failures) -> None:
    catalogue.register(Miscounts)
    assert failures("pool", "miscounts", catalogue) == ["generation_works"]


def test_every_pool_check_has_its_broken_pool() -> None:
    assert set(BROKEN) == {c.name for c in pool_module.CHECKS}
