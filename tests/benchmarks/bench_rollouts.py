"""Rollouts of GRPO by trl and by the engine's continuous batches, side by side in one process: time, tokens, equal replies.

    python tests/benchmarks/bench_rollouts.py [--model tiny|random|both] [--rounds 3] [--steps 2]

Both get the prompts of one update (64 completions, in groups of 8) in float32 and one thread. trl's side is the trainer that
the toolkit makes for a job: one batch, which runs until its longest reply is done. The engine's side is a pool of the same
weights: rows leave when they are done, and equal prompts are read once. They take turns; a ratio is the engine's time over
trl's, the median of the rounds. Sampled replies are others on each side, so that their numbers of tokens differ by chance: the
time of a token is compared, too. With ``top_k=1`` nothing is left to chance, and replies must be the same.

``tiny`` is the generalist of the pool tiny on generated questions; ``random`` has 26 M parameters and replies of 1 to 128
tokens, since each of its tokens ends a reply with a probability of one in fifty. Then the job trains, with all weights and
with an adapter: how much of it the rollouts are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

GROUP, BATCH = 8, 64
SIZES = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
LONGEST = {"tiny": 48, "random": 128}
Replies = list[tuple[int, ...]]


class Inbox:
    """The calls of one update."""

    limit, cancelled = 1 << 30, False

    def __init__(self, calls: Sequence[Any]) -> None:
        self.queue = deque(calls)
        self.demand: dict[str, int] = {}
        self.replies: dict[int, tuple[int, ...]] = {}

    @property
    def waiting(self) -> int:
        return len(self.queue)

    def take(self, n: int | None = None) -> list[Any]:
        return [self.queue.popleft() for _ in range(min(len(self.queue), n or len(self.queue)))]

    def resolve(self, results: Any) -> None:
        self.replies |= {call.input["number"]: result.token_ids for call, result in results}

    def reject(self, call: Any, error: Exception) -> None:
        raise error


def random_model(folder: Path) -> str:
    """Write a random Llama whose words are about equally likely, and some of which end a reply."""
    import random_checkpoints
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = random_checkpoints.tokenizer()
    torch.manual_seed(0)
    module = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), bos_token_id=0, eos_token_id=1, **SIZES))
    module.generation_config.eos_token_id = [1, *range(20, 20 + len(words) // 50)]
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def opened(kind: str, root: Path) -> Any:
    """Return the model, on an engine of its own."""
    from moco_core.options import build
    from moco_pool_tiny.pool import WEIGHTS
    from moco_pool_transformers.pool import Options, TransformersPool

    path = str(WEIGHTS / "generalist") if kind == "tiny" else random_model(root / "random")
    given = {"models": [path], "dtype": "float32", "device": "cpu", "cache": str(root / "hashes")}
    return TransformersPool(build(Options, given)).models()[0]


def job_of(kind: str, steps: int, **more: Any) -> Any:
    from moco_toolkit_skills import generate
    from moco_toolkit_training import Grpo, Task

    async def judge(completions: Any) -> Any:
        raise AssertionError("rewards come from the site")

    tasks = [Task(prompt=item.prompt) for item in generate("dev", steps * BATCH // GROUP, 0)]
    settings = {"group": GROUP, "batch": BATCH, "max_new_tokens": LONGEST[kind], "min_steps": 1, "max_steps": steps}
    return Grpo(rows=tasks, judge=judge, judged_by="length", learning_rate=1e-6, **settings, **more)


def train(model: Any, job: Any, folder: Path, prepare: Callable[[Any], None]) -> None:
    """Train in this process; ``prepare`` gets the trainer before."""
    from moco_core.training import TrainingSite
    from moco_pool_transformers.training import site_of
    from moco_toolkit_training import worker

    folder.mkdir()
    given = TrainingSite(
        folder=folder,
        seed=7,
        tell=lambda figures: None,
        reward=lambda rollouts: [float(len(text)) for _, text in rollouts],
        cancelled=lambda: False,
    )
    engine = model.engine
    worker.train(job, site_of(model, given, engine.entry(model), engine.cpu, engine.options), prepare=prepare)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what work returns, its seconds, and those of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    out = work()
    return out, time.perf_counter() - wall, time.process_time() - processor


class Sides:
    """The two ways to write the completions of one update."""

    def __init__(self, model: Any, job: Any, trainer: Any) -> None:
        self.model, self.job, self.trainer = model, job, trainer
        rows = [row for row in trainer.train_dataset["prompt"][: BATCH // GROUP] for _ in range(GROUP)]
        self.ids, *_ = trainer._tokenize_prompts(rows)
        self.inputs = [{"messages": [[m.role, m.content] for m in job.rows[int(row)].prompt]} for row in rows]
        with model.engine.use(model) as (loaded,):
            prompts = [list(loaded.render_input(given).ids) for given in self.inputs]
            assert prompts == self.ids, "both sides read the same"
            assert loaded.end_ids == set(trainer.generation_kwargs["eos_token_id"]), "the same tokens end a reply"

    def trl(self, top_k: int, number: int, longest: int | None = None) -> Replies:
        import torch

        torch.manual_seed(number)
        self.trainer.generation_config.top_k = top_k
        self.trainer.generation_config.max_new_tokens = longest or self.job.max_new_tokens
        replies, _ = self.trainer._generate_single_turn(self.ids, None, {}, GROUP)
        return [tuple(reply) for reply in replies]

    def engine(self, top_k: int, number: int, longest: int | None = None) -> Replies:
        from moco_core.models import Call
        from moco_core.types import Sampling

        sampling = Sampling(
            temperature=self.job.temperature,
            top_p=self.job.top_p,
            top_k=top_k,
            max_new_tokens=longest or self.job.max_new_tokens,
        )
        calls = [
            Call(self.model, "generate", {**given, "number": i}, sampling.params(), seed=number * BATCH + i)
            for i, given in enumerate(self.inputs)
        ]
        inbox = Inbox(calls)
        self.model.engine.serve(self.model, inbox)
        return [inbox.replies[i] for i in range(BATCH)]


def compare(kind: str, sides: Sides, rounds: int) -> None:
    for name, top_k in (("sampled", 0), ("top_k=1", 1)):
        sides.trl(top_k, rounds, 2), sides.engine(top_k, rounds, 2)  # whatever is made once
        ratios: list[tuple[float, float, float]] = []
        for number in range(rounds):
            turn = [sides.trl, sides.engine][:: 1 if number % 2 else -1]
            got = {way.__name__: timed(partial(way, top_k, number)) for way in turn}
            (theirs, *slow), (ours, *fast) = got["trl"], got["engine"]
            tokens = [sum(map(len, replies)) for replies in (ours, theirs)]
            wall, processor = (a / b for a, b in zip(fast, slow, strict=True))
            ratios.append((wall, processor, processor * tokens[1] / tokens[0]))
            spread = sorted(map(len, theirs))
            equal = sum(a == b for a, b in zip(ours, theirs, strict=True))
            print(
                f"{kind}, {name}, round {number}: engine {fast[0]:.2f} s ({fast[1]:.2f} s of the processor, {tokens[0]:,} "
                f"tokens), trl {slow[0]:.2f} s ({slow[1]:.2f} s, {tokens[1]:,} tokens), its replies of {spread[0]} to "
                f"{spread[-1]} tokens, half under {spread[BATCH // 2]}; {equal} of {BATCH} equal",
                flush=True,
            )
        wall, processor, token = map(median, zip(*ratios, strict=True))
        print(
            f"{kind}, {name}: engine to trl {wall:.2f} in time, {processor:.2f} of the processor, {token:.2f} per token"
        )


def share(kind: str, how: str, model: Any, job: Any, folder: Path) -> None:
    """Train, and print how much of its time the rollouts are."""
    spent: list[tuple[float, float]] = []
    whole: list[tuple[float, float]] = []

    def watch(trainer: Any) -> None:
        for name, into in (("_generate_single_turn", spent), ("train", whole)):
            setattr(trainer, name, _watched(getattr(trainer, name), into))

    train(model, job, folder, watch)
    wall, processor = (sum(part) / total for part, total in zip(zip(*spent, strict=True), whole[0], strict=True))
    print(
        f"{kind}, training {how}: {whole[0][0] / len(spent):.1f} s a step, of which rollouts are {wall:.0%} "
        f"({processor:.0%} of the processor)",
        flush=True,
    )


def _watched(work: Callable[..., Any], into: list[tuple[float, float]]) -> Callable[..., Any]:
    def run(*args: Any, **more: Any) -> Any:
        out, *seconds = timed(lambda: work(*args, **more))
        into.append((seconds[0], seconds[1]))
        return out

    return run


class _Compared(Exception):
    """The trainer has been used, and is not to train."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "random", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="updates that are trained for the share; 0: none")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
    for kind in ("tiny", "random") if args.model == "both" else (args.model,):
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            model = opened(kind, root)
            job = job_of(kind, max(1, args.steps), lora=None)

            def both(trainer: Any, kind: str = kind, model: Any = model, job: Any = job) -> None:
                compare(kind, Sides(model, job, trainer), args.rounds)
                raise _Compared

            with suppress(_Compared):
                train(model, job, root / "compared", both)
            if args.steps:
                share(kind, "all weights", model, job, root / "all")
                share(kind, "an adapter", model, job_of(kind, args.steps), root / "adapter")


if __name__ == "__main__":
    main()
