"""What reading prompts from where they part saves, on methods whose rounds begin alike, side by side in one process.

``python tests/benchmarks/bench_prefix.py [QUESTIONS] [PAIRS]`` has the five tiny models answer the same test questions of
``skills`` with ``prefix_memory`` and without, in turn, from an empty cache of calls each time. It prints the tokens of all
prompts, how many of them were known (equal prompts that arrive together are read once either way, and not counted as known),
the median ratio of processor and wall time of PAIRS pairs after one to warm up, and whether all replies are the same.

``long`` is what it is for: a random model of 25 million parameters and the rounds of a discussion whose prompts grow from about
300 tokens to 600, each continuing the one before. The last lines are what it costs to have the same bits whatever is known:
prompts that nothing is known of, read in blocks and in one piece.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

METHODS: dict[str, dict[str, Any]] = {
    "multiagent_refine": {"rounds": 2, "summarizer": "vote"},
    "multiagent_feedback": {},
    "structured_interaction": {},
    "bbmas": {"max_rounds": 4, "max_agents_per_round": 2, "max_retries": 0},
}
MEMORY = 0.5  # GiB


def _run(
    name: str, options: dict[str, Any], questions: int, memory: float
) -> tuple[dict[str, str], float, float, int, int]:
    """Return the replies, processor and wall seconds, tokens of all prompts, and how many of them were known."""
    from moco_core.catalogue import installed
    from moco_core.options import build
    from moco_core.types import Sampling
    from moco_toolkit_authoring import run_method

    catalogue = installed()
    source_class, method_class = catalogue.load("pool", "tiny"), catalogue.load("method", name)
    engine = {"name": "transformers", "prefix_memory": memory}
    source = source_class(build(source_class.Options, {"engine": engine}, plugins=catalogue))
    dataset_class = catalogue.load("dataset", "skills")
    data = dataset_class(build(dataset_class.Options, {}, plugins=catalogue))
    dev, test = list(data.examples("dev"))[:8], list(data.examples("test"))[:questions]
    read: list[int] = []
    known: list[int] = []

    from moco_pool_transformers.batch import Batch

    admit = Batch.admit

    def counted(self: Any, rows: Any) -> Any:
        out = admit(self, rows)
        read.extend(len(row.prompt.ids) for row in rows)
        known.extend(row.reused for row in rows)
        return out

    Batch.admit = counted  # type: ignore[method-assign]
    try:
        cpu, wall = time.process_time(), time.perf_counter()
        outcome = run_method(
            method_class(build(method_class.Options, options, plugins=catalogue)),
            source,
            dev=dev,
            questions=[example.question for example in test],
            sampling=Sampling(temperature=0.0, max_new_tokens=48),
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finally:
        Batch.admit = admit  # type: ignore[method-assign]
    return outcome.texts, cpu, wall, sum(read), sum(known)


def compare(name: str, options: dict[str, Any], questions: int, pairs: int) -> None:
    ratios: list[tuple[float, float]] = []
    same = True
    for number in range(pairs + 1):
        off = _run(name, options, questions, 0.0)
        on = _run(name, options, questions, MEMORY)
        same = same and on[0] == off[0]
        if number:
            ratios.append((on[1] / off[1], on[2] / off[2]))
    cpu, wall = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"{name}: {on[3]} prompt tokens, {on[4]} known ({on[4] / on[3]:.0%}); with / without: "
        f"{cpu:.2f} of the processor time, {wall:.2f} of the wall time; replies {'the same' if same else 'DIFFER'}"
    )


def long(rows: int = 4, rounds: int = 3, pairs: int = 2) -> None:
    """Read prompts that grow, on a model large enough that reading is what costs."""
    from random_checkpoints import write

    from moco_core.options import build
    from moco_core.types import Question, Sampling
    from moco_pool_transformers.pool import Options, TransformersPool
    from moco_toolkit_authoring import open_state

    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
    sizes |= {"num_key_value_heads": 8, "max_position_embeddings": 2048}

    async def talk(folder: str, memory: float) -> tuple[list[str], float, int]:
        source = TransformersPool(build(Options, {"models": [folder], "device": "cpu", "prefix_memory": memory}))
        async with open_state(sampling=Sampling(max_new_tokens=2)) as state:
            texts, said, known = [f"{row} " + "the quick brown fox jumps " * 50 for row in range(rows)], [], 0
            model = source.models()[0]
            await state.context("respond").on(Question(id="warm", prompt="warm up")).generate(model, "warm up")
            started = time.process_time()
            for number in range(rounds):
                contexts = [
                    state.context("respond", Question(id=f"{number}-{row}", prompt=t)) for row, t in enumerate(texts)
                ]
                replies = await asyncio.gather(*(c.generate(model, c.question) for c in contexts))
                said += [reply.text for reply in replies]
                known += sum(reply.meta.get("cached_tokens", 0) for reply in replies)
                texts = [t + "what is the capital of France? " * 20 for t in texts]
            return said, time.process_time() - started, known

    with tempfile.TemporaryDirectory() as root:
        folder = write(Path(root) / "m", template=None, **sizes)
        ratios, same = [], True
        for _ in range(pairs):
            off, on = (asyncio.run(talk(folder, memory)) for memory in (0.0, MEMORY))
            ratios.append(on[1] / off[1])
            same = same and on[0] == off[0]
    print(
        f"long: {on[2]} prompt tokens known; {statistics.median(ratios):.2f} of the processor time; "
        f"replies {'the same' if same else 'DIFFER'}"
    )


def blocks(rows: int = 16, pairs: int = 5) -> None:
    """Read prompts of the tiny pool's usual lengths in blocks, nothing kept, and in one piece."""
    import torch

    from moco_pool_tiny.pool import Options, TinyPool
    from moco_toolkit_checkpoints.local import local_engine
    from moco_toolkit_decoding.prefixes import read_blocks

    model = TinyPool(Options(models=("arithmetic",))).models()[0]
    generator = torch.Generator().manual_seed(0)
    for length in (20, 100, 300):
        prompts = [
            torch.randint(8, 500, (length + i,), generator=generator).tolist()
            for i in range(-rows // 2, rows - rows // 2)
        ]
        with local_engine(model).use(model) as (loaded,):
            ratios = []
            for number in range(pairs + 1):
                seconds = []
                for read in (loaded.runner.read, lambda *given: read_blocks(loaded.runner, *given)):
                    cache = loaded.runner.cache()
                    span = cache.append(rows)
                    started = time.process_time()
                    read(cache, span, prompts)
                    seconds.append(time.process_time() - started)
                if number:
                    ratios.append(seconds[1] / seconds[0])
        print(
            f"blocks: {rows} prompts of about {length} tokens take {statistics.median(ratios):.2f} of the time of one piece"
        )


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:3]]
    questions, pairs = [*given, *(24, 3)[len(given) :]]
    for name, options in METHODS.items():
        compare(name, options, questions, pairs)
    long()
    blocks()
