"""Describing checkpoints: fingerprints, names, capabilities, placement, bad input. Nothing here loads weights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import random_checkpoints
import torch
from safetensors.torch import load_file, save_file
from transformers_tiny import TEMPLATE, build, checkpoint, edit, pool, tokenizer

from moco_core.errors import ConfigError
from moco_core.models import Model, Needs
from moco_pool_transformers import placement
from moco_pool_transformers.architectures import capabilities
from moco_pool_transformers.placement import missing, spread
from moco_toolkit_checkpoints import describe, finding, hub
from moco_toolkit_checkpoints.fingerprints import read_header
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS, split
from moco_toolkit_decoding.compatibility import report
from moco_toolkit_decoding.stops import StopWatch


def one(folder: str | Path, cache: Path, **options: Any) -> Model:
    return pool(str(folder), cache=cache, **options).models()[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(checkpoint(tmp_path / "model"))


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


def test_one_changed_number_changes_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    before = one(folder, tmp_path)
    copied = shutil.copytree(folder, tmp_path / "copy")
    assert one(copied, tmp_path).fingerprint == before.fingerprint  # content counts, not the path
    tensors = load_file(copied / "model.safetensors")
    name = next(iter(tensors))
    tensors[name].view(-1)[0] += 1
    size = (copied / "model.safetensors").stat().st_size
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    after = one(copied, tmp_path)
    assert (copied / "model.safetensors").stat().st_size == size
    assert after.fingerprint != before.fingerprint
    assert (after.tokenizer, after.architecture) == (before.tokenizer, before.architecture)


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("template", {"chat_template": "{{ messages[0]['content'] }}"}),
        ("special token", {"eos_token": "<|end|>"}),
    ],
)
def test_prompting_is_part_of_the_fingerprint(folder: Path, tmp_path: Path, what: str, changes: dict[str, Any]) -> None:
    before = one(folder, tmp_path)
    if what == "template":
        (folder / "chat_template.jinja").write_text(changes["chat_template"])
    else:
        edit(folder / "tokenizer_config.json", **changes)
    after = one(folder, tmp_path)
    assert after.fingerprint != before.fingerprint and after.tokenizer == before.tokenizer


def test_arguments_of_the_template_are_the_users_to_set(folder: Path, tmp_path: Path) -> None:
    """Each model has its own, a reply is known by them, and a misspelt one does not go unnoticed."""
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if enable_thinking is false %}<think></think>{% endif %}")
    argument = {"model": str(folder), "template": {"enable_thinking": False}}
    plain, other, mute = pool(
        str(folder), {**argument, "template": {"enable_thinking": True}}, argument, cache=tmp_path
    ).models()
    assert len({plain.fingerprint, other.fingerprint, mute.fingerprint}) == 3
    assert plain.info["spec"].base_key == mute.info["spec"].base_key  # they share the weights
    with mute.engine.use(plain, other, mute) as loaded:  # type: ignore[attr-defined]
        texts = [one.render_input({"messages": [["user", "hi"]]}).text for one in loaded]
    assert [t.endswith("<think></think>") for t in texts] == [False, False, True]
    for wrong, said in (
        ("enable_thinkin", "no argument of its chat template"),
        ("messages", "not for the user to set"),
    ):
        with pytest.raises(ConfigError, match=rf"models\[0\]\.template: .*'{wrong}' is {said}"):
            pool({"model": str(folder), "template": {wrong: 1}}, cache=tmp_path).models()
    path.unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        pool(argument, cache=tmp_path).models()


def test_tokenizer_fingerprint_is_about_ids(tmp_path: Path) -> None:
    base = Path(checkpoint(tmp_path / "a"))
    same = Path(checkpoint(tmp_path / "b", "qwen2", seed=5, template=None))
    a, b = one(base, tmp_path), one(same, tmp_path)
    assert a.tokenizer == b.tokenizer and a.architecture != b.architecture
    assert Needs(same_tokenizer=True).problems([a, b]) == []

    def changed(edit_data: Any) -> str:
        copied = shutil.copytree(base, tmp_path / "changed", dirs_exist_ok=True)
        data = json.loads((copied / "tokenizer.json").read_text())
        edit_data(data)
        (copied / "tokenizer.json").write_text(json.dumps(data))
        return one(copied, tmp_path).tokenizer

    def swap(data: Any) -> None:
        vocab = data["model"]["vocab"]
        x, y = list(vocab)[300:302]
        vocab[x], vocab[y] = vocab[y], vocab[x]

    assert changed(swap) != a.tokenizer
    assert changed(lambda d: d["model"]["merges"].reverse()) != a.tokenizer
    assert changed(lambda d: d.update(normalizer={"type": "NFC"})) != a.tokenizer
    assert changed(lambda d: d["added_tokens"][3].update(special=False)) != a.tokenizer
    assert changed(lambda d: d.update(decoder={"type": "Fuse"})) != a.tokenizer
    assert changed(lambda d: d.update(padding=None, truncation=None, post_processor=None)) == a.tokenizer
    joined = [
        m if isinstance(m, str) else " ".join(m)
        for m in json.loads((base / "tokenizer.json").read_text())["model"]["merges"]
    ]
    assert changed(lambda d: d["model"].update(merges=joined)) == a.tokenizer  # the older way of writing them


@pytest.mark.parametrize(
    ("file", "changes", "other_ids"),
    [
        ("tokenizer_config.json", {"extra_special_tokens": ["the"]}, True),
        ("tokenizer_config.json", {"added_tokens_decoder": {"350": {"content": "the", "special": False}}}, True),
        ("tokenizer_config.json", {"additional_special_tokens": ["<|user|>"]}, False),  # it is one already
        ("special_tokens_map.json", {"cls_token": "the"}, True),
        ("special_tokens_map.json", {"eos_token": "<|user|>"}, False),
        ("added_tokens.json", {"the": 350}, True),
    ],
)
def test_files_beside_the_tokenizer_count(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], other_ids: bool
) -> None:
    before = one(folder, tmp_path)
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))
    after = one(folder, tmp_path)
    assert (after.tokenizer != before.tokenizer) == other_ids
    assert after.fingerprint != before.fingerprint or file == "added_tokens.json"


def test_architecture_fingerprint_is_about_shapes(tmp_path: Path) -> None:
    def of(name: str, **changes: Any) -> str:
        return one(checkpoint(tmp_path / name, **changes), tmp_path).architecture

    reference = of("a")
    assert of("b", seed=1) == reference
    assert of("c", rope_theta=5e5, max_position_embeddings=512) == reference
    assert of("d", num_hidden_layers=3) != reference
    assert of("e", num_attention_heads=8, num_key_value_heads=4, head_dim=4) != reference
    assert of("f", tie_word_embeddings=True) != reference


def test_names_and_copies(folder: Path, tmp_path: Path) -> None:
    path = str(folder)
    models = pool(
        path, {"model": path, "name": "mine"}, path, {"model": path, "template": "plain"}, cache=tmp_path
    ).models()
    assert [m.name for m in models] == ["model-1", "mine", "model-2", "model-3"]
    assert [m.copy for m in models] == [0, 1, 2, 0]  # prompted differently, it is another model


def test_hash_is_remembered_but_not_trusted(folder: Path, tmp_path: Path) -> None:
    before = one(folder, tmp_path)
    notes = list(tmp_path.glob("*.json"))
    assert notes
    notes[0].write_text("damaged")
    assert one(folder, tmp_path).fingerprint == before.fingerprint
    assert one(folder, Path("/dev/null/nowhere")).fingerprint == before.fingerprint  # a cache that cannot be written


def test_new_content_under_the_old_size_and_time_is_noticed(folder: Path, tmp_path: Path) -> None:
    """As tar and rsync leave it behind."""
    weights = folder / "model.safetensors"
    before, stat = one(folder, tmp_path), weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert one(folder, tmp_path).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no safetensors weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "not a safetensors file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read"),
        (lambda f: (f / "config.json").unlink(), "no config.json; give the folder or Hub id of a checkpoint"),
        (lambda f: edit(f / "config.json", architectures=["BertForQuestionAnswering"]), "neither a causal language model"),
        (
            lambda f: edit(f / "config.json", model_type="unheard_of", auto_map={"AutoConfig": "c.C"}),
            "brings its own code",
        ),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer files"),
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
    ("config", "steps"),
    [
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


@pytest.mark.parametrize(
    ("device", "found", "problem"),
    [
        ("auto", ["cpu"], None),
        ("cpu", ["cuda:0"], None),
        ("cuda", ["cuda:0", "cuda:1"], None),
        ("cuda:1", ["cuda:0", "cuda:1"], None),
        ("mps", ["mps"], None),
        ("cuda:2", ["cuda:0", "cuda:1"], "'cuda:2' is not on this machine; it has cuda:0, cuda:1"),
        ("cuda", ["cpu"], "'cuda' is not on this machine; it has cpu"),
        ("cuda:x", ["cuda:0"], "expected cpu, cuda, cuda:N, mps or auto, got 'cuda:x'"),
        ("gpu", ["cuda:0"], "expected cpu, cuda, cuda:N, mps or auto, got 'gpu'"),
    ],
)
def test_devices_that_are_not_there_are_named(
    device: str, found: list[str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "devices", lambda: found)
    assert missing(device) == problem


def test_models_are_spread_by_size() -> None:
    gpus = ["cuda:0", "cuda:1"]
    sizes = [("a", "a", 8), ("b", "b", 6), ("c", "c", 5), ("d", "d", 1)]
    assert spread(sizes, [""] * 4, gpus) == ["cuda:0", "cuda:1", "cuda:1", "cuda:0"]
    assert spread(sizes, ["cuda:1", "", "", ""], gpus) == ["cuda:1", "cuda:0", "cuda:0", "cuda:1"]
    adapters = [("a", "a", 8), ("b", "b", 2), ("a", "a+x", 8), ("a", "a+y", 8)]
    assert spread(adapters, [""] * 4, gpus) == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]  # with their base
    copies = [("a", "a", 8), ("a", "a", 8), ("a", "a", 8)]
    assert spread(copies, [""] * 3, gpus) == ["cuda:0", "cuda:1", "cuda:0"]  # replicas while there is a free device
    assert spread(sizes, [""] * 4, ["cpu"]) == ["cpu"] * 4
    assert spread(sizes, ["cuda"] + [""] * 3, gpus)[0] == "cuda:0"
    assert spread(sizes, [""] * 4, gpus, {"cuda:0": 20}) == ["cuda:1"] * 4  # another pool works on the first
    assert spread(sizes, [""] * 4, gpus, {"cuda:0": 7}) == ["cuda:1", "cuda:0", "cuda:1", "cuda:0"]


def test_the_plan_shows_the_placement(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two simulated GPUs: the large model on one, the small ones on the other, a second copy where there is none yet."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    from moco_core import cli

    monkeypatch.setattr(placement, "devices", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(placement, "rooms", lambda names, memory: {d: placement.Room(bytes=1 << 30) for d in names})
    large = checkpoint(tmp_path / "large", "qwen2", hidden_size=256)
    models = [str(folder), large, {"model": checkpoint(tmp_path / "small", "qwen2"), "name": "small"}, large]
    given = [f"-opool.models={json.dumps(models)}", f"-opool.cache={tmp_path}"]
    assert cli._run(["plan", "majority_vote", "-p", "transformers", "-d", "skills", "--json", *given]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    shown = {m["model"]: m["device_group"] for m in rows}
    assert (shown["large-1"], shown["large-2"]) == ("cuda:0", "cuda:1")
    assert sorted((shown["model"], shown["small"])) == ["cuda:0", "cuda:1"]
    # what is listed twice has its copies; the others get a replica, since there is room
    both = {"cuda:0", "cuda:1"}
    assert {m["model"]: set(m["replicas"]) for m in rows} == {
        "large-1": set(),
        "large-2": set(),
        **{name: both - {shown[name]} for name in ("model", "small")},
    }


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("just an answer ", "", "", "just an answer "),
        ("<think>\nhm\n</think>\n\n42", "", "hm", "42"),
        ("hm</think>\n42", "</think>", "hm", "42"),
        ("hm, and then", "</think>", "hm, and then", ""),
        ("<think>hm, and then", "", "hm, and then", ""),
        ("hm</think>42", "", "hm", "42"),
        ("Sure. <think>hm</think> 42 <think>so</think> yes", "", "hm\n\nso", "Sure. 42 yes"),
        ("[THINK]hm[/THINK]42", "", "hm", "42"),
    ],
)
def test_reasoning_is_split_off(text: str, opened: str, reasoning: str, answer: str) -> None:
    assert split(text, DEFAULT_TAGS, opened) == (reasoning, answer)
    assert split(text, ()) == ("", text)


def test_special_reasoning_tags_survive_decoding(tmp_path: Path) -> None:
    from tokenizers import AddedToken

    tok = tokenizer(TEMPLATE)
    tok.add_tokens([AddedToken("<think>", special=True), AddedToken("</think>", special=True)], special_tokens=True)
    build("llama", len(tok)).save_pretrained(tmp_path / "m")
    tok.save_pretrained(tmp_path / "m")
    model = one(tmp_path / "m", tmp_path)
    with model.engine.use(model) as (loaded,):  # type: ignore[attr-defined]
        prompt = loaded.render_input({"text": "what is"})
        ids = tok("<think>hm</think>42", add_special_tokens=False)["input_ids"]
        reply = loaded.generation(prompt, ids, [0.0] * len(ids), "length")
        assert (reply.reasoning, reply.text) == ("hm", "42")
        for stop, left in ((". End", "42"), ("</think>", "")):  # also where a stop string cuts the text
            watch = StopWatch(loaded, [stop])
            ids = tok("<think>hm</think>42. End of it", add_special_tokens=False)["input_ids"]
            n = next(n for n in range(1, len(ids) + 1) if watch.add(ids[n - 1], ids[:n]))
            cut = loaded.generation(prompt, ids[:n], [0.0] * n, "stop", text=watch.text)
            assert (cut.reasoning, cut.text, watch.found) == ("hm", left, stop)


def test_channels_of_harmony_survive_decoding(tmp_path: Path) -> None:
    from tokenizers import AddedToken

    tok = tokenizer(TEMPLATE)
    names = ("<|channel|>", "<|message|>", "<|start|>")
    tok.add_tokens([AddedToken(name, special=True) for name in names], special_tokens=True)
    build("llama", len(tok)).save_pretrained(tmp_path / "m")
    tok.save_pretrained(tmp_path / "m")
    model = one(tmp_path / "m", tmp_path)
    said = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>42"
    with model.engine.use(model) as (loaded,):  # type: ignore[attr-defined]
        ids = tok(said, add_special_tokens=False)["input_ids"]
        reply = loaded.generation(loaded.render_input({"text": "what is"}), ids, [0.0] * len(ids), "length")
    assert (reply.reasoning, reply.text) == ("hm", "42")


def test_half_precision_is_read_from_the_checkpoint(tmp_path: Path) -> None:
    module = build("llama", 400).to(torch.bfloat16)
    module.save_pretrained(tmp_path / "m")
    tokenizer().save_pretrained(tmp_path / "m")
    assert one(tmp_path / "m", tmp_path).info["spec"].dtype == "float32"  # on a CPU
    assert one(tmp_path / "m", tmp_path, device="cuda:0").info["spec"].dtype == "bfloat16"
