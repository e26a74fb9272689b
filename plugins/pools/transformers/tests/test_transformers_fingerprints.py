"""Fingerprints of weights, prompting, tokenizers and architectures: what changes them, and how they are remembered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers_tiny import checkpoint, edit, one, pool

from moco_core.errors import ConfigError
from moco_core.models import Needs


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


def test_a_template_that_lies_beside_the_tokenizer_is_used_and_counts(folder: Path, tmp_path: Path) -> None:
    """As image models have it for their processors."""
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    plain = one(folder, tmp_path)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    model = one(folder, tmp_path)
    assert model.fingerprint != plain.fingerprint
    with model.engine.use(model) as (loaded,):  # type: ignore[attr-defined]
        prompt = loaded.render_input({"messages": [["user", "hi"]]})
    assert prompt.template == "chat" and prompt.text.count("<|user|>") == 1


def test_code_that_is_trusted_is_part_of_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    def fingerprint(trusted: bool) -> str:
        (model,) = pool(str(folder), cache=tmp_path, trust_remote_code=trusted).models()
        return model.fingerprint

    code = folder / "modeling_own.py"
    without = fingerprint(True), fingerprint(False)
    code.write_text("SCALE = 1")
    first = fingerprint(True), fingerprint(False)
    code.write_text("SCALE = 2")
    second = fingerprint(True), fingerprint(False)
    assert len({without[0], first[0], second[0]}) == 3 and without[1] == first[1] == second[1] == without[0]


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
