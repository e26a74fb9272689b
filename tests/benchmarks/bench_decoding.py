"""Joint decoding and step sessions, as ratios measured side by side in one process.

Run: ``OMP_NUM_THREADS=1 python tests/benchmarks/bench_decoding.py``. Models are random; what is compared does the same
arithmetic, so the ratios say what batching and caching are worth, not how good a model is. Times are the processor's, and each
figure is the best of interleaved repeats: other work on the machine can only slow a repeat down. One of the default models fits
into a core's own cache and three do not, which weighs on joint decoding; ``--width 256 --layers 3`` is beyond that.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

import torch

from moco_core.context import Context
from moco_core.models import Call
from moco_core.types import Question, Sampling
from moco_method_nudging.options import Options
from moco_method_nudging.writing import write
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import JointRecipe, Mix
from moco_toolkit_decoding.joint import JointLoop
from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, tiny_llama


class Tray:
    """An inbox with a fixed list of calls."""

    limit, cancelled, demand = 1 << 30, False, {}

    def __init__(self, calls: list[Call]) -> None:
        self.calls, self.done = list(calls), []

    @property
    def waiting(self) -> int:
        return len(self.calls)

    def take(self, n: int | None = None) -> list[Call]:
        out, self.calls = self.calls[:n], self.calls[len(self.calls) if n is None else n :]
        return out

    def resolve(self, results: list) -> None:
        self.done += results

    def reject(self, call: Call, error: Exception) -> None:
        raise error


def clock(work: Callable[[], object]) -> float:
    """The processor's time of this process, in seconds: other programs on the machine do not disturb it."""
    start = time.process_time()
    work()
    return time.process_time() - start


def best(*works: Callable[[], object], repeats: int) -> list[float]:
    """Time the alternatives in turn, several times; return the best time of each."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for slot, work in zip(times, works, strict=True):
            slot.append(clock(work))
    return [min(t) for t in times]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = bpe_tokenizer()
    engine = LocalEngine()
    sizes = {
        "hidden_size": given.width,
        "intermediate_size": 2 * given.width,
        "num_hidden_layers": given.layers,
        "rows": 2000 - len(tokenizer),
    }
    # no end token, so that every row takes all its steps
    models = [engine.add(f"m{i}", tiny_llama(tokenizer, i, **sizes), tokenizer, ends=[]) for i in range(3)]
    loaded = [engine.loaded[m.name] for m in models]
    prompts = ["the quick brown fox " * (1 + i % 4) for i in range(given.rows)]

    def joint(members: list[int], tokens: int) -> None:
        recipe = JointRecipe.of(Mix(weights=(1 / len(members),) * len(members)), [models[i] for i in members])
        params = Sampling(max_new_tokens=tokens).params()
        calls = [Call(models[0], "generate", {"text": p}, params) for p in prompts]
        JointLoop(recipe, range(len(members)), [loaded[i] for i in members]).run(Tray(calls))

    def singles(tokens: int) -> None:
        for i in range(3):
            joint([i], tokens)

    @torch.inference_mode()
    def library(tokens: int) -> None:
        """transformers' own generate, each model alone."""
        rows = [one.render_input({"text": p}).ids for one in loaded[:1] for p in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([[1] * (width - len(r)) + list(r) for r in rows])
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
        for one in loaded:
            one.module.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=1
            )

    @torch.inference_mode()
    def recompute(tokens: int) -> None:
        """A plain loop without caches: every step reads the whole text again, in all models."""
        rows = [list(loaded[0].render_input({"text": p}).ids) for p in prompts]
        for _ in range(tokens):
            width = max(map(len, rows))
            ids = torch.tensor([[1] * (width - len(r)) + r for r in rows])
            mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
            scores = [
                one.module(ids, attention_mask=mask, use_cache=False).logits[:, -1].float().log_softmax(-1)
                for one in loaded
            ]
            for row, token in zip(rows, sum(scores).argmax(-1).tolist(), strict=True):
                row.append(token)

    joint([0, 1, 2], 4)
    singles(4)
    n = given.tokens
    three, three_singles, three_library = best(
        lambda: joint([0, 1, 2], n), lambda: singles(n), lambda: library(n), repeats=given.repeats
    )
    print(f"{given.rows} rows, {n} new tokens, {given.layers} layers of {given.width}")
    print(f"joint of 3 / 3 single decodings (this toolkit's loop): {three / three_singles:.2f}   (at most 1.15)")
    print(f"joint of 3 / 3 single decodings (transformers' generate): {three / three_library:.2f}")
    for tokens in (n // 4, n):
        cached, plain = best(lambda t=tokens: joint([0, 1, 2], t), lambda t=tokens: recompute(t), repeats=1)
        print(f"recompute loop / joint, {tokens:4d} new tokens: {plain / cached:.1f}   (at least 5 at 128, growing)")
    nudging(engine, models, given.repeats)


def nudging(engine: LocalEngine, models: list, repeats: int) -> None:
    """32 questions together against one at a time."""
    questions = [Question(id=f"q{i}", prompt="the quick brown fox jumps " * (1 + i % 3) + str(i)) for i in range(32)]
    sampling = Sampling(max_new_tokens=48)
    options = Options(base_prompt="chat", agreement_rule=False, nudge_tokens=8)

    def ask(at_once: int) -> None:
        async def work() -> None:
            async with open_state(sampling=sampling, in_flight=at_once) as state:
                context = state.context("respond")

                async def one(question: Question, scope: Context) -> object:
                    return await write(models[:2], question, options, 0.05, sampling, True, scope)

                await context.each(questions, one)

        asyncio.run(work())

    ask(32)
    together, alone = best(lambda: ask(32), lambda: ask(1), repeats=max(1, repeats - 1))
    print(f"nudging, 32 questions one at a time / together: {alone / together:.1f}   (at least 6)")


if __name__ == "__main__":
    main()
