"""Nudging on random models against a plain loop that computes everything anew at each step."""

from __future__ import annotations

import pytest
import torch

from moco_core import Question, Sampling
from moco_method_nudging.method import Nudging
from moco_method_nudging.options import Options
from moco_toolkit_authoring import run_method
from moco_toolkit_decoding import Vocabulary
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, tiny_llama
from moco_toolkit_decoding.text import starts_word

torch.set_num_threads(1)
TOKENIZER = bpe_tokenizer()
PROMPTS = ("the quick brown fox", "and", "rivers 12 + 34", "international", "the lazy dog runs home over it", "yes no")


def recomputed(models, question, gamma, k, limit):
    """The oracle: the card's algorithm in plain torch on whole sequences, without caches, batches or sessions."""
    engine = models[0].engine
    base, nudging = (engine.loaded[m.name].module for m in models)
    view = Vocabulary(TOKENIZER, [0])
    prompt = list(engine.loaded["a"].render_input({"messages": [["user", question.text()]]}).ids)
    said, end, last, repeats = [], 0, None, 0

    def top(module, ids):
        with torch.inference_mode():
            p = module(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1].softmax(-1)
        return int(p.argmax()), float(p.max())

    while len(said) < limit:
        draft, ended = [], False
        while len(draft) < min(k, limit - len(said)) and not ended:
            token, _ = top(nudging, said + draft)
            ended = token == end
            draft += [] if ended else [token]
        if ended:
            return said + draft
        cuts = [0]
        for i in range(1, len(draft)):
            if starts_word(view.text(draft[cuts[-1] : i], first=False), view.piece(draft[i])):
                cuts.append(i)
        cuts = cuts[1:]
        taken, takeover = cuts[-1] if cuts else len(draft), False
        for n, cut in enumerate(cuts):
            stop = [*cuts, len(draft)][n + 1]
            token, p = top(base, said + draft[:cut])
            word = view.text(draft[cut:stop], first=False)
            if p >= gamma or (view.piece(token) and word.startswith(view.piece(token))):
                taken, takeover = cut, True
                break
        repeats = repeats + 1 if draft[:taken] == last else 1
        last = draft[:taken]
        if repeats == 4:
            return said
        said += draft[:taken]
        free = True
        while takeover and len(said) < limit:
            token, p = top(base, said)
            if (p < gamma and not free) or token == end:
                break
            free = False
            said.append(token)
    return said


class Forgetful(LocalEngine):
    """Loses every cache between two calls."""

    def serve(self, model, inbox):
        for one in self.loaded.values():
            one.scratch = {k: v for k, v in one.scratch.items() if "vocabulary" in str(k)}
        super().serve(model, inbox)


@pytest.mark.parametrize(("gamma", "tokens"), [(0.05, 3), (0.15, 16), (0.3, 5)])
def test_cached_and_batched_equal_a_plain_loop_without_cache(gamma, tokens):
    questions = [Question(id=f"q{i}", prompt=p) for i, p in enumerate(PROMPTS)]
    method = Nudging(Options(gamma=gamma, nudge_tokens=tokens, base_prompt="chat", base_chunk=3))
    found, turns = [], set()
    for engine, at_once in ((LocalEngine(), 8), (LocalEngine(), 1), (Forgetful(), 8)):
        models = [engine.add(n, tiny_llama(TOKENIZER, i, spread=0.8), TOKENIZER) for i, n in enumerate("ab")]
        outcome = run_method(
            method, models, questions=questions, sampling=Sampling(max_new_tokens=14), in_flight=at_once
        )
        assert not outcome.errors
        found.append(outcome.texts)
        turns |= {len(r.spans) for r in outcome.replies.values()}
    assert found[0] == found[1] == found[2]
    assert gamma > 0.1 or max(turns) > 1  # both write
    for q in questions:
        ids = recomputed(models, q, gamma, tokens, 14)
        assert found[0][q.id] == Vocabulary(TOKENIZER, [0]).text(ids).decode("utf-8", "replace")
