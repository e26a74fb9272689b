"""Merged models through the real engine: in memory, as adapters, written and loaded again."""

import hashlib
import json
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from moco_core import CapabilityError, ConfigError
from moco_core.models import Pool
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_merging import (
    Consensus,
    Extrapolate,
    Linear,
    Mean,
    Merge,
    SourceRef,
    base_of,
    check_models,
    export_merge,
)

IDS = torch.arange(5, 45)[None]


def logits(model):
    with local_engine(model).use(model) as (loaded,):
        return loaded.run(input_ids=IDS, use_cache=False).logits.float()


def tensors(model):
    weights = local_engine(model).weights(model)
    return {n: weights.get(n).float() for n in weights.names}


def largest(a, b):
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max()) for n in a)


# ---------------------------------------------------------------- full models


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_soup_of_copies_is_the_model(factory, tied, count):
    folder = factory.model("one", 1, tied=tied)
    pool = Pool(factory.pool(*[{"model": folder, "name": f"m{i}"} for i in range(count)]).models())
    soup = Merge.weights(Mean(), list(pool)).model(pool, "soup")
    assert largest(tensors(soup), tensors(pool[0])) == 0
    assert torch.equal(logits(soup), logits(pool[0]))


@pytest.mark.parametrize("tied", [True, False])
def test_candidates_follow_each_other_in_one_module(factory, tied):
    parent = factory.module(0, tied=tied)
    names = [factory.checkpoint(f"m{i}", factory.module(i, tied=tied, near=parent)) for i in (1, 2)]
    pool = Pool(factory.pool(*names).models())
    before = {n: hashlib.sha256(Path(n, "model.safetensors").read_bytes()).hexdigest() for n in names}
    a, b = (AutoModelForCausalLM.from_pretrained(n) for n in names)
    loads = None
    for share in (0.5, 0.25, 2.0, 0.5):
        model = Merge.weights(Linear(coefficients=(share, 1 - share)), list(pool)).model(pool, f"mix {share}")
        by_hand = {
            n: share * p.detach() + (1 - share) * dict(b.named_parameters())[n].detach()
            for n, p in a.named_parameters()
        }
        with local_engine(model).use(model) as (loaded,):
            state = dict(loaded.module.named_parameters())
            assert max(float((state[n] - by_hand[n]).abs().max()) for n in by_hand) <= 1e-6
            head, embedding = loaded.module.get_output_embeddings().weight, loaded.module.get_input_embeddings().weight
            assert (head.data_ptr() == embedding.data_ptr()) is tied
            module = id(loaded.module)
        loads = module if loads is None else loads
        assert module == loads
    assert before == {n: hashlib.sha256(Path(n, "model.safetensors").read_bytes()).hexdigest() for n in names}


def test_a_one_hot_merge_is_that_model_of_the_pool(factory):
    pool = Pool(factory.pool(factory.model("a", 1), factory.model("b", 2)).models())
    assert Merge.weights(Linear(coefficients=(0.0, 1.0)), list(pool)).model(pool, "x") is pool[1]
    assert Merge.weights(Mean(), [pool[0]]).model(pool, "x") is pool[0]


