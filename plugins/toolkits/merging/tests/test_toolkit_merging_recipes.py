"""Recipes as values: JSON, fingerprints, inputs left alone, rounding, and what is refused."""

import asyncio
import math

import pytest
import torch
from merging_values import Dict, merged, plain, randoms

from moco_core.errors import ConfigError
from moco_toolkit_merging import (
    Extrapolate,
    Linear,
    Mean,
    Mergekit,
    MergeRecipe,
    dump_operation,
    load_operation,
)
from moco_toolkit_merging.recipes import AdapterRecipe
from moco_toolkit_merging.tensors import agree, linear


@pytest.mark.parametrize(
    "operation",
    [
        Linear(coefficients=(0.1, 0.9)),
        Mean(accumulate_dtype="float64"),
        Extrapolate(alpha=0.3, exclude=("*norm*",)),
        plain((1.0,), (0.5,), sparsify="ties", seed=4),
        Mergekit(method="slerp", parameters={"t": 0.5}, base=True),
    ],
)
def test_operations_survive_json(operation):
    import json

    again = load_operation(json.loads(json.dumps(dump_operation(operation))))
    assert again == operation
    prints = {MergeRecipe(operation=o, sources=("a", "b")).fingerprint for o in (operation, again)}
    assert len(prints) == 1


def test_fingerprints_tell_recipes_apart():
    recipes = [
        MergeRecipe(operation=Linear(coefficients=(0.5, 0.5)), sources=("a", "b")),
        MergeRecipe(operation=Linear(coefficients=(0.5, 0.5)), sources=("b", "a")),
        MergeRecipe(operation=Linear(coefficients=(0.5, 0.25)), sources=("a", "b")),
        MergeRecipe(operation=Mean(), sources=("a", "b")),
        AdapterRecipe(coefficients=(0.5, 0.5), sources=("a", "b")),
        AdapterRecipe(coefficients=(0.5, 0.5), sources=("a", "b"), composition="factors"),
    ]
    assert len({r.fingerprint for r in recipes}) == len(recipes)


def test_inputs_are_not_changed_and_integer_buffers_are_copied():
    xs = randoms(3)
    before = [x.clone() for x in xs]
    for op in (
        Linear(coefficients=(0.2, 0.3, 0.5)),
        Mean(),
        Extrapolate(alpha=1.0),
        plain((1.0, 1.0), (0.5, 0.5), sparsify="dare"),
    ):
        merged(op, *xs)
    assert all(torch.equal(a, b) for a, b in zip(xs, before, strict=True))
    ids = torch.arange(4)
    assert torch.equal(merged(Mean(), ids, ids), ids)
    with pytest.raises(ValueError, match="differs between the sources"):
        merged(Mean(), ids, ids + 1)


def test_bfloat16_is_rounded_once_at_the_end():
    xs = [x.bfloat16() for x in randoms(3, (200, 50))]
    exact = sum(x.double() for x in xs) / 3
    ours = merged(Mean(), *xs)
    assert ours.dtype == torch.float32
    assert (ours.bfloat16().double() - exact).abs().max() <= (exact.bfloat16().double() - exact).abs().max() * 1.01


@pytest.mark.parametrize("op", [Mean(), Extrapolate(alpha=0.5), plain((1.0,)), Linear(coefficients=(0.5, 0.5))])
def test_nan_is_blamed_on_its_source(op):
    good, bad = randoms(2)
    bad[3, 3] = math.nan
    with pytest.raises(ValueError, match=r"w: source 1 holds NaN|a source holds NaN"):
        merged(op, good, bad)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2x3 in one source, 2x4 in source 1"):
        merged(Mean(), torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="2 numbers for 3 models"):
        Linear(coefficients=(1.0, 1.0)).check(3)
    with pytest.raises(ConfigError, match="weights: 2 numbers for 1 models"):
        plain((1.0, 1.0)).check(2)
    with pytest.raises(ConfigError, match="unknown kind 'linnear'"):
        load_operation({"kind": "linnear"})
    with pytest.raises(ValueError, match="nothing to combine"):
        linear([], [])


def test_votes_need_finite_updates():
    with pytest.raises(ValueError, match="NaN or infinite"):
        agree([torch.tensor([math.inf])], [1.0])


def test_diagnosis_of_known_task_vectors():
    from moco_toolkit_merging.diagnostics import diagnose

    base = Dict({"w": torch.tensor([3.0, 4.0, 0.0])})
    one, two = Dict({"w": torch.tensor([4.0, 4.0, 1.0])}), Dict({"w": torch.tensor([2.0, 4.0, 1.0])})
    found = diagnose([one, two], base)
    assert found.norms == pytest.approx((math.sqrt(2), math.sqrt(2)))
    assert found.relative == pytest.approx((math.sqrt(2) / 5,) * 2)
    assert [list(row) for row in found.cosines] == [pytest.approx([1, 0]), pytest.approx([0, 1])]
    assert found.conflicts == 0.5  # both changed the first and the last entry, and disagree on the first


def test_a_barrier_between_two_models_is_measured_along_their_line():
    from moco_core.options import NoOptions
    from moco_toolkit_authoring import examples, open_state
    from moco_toolkit_merging.diagnostics import barrier
    from moco_toolkit_merging.testing import MergeablePool, Utility

    source = MergeablePool("ab", lambda m: abs(m.share("a") - 0.5))

    async def work():
        async with open_state(metric=Utility(NoOptions())) as state:
            return await barrier(source.pool, *source.pool, examples(2), state.context("fit"))

    assert asyncio.run(work()) == [(0, 0.5), (0.25, 0.25), (0.5, 0), (0.75, 0.25), (1, 0.5)]
