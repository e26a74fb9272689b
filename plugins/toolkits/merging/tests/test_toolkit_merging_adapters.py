"""LoRA adapters added exactly and factor by factor, against closed forms and peft."""

import pytest
import torch
from merging_values import adapter, updates

from moco_core.errors import CapabilityError
from moco_toolkit_merging.adapters import combine, delta, factors
from moco_toolkit_merging.recipes import AdapterRecipe


def test_exact_composition_is_the_sum_of_updates_whatever_ranks_and_scalings():
    parts = [adapter(2, 4, 1), adapter(3, 3, 2, use_rslora=True), adapter(1, 8, 3)]
    weights = (0.5, -1.0, 2.0)
    total = updates(combine(parts, lambda _m: weights))
    for module in ("m.q", "m.v"):
        expected = sum(w * updates(p)[module] for w, p in zip(weights, parts, strict=True))
        assert (total[module] - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("ranks", "weights", "expected"),
    [
        ((2, 3), (0.5, -1.0), 5),
        ((1, 2, 3), (1.0, 1.0, 1.0), 6),
        ((4, 1, 3, 2), (0.3, -2.0, 0.7, 1.1), 10),
        ((4, 1, 3, 2), (0.3, 0.0, 0.7, 0.0), 7),  # those left out add no rank
        ((5, 5, 5, 5, 5), (0.2, 0.2, 0.2, 0.2, 0.2), 24),  # no more than the module has
    ],
)
def test_the_rank_of_an_exact_sum_is_the_sum_of_ranks(ranks, weights, expected):
    shapes = ((24, 30), (26, 24))
    parts = [adapter(r, 2 * r + i, i, shapes=shapes, use_rslora=bool(i % 2)) for i, r in enumerate(ranks)]
    total = combine(parts, lambda _m: weights)
    assert total.config["r"] == sum(ranks)
    for found in factors(total).values():
        assert found.rank == sum(ranks)
        assert int(torch.linalg.matrix_rank(found.b.double() @ found.a.double())) == expected


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_sum_of_factors_keeps_the_rank_whatever_the_number_of_adapters(count):
    parts = [adapter(3, 6, i, shapes=((24, 30), (26, 24))) for i in range(count)]
    for found in factors(combine(parts, lambda _m: [0.4 - 0.3 * i for i in range(count)], "factors")).values():
        assert int(torch.linalg.matrix_rank(found.b.double() @ found.a.double())) == 3


def test_factors_have_cross_terms_and_exact_sums_have_none():
    from moco_toolkit_checkpoints.local import AdapterWeights

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


