"""One model on several devices: the division of work, and replies that do not depend on it.

Torch takes ``cpu:0`` and ``cpu:1`` for the CPU, so any machine has two devices: two copies of the weights, two threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from test_pool_transformers import ask_all
from test_transformers_derived import adapter
from transformers_tiny import FakeInbox, ask, checkpoint, pool, serve

from moco_core.errors import EngineOutOfMemory
from moco_core.models import Call, Model, Pool
from moco_core.types import Sampling
from moco_pool_transformers.batch import Batch
from moco_toolkit_authoring import open_state

# ---------------------------------------------------------------- the work


def steps_by_thread(monkeypatch: pytest.MonkeyPatch, wait_for: int = 2) -> dict[str, list[int]]:
    """Count rows per step and thread; the first to step waits until ``wait_for`` threads do, however loaded the machine is."""
    done: dict[str, list[int]] = {}
    all_there = threading.Event()
    real = Batch.step

    def step(self: Batch) -> Any:
        done.setdefault(threading.current_thread().name, []).append(len(self.rows))
        if len(done) >= wait_for:
            all_there.set()
        assert all_there.wait(120), "no replica came to help"
        return real(self)

    monkeypatch.setattr(Batch, "step", step)
    return done


def break_steps(monkeypatch: pytest.MonkeyPatch, bad: Callable[[bool, Batch], Exception | None]) -> None:
    """Let steps fail where ``bad(on the replica, batch)`` says so."""
    inner = Batch.step

    def step(self: Batch) -> Any:
        error = bad(threading.current_thread().name.startswith("moco-replica"), self)
        if error is not None:
            raise error
        return inner(self)

    monkeypatch.setattr(Batch, "step", step)


def replies(results: Sequence[Any]) -> list[Any]:
    return [(r.text, r.token_ids, r.token_logprobs, r.usage, r.finish_reason) for r in results]


def calls(model: Model, n: int, **sampling: Any) -> list[Call]:
    prompts = ["what is the capital", "the quick brown fox jumps", "numbers 0 1 2 3", "a"]
    return [
        ask(model, " ".join([prompts[i % 4]] * (1 + i % 3)), seed=i, temperature=0.8 * (i % 2), **sampling)
        for i in range(n)
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_two_replicas_say_what_one_model_says(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch, kind: str, batch: int
) -> None:
    folder = checkpoint(tmp_path / "m", kind)
    (alone,) = pool(folder, cache=tmp_path, device="cpu").models()
    want = replies(serve(alone, calls(alone, 24)))
    (model,) = pool(folder, cache=tmp_path, device="auto", max_batch=batch).models()
    done = steps_by_thread(monkeypatch)
    got = serve(model, calls(model, 24))
    bare = [(t, ids, u, f) for t, ids, _, u, f in replies(got)]
    assert bare == [(t, ids, u, f) for t, ids, _, u, f in want]
    for one, other in zip(got, want, strict=True):
        assert list(one.token_logprobs) == pytest.approx(list(other[2]), abs=1e-5)
    assert len(done) == 2 and any("moco-replica-cpu:1" in name for name in done)
    assert all(max(sizes) <= batch for sizes in done.values())
    engine: Any = model.engine
    assert {b.device for b in engine.residency._bases.values() if b.module is not None} == {"cpu:0", "cpu:1"}
    assert engine.resident() == ["m"] and engine.ready(model)  # the pool still shows one model
    modules = [b.module for b in engine.residency._bases.values()]
    assert len({id(m) for m in modules}) == 2  # two sets of weights
    engine.free()
    assert all(b.module is None and b.size == 0 for b in engine.residency._bases.values())
    assert engine.resident() == []


def test_what_fits_into_one_batch_stays_at_home(tmp_path: Path, two: list[str]) -> None:
    (model,) = pool(checkpoint(tmp_path / "m"), cache=tmp_path, device="auto", max_batch=12).models()
    engine: Any = model.engine
    serve(model, calls(model, 12))
    assert engine.residency.loads == 1
    assert not any(t.name.startswith("moco-replica") for t in threading.enumerate())


def test_through_scheduler_and_cache(tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a model, seeds and keys are the same with and without replicas: what one run paid, the other has."""
    folder, other = checkpoint(tmp_path / "m"), checkpoint(tmp_path / "o", "gpt2", seed=1)
    sampling = Sampling(temperature=0.8, max_new_tokens=12)
    alone = Pool(pool(folder, other, cache=tmp_path, device="cpu").models())
    want = ask_all(alone, sampling, 30)
    source = pool(folder, other, cache=tmp_path, device="auto", max_batch=4)
    models = Pool(source.models())
    assert [(m.device_group, *m.info["replicas"]) for m in models] == [("cpu:1", "cpu:0"), ("cpu:0", "cpu:1")]  # gpt2 is larger
    done = steps_by_thread(monkeypatch, wait_for=4)  # two homes, two replicas, at once
    got = ask_all(models, sampling, 30)
    assert [[r.token_ids for r in row] for row in got] == [[r.token_ids for r in row] for row in want]
    assert sum("moco-replica" in name for name in done) == 2
    assert source.engine.resident() == []
    assert not any(t.name.startswith("moco-replica") for t in threading.enumerate())


