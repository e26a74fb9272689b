"""PairRM as a ranker: a tiny random checkpoint in its published form gives what its forward pass gives, written out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import ConfigError, NoOptions, Question, Sampling, build
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.pairrm import pairrm
from moco_toolkit_authoring import ScriptedPool, run_method
from moco_toolkit_authoring.toy import LastWord

MARKS = ["<|source|>", "<|candidate1|>", "<|candidate2|>"]
SAID = {"x": "apple pear", "y": "plum plum fig apple", "z": "fig"}
QUESTION = Question(id="q", prompt="which fruit is it")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A folder like that of llm-blender/PairRM-hf, with two layers of width 16 and random weights."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "PairRM"
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "which", "fruit", "is", "it", "apple", "pear", "plum", "fig"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    tokenizer.add_tokens(MARKS, special_tokens=True)
    source, one, two = tokenizer.convert_tokens_to_ids(MARKS)
    config: Any = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm",
        position_biased_input=False, type_vocab_size=0, max_position_embeddings=64, pad_token_id=0,
        n_tasks=1, drop_out=0.05, source_prefix_id=source, cand1_prefix_id=one, cand2_prefix_id=two,
    )  # fmt: skip
    torch.manual_seed(0)
    # random weights as small as the library's would tell no text from another
    tensors = {
        f"pretrained_model.{k}": v * (20 if v.ndim > 1 else 1) for k, v in DebertaV2Model(config).state_dict().items()
    }
    for layer, shape in ((1, (16, 32)), (4, (1, 16))):
        tensors |= {f"head_layer.{layer}.weight": torch.randn(shape), f"head_layer.{layer}.bias": torch.randn(shape[0])}
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(folder: Path, texts: tuple[str, str, str], source: int, candidate: int) -> tuple[float, float]:
    """The scores of two replies, of one row padded to its full length, as the authors compute them."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

    config, tokenizer = DebertaV2Config.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    encoder = DebertaV2Model(config).eval()
    encoder.load_state_dict({k.removeprefix("pretrained_model."): v for k, v in tensors.items() if "head" not in k})
    whole = source + 2 * candidate
    ids = tokenizer(MARKS[0] + texts[0], max_length=source, truncation=True)["input_ids"]
    rest = (whole - len(ids)) // 2
    for mark, text in zip(MARKS[1:], texts[1:], strict=True):
        ids = ids + tokenizer(mark + text, max_length=rest, truncation=True)["input_ids"]
    padded = torch.tensor([ids + [0] * (whole - len(ids))])
    with torch.no_grad():
        states = encoder(input_ids=padded, attention_mask=(padded != 0).long()).last_hidden_state[0]
        w1, b1, w2, b2 = (tensors[f"head_layer.{n}.{part}"] for n in (1, 4) for part in ("weight", "bias"))
        query, *replies = (states[(padded[0] == i).nonzero()[0, 0]] for i in tokenizer.convert_tokens_to_ids(MARKS))
        found = [w2 @ torch.tanh(w1 @ torch.cat([query, reply]) + b1) + b2 for reply in replies]
    return float(found[0]), float(found[1])


@pytest.mark.parametrize(("source", "candidate"), [(1224, 412), (16, 16)])
def test_every_preference_is_what_the_published_forward_pass_gives(checkpoint, source, candidate):
    long = "apple pear " * 20  # cut at its end in the second setting
    said = {**SAID, "z": long.strip()} if candidate == 16 else SAID
    method = LlmBlender(
        Options(ranker="pairrm", pairrm=str(checkpoint), fuse=False, source_tokens=source, candidate_tokens=candidate)
    )
    outcome = run_method(
        method,
        ScriptedPool(said),
        questions=[QUESTION],
        metric=LastWord(NoOptions()),
        sampling=Sampling(temperature=0.0, max_new_tokens=64),
    )
    reply = outcome.replies["q"]
    texts = list(said.values())
    pair = {
        (i, j): by_hand(checkpoint, (QUESTION.prompt, texts[i], texts[j]), source, candidate)
        for i in range(3)
        for j in range(3)
        if i != j
    }
    m = {place: first - second for place, (first, second) in pair.items()}
    scores = [sum(m[i, j] - m[j, i] for j in range(3) if j != i) for i in range(3)]
    assert len({round(s, 2) for s in scores}) == 3
    assert reply.meta["ranking"]["scores"] == pytest.approx(scores, abs=1e-4)
    assert reply.text == texts[scores.index(max(scores))]
    assert outcome.calls_per_question["q"] == 3 + 6 and reply.meta["ranking"]["unread"] == 0


def test_weights_keep_their_numbers_whatever_type_is_the_default_meanwhile(checkpoint):
    import torch

    from moco_method_llm_blender.pairrm import _load

    alone = _load(checkpoint)
    torch.set_default_dtype(torch.bfloat16)  # as the library does while another thread loads a model
    try:
        meanwhile = _load(checkpoint)
    finally:
        torch.set_default_dtype(torch.float32)
    for part in ("encoder", "head"):
        kept = getattr(meanwhile, part).state_dict()
        assert all(torch.equal(tensor, kept[name]) for name, tensor in getattr(alone, part).state_dict().items())


def test_a_folder_of_another_form_is_refused_before_any_question(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    del config["cand2_prefix_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"is no PairRM checkpoint .*cand2_prefix_id.* like llm-blender/PairRM-hf"):
        pairrm(str(tmp_path), 1224, 412)
    with pytest.raises(ConfigError, match="pairrm: missing, ranker=pairrm needs"):
        build(Options, {"ranker": "pairrm"})
    assert pairrm(str(checkpoint), 1224, 412).fingerprint != pairrm(str(checkpoint), 128, 128).fingerprint
