"""Tiny models that defer to one another, and a fit of the head that takes no time."""

from __future__ import annotations

import asyncio

import torch

from moco_core import Question, Sampling
from moco_method_co_llm.options import Options
from moco_method_co_llm.writing import write
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding.handover import reply_of
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, tiny_llama

torch.set_num_threads(1)
TOKENIZER = bpe_tokenizer()
QUESTION = Question(id="q", prompt="the quick brown")
QUICK = {"targets": "gold", "epochs": 2, "quantiles": 2}


def pool(*seeds, rows=0):
    engine = LocalEngine()
    return [
        engine.add(f"m{i}", tiny_llama(TOKENIZER, s, rows=rows if i else 0), TOKENIZER) for i, s in enumerate(seeds)
    ]


def written(models, head, eta, limit=12, **options):
    async def main():
        async with open_state(sampling=Sampling(max_new_tokens=limit)) as state:
            context = state.context("respond", QUESTION)
            data = await write(models, QUESTION, Options(**options), head, eta, context)
            return reply_of(data, models)

    return asyncio.run(main())
