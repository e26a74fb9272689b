"""A generator and a mentor on tiny models, what they write together, and vocabularies of few words."""

from __future__ import annotations

import asyncio

import torch

from moco_core import Question, Sampling
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.prompts import consultation
from moco_method_mentor_collab.verifying import verifier_of
from moco_method_mentor_collab.writing import Writing
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding.handover import reply_of
from moco_toolkit_decoding.testing import (
    LocalEngine,
    ScriptedModule,
    bpe_tokenizer,
    spaced_tokenizer,
    tiny_llama,
    word_tokenizer,
)

torch.set_num_threads(1)
TOKENIZER, SPACED = bpe_tokenizer(), spaced_tokenizer()
GO = Question(id="q", prompt="go!")
QUESTION = Question(id="q", prompt="the quick brown [Two ways to go on]\nOption A: x\nOption B: y")


def pool(*seeds, other=(), **settings):
    engine = LocalEngine()
    models = [engine.add(f"m{i}", tiny_llama(TOKENIZER, s), TOKENIZER, **settings) for i, s in enumerate(seeds)]
    return models + [engine.add(f"s{s}", tiny_llama(SPACED, s), SPACED) for s in other]


def written(models, answer, shared=True, limit=14, seed=0, question=QUESTION, **options):
    """Write with a verifier stub that always says ``answer`` (True: the mentor); None is the prompt verifier."""
    calls = []

    async def stub(session, a, b):
        calls.append((a, b))
        return answer

    async def main():
        async with open_state(sampling=Sampling(max_new_tokens=limit), seed=seed) as state:
            context = state.context("respond", question)
            settings = Options(**options)
            writing = await Writing.open(models, question, settings, shared, context)
            verifier = verifier_of(settings, None) if answer is None else stub
            return reply_of(await writing.run(verifier), models)

    return asyncio.run(main()), calls


def shown(a, b, wording="request"):
    return consultation(a.shown(), b.shown(), wording)


WORDS = word_tokenizer(["a", " b", " c", " d", " e", " A", " B"])


def texting(*paths, verdict=" A", capabilities=frozenset({"generate"})):
    """Models (behind a server, by default) which follow a text word by word and answer ``verdict`` when asked to choose."""
    engine = LocalEngine()

    def following(path):
        def scores(ids):
            said = WORDS.decode(ids)
            if said.endswith("Answer:"):
                token = verdict
            else:
                said = said.rpartition("!")[2]
                token = next((t for n, t in enumerate(path) if "".join(path[:n]) == said), None)
            end = WORDS.eos_token_id
            return {end if token is None else WORDS.encode(token, add_special_tokens=False)[0]: 10.0}

        return scores

    return [
        engine.add(f"m{i}", ScriptedModule(len(WORDS), following(p)), WORDS, capabilities=capabilities)
        for i, p in enumerate(paths)
    ]


STEPPING = frozenset({"generate", "logprobs", "step", "hidden"})
