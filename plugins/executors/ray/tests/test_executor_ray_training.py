"""The training jobs of a method, spread over the cluster: by the pool ``ray`` within runs that the executor spreads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grid_helpers import runs

from moco_executor_ray.executor import Options, cpus_of

MODELS = Path(__file__).parent / "training_models.py"


def test_a_run_whose_models_have_nodes_of_their_own_takes_no_cpu_of_them() -> None:
    def taken(pool: Any, **given: Any) -> float:
        return cpus_of(Options(**given), job=type("Job", (), {"config": {"pool": pool}}))  # type: ignore[arg-type]

    assert (taken("tiny"), taken({"name": "tiny"}), taken({"name": "ray"}), taken("ray", cpus=2.0)) == (1, 1, 0, 2)


@pytest.mark.slow
def test_the_trainings_of_a_method_take_place_at_the_same_time_on_several_nodes(nodes, bench) -> None:
    pytest.importorskip("moco_pool_ray", reason="its actors train")
    pytest.importorskip("moco_toolkit_training", reason="needs the training toolkit")
    log = Path("trainings.log").resolve()
    inner = json.dumps({"name": "training_models", "log": str(log)})
    given = ["--method", "taught", "-d", "skills", "-p", "ray", "--test", "2", "--dev", "2", "--plugin", str(MODELS)]
    given += ["-o", f"pool.pool={inner}", "-o", "pool.memory=0.25", "-o", f"pool.address={nodes.address}"]
    given += ["-o", "seeds=[0, 1]", "-o", "baselines=false", "--out", "taught", "--cache", "taught.sqlite"]
    given += ["-o", f"executor={{name: ray, address: '{nodes.address}'}}"]
    got = bench("taught", given=given)
    assert got.code == 0, got.err
    assert set(runs("taught").values()) == {"finished"} and len(runs("taught")) == 2
    # a training waits until that of the other model is under way: one after the other they would never end
    begun = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(model for model, _, _ in begun) == ["a", "a", "b", "b"]  # two runs, two models
    for mark in ("seed 0", "seed 1"):
        assert len({node for _, own, node in begun if own == mark}) == 2
