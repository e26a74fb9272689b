"""Random models of several architectures on one engine, and transformers' own answers to compare with."""

from __future__ import annotations

import asyncio

import torch

from moco_core.models import Pool
from moco_core.types import Sampling
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding.testing import (
    LocalEngine,
    bpe_tokenizer,
    spaced_tokenizer,
    tiny_gpt2,
    tiny_llama,
    tiny_mistral,
)

torch.set_num_threads(1)
PROMPTS = ("the quick", "fox", "international rivers 12 + 34 = yes no yes no and runs home over the lazy dog")
TOKENIZER, SPACED = bpe_tokenizer(), spaced_tokenizer()


def engine_of(**modules):
    engine = LocalEngine()
    models = [engine.add(n, m, SPACED if n.startswith("s") else TOKENIZER) for n, m in modules.items()]
    return engine, Pool(models)


def every_kind():
    return engine_of(
        llama=tiny_llama(TOKENIZER, 1),
        gpt2=tiny_gpt2(TOKENIZER, 2),
        mistral=tiny_mistral(TOKENIZER, 3),
        spaced=tiny_llama(SPACED, 4),
    )


def run(work, cache=None, **sampling):
    async def main():
        async with open_state(sampling=Sampling(**{"max_new_tokens": 16, **sampling}), cache=cache) as state:
            return await work(state.context("respond"))

    return asyncio.run(main())


def prompt_ids(engine, name, text):
    return list(engine.loaded[name].render_input({"text": text}).ids)


def plain_logits(engine, name, ids):
    """The oracle: one forward of everything, no cache, no padding."""
    with torch.inference_mode():
        return engine.loaded[name].module(torch.tensor([ids]), use_cache=False).logits[0].float()


def generated(engine, name, text, n=16):
    one = engine.loaded[name]
    ids = torch.tensor([prompt_ids(engine, name, text)])
    out = one.module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=n,
        pad_token_id=1,
        eos_token_id=sorted(one.end_ids),
    )
    return out[0, ids.shape[1] :].tolist()


def model_tokenizer(engine, model):
    return engine.loaded[model.name].tokenizer