def test_scores_and_embeddings_are_divided_too(tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from moco_pool_transformers import scoring

    folder = checkpoint(tmp_path / "m")
    texts = ["the quick brown", "what is the capital", "a", "numbers 0 1"] * 4

    def work(model: Model) -> list[Call]:
        scored = [Call(model, "score", {"text": t, "continuations": [" fox", " of France?"]}, {}) for t in texts]
        return [*scored, *(Call(model, "embed", {"texts": [t]}, {}) for t in texts)]

    (alone,) = pool(folder, cache=tmp_path, device="cpu").models()
    want = serve(alone, work(alone))
    threads: set[str] = set()
    both = threading.Event()
    kinds = dict(scoring.KINDS)

    def watched(run: Callable[..., Any]) -> Callable[..., Any]:
        def inner(loaded: Any, members: Any) -> Any:
            threads.add(threading.current_thread().name)
            if len(threads) > 1:
                both.set()
            assert both.wait(120), "no replica came to help"
            return run(loaded, members)

        return inner

    monkeypatch.setattr(scoring, "KINDS", {k: watched(v) for k, v in kinds.items()})
    (model,) = pool(folder, cache=tmp_path, device="auto", max_batch=3).models()
    inbox = FakeInbox(asked := work(model))
    while inbox.queue:  # a round of scores is a turn
        model.engine.serve(model, inbox)
        assert not inbox.taken
    got = [inbox.done[id(c)] for c in asked]
    for one, other in zip(got[:16], want[:16], strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.token_ids == b.token_ids and list(a.token_logprobs) == pytest.approx(
                list(b.token_logprobs), abs=1e-5
            )
    for one, other in zip(got[16:], want[16:], strict=True):
        assert list(one[0]) == pytest.approx(list(other[0]), abs=1e-5)


def test_adapters_are_put_on_every_replica_of_their_base(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = checkpoint(tmp_path / "m")
    tuned = [{"model": base, "adapter": adapter(base, tmp_path / f"lora{i}", i), "name": f"lora{i}"} for i in (1, 2)]
    sampling = Sampling(temperature=0.8, max_new_tokens=8)
    want = ask_all(Pool(pool(base, *tuned, cache=tmp_path, device="cpu").models()), sampling, 12)
    source = pool(base, *tuned, cache=tmp_path, device="auto", max_batch=3)
    models = Pool(source.models())
    assert [(m.device_group, m.info["replicas"]) for m in models] == [("cpu:0", ("cpu:1",))] * 3
    seen: set[tuple[str, bool]] = set()
    break_steps(monkeypatch, lambda replica, batch: seen.add((batch.loaded.model.name, replica)))  # type: ignore[func-returns-value]
    steps_by_thread(monkeypatch)
    got = ask_all(models, sampling, 12)
    assert [[r.token_ids for r in row] for row in got] == [[r.token_ids for r in row] for row in want]
    assert len({tuple(r.token_ids for r in column) for column in zip(*got, strict=True)}) == 3  # they differ
    assert any(replica and name != "m" for name, replica in seen)
    assert source.engine.residency.loads == 2  # one base per device, whatever is on it


@attrs.frozen
class Step:
    """A private call: notes where it runs, and how often its session was met there."""

    session: int

    @property
    def group(self) -> str:
        return "steps"

    def run(self, loaded: Any, members: Sequence[Call]) -> list[Any]:
        out = []
        for call in members:
            met = loaded.scratch.setdefault(("test", call.payload.session), [])
            met.append(1)
            out.append((threading.current_thread().name, len(met)))
        return out


def test_sessions_stay_where_their_caches_are(tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (model,) = pool(checkpoint(tmp_path / "m"), cache=tmp_path, device="auto", max_batch=2).models()
    steps = [Call(model, "step", {}, {}, payload=Step(i % 3)) for i in range(18)]
    mixed = [c for pair in zip(steps, calls(model, 18), strict=True) for c in pair]
    done = steps_by_thread(monkeypatch)
    inbox = FakeInbox(mixed)
    while inbox.queue:  # the home returns after a round of steps, so that other models have their turn
        model.engine.serve(model, inbox)
        assert not inbox.taken
    assert len(done) == 2
    found = [inbox.done[id(c)] for c in steps]
    assert {thread for thread, _ in found} == {threading.current_thread().name}
    assert sorted(n for _, n in found) == sorted([1, 2, 3, 4, 5, 6] * 3)  # no session ever began anew


# ---------------------------------------------------------------- what goes wrong


def run_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bad: Callable[[bool, Batch], Exception | None], n: int = 20
) -> tuple[list[Any], list[Any], Any]:
    """Serve with steps that fail; return (results, those wanted, engine)."""
    folder = checkpoint(tmp_path / "m")
    (alone,) = pool(folder, cache=tmp_path, device="cpu").models()
    want = serve(alone, calls(alone, n))
    (model,) = pool(folder, cache=tmp_path, device="auto", max_batch=6).models()
    break_steps(monkeypatch, bad)
    steps_by_thread(monkeypatch)
    got = serve(model, calls(model, n))
    return got, want, model.engine


def out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")


def test_a_replica_out_of_memory_takes_smaller_batches(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[bool, list[int]] = {True: [], False: []}

    def bad(replica: bool, batch: Batch) -> Exception | None:
        sizes[replica].append(len(batch))
        return out_of_memory() if replica and len(batch) > 2 else None

    got, want, _ = run_with(monkeypatch, tmp_path, bad, 40)
    assert [r.token_ids for r in got] == [r.token_ids for r in want]
    assert max(sizes[True]) > 2 >= sizes[True][-1] and max(sizes[False]) == 6  # the home keeps its batches


def test_a_home_out_of_memory_takes_smaller_batches(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(replica: bool, batch: Batch) -> Exception | None:
        return out_of_memory() if not replica and len(batch) > 2 else None

    got, want, _ = run_with(monkeypatch, tmp_path, bad)
    assert [r.token_ids for r in got] == [r.token_ids for r in want]


def test_calls_that_a_replica_cannot_hold_go_home(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    got, want, engine = run_with(monkeypatch, tmp_path, lambda replica, _: out_of_memory() if replica else None)
    assert [r.token_ids for r in got] == [r.token_ids for r in want]
    (replica_set,) = engine._replica_sets.values()
    assert [(s.full, s.lost, s.busy, len(s.taken)) for s in replica_set.replicas] == [(True, False, False, 0)]


def test_a_replica_that_fails_is_told_once_and_its_calls_go_home(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    got, want, engine = run_with(
        monkeypatch,
        tmp_path,
        lambda replica, _: RuntimeError("CUDA error: unspecified\nlaunch failure") if replica else None,
    )
    assert [r.token_ids for r in got] == [r.token_ids for r in want]
    (record,) = caplog.records
    assert record.getMessage() == (
        "the replica on cpu:1 failed and is not used any more (RuntimeError: CUDA error: unspecified); "
        "its calls are answered on cpu:0"
    )
    (replica_set,) = engine._replica_sets.values()
    assert [(s.lost, s.busy) for s in replica_set.replicas] == [(True, False)]


def test_a_home_that_fails_waits_for_its_replicas(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ever: what the home had taken is lost, what others answer is not."""
    (model,) = pool(checkpoint(tmp_path / "m"), cache=tmp_path, device="auto", max_batch=6).models()
    break_steps(monkeypatch, lambda replica, _: None if replica else RuntimeError("broken"))
    steps_by_thread(monkeypatch)
    inbox = FakeInbox(calls(model, 30))
    with pytest.raises(RuntimeError, match="broken"):
        model.engine.serve(model, inbox)
    assert 0 < len(inbox.taken) <= 6 and inbox.done  # the replica ended its batch before the error went on
    assert not any(t.name.startswith("moco-replica") for t in threading.enumerate())


def test_calls_that_no_device_holds_fail_alone(tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the scheduler: batches are halved down to single calls, and the long one fails; the others are answered."""
    folder = checkpoint(tmp_path / "m")
    (alone,) = pool(folder, cache=tmp_path, device="cpu").models()
    (model,) = pool(folder, cache=tmp_path, device="auto", max_batch=3).models()
    prompts = ["what is the capital " * (12 if i % 5 == 3 else 1 + i % 2) + str(i) for i in range(15)]

    def ask_them(which: Model) -> list[Any]:
        async def work() -> list[Any]:
            async with open_state(sampling=Sampling(max_new_tokens=6)) as state:
                context = state.context("respond")
                return await context.gather((context.generate(which, p) for p in prompts), tolerate=EngineOutOfMemory)

        return asyncio.run(work())

    want = ask_them(alone)
    break_steps(monkeypatch, lambda _, batch: out_of_memory() if max(batch.cache.lengths) > 40 else None)
    got = ask_them(model)
    for i, (one, other) in enumerate(zip(got, want, strict=True)):
        if i % 5 == 3:
            assert other.usage.prompt_tokens > 40 and isinstance(one, EngineOutOfMemory)
        else:
            assert one.token_ids == other.token_ids


def test_the_room_of_a_replica_is_given_up_for_a_model_of_the_pool(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica in use ends its batch and leaves when a model needs its place; idle ones leave first."""
    folder, other = checkpoint(tmp_path / "m"), checkpoint(tmp_path / "o", seed=1)
    source = pool(folder, other, cache=tmp_path, device="auto", max_batch=4)
    one, two_ = source.models()
    size = one.info["spec"].base_bytes
    source.engine.residency.budget = int(1.5 * size)  # less than was planned with: room for one on each
    done = steps_by_thread(monkeypatch, wait_for=2)
    inbox = FakeInbox(calls(one, 40))
    thread = threading.Thread(target=source.engine.serve, args=(one, inbox))
    thread.start()
    while not any("moco-replica" in name for name in list(done)):
        thread.join(0.01)
    late = calls(two_, 6)
    results = serve(two_, late)
    thread.join(120)
    assert not thread.is_alive() and not inbox.taken and not inbox.queue and len(results) == 6
    bases = source.engine.residency._bases.values()
    assert {(b.device, n) for b in bases if b.module is not None for n in b.names} == {("cpu:0", "m"), ("cpu:1", "o")}
    assert sum(b.size for b in bases if b.device == "cpu:1") <= source.engine.residency.budget
    # and no replica comes back while there is no room for it
    with pytest.raises(EngineOutOfMemory, match="the budget for cpu:0"):
        spec = two_.info["spec"].on("cpu:0")
        with source.engine.use(attrs.evolve(two_, info={"spec": spec})):
            pass


def test_derived_models_stay_on_one_device(tmp_path: Path, two: list[str]) -> None:
    @attrs.frozen
    class Same:
        kind = "weights"
        fingerprint: str = "same"

        def tensor(self, name: str, sources: Sequence[Any]) -> Any:
            return sources[0].get(name)

    (model,) = pool(checkpoint(tmp_path / "m"), cache=tmp_path, device="auto", max_batch=3).models()
    derived = model.engine.derive("merged", Same(), [model])
    assert "replicas" not in derived.info and derived.device_group == "cpu:0"
    want, got = serve(model, calls(model, 12)), serve(derived, calls(derived, 12))
    assert [r.token_ids for r in got] == [r.token_ids for r in want]
