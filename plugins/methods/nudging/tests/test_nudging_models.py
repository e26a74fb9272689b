"""Nudging between random models: identical ones, gamma above one, different tokenizers, batches."""

from __future__ import annotations

import math

import pytest
import torch
from nudged_models import TOKENIZER, _Fixed, ask

from moco_core import Question, Sampling
from moco_core.models import Pool
from moco_method_nudging.method import Nudging
from moco_method_nudging.options import Options
from moco_toolkit_authoring import example_questions, run_method
from moco_toolkit_decoding import Vocabulary
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, spaced_tokenizer, tiny_llama

PROMPTS = ("the quick brown fox", "and", "rivers 12 + 34", "international", "the lazy dog runs home over it", "yes no")


@pytest.mark.parametrize("gamma", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_identical_models_equal_the_single_model(gamma, tokens):
    engine = LocalEngine()
    a, b = (engine.add(n, tiny_llama(TOKENIZER, 2), TOKENIZER) for n in "ab")
    questions = example_questions(3)
    single = {}
    for q in questions:
        one = engine.loaded["a"]
        ids = torch.tensor([one.render_input({"messages": [["user", q.text()]]}).ids])
        out = one.module.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=0, pad_token_id=1)
        single[q.id] = one.decode(out[0, ids.shape[1] :].tolist())
    method = _Fixed(Options(gamma=gamma, nudge_tokens=tokens, base_prompt="chat"), None)
    outcome = run_method(method, [a, b], questions=questions, sampling=Sampling(max_new_tokens=12))
    for key, reply in outcome.replies.items():
        if reply.meta["ended_by"] != "repeated nudge":  # random models repeat themselves
            assert reply.text == single[key]


def test_gamma_above_one_is_the_nudging_model():
    engine = LocalEngine()
    a, b = (engine.add(n, tiny_llama(TOKENIZER, i), TOKENIZER) for i, n in enumerate("ab"))
    questions = example_questions(3)
    method = _Fixed(Options(agreement_rule=False, base_prompt="chat"), 1.01)
    outcome = run_method(method, [a, b], questions=questions, sampling=Sampling(max_new_tokens=10))
    for q in questions:
        one = engine.loaded["b"]
        ids = torch.tensor([one.render_input({"messages": [["user", q.text()]]}).ids])
        out = one.module.generate(ids, do_sample=False, max_new_tokens=10, eos_token_id=0, pad_token_id=1)
        expected = one.decode(out[0, ids.shape[1] :].tolist())
        reply = outcome.replies[q.id]
        assert reply.text == expected or (
            reply.meta["ended_by"] == "repeated nudge" and expected.startswith(reply.text)
        )


def test_different_tokenizers_hold_the_same_text_and_batches_change_nothing():
    """An emoji of four byte tokens comes through, whoever writes it and wherever a draft ends."""
    told = "ok \U0001f600 \u4e2d\u6587 fine"

    def spelling(tokenizer, p):
        view = Vocabulary(tokenizer, [tokenizer.eos_token_id])

        def script(read):
            data = view.text(read)
            # nothing inside the prompt; a SentencePiece reply that was encoded again begins with a space of its own
            said = data.partition(b"go!")[2].removeprefix(b" ")
            rest = told.encode()[len(said) :] if told.encode().startswith(said) else b""
            # several readings of the rest would do: byte by byte, so that characters are split over tokens
            token = view.single[rest[:1]] if rest else tokenizer.eos_token_id
            rival = next(i for i in view.single.values() if i != token)
            chance = p(said)
            return {**dict.fromkeys(view.single.values(), -60.0), token: math.log(chance), rival: math.log(1 - chance)}

        return script

    for k in (1, 2, 3, 7):
        for sure in (b"\xf0", b"\x9f", b" ", b"k"):  # the base model is unsure inside the character, too
            engine = LocalEngine()
            models = []
            for name, tokenizer in (("base", TOKENIZER), ("nudge", spaced_tokenizer())):
                chance = (lambda said, sure=sure: 0.9 if said[-1:] == sure else 0.3) if name == "base" else _certain
                module = ScriptedModule(len(tokenizer), spelling(tokenizer, chance))
                models.append(engine.add(name, module, tokenizer))
            question = Question(id="q", prompt="go!")
            reply = ask(Pool(models), question, Sampling(max_new_tokens=60), nudge_tokens=k, gamma=0.7)
            assert reply.text == told and reply.finish_reason == "eos"
            assert "".join(s.text for s in reply.spans) == told
    method = Nudging(Options(gamma=0.1, nudge_tokens=5, base_prompt="chat"))
    questions = [Question(id=f"q{i}", prompt=p) for i, p in enumerate(PROMPTS)]
    a, b = (
        run_method(method, _mixed(), questions=questions, sampling=Sampling(max_new_tokens=16), in_flight=n)
        for n in (1, 8)
    )
    assert a.texts == b.texts and not a.errors and any(a.texts.values())
    assert not any(t in text for text in a.texts.values() for t in ("<end>", "<pad>", "<unk>"))


def _certain(said):
    return 0.9


def _mixed():
    engine = LocalEngine()
    spaced = spaced_tokenizer()
    return [
        engine.add("a", tiny_llama(TOKENIZER, 1, spread=0.8), TOKENIZER),
        engine.add("b", tiny_llama(spaced, 2, spread=0.8), spaced),
    ]
