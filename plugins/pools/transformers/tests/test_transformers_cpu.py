"""Threads and groups of cores: plans by size, the user's own settings, and replies that depend on neither."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers_tiny import ask, checkpoint, pool, serve

from moco_core.training import TrainingSite
from moco_pool_transformers import cpu
from moco_pool_transformers import pool as pools
from moco_pool_transformers.cpu import CpuPlan, findings, settle
from moco_pool_transformers.training import site_of

M = 1_000_000


@pytest.mark.parametrize(
    ("sizes", "cores", "groups", "threads"),
    [
        ([M, M], 2, 2, 1),
        ([M] * 5, 16, 5, 1),  # a second thread gains them nothing
        ([M], 2, 1, 1),
        ([100 * M, 90 * M], 2, 2, 1),
        ([100 * M], 2, 1, 2),
        ([100 * M] * 5, 2, 2, 1),
        ([100 * M] * 5, 16, 5, 3),
        ([500 * M] * 5, 16, 3, 5),
        ([7000 * M, M], 16, 1, 16),
        ([200 * M, 200 * M], 1, 1, 1),
        ([], 4, 1, None),
    ],
)
def test_cores_are_shared_by_the_largest_model(sizes: list[int], cores: int, groups: int, threads: int | None) -> None:
    plan = CpuPlan.of(sizes, cores, {})
    assert (plan.cores, plan.groups, plan.threads) == (cores, groups, threads)
    assert groups * (threads or 1) <= cores


@pytest.mark.parametrize(("given", "groups"), [("1", 2), ("2", 1), ("2,1", 1), ("4", 1), ("nonsense", 1)])
def test_the_users_own_number_of_threads_wins(given: str, groups: int) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        plan = CpuPlan.of([100 * M] * 2, 2, {name: given})
        assert (plan.groups, plan.threads) == (groups, None)
        assert plan.facts({name: given})[name] == given


def test_models_of_one_base_stay_together_and_groups_are_filled_by_size() -> None:
    plan = CpuPlan(cores=2, groups=2, threads=1)
    assert plan.names({"a": 5, "b": 9, "c": 4}) == {"b": "cpu/0", "a": "cpu/1", "c": "cpu/1"}
    assert CpuPlan(cores=2).names({"a": 5, "b": 9}) == {"a": "cpu", "b": "cpu"}


def test_models_that_may_train_side_by_side_share_the_memory(tmp_path: Path) -> None:
    source = pool(checkpoint(tmp_path / "m"), cache=tmp_path)
    engine, (model,) = source.engine, source.models()
    given = TrainingSite(folder=tmp_path, seed=0, tell=print, reward=lambda r: [], cancelled=lambda: False)
    rooms = [
        site_of(model, given, engine.entry(model), CpuPlan(cores=4, groups=groups), engine.options).info["room"]
        for groups in (1, 4)
    ]
    assert rooms[1] == rooms[0] // 4 > 0


def test_waiting_is_passive_unless_the_user_says_otherwise_or_torch_is_there_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environ: dict[str, str] = {}
    settle(environ)
    assert environ == {}  # torch is imported: it would have no effect, and say what is not true
    monkeypatch.delitem(sys.modules, "torch")
    settle(environ)
    assert environ == {"OMP_WAIT_POLICY": "PASSIVE"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        own = {name: "1"}
        settle(own)
        assert own == {name: "1"}


def test_describing_a_pool_settles_it_before_torch_is_imported(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    code = (
        "import os, sys, ctypes; from moco_core.options import build; from moco_pool_transformers.pool import *\n"
        f"p = TransformersPool(build(Options, {{'models': [{folder!r}], 'cache': {str(tmp_path)!r}, 'device': 'cpu'}}))\n"
        "m, = p.models(); assert 'torch' not in sys.modules\n"
        "with m.engine.use(m): pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], m.engine.facts()['cpu']['waiting'], m.engine.facts()['cpu']['threads'])"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert out.stdout.split() == ["PASSIVE", "passive", "1"]


def test_side_by_side_models_have_groups_of_their_own_and_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [checkpoint(tmp_path / f"m{i}", "qwen2", seed=i) for i in range(2)]
    texts = ["the quick brown fox", "what is", "numbers 0 1"]

    def asked() -> tuple[list[str], list[object]]:
        source = pool(*paths, cache=tmp_path)
        models = source.models()
        replies = [[r.token_ids for r in serve(m, [ask(m, t) for t in texts])] for m in models]
        return [m.device_group for m in models], replies

    before = torch.get_num_threads()
    try:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(pools, "cores", lambda: 1)
        groups, alone = asked()
        assert groups == ["cpu", "cpu"] and torch.get_num_threads() == 1
        monkeypatch.setattr(pools, "cores", lambda: 4)
        for threads in (1, 2):
            groups, apart = asked()
            assert groups == ["cpu/0", "cpu/1"] and torch.get_num_threads() == threads
            assert apart == alone
            monkeypatch.setattr(cpu, "SMALL", 1)
    finally:
        torch.set_num_threads(before)


def test_doctor_tells_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert [state for state, *_ in findings()] == ["ok"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    ((state, what, detail),) = findings()
    assert (state, what) == ("note", "threads") and "OMP_NUM_THREADS=3 is set and left as it is" in detail
