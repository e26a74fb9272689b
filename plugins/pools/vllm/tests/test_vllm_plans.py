"""Which engines stay in memory together and which take turns, planned by hand."""

from __future__ import annotations

import pytest
from vllm_bases import GIB, base

from moco_core.errors import ConfigError
from moco_pool_vllm.placement import Base, plan


def test_what_fits_together_stays() -> None:
    places = plan([base("a", 20), base("b", 10)], 0.9, 2 * GIB, memory=[80 * GIB])
    assert {p.device_group for p in places.values()} == {"cuda:0"} and not any(p.sliced for p in places.values())
    assert sum(p.share for p in places.values()) == pytest.approx(0.9, abs=1e-3)
    assert places["a"].share > places["b"].share  # what is left is divided by need
    assert all(p.share * 80 * GIB > 1.15 * b * GIB for p, b in ((places["a"], 20), (places["b"], 10)))


def test_what_does_not_fit_takes_turns() -> None:
    places = plan([base("a", 40), base("b", 40)], 0.9, 2 * GIB, memory=[80 * GIB])
    assert all(p.sliced and p.share == 0.9 for p in places.values())


def test_several_gpus_and_tensor_parallelism() -> None:
    places = plan([base("a", 60), base("b", 50), base("c", 10)], 0.9, 2 * GIB, memory=[80 * GIB, 80 * GIB])
    assert (places["a"].devices, places["b"].devices, places["c"].devices) == ((0,), (1,), (1,))
    places = plan([base("big", 120, tensor_parallel=2)], 0.9, 2 * GIB, memory=[80 * GIB, 80 * GIB])
    assert places["big"].devices == (0, 1) and places["big"].device_group == "cuda:0+1"
    places = plan([base("a", 10, devices=(1,)), base("b", 10)], 0.9, 2 * GIB, memory=[80 * GIB, 80 * GIB])
    assert (places["a"].devices, places["b"].devices) == ((1,), (0,))


def test_the_plan_leaves_other_pools_what_they_need() -> None:
    two = [80 * GIB, 80 * GIB]
    assert plan([base("a", 20)], 0.9, 2 * GIB, memory=two, beside={"cuda:0": 30 * GIB})["a"].devices == (1,)
    (place,) = plan([base("a", 20)], 0.9, 2 * GIB, memory=[80 * GIB], beside={"cuda:0": 20 * GIB}).values()
    assert place.share == pytest.approx(0.9 - 1.15 * 20 / 80, abs=1e-4)  # all that is left
    with pytest.raises(ConfigError, match=r"more than 0\.325 of its 80\.0 GiB"):
        plan([base("a", 30)], 0.9, 2 * GIB, memory=[80 * GIB], beside={"cuda:0": 40 * GIB})


@pytest.mark.parametrize(
    ("bases", "line"),
    [
        ([base("a", 100)], "a needs about 117.0 GiB on each of cuda:0, which is more than 0.9 of its 80.0 GiB"),
        ([base("a", 20, share=0.1)], "more than 0.1 of its 80.0 GiB"),
        ([base("a", 20, share=0.6), base("b", 20, share=0.6)], "add up to 1.2"),
        ([base("a", 20, tensor_parallel=2)], "needs 2 GPUs (devices [0]), there are 1"),
        ([base("a", 20, devices=(3,))], "needs 1 GPUs (devices [3]), there are 1"),
    ],
)
def test_plans_that_cannot_be(bases: list[Base], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(bases, 0.9, 2 * GIB, memory=[80 * GIB])
    assert line in str(caught.value)


def test_groups_of_gpus_may_not_overlap_in_part() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        plan(
            [base("a", 1, devices=(0, 1), tensor_parallel=2), base("b", 1, devices=(1,))],
            0.9,
            GIB,
            memory=[80 * GIB] * 2,
        )
