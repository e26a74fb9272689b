"""Fusion of strings across tokenizers against plain forwards without a cache."""

from __future__ import annotations

import torch
from decoding_models import PROMPTS, TOKENIZER, generated, model_tokenizer, plain_logits, run

from moco_core.models import Pool
from moco_toolkit_decoding import Mix, UnionRecipe, Vocabulary
from moco_toolkit_decoding.testing import LocalEngine, tiny_gpt2, tiny_llama, word_tokenizer
from moco_toolkit_decoding.union import UnionLoop


def test_union_of_copies_is_the_model_and_scores_are_invariant_to_batching(mixed):
    engine, pool = mixed
    spaced, llama = pool.named("spaced"), pool.named("llama")
    for model in (spaced, llama):
        copies = pool.derive(
            f"union-{model.name}", UnionRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), [model] * 2), [model] * 2
        )
        special = engine.loaded[model.name].tokenizer.all_special_ids
        compared = 0
        for prompt in (*PROMPTS, "and runs", "yes no", "12 + 34"):
            ids = [t for t in generated(engine, model.name, prompt, 8) if t not in engine.loaded[model.name].end_ids]
            if set(ids) & set(special):
                continue  # special tokens are no strings: they cannot be fused
            text = run(lambda c, m=copies, p=prompt: c.generate(m, p), max_new_tokens=8).text
            assert text == b"".join(Vocabulary(model_tokenizer(engine, model)).pieces[t] for t in ids).decode(
                "utf-8", "replace"
            ).removeprefix(" " if model is spaced else "")
            compared += 1
        assert compared
    both = UnionRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), [llama, spaced])
    fused = pool.derive("union-both", both, [llama, spaced])
    together = run(lambda c: c.gather(c.generate(fused, p) for p in PROMPTS))
    alone = [run(lambda c, p=p: c.generate(fused, p)) for p in PROMPTS]
    assert [r.text for r in together] == [r.text for r in alone]


def test_the_scores_of_every_step_of_a_union_are_those_of_a_plain_forward(mixed, monkeypatch):
    engine, pool = mixed
    models = [pool.named("llama"), pool.named("spaced")]
    fused = pool.derive("union-checked", UnionRecipe.of(Mix(kind="prob", weights=(0.5, 0.5)), models), models)
    compared = seams = 0

    class Checked(UnionLoop):
        def _step(self, inbox):
            nonlocal compared, seams
            before = [[list(ids) for ids in row.ids] for row in self.rows]
            rows = list(self.rows)
            super()._step(inbox)
            for old, row in zip(before, rows, strict=True):
                # tokens that stood before the seam were replaced
                seams += any(new[: len(was)] != was for was, new in zip(old, row.ids, strict=True))
            for m, one in enumerate(self.loaded):
                for i, row in enumerate(self.rows):
                    logits = plain_logits(engine, one.model.name, [*row.prompts[m].ids, *row.ids[m]])[-1:]
                    assert torch.allclose(self.logp[m][i].exp(), self._normal(m, logits)[0].exp(), atol=1e-5)
                    compared += 1

    monkeypatch.setattr("moco_toolkit_decoding.union.UnionLoop", Checked)
    run(lambda c: c.gather(c.generate(fused, p) for p in PROMPTS), max_new_tokens=40)
    assert compared > 100 and seams >= 2


def test_a_reply_ends_where_a_member_can_read_no_further():
    letters = word_tokenizer(["x"])  # every letter is a token: a string of the other member is many
    engine = LocalEngine()
    models = [
        engine.add("words", tiny_llama(TOKENIZER, 3), TOKENIZER, ends=[]),
        engine.add("letters", tiny_gpt2(letters, 4, positions=80), letters, ends=[], context_length=80),
    ]
    fused = Pool(models).derive("both", UnionRecipe.of(Mix(kind="prob", weights=(0.9, 0.1)), models), models)
    prompt = PROMPTS[0] * 4
    reply = run(lambda c: c.generate(fused, prompt, raw=True), max_new_tokens=40)
    assert reply.finish_reason == "length" and reply.meta["steps"] < 40
    taken = len(prompt) + reply.usage.completion_tokens - len(reply.token_ids)  # letters of prompt and reply
    assert 80 < taken < 80 + 8  # the last string did not fit any more, and nobody read it
