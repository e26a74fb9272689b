"""Reasoning is split off, whichever tags or channels a model has for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers_tiny import TEMPLATE, build, one, tokenizer

from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS, split
from moco_toolkit_decoding.stops import StopWatch


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
