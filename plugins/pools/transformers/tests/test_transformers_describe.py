"""What is said of models before any is loaded: facts, capabilities, and everything that makes a checkpoint unusable."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import random_checkpoints
import torch
from transformers_tiny import build, edit, one, pool, tokenizer

from moco_core.errors import ConfigError
from moco_pool_transformers.architectures import capabilities
from moco_toolkit_checkpoints import describe, finding, hub
from moco_toolkit_checkpoints.fingerprints import read_header
from moco_toolkit_decoding.compatibility import report


def test_facts_come_from_headers(folder: Path, tmp_path: Path) -> None:
    model = one(folder, tmp_path)
    module = build("llama", 400)
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert model.memory == 4 * model.parameters and model.context_length == 256
    assert (model.name, model.copy, model.device_group, model.base, model.adapter) == ("model", 0, "cpu", "", False)
    assert {"generate", "logprobs", "score", "step", "hidden", "embed", "weights", "train"} == model.capabilities
    assert one(folder, tmp_path, dtype="bfloat16").memory == 2 * model.parameters


def test_description_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from moco_core.options import build; from moco_pool_transformers.pool import *\n"
        f"m = TransformersPool(build(Options, {{'models': [{str(folder)!r}], 'cache': {str(tmp_path)!r}, 'device': 'cpu'}}))\n"
        "m.models(); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_names_and_copies(folder: Path, tmp_path: Path) -> None:
    path = str(folder)
    models = pool(
        path, {"model": path, "name": "mine"}, path, {"model": path, "template": "plain"}, cache=tmp_path
    ).models()
    assert [m.name for m in models] == ["model-1", "mine", "model-2", "model-3"]
    assert [m.copy for m in models] == [0, 1, 2, 0]  # prompted differently, it is another model


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no safetensors weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "not a safetensors file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read"),
        (lambda f: (f / "config.json").unlink(), "no config.json; give the folder or Hub id of a checkpoint"),
        (
            lambda f: edit(f / "config.json", architectures=["BertForQuestionAnswering"]),
            "neither a causal language model",
        ),
        (
            lambda f: edit(f / "config.json", model_type="unheard_of", auto_map={"AutoConfig": "c.C"}),
            "brings its own code",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer files"),
        (lambda f: (f / "chat_template.jinja").write_bytes(b"\xff"), "cannot be read"),
        (lambda f: edit(f / "config.json", model_type=["llama"]), "model_type: expected a str, got ['llama']"),
        (lambda f: edit(f / "config.json", layer_types=7), "layer_types: expected a list, got 7"),
        (
            lambda f: edit(f / "config.json", text_config={"rope_scaling": "x"}),
            "rope_scaling: expected a dict, got 'x'",
        ),
        (lambda f: (f / "generation_config.json").write_text('{"eos_token_id": ["x"]}'), "is damaged (ValueError"),
        (lambda f: edit(f / "tokenizer_config.json", added_tokens_decoder=[1]), "is damaged (AttributeError"),
        (lambda f: edit(f / "tokenizer.json", model=[1]), "is damaged (AttributeError"),
    ],
)
def test_unusable_checkpoints_are_refused_in_one_line(folder: Path, tmp_path: Path, break_it: Any, said: str) -> None:
    break_it(folder)
    with pytest.raises(ConfigError) as caught:
        one(folder, tmp_path)
    assert len(caught.value.problems) == 1 and said in str(caught.value) and "\n" not in str(caught.value)


def test_what_this_transformers_cannot_open_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    for name, kind in (
        ("SomethingNewForCausalLM", "something_new"),
        ("Qwen2AudioForConditionalGeneration", "qwen2_audio"),
    ):
        edit(folder / "config.json", architectures=[name], model_type=kind)
        with pytest.raises(
            ConfigError, match=rf"models\[0\]: .*: transformers \S+ opens no {name} as a model that writes text"
        ):
            one(folder, tmp_path)
    edit(folder / "config.json", architectures=["Mistral3ForConditionalGeneration"], model_type="mistral3")
    assert one(folder, tmp_path).info["spec"].loader == "AutoModelForImageTextToText"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("xlnet", "XLNetLMHeadModel"),
        ("xlm", "XLMWithLMHeadModel"),
        ("cpmant", "CpmAntForCausalLM"),
        ("paligemma", "PaliGemmaForConditionalGeneration"),
        ("roberta", "RobertaForCausalLM"),
        ("electra", "ElectraForCausalLM"),
    ],
)
def test_what_does_not_read_from_left_to_right_alone_is_refused_before_any_work(
    folder: Path, tmp_path: Path, kind: str, name: str
) -> None:
    edit(folder / "config.json", architectures=[name], model_type=kind)
    with pytest.raises(ConfigError, match=f"{name} does not read text from left to right alone") as caught:
        one(folder, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        ({"model_type": "moshi"}, False),
        ({"model_type": "llama"}, True),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention", "full_attention"]}, True),
        ({"model_type": "bloom"}, False),
        ({"model_type": "gpt_neo"}, False),
        ({"model_type": "falcon", "alibi": True}, False),
        ({"model_type": "falcon", "alibi": False}, True),
        ({"model_type": "jamba"}, False),
        ({"model_type": "llama4", "text_config": {"model_type": "llama4_text"}}, False),
        ({"model_type": "qwen3_next", "layer_types": ["linear_attention", "full_attention"]}, False),
        ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, False),
        ({"model_type": "falcon_mamba"}, False),
        ({"model_type": "gemma3", "text_config": {"layer_types": ["sliding_attention"]}}, True),
    ],
)
def test_steps_are_declared_where_the_state_can_be_rolled_back(config: dict[str, Any], steps: bool) -> None:
    assert ("step" in capabilities(config, "generate")) == steps


def test_tokenizers_are_compared_without_fetching_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.copytree(folder, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    edit(small / "tokenizer_config.json", extra_special_tokens=["the"])
    header = read_header(folder / "model.safetensors")
    monkeypatch.setattr(finding, "fetch", lambda repo, revision, weights: str(small))
    monkeypatch.setattr(
        describe, "remote", lambda repo, revision: hub.Remote("c", [("model.safetensors", "0")], header)
    )
    monkeypatch.setattr(hub, "fetch", lambda repo, revision, weights: pytest.fail("weights were fetched"))
    models = pool("someone/model", str(folder), cache=tmp_path).models()
    assert models[0].tokenizer != models[1].tokenizer
    assert report(models).relation == "different"


def test_all_problems_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    entries = [
        "/no/such/folder",
        {"model": str(folder), "adapter": str(folder)},
        {"model": str(folder), "template": "chat"},
    ]
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError) as caught:
        pool(*entries, cache=tmp_path).models()
    problems = caught.value.problems
    assert [p.partition(":")[0] for p in problems[:1]] == ["models[0]"] and len(problems) == 3
    assert (
        "does not exist" in problems[0] and "adapter_config.json" in problems[1] and "no chat template" in problems[2]
    )


def test_an_adapter_given_as_a_model_stands_on_the_base_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = random_checkpoints.write(tmp_path / "family" / "base")
    lora = Path(random_checkpoints.write_lora(tmp_path / "family" / "lora", "base"))
    explicit = pool({"model": base, "adapter": str(lora)}, cache=tmp_path).models()[0]
    alone = one(lora, tmp_path)  # the base is named relative to the adapter: the folder beside it
    assert (alone.name, alone.adapter, alone.fingerprint) == ("lora", True, explicit.fingerprint)
    assert alone.base == explicit.base and alone.info["spec"].base_key == explicit.info["spec"].base_key
    edit(lora / "adapter_config.json", base_model_name_or_path="someone/base", revision="v2")
    asked = []

    def fetch(repo: str, revision: str | None, weights: bool) -> str:
        asked.append((repo, revision, weights))
        return {"someone/base": base, "someone/lora": str(lora)}[repo]

    monkeypatch.setattr(finding, "fetch", fetch)
    (hub_lora,) = pool({"model": "someone/lora", "revision": "v1"}, cache=tmp_path).models()
    assert hub_lora.fingerprint == explicit.fingerprint and hub_lora.name == "lora"
    # the revision that was given is the adapter's, the base has the one that the adapter names
    assert asked == [("someone/lora", "v1", False), ("someone/base", "v2", False), ("someone/lora", "v1", True)]
    edit(lora / "adapter_config.json", base_model_name_or_path="/no/such/base")
    with pytest.raises(ConfigError, match=r"models\[0\]: the base of .*lora: /no/such/base does not exist"):
        one(lora, tmp_path)
    edit(lora / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(ConfigError, match="an adapter that names no base; give the base as model"):
        one(lora, tmp_path)


def test_hub_models_are_described_without_their_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub names files by their SHA-256, so a remote model and its local copy are one model."""
    local = one(folder, tmp_path)
    small = shutil.copytree(folder, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    import hashlib

    weights = folder / "model.safetensors"
    there = hub.Remote(
        "c" * 40, [(weights.name, hashlib.sha256(weights.read_bytes()).hexdigest())], read_header(weights)
    )
    monkeypatch.setattr(finding, "fetch", lambda repo, revision, weights: str(small))
    monkeypatch.setattr(describe, "remote", lambda repo, revision: there)
    model = one("someone/model", tmp_path)
    assert model.fingerprint == local.fingerprint and model.parameters == local.parameters
    spec = model.info["spec"]
    assert (spec.repo, spec.revision) == ("someone/model", "c" * 40)  # what is described is what will be loaded
    monkeypatch.setattr(hub, "fetch", lambda repo, revision, weights: str(folder))
    assert spec.local_folder() == str(folder)


def test_unreachable_hub_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"models\[0\]: model 'no/such-model': not a local folder") as caught:
        one("no/such-model", tmp_path)
    assert "\n" not in str(caught.value)


def test_half_precision_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    module = build("llama", 400).to(torch.bfloat16)
    module.save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    assert one(tmp_path / "m", tmp_path).info["spec"].dtype == "float32"  # on a CPU
    assert one(tmp_path / "m", tmp_path, device="cuda:0").info["spec"].dtype == "bfloat16"


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": 7}, 9, (7,)),
        ({"eos_token_id": [9, 7]}, 9, (7, 9)),
        ({"eos_token_id": [7, None, -1]}, 9, (7,)),
        ({"eos_token_id": -1}, 9, ()),
        ({"eos_token_id": None}, 9, (9,)),
        ({}, [9, 10], (9, 10)),
    ],
)
def test_ends_are_ids_in_whatever_way_files_write_them(
    folder: Path, tmp_path: Path, generation: dict[str, Any], config: Any, ends: tuple[int, ...]
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(generation))
    edit(folder / "config.json", eos_token_id=config)
    assert one(folder, tmp_path).info["spec"].ends == ends
