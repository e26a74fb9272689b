"""Tensor arithmetic against closed forms, mergekit and peft, tensor by tensor."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core.errors import CapabilityError, ConfigError
from moco_toolkit_merging import (
    Consensus,
    Extrapolate,
    Linear,
    Mean,
    Mergekit,
    MergeRecipe,
    dump_operation,
    load_operation,
)
from moco_toolkit_merging.adapters import combine, delta, factors
from moco_toolkit_merging.recipes import AdapterRecipe
from moco_toolkit_merging.tensors import agree, drop_mask, linear, sparsify, trim_mask
from moco_toolkit_merging.workspace import Workspace

torch.set_num_threads(1)


class Dict:
    """Weights held in a dict: what a recipe reads."""

    def __init__(self, tensors, config=None):
        self.tensors, self.config, self.names = tensors, config or {}, list(tensors)

    def shape(self, name):
        return tuple(self.tensors[name].shape)

    def get(self, name):
        return self.tensors[name]


def merged(operation, *sources, name="w", workspace=None):
    recipe = MergeRecipe(
        operation=operation, sources=[f"s{i}" for i in range(len(sources))], workspace=workspace or Workspace()
    )
    operation.check(len(sources))
    return recipe.tensor(name, [s if isinstance(s, Dict) else Dict({name: torch.as_tensor(s)}) for s in sources])


def randoms(count, shape=(17, 9), seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * scale for _ in range(count)]


def mergekit(tensors, method, **keywords):
    api = pytest.importorskip("mergekit.merge_methods.api")
    return api.merge_tensors(tensors, method, **keywords)


def plain(weights, density=None, **keywords):
    density = (1.0,) * len(weights) if density is None else density
    return Consensus(weights=weights, density=density, **{"sparsify": "none", **keywords})


BASE, ONE, TWO = torch.ones(4), torch.tensor([3.0, 0, 1, 2]), torch.tensor([2.0, -3, 1, 1])


# ---------------------------------------------------------------- closed forms


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_search_writes_the_same_bits_into_one_buffer(dtype):
    xs = [x.to(dtype) for x in randoms(3, (700, 300))]
    search = Workspace(1 << 24)
    for coefficients in ((0.2, 0.3, 0.5), (1.5, 0.0, -0.5)):
        op = Linear(coefficients=coefficients)
        assert torch.equal(merged(op, *xs, workspace=search), merged(op, *xs))
    search.limit = 0
    search.clear()
    first, second = (merged(Linear(coefficients=c), *xs, workspace=search) for c in ((0.5, 0.5, 0.0), (0.0, 0.5, 0.5)))
    assert first.data_ptr() != second.data_ptr()


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


# ---------------------------------------------------------------- DARE and TIES


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


# ---------------------------------------------------------------- mergekit


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


# ---------------------------------------------------------------- values


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


# ---------------------------------------------------------------- adapters


def adapter(rank=2, alpha=4, seed=0, modules=("m.q", "m.v"), shapes=((6, 5), (4, 6)), **config):
    from moco_pool_transformers.host import AdapterWeights

    tensors = {}
    for i, (module, (out, inn)) in enumerate(zip(modules, shapes, strict=False)):
        a, b = randoms(1, (rank, inn), seed * 10 + i)[0], randoms(1, (out, rank), seed * 10 + i + 5)[0]
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
    return AdapterWeights(
        config={"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q", "v"]} | config,
        tensors=tensors,
    )


def updates(a):
    return {m: delta(f) for m, f in factors(a).items()}


def test_exact_composition_is_the_sum_of_updates_whatever_ranks_and_scalings():
    parts = [adapter(2, 4, 1), adapter(3, 3, 2, use_rslora=True), adapter(1, 8, 3)]
    weights = (0.5, -1.0, 2.0)
    total = updates(combine(parts, lambda _m: weights))
    for module in ("m.q", "m.v"):
        expected = sum(w * updates(p)[module] for w, p in zip(weights, parts, strict=True))
        assert (total[module] - expected).abs().max() <= 1e-5


def test_factors_have_cross_terms_and_exact_sums_have_none():
    from moco_pool_transformers.host import AdapterWeights

    def scalar(a, b):
        return AdapterWeights(
            config={"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"]},
            tensors={
                "base_model.model.q.lora_A.weight": torch.tensor([[a]]),
                "base_model.model.q.lora_B.weight": torch.tensor([[b]]),
            },
        )

    pair = [scalar(1.0, 3.0), scalar(2.0, 4.0)]
    assert updates(combine(pair, lambda _m: (1.0, 1.0), "factors"))["q"].item() == 21
    assert updates(combine(pair, lambda _m: (1.0, 1.0), "exact"))["q"].item() == 11


def test_copies_scale_linearly_or_quadratically():
    one = adapter(2, 4, 1)
    exact = updates(combine([one, one], lambda _m: (0.75, 0.75)))
    cross = updates(combine([one, one], lambda _m: (0.75, 0.75), "factors"))
    for module, tau in updates(one).items():
        assert torch.allclose(exact[module], 1.5 * tau, atol=1e-5)
        assert torch.allclose(cross[module], 2.25 * tau, atol=1e-5)


@pytest.mark.parametrize("composition", ["exact", "factors"])
def test_one_hot_coefficients_are_that_adapter_and_zero_is_the_base(composition):
    parts = [adapter(2, 4, 1), adapter(2, 4, 2)]
    for module, tau in updates(combine(parts, lambda _m: (0.0, 1.0), composition)).items():
        assert (tau - updates(parts[1])[module]).abs().max() <= 1e-6
    assert all(not t.any() for t in updates(combine(parts, lambda _m: (0.0, 0.0), composition)).values())


def test_factors_do_not_see_the_sign_of_the_weights():
    parts = [adapter(2, 4, 1), adapter(2, 4, 2)]
    plus = updates(combine(parts, lambda _m: (0.3, -0.8), "factors"))
    minus = updates(combine(parts, lambda _m: (-0.3, 0.8), "factors"))
    assert all(torch.equal(plus[m], minus[m]) for m in plus)


def test_different_targets_and_patterns_add_exactly():
    wide = adapter(2, 4, 1)
    narrow = adapter(3, 6, 2, modules=("m.q",), alpha_pattern={"q": 12}, target_modules=["q"])
    total = combine([wide, narrow], lambda _m: (1.0, 0.5))
    assert total.config["r"] == 5 and set(total.config["target_modules"]) == {"m.q", "m.v"}
    q = updates(wide)["m.q"] + 0.5 * updates(narrow)["m.q"]
    assert torch.allclose(updates(total)["m.q"], q, atol=1e-5)
    assert torch.allclose(updates(total)["m.v"], updates(wide)["m.v"], atol=1e-5)
    assert factors(narrow)["m.q"].scaling == 4


def test_excluded_modules_take_other_coefficients():
    recipe = AdapterRecipe(coefficients=(3.0,), sources=("a",), exclude=("*.v",), instead=(1.0,))
    one = adapter(2, 4, 1)
    moved = updates(recipe.adapter([one]))
    assert torch.allclose(moved["m.q"], 3 * updates(one)["m.q"], atol=1e-5)
    assert torch.allclose(moved["m.v"], updates(one)["m.v"], atol=1e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (adapter(3, 6, 2), "ranks 2 and 3 at 'm.q'"),
        (adapter(2, 8, 2), r"scalings 2 and 4 \(lora_alpha / r\) at 'm.q'"),
        (adapter(2, 4, 2, modules=("m.q",)), "'m.v' is a target of 'source 0' only"),
        (adapter(2, 4, 2, use_dora=True), "use_dora"),
        (adapter(2, 4, 2, bias="all"), "bias='all'"),
        (adapter(2, 4, 2, peft_type="IA3"), "IA3"),
    ],
)
def test_adapters_that_do_not_add_factor_by_factor_are_refused(other, message):
    recipe = AdapterRecipe(coefficients=(1.0, 1.0), sources=("a", "b"), composition="factors")
    with pytest.raises(CapabilityError, match=message):
        recipe.adapter([adapter(2, 4, 1), other])


def test_adapters_of_different_bases_are_refused_in_any_composition():
    recipe = AdapterRecipe(coefficients=(1.0, 1.0), sources=("a", "b"))
    with pytest.raises(CapabilityError, match="different bases"):
        recipe.adapter([adapter(2, 4, 1), adapter(2, 4, 1, shapes=((6, 7), (4, 6)))])


def test_exact_composition_equals_pefts_concatenation_and_linear_is_something_else():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.v = torch.nn.Linear(5, 6, bias=False), torch.nn.Linear(6, 4, bias=False)
            self.config = {"model_type": "custom"}

    configs = {"one": (2, 4), "two": (3, 9)}
    model = None
    for name, (rank, alpha) in configs.items():
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q", "v"], init_lora_weights=False)
        if model is None:
            model = peft.get_peft_model(Net(), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    from moco_pool_transformers.host import AdapterWeights

    parts = [
        AdapterWeights(
            config=model.peft_config[n].to_dict(), tensors=peft.get_peft_model_state_dict(model, adapter_name=n)
        )
        for n in configs
    ]
    model.base_model.add_weighted_adapter(["one", "two"], [0.7, -0.4], "both", combination_type="cat")
    theirs = peft.get_peft_model_state_dict(model, adapter_name="both")
    ours = combine(parts, lambda _m: (0.7, -0.4))
    assert set(ours.tensors) == set(theirs)
    assert all((ours.tensors[k] - theirs[k]).abs().max() <= 1e-6 for k in theirs)
    assert ours.config["r"] == ours.config["lora_alpha"] == model.peft_config["both"].r == 5
    model.base_model.add_weighted_adapter(["one", "one"], [0.5, 0.5], "twice_one", combination_type="linear")
    doubled = factors(
        AdapterWeights(
            config=model.peft_config["twice_one"].to_dict(),
            tensors=peft.get_peft_model_state_dict(model, adapter_name="twice_one"),
        )
    )
    single = factors(parts[0])
    assert torch.allclose(delta(doubled["q"]), 2 * delta(single["q"]), atol=1e-5)  # why 'linear' is not used here


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
