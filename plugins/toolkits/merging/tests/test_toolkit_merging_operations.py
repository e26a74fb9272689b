"""Merging operations against closed forms: means, extrapolation, task arithmetic, DARE and TIES."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from merging_values import BASE, ONE, TWO, Dict, merged, plain, randoms

from moco_toolkit_merging import (
    Extrapolate,
    Linear,
    Mean,
    MergeRecipe,
)
from moco_toolkit_merging.tensors import drop_mask, sparsify, trim_mask
from moco_toolkit_merging.workspace import Workspace


def test_mean_and_linear_closed_forms():
    assert merged(Mean(), [1.0], [2.0], [6.0]).item() == 3
    assert merged(Mean(), [1.0], [2.0]).item() == 1.5
    assert merged(Linear(coefficients=(2.0, -1.0)), [3.0], [1.0]).item() == 5


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_mean_of_copies_is_the_model_exactly(count):
    x = randoms(1)[0]
    assert torch.equal(merged(Mean(), *[x] * count), x)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 99))
def test_the_mean_of_any_number_of_copies_is_exact_in_float64(count, seed):
    x = randoms(1, seed=seed)[0]
    assert torch.equal(merged(Mean(accumulate_dtype="float64"), *[x] * count).float(), x)


def test_a_kept_sum_changes_no_bit():
    xs = randoms(5)
    kept = Workspace(1 << 20)
    for count in range(1, 6):
        assert torch.equal(merged(Mean(), *xs[:count], workspace=kept), merged(Mean(), *xs[:count]))
    assert kept.size > 0


def test_one_hot_and_zero_coefficients_do_not_round_or_read():
    xs = randoms(3)
    xs[0][0, 0] = math.nan
    assert torch.equal(merged(Linear(coefficients=(0.0, 1.0, 0.0)), *xs), xs[1])
    assert torch.isfinite(merged(Linear(coefficients=(0.0, 0.5, 0.5)), *xs)).all()


SEARCHED = [
    Linear(coefficients=(0.2, 0.3, 0.5)),
    Linear(coefficients=(1.5, 0.0, -0.5)),
    Linear(coefficients=(0.0, 1.0, 0.0)),
    Mean(),
    Mean(accumulate_dtype="float64"),
    Extrapolate(alpha=0.4, targets=2),
    plain((0.4, 1.1), (0.5, 0.7), sparsify="dare"),
    plain((0.4, 1.1), (0.5, 0.7), sparsify="ties", normalize=False, vote="count", scaling=0.3),
    plain((0.4, 1.1), vote="none"),
]


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("resident", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", SEARCHED, ids=lambda o: o.kind)
def test_writing_into_a_module_gives_the_bits_of_a_new_tensor_cast_once(op, stored, resident):
    xs = [x.to(stored) for x in randoms(3, (700, 300))]
    out, search = torch.full((700, 300), math.nan, dtype=resident), Workspace(1 << 24)
    for _ in range(2):  # the second candidate finds what the first one kept
        assert torch.equal(merged(op, *xs, workspace=search, out=out), merged(op, *xs).to(resident))
    shape = (3, 5)
    assert not MergeRecipe(operation=op, sources=("a", "b", "c")).write(
        "w", [Dict({"w": x[:3, :5]}) for x in xs], torch.empty(shape[::-1]).T
    )  # only contiguous memory is written to


def test_an_expert_that_is_not_finite_is_found_when_it_is_first_read():
    good, bad = randoms(2)
    bad[0, 0] = math.nan
    search = Workspace(1 << 20)
    assert torch.equal(merged(Extrapolate(alpha=0.0), good, bad, workspace=search), good)  # reads the target alone
    with pytest.raises(ValueError, match="source 1 holds NaN"):
        merged(Extrapolate(alpha=0.5), good, bad, workspace=search)


def test_extrapolation_closed_forms():
    assert merged(Extrapolate(alpha=0.5), [3.0], [1.0]).item() == 4
    target, source = randoms(2)
    assert torch.equal(merged(Extrapolate(alpha=0.0), target, source), target)
    assert torch.equal(merged(Extrapolate(alpha=-1.0), target, source), source)
    assert torch.equal(merged(Extrapolate(alpha=7.3), target, target), target)
    assert merged(Extrapolate(alpha=1.0, targets=2), [2.0], [4.0], [1.0]).item() == 5
    assert torch.equal(merged(Extrapolate(alpha=2.0, exclude=("w*",)), target, source), target)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_the_strength_of_an_extrapolation_can_be_measured(alpha):
    target, source = randoms(2)
    moved = merged(Extrapolate(alpha=alpha), target, source)
    direction = target - source
    assert ((moved - target) * direction).sum() / direction.square().sum() == pytest.approx(alpha, rel=1e-5)


def test_consensus_at_one_entry():
    def at(*experts):
        return merged(plain((1.0,) * len(experts)), *[[float(e)] for e in experts], [1.0]).item()

    assert at(3, 2) == 2.5
    assert at(1, -3) == -3
    assert at(2, -3) == -3


def test_consensus_on_the_four_entries():
    assert merged(plain((1.0, 1.0)), ONE, TWO, BASE).tolist() == [2.5, -1.5, 1, 2]
    half = plain((0.5, 0.5), normalize=False, sparsify="dare", rescale="l1")
    assert merged(half, ONE, TWO, BASE).tolist() == [2.5, -1.5, 1, 1.5]


def test_an_exact_tie_elects_plus():
    assert merged(plain((1.0, 1.0)), [2.0], [0.0], [1.0]).item() == 2


def test_counting_heads_differs_from_counting_mass():
    mass = merged(plain((1.0,) * 3), [2.0], [2.0], [-4.0], [1.0]).item()
    heads = merged(plain((1.0,) * 3, vote="count"), [2.0], [2.0], [-4.0], [1.0]).item()
    assert (mass, heads) == (-4, 2)


def test_one_model_at_density_one_is_itself_and_lambda_zero_is_the_base():
    model, base = randoms(2, scale=0.5)
    assert torch.allclose(merged(plain((1.0,)), model, base), model, rtol=0, atol=1.2e-7)
    assert torch.equal(merged(plain((1.0,), scaling=0.0), model, base), base)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_copies_with_a_disjoint_mean_are_the_model(count):
    model, base = randoms(2)
    assert torch.allclose(merged(plain((1.0,) * count), *[model] * count, base), model, rtol=0, atol=5e-7)


@pytest.mark.parametrize("how", ["none", "dare", "ties"])
def test_negating_every_task_vector_negates_the_merged_one(how):
    taus = randoms(3, seed=4)
    density = (0.5,) * 3
    zero = torch.zeros_like(taus[0])
    op = plain((1.0, 0.7, 0.4), density, sparsify=how)
    assert torch.equal(merged(op, *taus, zero), -merged(op, *[-t for t in taus], zero))


def test_task_arithmetic_closed_form():
    a, b, base = randoms(3)
    op = plain((0.3, 0.9), vote="none", normalize=False, scaling=0.7)
    assert torch.allclose(merged(op, a, b, base), base + 0.7 * (0.3 * (a - base) + 0.9 * (b - base)), atol=1e-6)
    one = plain((0.0, 1.0), vote="none", normalize=False)
    assert torch.allclose(merged(one, a, b, base), b, rtol=0, atol=2.4e-7)


def test_drop_masks_depend_on_their_key_alone():
    mask = drop_mask((64, 64), 0.5, 0, "layer.w", 1)
    torch.manual_seed(123)
    assert torch.equal(mask, drop_mask((64, 64), 0.5, 0, "layer.w", 1))
    assert not torch.equal(mask, drop_mask((64, 64), 0.5, 0, "layer.w", 2))
    assert not torch.equal(mask, drop_mask((64, 64), 0.5, 1, "layer.w", 1))
    assert bool((mask <= drop_mask((64, 64), 0.7, 0, "layer.w", 1)).all())  # nested: a higher density keeps more


def test_random_drops_are_unbiased_and_keep_their_fraction():
    tau = randoms(1, (50, 40), seed=8)[0]
    seeds, density = 100, 0.3
    total, kept = torch.zeros_like(tau), 0
    for seed in range(seeds):
        thin = sparsify(tau, "dare", density, "inverse_density", seed, "w", 0)
        total += thin
        kept += int((thin != 0).sum())
    n = seeds * tau.numel()
    assert abs(kept - n * density) < 5 * math.sqrt(n * density * (1 - density))
    # the mean over seeds has standard error |tau| sqrt((1 - d) / (d seeds)) per entry
    error = ((total / seeds - tau) / tau).abs()
    assert float(error.square().mean().sqrt()) == pytest.approx(math.sqrt((1 - density) / (density * seeds)), rel=0.1)


def test_trimming_keeps_the_largest():
    tau = torch.tensor([[0.1, -3.0, 0.2], [2.0, -0.3, 0.0]])
    assert trim_mask(tau, 0.34).tolist() == [[False, True, False], [True, False, False]]
    assert int(trim_mask(tau, 0.01).sum()) == 1 and int(trim_mask(tau, 0.0).sum()) == 0
    assert torch.equal(sparsify(tau, "ties", 0.34, "none"), tau * trim_mask(tau, 0.34))


def test_dare_is_sign_symmetric_per_entry():
    tau = torch.ones(200, 100)
    tau[:, ::2] = -1
    op = plain((1.0,), (0.5,), sparsify="dare")
    moved = merged(op, tau, torch.zeros_like(tau))
    positive, negative = (moved > 0).sum().item(), (moved < 0).sum().item()
    assert abs(positive - negative) < 5 * math.sqrt(20000 * 0.25)
    assert abs(positive + negative - 10000) < 5 * math.sqrt(20000 * 0.25)


def test_kept_task_vectors_change_no_bit():
    a, b, base = randoms(3)
    kept = Workspace(1 << 20)
    for weights in ((1.0, 1.0), (0.2, 0.8)):
        op = plain(weights, (0.5, 0.4), sparsify="dare", seed=3)
        assert torch.equal(merged(op, a, b, base, workspace=kept), merged(op, a, b, base))
