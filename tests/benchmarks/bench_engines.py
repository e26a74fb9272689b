"""What the engines lose to MoCo, as ratios measured side by side in one process.

``python tests/benchmarks/bench_engines.py [server] [vllm]`` runs both parts, or those named:

* server: 500 questions x 3 models against a small server with 200 ms latency and at most 64 calls in flight, against the
  arithmetic optimum (ceil(1500 / 64) rounds of 200 ms); at most 1.10.
* vllm: the same prompts through the pool vllm and through vLLM's own offline ``generate``, on a small random model, pass by
  pass in turn; the median ratio of three pairs of passes after one to warm up; at least 0.95 of its throughput. Replies of
  128 tokens: at 32, what a request costs outside the model weighs four times as much, and the ratio was 0.84 to 0.95. Left
  out where vLLM is not installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

LATENCY, LIMIT, QUESTIONS, MODELS = 0.2, 64, 500, 3


async def _ask_everybody(
    models: Any, passes: list[list[str]], max_new_tokens: int, after: Callable[[list[str]], None] = lambda prompts: None
) -> list[float]:
    """Ask every model every prompt through scheduler, cache and context; return the seconds of each pass.

    ``after`` runs after each pass, alone.
    """
    from moco_core.context import Context
    from moco_core.types import Question, Sampling
    from moco_toolkit_authoring import open_state

    async with open_state(sampling=Sampling(max_new_tokens=max_new_tokens), in_flight=len(passes[0])) as state:
        context = state.context("respond")

        async def work(question: Question, scope: Context) -> None:
            await scope.gather(scope.generate(m, question) for m in models)

        # opens connections and loads weights: no part of what is measured
        await context.on(Question(id="warm", prompt="warm up")).gather(context.generate(m, "warm up") for m in models)
        seconds = []
        for prompts in passes:
            started = time.perf_counter()
            await context.each([Question(id=p, prompt=p) for p in prompts], work)
            seconds.append(time.perf_counter() - started)
            after(prompts)
        return seconds


def server() -> float:
    """Return measured time over the optimum."""
    from moco_pool_openai.options import Options
    from moco_pool_openai.pool import OpenAIPool

    # in a process of its own, as any server is: its work is not the client's
    code = "import sys, moco_pool_openai.testing as t; s = t.StubServer(latency=float(sys.argv[1])); s.start(); "
    code += "print(s.url, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(LATENCY)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        url = process.stdout.readline().strip()
        source = OpenAIPool(
            Options(models=("alpha", "beta", "gamma"), base_url=url, logprobs="no", max_in_flight=LIMIT)
        )
        passes = [[f"question {k}-{i}" for i in range(QUESTIONS)] for k in range(3)]
        seconds = statistics.median(asyncio.run(_ask_everybody(source.models(), passes, 32)))
        process.stdin.close()
    best = math.ceil(QUESTIONS * MODELS / LIMIT) * LATENCY
    print(
        f"server: {QUESTIONS} questions x {MODELS} models in {seconds:.2f} s, optimum {best:.2f} s: {seconds / best:.3f}"
    )
    return seconds / best


def vllm(requests: int = 256, tokens: int = 128) -> float:
    """Return the throughput through MoCo over that of offline ``generate``. Both engines are open; they run in turn, so that
    what else the machine does meets both.
    """
    for name, value in {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }.items():
        os.environ.setdefault(name, value)
    from random_checkpoints import write

    from moco_pool_vllm.pool import Options, VLLMPool

    with tempfile.TemporaryDirectory() as folder:
        # wide enough for the model, not the glue around it, to take the time
        path = write(
            Path(folder) / "m", hidden_size=512, intermediate_size=1024, num_attention_heads=8, num_hidden_layers=4
        )
        passes = [[f"What is {i} + {i * 7 % 31} + {k}? The answer is" for i in range(requests)] for k in range(4)]
        source = VLLMPool(
            Options(
                models=(path,), dtype="float32", enforce_eager=True, kv_cache=0.25, prefix_caching=False, cache=folder
            )
        )
        offline = _Offline(path, tokens)
        mine = asyncio.run(_ask_everybody(source.models(), passes, tokens, offline))[1:]
    theirs = offline.seconds[1:]
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    each = ", ".join(f"{a:.2f}/{b:.2f}" for a, b in zip(mine, theirs, strict=True))
    print(f"vllm: {requests} requests, MoCo/offline in s: {each}: {statistics.median(ratios):.3f} of its throughput")
    return statistics.median(ratios)


class _Offline:
    """vLLM's own ``generate``; opened when it is first needed."""

    def __init__(self, path: str, tokens: int) -> None:
        self.path, self.tokens = path, tokens
        self.seconds: list[float] = []
        self._llm: Any = None

    def __call__(self, prompts: list[str]) -> None:
        from vllm import SamplingParams

        self._llm = self._llm or _llm(self.path)
        params = SamplingParams(temperature=0, max_tokens=self.tokens, logprobs=0)
        talks: list[Any] = [[{"role": "user", "content": p}] for p in prompts]
        started = time.perf_counter()
        self._llm.chat(talks, params, use_tqdm=False)
        self.seconds.append(time.perf_counter() - started)


def _llm(path: str) -> Any:
    from vllm import LLM

    return LLM(
        path,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=2**28,
        enable_prefix_caching=False,
        max_num_seqs=64,
        generation_config="vllm",
    )


def main() -> int:
    wanted = sys.argv[1:] or ["server", "vllm"]
    good = True
    if "server" in wanted:
        good &= server() <= 1.10
    if "vllm" in wanted:
        if importlib.util.find_spec("vllm") is None:
            print("vllm: left out, vLLM is not installed")
        else:
            good &= vllm() >= 0.95
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
