"""Adapters that are more than a sum of factors: they answer as peft has them, and leave every other model alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers_tiny import checkpoint, edit, pool

from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Model
from moco_core.types import digest
from moco_pool_transformers import adapting
from moco_toolkit_checkpoints.local import AdapterWeights, local_engine

ROW = torch.tensor([[0, 40, 50, 60, 70, 80]])


def adapter(base: str, folder: Path, seed: int, **settings: Any) -> str:
    """Write an adapter in which everything that is trained differs from where it started."""
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **settings})
    wrapped = get_peft_model(module, config)
    with torch.no_grad():
        for p in wrapped.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.2)
    wrapped.save_pretrained(folder)
    return str(folder)


def logits(model: Model) -> torch.Tensor:
    with local_engine(model).use(model) as (loaded,):
        places = torch.arange(ROW.shape[1])[None]
        return loaded.forward(ROW, torch.ones_like(ROW), places, None, keep=0).logits.clone()


def by_peft(base: str, path: str) -> torch.Tensor:
    module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if path:
        torch.manual_seed(0)
        module = PeftModel.from_pretrained(module, path)
    with torch.inference_mode():
        return module.eval()(input_ids=ROW).logits


MORE = {
    "saved modules": {"modules_to_save": ["lm_head"]},
    "saved norms": {"modules_to_save": ["norm"]},
    "trained biases": {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True},
    "single tokens": {"trainable_token_indices": [3, 4, 50]},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa by iterations": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "dora": {"use_dora": True},
}


@pytest.mark.parametrize("kind", MORE)
def test_an_adapter_that_changes_its_base_changes_nobody_else(tmp_path: Path, kind: str) -> None:
    base = checkpoint(tmp_path / "base", "gpt2" if "c_attn" in MORE[kind].get("target_modules", ()) else "llama")
    plain: Any = {"target_modules": ["c_attn"], "fan_in_fan_out": True} if kind == "trained biases" else {}
    paths = [adapter(base, tmp_path / "more", 1, **MORE[kind]), adapter(base, tmp_path / "plain", 2, **plain)]
    models = pool(*({"model": base, "adapter": p} for p in paths), base, cache=tmp_path).models()
    assert models[0].base == models[1].base
    want = [by_peft(base, p) for p in (*paths, "")]
    for i in (0, 1, 2, 0, 2, 1):  # what changes its base is opened first, and again between the others
        assert torch.allclose(logits(models[i]), want[i], atol=5e-4), f"{kind}: model {i}"
    loads = models[0].engine.residency.loads  # type: ignore[attr-defined]
    assert loads == (1 if kind == "dora" else 2)


def test_what_cannot_be_rebuilt_is_refused_in_one_line(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    path = adapter(base, tmp_path / "lora", 1)
    for changes, said in (
        ({"init_lora_weights": "corda"}, "trained on a changed base"),
        ({"init_lora_weights": "lora_ga"}, "cannot be computed again"),
        ({"alora_invocation_tokens": [3, 4]}, "aLoRA"),
    ):
        edit(
            Path(path) / "adapter_config.json",
            **{"init_lora_weights": True, "alora_invocation_tokens": None, **changes},
        )
        with pytest.raises(ConfigError, match=said) as caught:
            pool({"model": base, "adapter": path}, cache=tmp_path).models()
        assert "\n" not in str(caught.value)


def test_an_adapter_that_changes_a_shared_base_after_all_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever peft will do to a base one day: the weights are compared when an adapter was put there."""
    base = checkpoint(tmp_path / "base")
    path = adapter(base, tmp_path / "lora", 1)
    plain, tuned = pool(base, {"model": base, "adapter": path}, cache=tmp_path).models()
    before = logits(plain)
    real = adapting.Adapters._add

    def spoil(self: adapting.Adapters, name: str, settings: Any) -> None:
        real(self, name, settings)
        with torch.no_grad():
            next(iter(self.module.parameters())).data.mul_(1.01)  # no version counter sees this

    monkeypatch.setattr(adapting.Adapters, "_add", spoil)
    with pytest.raises(ConfigError, match="changes the weights of its base, which other models use"):
        logits(tuned)
    assert torch.equal(logits(plain), before)
    monkeypatch.undo()
    assert torch.allclose(logits(tuned), by_peft(base, path), atol=5e-4)


