"""Merging operations against mergekit, tensor by tensor."""

import pytest
import torch
from merging_values import merged, plain, randoms

from moco_toolkit_merging import (
    Extrapolate,
    Linear,
    Mean,
    Mergekit,
)
from moco_toolkit_merging.tensors import drop_mask


def mergekit(tensors, method, **keywords):
    api = pytest.importorskip("mergekit.merge_methods.api")
    return api.merge_tensors(tensors, method, **keywords)


def test_linear_equals_mergekit():
    xs = randoms(3)
    ours = merged(Linear(coefficients=(0.2, 0.5, 0.3)), *xs)
    theirs = mergekit(xs, "linear", parameters={"weight": [0.2, 0.5, 0.3], "normalize": False})
    assert (ours - theirs).abs().max() <= 1e-6
    soup = mergekit(xs, "linear", parameters={"weight": 1.0})
    assert (merged(Mean(), *xs) - soup).abs().max() <= 1e-6


@pytest.mark.parametrize("normalize", [False, True])
def test_task_arithmetic_equals_mergekit(normalize):
    a, b, base = randoms(3)
    ours = merged(plain((0.3, 0.9), vote="none", normalize=normalize, scaling=0.7), a, b, base)
    theirs = mergekit(
        [a, b, base],
        "task_arithmetic",
        parameters={"weight": {0: 0.3, 1: 0.9}, "normalize": normalize, "lambda": 0.7},
        base_index=2,
    )
    assert (ours - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 0.01])
@pytest.mark.parametrize("normalize", [False, True])
def test_ties_is_bit_equal_to_mergekit(density, normalize):
    a, b, c, base = randoms(4, (33, 21))
    op = plain((1.0, 0.5, 2.0), (density,) * 3, sparsify="ties", rescale="none", normalize=normalize)
    theirs = mergekit(
        [a, b, c, base],
        "ties",
        parameters={"weight": {0: 1.0, 1: 0.5, 2: 2.0}, "density": density, "normalize": normalize},
        base_index=3,
    )
    assert torch.equal(merged(op, a, b, c, base), theirs)


def test_dare_ties_at_density_one_is_bit_equal_to_mergekit():
    a, b, base = randoms(3)
    op = plain((0.5, 0.5), normalize=False, sparsify="dare", rescale="l1")
    theirs = mergekit([a, b, base], "dare_ties", parameters={"weight": 0.5, "density": 1.0}, base_index=2)
    assert torch.equal(merged(op, a, b, base), theirs)


def test_dare_ties_equals_mergekit_on_the_same_masks(monkeypatch):
    module = pytest.importorskip("mergekit.sparsify")

    a, b, base = randoms(3)
    op = plain((1.0, 0.7), (0.5, 0.3), normalize=False, sparsify="dare", rescale="l1", seed=5)
    masks = iter([drop_mask(a.shape, 0.5, 5, "w", 0).float(), drop_mask(a.shape, 0.3, 5, "w", 1).float()])
    monkeypatch.setattr(module.torch, "bernoulli", lambda *_args, **_kw: next(masks))
    theirs = mergekit(
        [a, b, base], "dare_ties", parameters={"weight": {0: 1.0, 1: 0.7}, "density": {0: 0.5, 1: 0.3}}, base_index=2
    )
    assert (merged(op, a, b, base) - theirs).abs().max() <= 1e-6


@pytest.mark.parametrize("alpha", [0.0, 0.3, 2.0])
def test_extrapolation_equals_mergekit_both_ways(alpha):
    target, source = randoms(2)
    ours = merged(Extrapolate(alpha=alpha), target, source)
    arithmetic = mergekit([target, source], "task_arithmetic", parameters={"weight": 1 + alpha}, base_index=1)
    straight = mergekit([target, source], "linear", parameters={"weight": [1 + alpha, -alpha], "normalize": False})
    assert (ours - arithmetic).abs().max() <= 1e-6 and (ours - straight).abs().max() <= 1e-6


def test_a_method_of_mergekit_runs_as_an_operation_and_is_seeded_by_name():
    pytest.importorskip("mergekit")
    a, b, base = randoms(3)
    op = Mergekit(method="della", parameters={"weight": [1.0, 0.5], "density": 0.5}, base=True, seed=2)
    state = torch.random.get_rng_state()
    first = merged(op, a, b, base)
    assert torch.equal(first, merged(op, a, b, base)) and torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(
        first, merged(Mergekit(method="della", parameters=op.parameters, base=True, seed=3), a, b, base)
    )
    ties = Mergekit(method="ties", parameters={"weight": [1.0, 0.5], "density": 0.4}, base=True)
    ours = plain((1.0, 0.5), (0.4, 0.4), sparsify="ties", rescale="none")
    assert torch.equal(merged(ties, a, b, base), merged(ours, a, b, base))