def test_a_swarm_of_adapters_moves_as_its_coefficients_do():
    """Positions as coefficients, combined factor by factor, equal a swarm that moves the adapters' tensors themselves."""
    swarms = pytest.importorskip("moco_toolkit_swarm")
    parts = [adapter(3, 6, i, shapes=((8, 7), (6, 8))) for i in range(4)]
    keys = list(parts[0].tensors)

    class Tensors:
        def linear(self, coefficients, vectors):
            return {k: sum(c * v[k] for c, v in zip(coefficients, vectors, strict=True)) for k in keys}

        def dump(self, vector):
            return None

        def load(self, data):
            raise AssertionError("not asked for")

    target = {k: t.double() for k, t in adapter(3, 6, 9, shapes=((8, 7), (6, 8))).tensors.items()}

    def score(tensors):
        return -sum(float((tensors[k].double() - target[k]).square().sum()) for k in keys)

    def combined(position):
        return combine(parts, lambda _m: position, "factors").tensors

    settings = swarms.SwarmSettings(seed=3, max_iterations=5, patience=99, restart_patience=2)
    direct = swarms.Swarm(settings, [{k: t.double() for k, t in p.tensors.items()} for p in parts], space=Tensors())
    coded = swarms.Swarm(settings, swarms.one_hot(4))
    while points := direct.ask():
        direct.tell([score(p.position) for p in points])
        coded.tell([score(combined(p.position)) for p in coded.ask()])
    assert direct.iteration == coded.iteration == 5 and not coded.ask()
    for tensors, position, velocity in zip(direct.positions, coded.positions, coded.velocities, strict=True):
        assert sum(position) == pytest.approx(1, abs=1e-9) and sum(velocity) == pytest.approx(0, abs=1e-9)
        found = combined(position)
        assert max(float((tensors[k] - found[k].double()).abs().max()) for k in keys) <= 1e-5


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


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"layers_to_transform": [0]}, {"layers_to_transform": [1]}),
        ({"exclude_modules": ["v"]}, {"exclude_modules": ["q"]}),
        ({"rank_pattern": {"q": 2}}, {"rank_pattern": {"v": 3}}),
    ],
)
def test_a_sum_names_the_modules_it_has_whatever_selected_those_of_its_sources(own, other):
    """Equal target_modules say little: each adapter may pick its layers by another pattern."""
    q = adapter(2, 4, 1, modules=("m.q",), target_modules=["q", "v"], **own)
    v = adapter(3, 6, 2, modules=("m.v",), target_modules=["q", "v"], **other)
    total = combine([q, v], lambda _m: (0.7, 0.6))
    config = total.config
    assert config["target_modules"] == ["m.q", "m.v"] and not config["rank_pattern"]
    assert config["layers_to_transform"] is config["exclude_modules"] is None
    assert torch.allclose(updates(total)["m.q"], 0.7 * updates(q)["m.q"], atol=1e-5)
    assert torch.allclose(updates(total)["m.v"], 0.6 * updates(v)["m.v"], atol=1e-5)


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
        (adapter(2, 4, 2, bias="all"), r"trained biases \(bias: all\)"),
        (adapter(2, 4, 2, init_lora_weights="pissa"), r"a base without what the adapter took .*pissa"),
        (adapter(2, 4, 2, init_lora_weights="corda"), "cannot be computed again"),
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

    configs = {"one": (2, 4, False), "two": (3, 9, False), "three": (1, 5, False), "four": (4, 3, True)}
    model = None
    for name, (rank, alpha, stabilised) in configs.items():
        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=["q", "v"], init_lora_weights=False, use_rslora=stabilised
        )
        if model is None:
            model = peft.get_peft_model(Net(), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    from moco_toolkit_checkpoints.local import AdapterWeights

    parts = [
        AdapterWeights(
            config=model.peft_config[n].to_dict(), tensors=peft.get_peft_model_state_dict(model, adapter_name=n)
        )
        for n in configs
    ]
    for chosen, weights, rank in (((0, 1), (0.7, -0.4), 5), ((0, 1, 2, 3), (0.7, -0.4, 1.0, 0.2), 10)):
        label = f"sum of {len(chosen)}"
        names = [list(configs)[i] for i in chosen]
        model.base_model.add_weighted_adapter(names, list(weights), label, combination_type="cat")
        theirs = peft.get_peft_model_state_dict(model, adapter_name=label)
        ours = combine([parts[i] for i in chosen], lambda _m, w=weights: w)
        assert set(ours.tensors) == set(theirs)
        assert ours.config["r"] == ours.config["lora_alpha"] == model.peft_config[label].r == rank
        assert all((ours.tensors[k] - theirs[k]).abs().max() <= 1e-6 for k in theirs)
    model.base_model.add_weighted_adapter(["one", "one"], [0.5, 0.5], "twice_one", combination_type="linear")
    doubled = factors(
        AdapterWeights(
            config=model.peft_config["twice_one"].to_dict(),
            tensors=peft.get_peft_model_state_dict(model, adapter_name="twice_one"),
        )
    )
    single = factors(parts[0])
    assert torch.allclose(delta(doubled["q"]), 2 * delta(single["q"]), atol=1e-5)  # why 'linear' is not used here
