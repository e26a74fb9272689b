"""Real servers on loopback, started by their modules: vLLM's own and ``transformers serve``. Slow: each imports its engine."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_methods import check_methods
from random_checkpoints import write

from moco_core.cache import Cache
from moco_core.context import Context
from moco_core.options import build
from moco_core.testing import open_session, run_checks
from moco_core.types import Generation, Message, Sampling
from moco_pool_openai.pool import OpenAIPool, Options

pytestmark = pytest.mark.slow
pytest.importorskip("moco_pool_transformers", reason="the engine to compare with is not installed")

MARGIN = 1e-3
PROMPTS = ["What is 2 + 3?", "the quick brown fox", "Say a word.", "numbers 0 1 2 3", "Q: what is the capital?"]
START = 600.0


@contextmanager
def served(command: list[str], port: int, log: Path, **environ: str) -> Iterator[str]:
    """Run a server until it is no longer needed; its address when it answers."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", **environ}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out, stderr=subprocess.STDOUT, env=env)
        try:
            end = time.monotonic() + START
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    assert process.poll() is None, log.read_text(errors="replace")[-2000:]
                    assert time.monotonic() < end, "the server did not start in time"
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("live") / "tiny")


@pytest.fixture(scope="module")
def vllm_url(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    port = free_port()
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint, "--served-model-name", "tiny"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "64M"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    fast = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with served(command, port, tmp_path_factory.mktemp("log") / "vllm.log", **fast) as url:
        yield url


@pytest.fixture(scope="module")
def transformers_url(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        pytest.skip("transformers serve needs fastapi and uvicorn")
    port = free_port()
    command = ["-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"]
    with served(command, port, tmp_path_factory.mktemp("log") / "transformers.log") as url:
        yield url


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def ask(source: Any, prompts: list[Any], *, raw: bool = False, **how: Any) -> list[Generation]:
    async def work() -> list[Generation]:
        async with open_session(sampling=Sampling(**{"max_new_tokens": 16, **how})) as session:
            context = Context(session, phase="fit")
            model = source.models()[0]
            found: list[Generation] = await context.gather(context.generate(model, p, raw=raw) for p in prompts)
            return found

    return asyncio.run(work())


def local(checkpoint: str, tmp_path: Path) -> Any:
    from moco_pool_transformers.pool import Options as LocalOptions
    from moco_pool_transformers.pool import TransformersPool

    return TransformersPool(LocalOptions(models=(checkpoint,), dtype="float32", device="cpu", cache=str(tmp_path)))


def same(one: Generation, other: Generation) -> None:
    """Equal greedy replies; or the log-probabilities of the first differing tokens show a tie within the margin."""
    for i, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)):
        p, q = one.token_logprobs[i], other.token_logprobs[i]
        assert abs(p - q) < MARGIN, f"token {i}: {a} ({p}) and {b} ({q})"
        if a != b:
            return
    # servers hold back characters that are not complete when the budget ends
    assert (one.text.rstrip("\ufffd"), one.finish_reason) == (other.text.rstrip("\ufffd"), other.finish_reason)
    assert one.usage == other.usage and one.token_ids == other.token_ids


def test_vllm_serve_passes_the_kit_and_says_what_transformers_says(
    vllm_url: str, checkpoint: str, tmp_path: Path
) -> None:
    given = {"models": ["tiny"], "base_url": vllm_url, "logprobs": "yes"}
    results = run_checks("pool", "openai", settings=[given])
    assert not [(r.name, r.message) for r in results if not r.ok]
    source, reference = OpenAIPool(build(Options, given)), local(checkpoint, tmp_path)
    talk = [Message("user", "the lazy dog"), Message("assistant", "runs a")]
    for one, other in zip(ask(source, [*PROMPTS, talk]), ask(reference, [*PROMPTS, talk]), strict=True):
        same(one, other)
    for one, other in zip(ask(source, PROMPTS, raw=True), ask(reference, PROMPTS, raw=True), strict=True):
        same(one, other)
    cache = Cache(None)
    check_methods(OpenAIPool(build(Options, {**given, "models": ["tiny", "tiny"]})), cache)
    cache.close()


def test_transformers_serve_passes_the_kit_and_says_what_transformers_says(
    transformers_url: str, checkpoint: str, tmp_path: Path
) -> None:
    given = {"models": [{"model": checkpoint, "name": "tiny"}], "base_url": transformers_url, "check": False}
    results = run_checks("pool", "openai", settings=[{**given, "logprobs": "no"}])
    assert not [(r.name, r.message) for r in results if not r.ok]
    source, reference = OpenAIPool(build(Options, {**given, "logprobs": "no"})), local(checkpoint, tmp_path)
    for one, other in zip(ask(source, PROMPTS), ask(reference, PROMPTS), strict=True):
        assert one.text.rstrip("\ufffd") == other.text.rstrip("\ufffd")