@pytest.mark.parametrize(
    "operation",
    [
        Mean(),
        Linear(coefficients=(0.3, 0.5, 0.2)),
        Extrapolate(alpha=0.7, targets=2),
        Consensus(weights=(1.0, 0.5), density=(0.5, 0.4), sparsify="dare", seed=3),
        Consensus(weights=(1.0, 0.5), density=(0.3, 0.3), sparsify="ties", rescale="none"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_written_and_loaded_again_it_is_what_was_evaluated(factory, operation, tied, tmp_path):
    parent = factory.module(0, tied=tied)
    names = [factory.checkpoint(f"m{i}", factory.module(i, tied=tied, near=parent)) for i in (1, 2, 3)]
    pool = Pool(factory.pool(*names).models())
    merge = Merge.weights(operation, list(pool))
    model = merge.model(pool, "merged")
    export_merge(pool, merge, tmp_path / "out", title="Merged", method="test")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert (again(input_ids=IDS).logits - logits(model)).abs().max() <= 1e-5
    assert (again.lm_head.weight.data_ptr() == again.model.embed_tokens.weight.data_ptr()) is tied
    card = (tmp_path / "out" / "README.md").read_text()
    assert json.loads(card.split("```json")[1].split("```")[0]) == merge.dump()
    assert Merge.load(json.loads(json.dumps(merge.dump()))) == merge
    export_merge(pool, merge, tmp_path / "out", title="Merged", method="test")  # it is there already
    with pytest.raises(ConfigError, match="not empty"):
        export_merge(pool, Merge.of_one(pool[0]), tmp_path / "out", title="Other", method="test")
    served = Pool(factory.pool(str(tmp_path / "out")).models())[0]
    assert torch.equal(logits(served), again(input_ids=IDS).logits.detach())


def test_nan_in_a_source_is_one_line_and_leaves_nothing(factory, tmp_path):
    bad = factory.module(2)
    with torch.no_grad():
        bad.model.layers[1].mlp.up_proj.weight[3, 3] = float("nan")
    pool = Pool(factory.pool(factory.model("a", 1), factory.checkpoint("b", bad)).models())
    with pytest.raises(ConfigError, match=r"up_proj.weight: model 'b' holds NaN"):
        export_merge(pool, Merge.weights(Mean(), list(pool)), tmp_path / "out", title="x", method="test")
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == []


# ---------------------------------------------------------------- adapters


@pytest.fixture
def lora(factory):
    base = factory.model("base", 7, tied=False)
    one = factory.adapter("one", base, 1)
    two = factory.adapter("two", base, 2)
    wide = factory.adapter("wide", base, 3, rank=6, alpha=3, targets=("q_proj", "o_proj", "down_proj"))
    return factory.pool(one, two, wide, {"model": base, "name": "base"})


def summed(pool, coefficients):
    """Full weights: base + sum of coefficients times (adapter merged in - base)."""
    base = tensors(pool[-1])
    parts = [tensors(m) for m in list(pool)[: len(coefficients)]]
    return {n: base[n] + sum(c * (p[n] - base[n]) for c, p in zip(coefficients, parts, strict=True)) for n in base}


def full_logits(weights, folder):
    module = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(weights[name])
        return module(input_ids=IDS).logits


def in_float64(pool, coefficients, folder):
    """Logits of base + sum w c B A, all of it in float64: independent of what is tested but for reading the files."""
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    places = dict(module.named_modules())
    with torch.no_grad():
        for weight, model in zip(coefficients, pool, strict=False):
            adapter = local_engine(model).adapter_weights(model)
            scaling = adapter.config["lora_alpha"] / adapter.config["r"]
            for key, a in adapter.tensors.items():
                if ".lora_A." in key:
                    b = adapter.tensors[key.replace(".lora_A.", ".lora_B.")]
                    target = places[key.removeprefix("base_model.model.").partition(".lora_A.")[0]]
                    target.weight += weight * scaling * b.double() @ a.double()
        return module(input_ids=IDS).logits


@pytest.mark.parametrize("coefficients", [(1 / 3, 1 / 3, 1 / 3), (0.7, -0.4, 1.3)])
def test_adapters_added_exactly_equal_full_weights_added(factory, lora, coefficients):
    pool = Pool(lora.models())
    model = Merge.adapters(coefficients, pool[:3]).model(pool, "sum")
    expected = full_logits(summed(pool, coefficients), factory.root / "base")
    assert (logits(model) - expected).abs().max() <= 1e-5
    assert (logits(model).double() - in_float64(pool, coefficients, factory.root / "base")).abs().max() <= 1e-5
    assert largest(tensors(model), summed(pool, coefficients)) <= 1e-6


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 2.0])
def test_a_scaled_adapter_equals_the_extrapolated_full_model(lora, alpha):
    pool = Pool(lora.models())
    scaled = Merge.adapters((1 + alpha,), [pool[0]]).model(pool, "scaled")
    full = Merge.weights(Extrapolate(alpha=alpha), [pool[0]], SourceRef.of(pool[0], base=True)).model(pool, "full")
    assert (logits(scaled) - logits(full)).abs().max() <= 1e-5


@pytest.mark.parametrize("composition", ["exact", "factors"])
def test_zero_weights_are_the_base_and_signs_do_not_matter_to_factors(lora, composition):
    pool = Pool(lora.models())
    zero = Merge.adapters((0.0, 0.0), pool[:2], composition).model(pool, "zero")
    assert torch.equal(logits(zero), logits(pool[3]))
    assert torch.equal(logits(base_of(pool, pool[0])), logits(pool[3]))
    plus, minus = (
        logits(Merge.adapters((s * 0.6, s * -0.9), pool[:2], composition).model(pool, f"{s}")) for s in (1, -1)
    )
    assert torch.equal(plus, minus) is (composition == "factors")


SPARSIFIED = [("none", 1.0), ("dare", 0.5), ("ties", 0.5), ("ties", 0.1)]


def on_grid(folder, file, step, bound):
    """Round the tensors of a file to multiples of ``step`` within ``bound``."""
    path = Path(folder) / file
    rounded = {k: (t / step).round().mul(step).clamp(-bound, bound) for k, t in load_file(path).items()}
    save_file(rounded, path, metadata={"format": "pt"})


def merged_both_ways(factory, pool, operation):
    """A consensus of two adapters, made of their factors, and of full models they were merged into first."""
    full = []
    for m in pool[:2]:
        module = AutoModelForCausalLM.from_pretrained(factory.root / "base")
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(tensors(m)[name])
        full.append(factory.checkpoint(f"full-{m.name}", module))
    first = Pool(factory.pool(*full, {"model": str(factory.root / "base"), "name": "base"}).models())
    by_factor = Merge.weights(operation, pool[:2], SourceRef.of(pool[0], base=True)).model(pool, "a")
    by_weight = Merge.weights(operation, first[:2], SourceRef.of(first[2])).model(first, "b")
    return tensors(by_factor), tensors(by_weight)


@pytest.mark.parametrize(("sparsify", "density"), SPARSIFIED)
@pytest.mark.parametrize("vote", ["sum", "count"])
def test_task_vectors_of_adapters_equal_those_of_merged_models(factory, sparsify, density, vote):
    """On numbers that float32 adds without rounding, updates come out of merged models as they went in: every bit equal."""
    base = factory.model("base", 7, tied=False)
    on_grid(base, "model.safetensors", 2**-10, 8.0)
    entries = [factory.adapter("one", base, 1), factory.adapter("two", base, 2, rank=6, alpha=3)]
    for entry in entries:
        on_grid(entry["adapter"], "adapter_model.safetensors", 2**-4, 4.0)
    pool = Pool(factory.pool(*entries).models())
    op = Consensus(weights=(1.0, 0.5), density=(density,) * 2, sparsify=sparsify, rescale="none", vote=vote)
    one, two = merged_both_ways(factory, pool, op)
    assert all(torch.equal(one[n], two[n]) for n in one)
    untouched = tensors(base_of(pool, pool[0]))
    assert any(not torch.equal(one[n], untouched[n]) for n in one)


@pytest.mark.parametrize(("sparsify", "density"), SPARSIFIED)
def test_task_vectors_of_any_adapters_equal_those_of_merged_models_to_rounding(lora, factory, sparsify, density):
    """A full model stores fl(base + tau), which moves tau by 2^-24 of it: no sign and no threshold here is that near."""
    pool = Pool(lora.models())
    op = Consensus(weights=(1.0, 0.5), density=(density,) * 2, sparsify=sparsify, rescale="none")
    assert largest(*merged_both_ways(factory, pool, op)) <= 1e-6


def test_a_composed_adapter_is_written_as_an_adapter(factory, lora, tmp_path):
    from peft import PeftModel

    pool = Pool(lora.models())
    merge = Merge.adapters((0.5, 0.25, -1.0), pool[:3])
    export_merge(pool, merge, tmp_path / "out", title="Sum", method="test")
    again = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(factory.root / "base"), tmp_path / "out"
    ).eval()
    with torch.no_grad():
        assert (again(input_ids=IDS).logits - logits(merge.model(pool, "sum"))).abs().max() <= 1e-5
    assert "library_name: peft" in (tmp_path / "out" / "README.md").read_text()


def test_mixed_scalings_raise_for_factors_and_work_exactly(lora):
    pool = Pool(lora.models())
    with pytest.raises((CapabilityError, ConfigError), match=r"ranks 4 and 6|'down_proj|target of"):
        logits(Merge.adapters((0.5, 0.5), [pool[0], pool[2]], "factors").model(pool, "x"))
    assert torch.isfinite(logits(Merge.adapters((0.5, 0.5), [pool[0], pool[2]]).model(pool, "y"))).all()


# ---------------------------------------------------------------- what does not fit


def test_rope_and_dtype_differences_are_warnings(factory):
    parent = factory.module(1)
    other = factory.module(2, dtype=torch.bfloat16, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    pool = factory.pool(factory.checkpoint("a", parent), factory.checkpoint("b", other)).models()
    report = check_models([attrs.evolve(m, architecture="same") for m in pool])
    assert any("rope" in w for w in report.warnings) and any("float32 and bfloat16" in w for w in report.warnings)