def test_a_tensor_without_a_place_is_not_dropped_silently(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    path = adapter(base, tmp_path / "lora", 1)
    file = Path(path) / "adapter_model.safetensors"
    tensors = {k.replace("layers.1.self_attn", "layers.1.attention"): t for k, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    (tuned,) = pool({"model": base, "adapter": path}, cache=tmp_path).models()
    with pytest.raises(ConfigError, match=r"no place for the adapter tensor .*layers\.1\.attention"):
        logits(tuned)


@pytest.mark.parametrize(
    "kind", ["saved modules", "saved norms", "pissa", "olora", "embedding", "dora", "trained biases"]
)
def test_such_adapters_give_the_weights_that_peft_merges(tmp_path: Path, kind: str) -> None:
    family = "gpt2" if kind == "trained biases" else "llama"
    base = checkpoint(tmp_path / "base", family, tie_word_embeddings=False)
    path = adapter(base, tmp_path / "lora", 1, **MORE[kind])
    (tuned,) = (source := pool({"model": base, "adapter": path}, cache=tmp_path)).models()
    weights = source.engine.weights(tuned)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), path)
    want = dict(merged.merge_and_unload().named_parameters())
    assert list(weights.names) == list(want)
    for name in want:
        assert torch.allclose(weights.get(name).float(), want[name], atol=1e-5), name
    if kind == "embedding":  # its stored base layer is the base's own, so the factors are all there is
        assert all("lora_" in k for k in source.engine.adapter_weights(tuned).tensors)
        return
    with pytest.raises(CapabilityError, match="more than a low-rank sum"):
        source.engine.adapter_weights(tuned)
    source.export(tuned, tmp_path / "out")  # as it is
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4
    (again,) = pool({"model": base, "adapter": str(tmp_path / "out")}, cache=tmp_path).models()
    assert torch.allclose(logits(again), logits(tuned), atol=1e-5)


def test_of_patterns_that_match_one_module_the_first_counts_as_with_peft(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    patterns = {r"layers\.0\.self_attn\.q_proj": 3, "q_proj": 16}
    path = adapter(base, tmp_path / "lora", 1, alpha_pattern=patterns, rank_pattern=patterns)
    (tuned,) = (source := pool({"model": base, "adapter": path}, cache=tmp_path)).models()
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), path)
    want = dict(merged.merge_and_unload().named_parameters())
    weights = source.engine.weights(tuned)
    assert all(torch.allclose(weights.get(name).float(), want[name], atol=1e-5) for name in want)


@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["lm_head"]])
def test_an_adapter_on_one_of_two_tied_weights_is_not_merged(tmp_path: Path, targets: list[str]) -> None:
    base = checkpoint(tmp_path / "base", tie_word_embeddings=True)
    path = adapter(base, tmp_path / "lora", 1, target_modules=targets)
    (tuned,) = (source := pool({"model": base, "adapter": path}, cache=tmp_path)).models()
    assert torch.allclose(logits(tuned), by_peft(base, path), atol=5e-4)
    with pytest.raises(CapabilityError, match="one of two tied weights"):
        source.engine.weights(tuned).get("model.embed_tokens.weight")


def test_a_computed_adapter_lies_where_its_tensors_say(tmp_path: Path) -> None:
    """The patterns in its configuration may be those of one source alone."""
    base = checkpoint(tmp_path / "base")
    paths = [adapter(base, tmp_path / f"lora{i}", i, layers_to_transform=[i]) for i in range(2)]
    source = pool(*({"model": base, "adapter": p} for p in paths), cache=tmp_path)
    both = source.engine.derive("both", Union(), list(source.models()))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for path in paths:  # they change different layers, so one may be merged after the other
        plain = PeftModel.from_pretrained(plain, path).merge_and_unload()
    with torch.inference_mode():
        want = plain.eval()(ROW).logits
    assert torch.allclose(logits(both), want, atol=5e-4)
    source.export(both, tmp_path / "out")
    (again,) = pool({"model": base, "adapter": str(tmp_path / "out")}, cache=tmp_path).models()
    assert torch.allclose(logits(again), want, atol=5e-4)


class Union:
    """All tensors of adapters that have none in common, under the configuration of the first."""

    kind = "adapter"
    fingerprint = digest("union")

    def adapter(self, sources: Any) -> AdapterWeights:
        return AdapterWeights(config=sources[0].config, tensors={k: t for s in sources for k, t in s.tensors.items()})
