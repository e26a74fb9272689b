"""What reading prompts from where they part saves, on methods whose rounds begin alike, side by side in one process.

``python tests/benchmarks/bench_prefix.py [QUESTIONS] [PAIRS]`` has the five tiny models answer the same test questions of
``skills`` with ``prefix_memory`` and without, in turn, from an empty cache of calls each time. It prints the tokens of all
prompts, how many of them were known (equal prompts that arrive together are read once either way, and not counted as known),
the median ratio of processor and wall time of PAIRS pairs after one to warm up, and whether all replies are the same.

The last line is what it costs to have the same bits whatever is known: prompts that nothing is known of, read in blocks and in
one piece.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

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


def blocks(rows: int = 16, pairs: int = 5) -> None:
    """Read prompts of the tiny pool's usual lengths in blocks, nothing kept, and in one piece."""
    import torch

    from moco_core.local import local_engine
    from moco_pool_tiny.pool import Options, TinyPool
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
    blocks()
