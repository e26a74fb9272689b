"""The transformers engine against ``model.generate`` on length-sorted static batches of the best size.

Both sides run in this process, on the same module and the same prompts, greedily in float32, with the end of each reply
forced: end tokens are suppressed on both sides and each request states how many tokens it takes. Two workloads: reply
lengths that vary tenfold, and equal lengths. Printed are tokens per second as *ratios*, the median over rounds in which
the two sides alternate, so that a busy machine weighs on both alike.

    python tests/benchmarks/bench_transformers_engine.py [--model tiny|100m|both] [--rounds N] [--device cpu]

Targets: at least 1.5 on varied lengths, at least 0.95 on equal ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from moco_core.models import Call, Model
from moco_core.options import build
from moco_core.types import Sampling
from moco_pool_transformers.pool import Options, TransformersPool

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab": 2048,
    },
    "100m": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 12,
        "vocab": 16384,
    },
}
WORK = {"tiny": (128, 10, 100), "100m": (64, 6, 60)}  # requests, shortest and longest reply
BATCHES = (16, 32, 64)
ROUNDS = {"tiny": 3, "100m": 2}  # the larger model takes about three minutes a round on one core

CLOCK = time.perf_counter
"""Replaced by the processor's time for one thread on a CPU, which other programs on the machine do not disturb."""


class Inbox:
    """The calls of one run."""

    def __init__(self, calls: list[Call]) -> None:
        self.queue = deque(calls)
        self.limit = 1 << 30
        self.cancelled = False
        self.demand: dict[str, int] = {}
        self.tokens = 0
        self.replies: dict[int, tuple[int, ...]] = {}

    @property
    def waiting(self) -> int:
        return len(self.queue)

    def take(self, n: int | None = None) -> list[Call]:
        return [self.queue.popleft() for _ in range(min(len(self.queue), n or len(self.queue)))]

    def resolve(self, results: Any) -> None:
        for call, result in results:
            self.tokens += len(result.token_ids)
            self.replies[call.input["number"]] = result.token_ids

    def reject(self, call: Call, error: Exception) -> None:
        raise error


