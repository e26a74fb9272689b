"""Adapters and models made from others: against peft, against files, against each other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers_tiny import Mean, ask, build, checkpoint, pool, serve, tokenizer

from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Inbox, Model, Pool
from moco_core.types import digest
from moco_pool_transformers import export
from moco_toolkit_checkpoints.local import AdapterWeights, LocalEngine, ModelFiles, local_engine
from moco_toolkit_checkpoints.specs import weight_files
from moco_toolkit_decoding.runner import ModelRunner

ROW = torch.tensor([[0, 40, 50, 60, 70, 80]])


def adapter(base: str, folder: Path, seed: int, **settings: Any) -> str:
    """Write a random LoRA adapter on ``base``."""
    torch.manual_seed(seed)
    module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], **settings})
    wrapped = get_peft_model(module, config)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn_like(p) * 0.4)
    wrapped.save_pretrained(folder)
    return str(folder)


def logits(model: Model) -> torch.Tensor:
    with local_engine(model).use(model) as (loaded,):
        places = torch.arange(ROW.shape[1])[None]
        return loaded.forward(ROW, torch.ones_like(ROW), places, None, keep=0).logits.clone()


def merged(base: str, path: str) -> Any:
    module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(module, path).merge_and_unload().eval()


def test_adapters_share_a_base_and_keep_apart(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    paths = [adapter(base, tmp_path / f"lora{i}", i, use_rslora=i == 1) for i in range(2)]
    source = pool(base, *({"model": base, "adapter": p} for p in paths), cache=tmp_path)
    models = source.models()
    assert [m.name for m in models] == ["base", "lora0", "lora1"]
    assert [m.adapter for m in models] == [False, True, True]
    assert models[0].base == "" and models[1].base == models[2].base != ""
    assert len({m.fingerprint for m in models}) == 3
    assert len({m.tokenizer for m in models}) == len({m.architecture for m in models}) == 1
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        want = [plain(ROW).logits, *(merged(base, p)(ROW).logits for p in paths)]
    for i in (1, 0, 2, 1, 0):  # in any order, again and again
        assert torch.allclose(logits(models[i]), want[i], atol=2e-4)
    assert not torch.allclose(want[1], want[2], atol=0.1)
    with source.engine.use(*models) as loaded:  # and interleaved
        places = torch.arange(ROW.shape[1])[None]
        for i in (2, 0, 1, 2):
            got = loaded[i].forward(ROW, torch.ones_like(ROW), places, None, keep=0).logits
            assert torch.allclose(got, want[i], atol=2e-4)
    assert source.engine.residency.loads == 1


def test_an_adapter_of_another_base_is_refused_from_headers(tmp_path: Path) -> None:
    base, wide = checkpoint(tmp_path / "base"), checkpoint(tmp_path / "wide", intermediate_size=96)
    other = checkpoint(tmp_path / "other", "gpt2")
    with pytest.raises(ConfigError, match=r"another base than .*/wide: 'model\..*down_proj' is \d+x96 there") as caught:
        pool({"model": wide, "adapter": adapter(base, tmp_path / "lora", 1)}, cache=tmp_path).models()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"another base than .*/other: that has nothing like 'model\..*down_proj'"):
        pool({"model": other, "adapter": str(tmp_path / "lora")}, cache=tmp_path).models()
    transposed = adapter(other, tmp_path / "conv", 2, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    assert pool({"model": other, "adapter": transposed}, cache=tmp_path).models()[0].adapter


def test_a_host_tells_where_files_lie_and_a_derived_model_lies_nowhere(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    path = adapter(base, tmp_path / "lora", 3)
    source = pool({"model": base, "adapter": path}, base, cache=tmp_path)
    tuned, plain = source.models()
    for model in (tuned, plain):
        found = local_engine(model).files(model)
        assert (found.checkpoint, found.named, found.base) == (Path(base).resolve(), base, tuned.base)
        assert found.tokenizer == found.checkpoint
    assert source.engine.files(tuned).adapter == Path(path).resolve() and source.engine.files(plain).adapter is None
    derived = source.engine.derive("whole", Mean((tuned,)), [tuned])
    assert source.engine.files(derived) == ModelFiles()


def test_adapter_generates_like_its_merged_checkpoint(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    path = adapter(base, tmp_path / "lora", 3)
    source = pool({"model": base, "adapter": path}, base, cache=tmp_path)
    tuned, plain = source.models()
    source.export(source.engine.derive("whole", Mean((tuned,)), [tuned]), tmp_path / "whole")
    whole = pool(str(tmp_path / "whole"), cache=tmp_path).models()[0]
    calls = ["the quick", "what is", "numbers 0 1"]
    a, b, c = ([r.token_ids for r in serve(m, [ask(m, t) for t in calls])] for m in (tuned, whole, plain))
    assert a == b != c


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_merged_weights_equal_the_closed_form(tmp_path: Path, tied: bool, kind: str) -> None:
    folders = [checkpoint(tmp_path / f"m{i}", kind, seed=i, tie_word_embeddings=tied) for i in range(3)]
    source = pool(*folders, cache=tmp_path)
    a, b, c = source.models()
    models = Pool([a, b, c])
    ab, bc = models.derive("ab", Mean((a, b)), [a, b]), models.derive("bc", Mean((b, c)), [b, c])
    nested = models.derive("nested", Mean((ab, bc)), [ab, bc])
    assert ab.architecture == a.architecture and len({m.fingerprint for m in (ab, bc, nested)}) == 3

    def closed(*weights: float) -> torch.Tensor:
        modules = [AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval() for f in folders]
        target = modules[0]
        with torch.no_grad():
            parts = [dict(m.named_parameters()) for m in modules]
            for name, p in target.named_parameters():
                p.copy_(sum(w * q[name].clone() for w, q in zip(weights, parts, strict=True)))
            return target(ROW).logits

    assert torch.allclose(logits(ab), closed(0.5, 0.5, 0), atol=2e-4)
    assert torch.allclose(logits(bc), closed(0, 0.5, 0.5), atol=2e-4)
    assert torch.allclose(logits(nested), closed(0.25, 0.5, 0.25), atol=2e-4)
    assert torch.allclose(logits(ab), closed(0.5, 0.5, 0), atol=2e-4)
    assert source.engine.residency.loads == 1  # one evaluation module for all candidates; the sources were never loaded
    with source.engine.use(ab, bc) as (one, two):  # two at once need a second module
        assert one.module is not two.module
        places = torch.arange(ROW.shape[1])[None]
        for loaded, want in ((one, closed(0.5, 0.5, 0)), (two, closed(0, 0.5, 0.5))):
            got = loaded.forward(ROW, torch.ones_like(ROW), places, None, keep=0).logits
            assert torch.allclose(got, want, atol=2e-4)


def test_a_merged_model_has_the_configuration_and_ends_of_its_first_source(tmp_path: Path) -> None:
    """Whatever was merged before it: models of one shape may differ in what their configurations say."""
    folders = [checkpoint(tmp_path / "a", seed=0), checkpoint(tmp_path / "b", seed=1, rms_norm_eps=0.5)]
    for folder, ends in zip(folders, ([1], list(range(400))), strict=True):
        (Path(folder) / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    a, b = (models := Pool(pool(*folders, cache=tmp_path).models()))
    assert a.architecture == b.architecture
    ab, ba = models.derive("ab", Mean((a, b)), [a, b]), models.derive("ba", Mean((b, a)), [b, a])
    halves = [dict(AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).named_parameters()) for f in folders]

    def closed(folder: str) -> torch.Tensor:
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_((halves[0][name] + halves[1][name]) / 2)
            return module(ROW).logits

    for model, folder in ((ab, folders[0]), (ba, folders[1]), (ab, folders[0])):
        assert torch.allclose(logits(model), closed(folder), atol=2e-4)
    replies = {m.name: serve(m, [ask(m, "the quick")])[0] for m in (ab, ba)}
    assert {n: (len(r.token_ids), r.finish_reason) for n, r in replies.items()} == {
        "ab": (16, "length"),
        "ba": (1, "eos"),
    }


def test_entries_that_share_a_module_keep_their_own_ends(tmp_path: Path) -> None:
    folder = Path(checkpoint(tmp_path / "a"))
    other = Path(shutil.copytree(folder, tmp_path / "b"))
    for path, ends in ((folder, [1]), (other, [1, 7, 9])):
        (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    bare = Path(shutil.copytree(folder, tmp_path / "c"))
    (bare / "generation_config.json").unlink()  # then the configuration says it
    models = pool(str(folder), str(other), str(bare), cache=tmp_path).models()
    assert models[0].fingerprint != models[1].fingerprint
    with local_engine(models[0]).use(*models) as loaded:
        assert len({id(one.module) for one in loaded}) == 1
        turn = loaded[0].renderer.end_of_turn  # type: ignore[attr-defined]
        assert [one.end_ids - {turn} for one in loaded] == [{1}, {1, 7, 9}, {1}]


def test_candidates_of_a_search_share_what_was_found_out_about_their_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for i in range(2):  # the head has rows above the tokenizer's, as most released models do
        tok = tokenizer()
        build("llama", len(tok) + 37, i).save_pretrained(tmp_path / f"m{i}")
        tok.save_pretrained(tmp_path / f"m{i}")
        folders.append(str(tmp_path / f"m{i}"))
    a, b = (models := Pool(pool(*folders, cache=tmp_path).models()))
    probes, real = [], ModelRunner._agrees

    def counted(self: ModelRunner) -> bool:
        probes.append(self.loaded.model.name)
        return real(self)

    monkeypatch.setattr(ModelRunner, "_agrees", counted)
    for i, sources in enumerate(([a, b], [b, a], [a, b, b])):
        candidate = models.derive(f"c{i}", Mean(tuple(sources)), sources)
        with local_engine(candidate).use(candidate) as (loaded,):
            assert loaded.runner.new_cache() is not None  # type: ignore[attr-defined]
    assert probes == ["c0"]


def test_exported_weights_reload_to_the_same_function(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path / f"m{i}", seed=i) for i in range(2)]
    source = pool(*folders, cache=tmp_path)
    a, b = source.models()
    derived = source.engine.derive("ab", Mean((a, b)), [a, b])
    source.export(derived, tmp_path / "out")
    again = pool(str(tmp_path / "out"), cache=tmp_path).models()[0]
    assert torch.equal(logits(again), logits(derived))
    assert (again.tokenizer, again.architecture) == (a.tokenizer, a.architecture)
    turns = [("user", "what is")]
    assert serve(again, [ask(again, turns)])[0].token_ids == serve(derived, [ask(derived, turns)])[0].token_ids
    with pytest.raises(ConfigError, match="not empty"):
        source.export(derived, tmp_path / "out")
    with pytest.raises(CapabilityError, match="export it first"):
        source.engine.folder(derived)


@pytest.mark.parametrize("shard", [1, 1 << 30])
def test_an_export_has_the_names_and_parts_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    """In memory the experts of a layer are one tensor; in files, and for other engines, they are not."""
    monkeypatch.setattr(export, "SHARD", shard)
    folders = [checkpoint(tmp_path / f"m{i}", "mixtral", seed=i) for i in range(2)]
    source = pool(*folders, cache=tmp_path)
    a, b = source.models()
    derived = source.engine.derive("ab", Mean((a, b)), [a, b])
    assert any("gate_up_proj" in n for n in source.engine.weights(a).names)
    source.export(derived, tmp_path / "out")
    stored = [
        {k: v for p in weight_files(f) for k, v in load_file(p).items()}
        for f in (*map(Path, folders), tmp_path / "out")
    ]
    assert stored[0].keys() == stored[2].keys() and any("experts.1.w2" in n for n in stored[2])
    for name in stored[0]:
        assert torch.allclose(stored[2][name], (stored[0][name] + stored[1][name]) / 2, atol=1e-6), name
    assert (len(weight_files(tmp_path / "out")) > 1) == (shard == 1)
    again = pool(str(tmp_path / "out"), cache=tmp_path).models()[0]
    assert again.architecture == a.architecture  # so it can be merged again
    assert torch.allclose(logits(again), logits(derived), atol=1e-5)


def test_a_checkpoint_that_lacks_tensors_is_refused_and_not_filled_at_random(tmp_path: Path) -> None:
    folder = Path(checkpoint(tmp_path / "m", tie_word_embeddings=False))
    tensors = load_file(folder / "model.safetensors")
    lost = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (model,) = pool(str(folder), cache=tmp_path).models()
    with pytest.raises(ConfigError, match=r"lacks 1 of its tensors \(model\.layers\.1\.mlp\.up_proj\.weight") as caught:
        logits(model)
    assert "\n" not in str(caught.value)
    save_file(
        {**tensors, "model.layers.1.mlp.up_proj.weight": lost[:-1]},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (model,) = pool(str(folder), cache=tmp_path).models()
    with pytest.raises(ConfigError, match="cannot load") as caught:
        logits(model)
    assert "\n" not in str(caught.value)


@attrs.frozen
class Sum:
    """The exact sum of adapters: concatenated factors."""

    kind = "adapter"

    names: tuple[str, ...]
    scale: float = 1.0

    @property
    def fingerprint(self) -> str:
        return digest("sum", list(self.names), self.scale)

    def adapter(self, sources: Sequence[AdapterWeights]) -> AdapterWeights:
        first = sources[0]
        rank = sum(s.config["r"] for s in sources)
        tensors = {}
        for key in first.tensors:
            parts = [s.tensors[key] for s in sources]
            factor = [self.scale * s.config["lora_alpha"] / s.config["r"] for s in sources]
            tensors[key] = (
                torch.cat([f * p for f, p in zip(factor, parts, strict=True)])
                if "lora_A" in key
                else torch.cat(parts, dim=1)
            )
        return AdapterWeights(config={**first.config, "r": rank, "lora_alpha": rank}, tensors=tensors)


def test_composed_adapters_equal_the_sum_of_updates(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base")
    paths = [adapter(base, tmp_path / f"lora{i}", i) for i in range(2)]
    source = pool(*({"model": base, "adapter": p} for p in paths), base, cache=tmp_path)
    one, two, plain = source.models()
    both = source.engine.derive("both", Sum(("one", "two")), [one, two])
    half = source.engine.derive("half", Sum(("one", "two"), 0.5), [one, two])
    assert both.adapter and both.base == one.base
    start = dict(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).named_parameters())
    tuned = [dict(merged(base, p).named_parameters()) for p in paths]

    def closed(scale: float) -> torch.Tensor:
        module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(start[name] + scale * sum(t[name] - start[name] for t in tuned))
            return module(ROW).logits

    for model, scale in ((both, 1.0), (half, 0.5), (both, 1.0), (plain, 0.0)):
        assert torch.allclose(logits(model), closed(scale), atol=5e-4)
    with source.engine.use(both, half, one) as loaded:  # candidates side by side
        places = torch.arange(ROW.shape[1])[None]
        for got, scale in ((loaded[0], 1.0), (loaded[1], 0.5)):
            out = got.forward(ROW, torch.ones_like(ROW), places, None, keep=0).logits
            assert torch.allclose(out, closed(scale), atol=5e-4)
    assert source.engine.residency.loads == 1
    source.export(both, tmp_path / "out")
    again = pool({"model": base, "adapter": str(tmp_path / "out")}, cache=tmp_path).models()[0]
    assert torch.allclose(logits(again), closed(1.0), atol=5e-4)
    weights = source.engine.weights(both)  # and as full weights
    assert torch.allclose(
        weights.get("model.layers.0.self_attn.q_proj.weight"),
        sum(t["model.layers.0.self_attn.q_proj.weight"] for t in tuned)
        - start["model.layers.0.self_attn.q_proj.weight"],
        atol=1e-4,
    )


@attrs.frozen
class Checkpoint:
    kind = "checkpoint"
    path: str
    fingerprint: str = "trained"

    def checkpoint(self, sources: Sequence[Model]) -> dict[str, Any]:
        return {"model": self.path}


@attrs.frozen
class Echo:
    """A decoding loop that lets each source say one token."""

    kind = "serving"

    fingerprint: str = "echo"

    def serve(self, engine: LocalEngine, model: Model, sources: Sequence[Model], inbox: Inbox) -> None:
        with engine.use(*sources) as members:
            while calls := inbox.take():
                for call in calls:
                    prompt = members[0].render_input(call.input)
                    ids = list(prompt.ids)
                    for member in members:
                        row = torch.tensor([ids])
                        places = torch.arange(len(ids))[None]
                        out = member.forward(row, torch.ones_like(row), places, None)
                        ids.append(int(out.logits.argmax()))
                    said = ids[len(prompt.ids) :]
                    inbox.resolve([(call, members[0].generation(prompt, said, [0.0] * len(said), "length"))])


def test_other_recipes_answer_like_any_model(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path / f"m{i}", seed=i) for i in range(2)]
    source = pool(folders[0], cache=tmp_path)
    (a,) = source.models()
    trained = source.engine.derive("trained", Checkpoint(folders[1]), [a])
    b = pool(folders[1], cache=tmp_path).models()[0]
    assert trained.fingerprint == b.fingerprint and trained.name == "trained"
    assert trained.sources == (a,) and trained.recipe == Checkpoint(folders[1])
    joint = source.engine.derive("joint", Echo(), [a, trained])
    assert joint.capabilities == {"generate", "logprobs"}
    (said,) = serve(joint, [ask(joint, "the quick")])
    first = serve(a, [ask(a, "the quick", max_new_tokens=1)])[0].token_ids
    assert said.token_ids[:1] == first and len(said.token_ids) == 2
    assert [m.name for m in source.engine.walk(joint)] == ["m0", "m0"]
    with pytest.raises(CapabilityError, match="cannot give its weights"):
        source.engine.derive("x", Mean((joint,)), [joint])
    other = pool(checkpoint(tmp_path / "wide", intermediate_size=96), cache=tmp_path).models()[0]
    with pytest.raises(CapabilityError, match="do not share an architecture"):
        source.engine.derive("x", Mean((a, other)), [a, other])
    with pytest.raises(CapabilityError, match="of kind None, which is none of checkpoint, adapter"):
        source.engine.derive("x", type("Nothing", (), {"fingerprint": "n"})(), [a])
