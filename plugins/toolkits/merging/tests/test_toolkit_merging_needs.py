"""What is told before any work: mismatches by name, adapters that do not add up, broken sources, folders."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moco_core import CapabilityError, ConfigError
from moco_core.models import Pool
from moco_pool_transformers.weights import FileWeights
from moco_toolkit_authoring import ScriptedPool
from moco_toolkit_merging import check_finite, check_models, strangers, weight_needs


@pytest.fixture
def closed(monkeypatch):
    """No tensor may be read."""

    def read(self, name):
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(FileWeights, "get", read)


def problems(pool, **fields):
    return weight_needs(min_models=2, **fields).problems(pool)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"intermediate_size": 64}, "tensor 'model.layers.0.mlp.down_proj.weight' is 32x48 in 'a' and 32x64 in 'b'"),
        ({"num_attention_heads": 8}, "num_attention_heads is 4 in one and 8 in the other"),
        ({"num_hidden_layers": 3}, "'a' has no tensor 'model.layers.2.input_layernorm.weight'"),
        ({"tied": False}, "'a' has no tensor 'lm_head.weight', 'b' has it"),
        ({"vocab": 300}, "is 260x32 in 'a' and 300x32 in 'b'; different vocabularies"),
    ],
)
def test_the_first_mismatch_is_one_line_and_no_weight_is_read(factory, closed, changes, first):
    pool = factory.pool(factory.model("a", 1), factory.model("b", 2, **changes)).models()
    (line,) = problems(pool)
    assert first in line and line.startswith("models 'a' and 'b' do not share an architecture (") and "\n" not in line
    with pytest.raises(CapabilityError) as caught:
        check_models(pool)
    assert str(caught.value) == line


def test_models_of_two_engines_are_refused_before_anything_is_asked(factory):
    one, two = (factory.pool(factory.model(name, 1)).models()[0] for name in "ab")
    assert problems([one, two]) == ["models 'a' and 'b' are opened by two engines; put them into one pool to merge them"]


def test_equal_shapes_with_other_tokens_are_refused(factory, closed):
    names = [factory.model("a", 1), factory.model("b", 2)]
    path = Path(names[1]) / "tokenizer.json"
    data = json.loads(path.read_text())
    vocabulary = data["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(data))
    (line,) = problems(factory.pool(*names).models())
    assert line.startswith("models 'a' and 'b' do not share a tokenizer")


def test_rank_and_scaling_are_compared_from_headers_for_factors_only(factory, closed):
    base = factory.model("base", 7)
    entries = [factory.adapter("one", base, 1), factory.adapter("two", base, 2, alpha=16)]
    pool = factory.pool(*entries).models()
    (line,) = problems(pool, composition="factors")
    assert "adapters 'one' and 'two': scalings 2 and 4 (lora_alpha / r) at" in line
    assert problems(pool, composition="exact") == []
    path = Path(entries[1]["adapter"]) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    (line,) = problems(factory.pool(*entries).models())
    assert line.startswith("adapter 'two': it is more than a sum of factors: DoRA magnitudes (use_dora)")


def test_adapters_of_another_base_are_strangers(factory):
    base, other = factory.model("base", 7), factory.model("other", 8)
    entries = [factory.adapter("one", base, 1), factory.adapter("two", other, 2)]
    one, two, root, elsewhere = factory.pool(
        *entries, {"model": base, "name": "base"}, {"model": other, "name": "other"}
    ).models()
    assert strangers([one, root], root) == strangers([one], one) == strangers([two], elsewhere) == []
    (line,) = strangers([one, two], root)
    assert line == "model 'two' is an adapter on another base than 'base'; name the base it was trained on"
    assert strangers([one], two) and not strangers([], root)
    scripted = ScriptedPool({"a": "1", "b": "2"}, fields={"a": {"adapter": True, "base": "x"}}).models()
    assert strangers(scripted[:1], scripted[1]) == []  # a pool that does not tell


def test_an_adapter_that_names_another_base_is_warned_about(factory):
    base = factory.model("base", 7)
    entry = factory.adapter("one", base, 1)
    assert check_models(factory.pool(entry).models()).warnings == ()
    path = Path(entry["adapter"]) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "maker/another-8b"}))
    (warning,) = check_models(factory.pool(entry).models()).warnings
    assert "adapter 'one' says it was trained on 'maker/another-8b'" in warning


def test_models_that_end_replies_with_other_tokens_are_warned_about(factory):
    folders = [factory.model("base", 1), factory.model("chat", 2), factory.model("plain", 3)]
    path = Path(folders[1]) / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": [257, 10]}))
    (Path(folders[2]) / "generation_config.json").unlink()  # its configuration says 257, as the first one's files do
    (warning,) = check_models(factory.pool(*folders).models()).warnings
    assert warning == (
        "'base' and 'chat': replies end with token 257 in one and 10 or 257 in the other; the merge ends as 'base' does"
    )


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_broken_weight_is_named(factory, broken):
    folders = [factory.model("a", 1), factory.model("b", 2)]
    pool = Pool(factory.pool(*folders).models())
    check_finite(list(pool))
    path = Path(folders[1]) / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 3] = broken
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"^model.layers.1.mlp.up_proj.weight: model 'b' holds NaN or infinite values"
    ):
        check_finite(factory.pool(*folders).models())
    entry = factory.adapter("one", folders[0], 1)
    path = Path(entry["adapter"]) / "adapter_model.safetensors"
    tensors = {k: torch.full_like(t, broken) for k, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"q_proj.lora_A.weight: model 'one' holds NaN or infinite values"):
        check_finite(factory.pool(entry).models())
    check_finite(ScriptedPool({"a": "1"}).models())  # no weights in reach


def test_a_folder_with_a_merge_of_other_models_is_refused_at_once(factory, closed, tmp_path):
    pool = factory.pool(factory.model("a", 1), factory.model("b", 2)).models()
    held = tmp_path / "held"
    held.mkdir()

    def holds(*prints):
        merge = {"sources": [{"model": "x", "fingerprint": f} for f in prints]}
        (held / "moco_recipe.json").write_text(json.dumps({"fingerprint": "f", "merge": merge}))

    holds(pool[1].fingerprint, pool[0].fingerprint)  # perhaps the same merge: told at the end
    assert problems(pool, export=str(held)) == []
    holds(pool[0].fingerprint, "another")
    assert problems(pool, export=str(held)) == [f"option export: {held}: not empty; give a new folder"]
    holds()
    assert problems(pool, export=str(held)) == [f"option export: {held}: not empty; give a new folder"]


def test_the_folder_comes_last_and_only_if_the_models_fit(factory, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").write_text("x")
    pool = factory.pool(factory.model("a", 1), factory.model("b", 2)).models()
    assert problems(pool, export=str(tmp_path / "new")) == []
    assert problems(pool, export=str(taken)) == [f"option export: {taken}: not empty; give a new folder"]
    assert problems(pool, export=str(taken), check=lambda _: ["first"]) == ["first"]
    assert problems(pool[:1], export=str(taken)) == ["needs at least 2 models, the pool has 1; add models to the pool"]