def checkpoint(folder: Path, size: str, seed: int = 0) -> str:
    """Write a random model; its tokenizer's words are the numbers, so that texts and ids are the same thing."""
    settings = dict(SIZES[size])
    vocab = settings.pop("vocab")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
        **settings,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    raw = Tokenizer(models.WordLevel({str(i): i for i in range(vocab)}, unk_token="0"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=raw).save_pretrained(folder)
    return str(folder)


def workload(size: str, varied: bool) -> list[tuple[list[int], int]]:
    """Return (prompt ids, reply length) pairs; prompts of 8 to 48 tokens."""
    count, short, long = WORK[size]
    generator = torch.Generator().manual_seed(1)
    vocab = SIZES[size]["vocab"]
    out = []
    for i in range(count):
        n = int(torch.randint(8, 49, (1,), generator=generator))
        prompt = torch.randint(2, vocab, (n,), generator=generator).tolist()
        # lengths spread evenly on a logarithmic scale: many short replies, few long ones, as people's questions have
        length = round(short * (long / short) ** ((i * 37 % count) / (count - 1))) if varied else (short + long) // 3
        out.append((prompt, length))
    return out


def ours(model: Model, work: list[tuple[list[int], int]]) -> tuple[float, dict[int, tuple[int, ...]]]:
    """Return tokens per second of the engine, rendering and detokenising included."""
    calls = [
        Call(
            model,
            "generate",
            {"text": " ".join(map(str, ids)), "number": i},
            Sampling(max_new_tokens=n).params(),
        )
        for i, (ids, n) in enumerate(work)
    ]
    inbox = Inbox(calls)
    start = CLOCK()
    model.engine.serve(model, inbox)
    return inbox.tokens / (CLOCK() - start), inbox.replies


def static(module: Any, work: list[tuple[list[int], int]], size: int) -> tuple[float, dict[int, tuple[int, ...]]]:
    """Return *useful* tokens per second of ``generate`` on batches of ``size``, sorted by reply and prompt length.

    Knowing the reply lengths in advance is more than any real caller does; a batch runs until its longest reply is done.
    """
    order = sorted(range(len(work)), key=lambda i: (work[i][1], len(work[i][0])))
    replies: dict[int, tuple[int, ...]] = {}
    start = CLOCK()
    for at in range(0, len(order), size):
        part = order[at : at + size]
        width = max(len(work[i][0]) for i in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(part):
            ids[row, width - len(work[i][0]) :] = torch.tensor(work[i][0])
            mask[row, width - len(work[i][0]) :] = 1
        longest = max(work[i][1] for i in part)
        out = module.generate(
            ids.to(module.device),
            attention_mask=mask.to(module.device),
            do_sample=False,
            min_new_tokens=longest,
            max_new_tokens=longest,
            pad_token_id=0,
        )
        for row, i in enumerate(part):
            replies[i] = tuple(out[row, width : width + work[i][1]].tolist())
    return sum(n for _, n in work) / (CLOCK() - start), replies


def random_order(module: Any, work: list[tuple[list[int], int]], size: int) -> float:
    """Return useful tokens per second of ``generate`` where only prompt lengths are known, as in a real evaluation."""
    order = sorted(range(len(work)), key=lambda i: len(work[i][0]))
    shuffled = [work[i] for i in order]
    start = CLOCK()
    for at in range(0, len(shuffled), size):
        part = shuffled[at : at + size]
        width = max(len(p) for p, _ in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (p, _) in enumerate(part):
            ids[row, width - len(p) :] = torch.tensor(p)
            mask[row, width - len(p) :] = 1
        longest = max(n for _, n in part)
        module.generate(
            ids.to(module.device),
            attention_mask=mask.to(module.device),
            do_sample=False,
            min_new_tokens=longest,
            max_new_tokens=longest,
            pad_token_id=0,
        )
    return sum(n for _, n in work) / (CLOCK() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["tiny", "100m", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=None, help="default: 3, 2 for the larger model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=64)
    arguments = parser.parse_args()
    global CLOCK
    if arguments.device == "cpu" and arguments.threads == 1:
        CLOCK = time.process_time
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    failed = False
    for size in ["tiny", "100m"] if arguments.model == "both" else [arguments.model]:
        with tempfile.TemporaryDirectory() as root:
            folder = checkpoint(Path(root) / size, size)
            options = {"models": [folder], "device": arguments.device, "cache": root, "max_batch": arguments.max_batch}
            model = TransformersPool(build(Options, options)).models()[0]
            failed |= run(model, size, arguments.rounds or ROUNDS[size])
    return int(failed)


def run(model: Model, size: str, rounds: int) -> bool:
    failed = False
    with model.engine.use(model) as (loaded,):  # type: ignore[attr-defined]
        loaded.end_ids = frozenset()
        module = loaded.module
        module.generation_config.eos_token_id = None
        for varied in (True, False):
            work = workload(size, varied)
            # with equal lengths there is only one way of sorting
            ways = (static, random_order) if varied else (static,)
            best: dict[Any, int] = {}
            for way in ways:
                speeds = {}
                for n in BATCHES:
                    with torch.inference_mode():
                        got = way(module, work, n)
                    speeds[n] = got[0] if isinstance(got, tuple) else got
                best[way] = max(speeds, key=lambda n: speeds[n])
            ratios, real = [], []
            for _ in range(rounds):
                mine, replies = ours(model, work)
                with torch.inference_mode():
                    theirs, wanted = static(module, work, best[static])
                    unsorted = random_order(module, work, best[random_order]) if varied else theirs
                ratios.append(mine / theirs)
                real.append(mine / unsorted)
                differing = sum(replies[i] != wanted[i] for i in wanted)
            ratio, target = statistics.median(real), 1.5 if varied else 0.95
            name = "lengths vary 10x" if varied else "equal lengths"
            ok = ratio >= target
            failed |= not ok
            line = f"{size:>5}  {name:<16} engine {mine:6.0f} tok/s, against generate"
            if varied:
                line += f" sorted by prompt (batch {best[random_order]}): {ratio:.2f}x (at least {target}), sorted by the reply"
                line += f" lengths, which nobody knows (batch {best[static]}): {statistics.median(ratios):.2f}x"
            else:
                line += f" (batch {best[static]}): {ratio:.2f}x (at least {target})"
            print(f"{line}   {'ok' if ok else 'MISSED'}   [{differing} of {len(work)} replies differ]", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
