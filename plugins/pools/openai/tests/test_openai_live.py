"""Real servers on loopback, started by their modules: vLLM's own and ``transformers serve``; with them, a mixed pool."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moco_pool_tiny", reason="the models to serve are not installed")

import with_parent
from engine_methods import check_methods
from tiny_family import LORAS, PROMPTS, reference, same, say, weights

from moco_core.catalogue import installed
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Message
from moco_pool_openai.pool import OpenAIPool, Options
from moco_toolkit_authoring import open_state, run_checks

START = 600.0


@contextmanager
def served(command: list[str], port: int, log: Path, **environ: str) -> Iterator[str]:
    """Run a server until it is no longer needed; its address when it answers."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", **environ}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, with_parent.__file__, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
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
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):  # its workers, should any be left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def test_a_server_ends_with_the_tests_however_they_end() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a signal at a parent's death")
    program = "import time; print('up', flush=True); time.sleep(20); print('still there')"
    server = [sys.executable, with_parent.__file__, "-c", program]
    tests = f"import os, subprocess; os.close(0); subprocess.Popen({server}).wait()"
    with subprocess.Popen([sys.executable, "-c", tests], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.kill()
        assert process.stdout.read() == b""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server with the tiny pool's base and its adapters, which the server lists as models."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    port = free_port()
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", weights("base"), "--served-model-name", "base"]
    command += ["--enable-lora", "--max-loras", str(len(LORAS) + 1), "--max-lora-rank", "32", "--lora-modules"]
    command += [f"{name}={weights(f'{name}-lora')}" for name in LORAS]
    command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "64M"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    fast = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with served(command, port, tmp_path_factory.mktemp("log") / "vllm.log", **fast) as url:
        yield url


@pytest.fixture(scope="module")
def transformers_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        pytest.skip("transformers serve needs fastapi and uvicorn")
    port = free_port()
    command = ["-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"]
    with served(command, port, tmp_path_factory.mktemp("log") / "transformers.log") as url:
        yield url


@pytest.fixture(scope="module")
def llamacpp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """llama.cpp's server with the tiny pool's Qwen2 model; the others' tokenizer is none that GGUF has a name for."""
    if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("llama.cpp's server comes with the packages xllamacpp and gguf, which are not installed")
    port = free_port()
    command = [str(Path(__file__).with_name("llamacpp_server.py")), weights("outsider"), "outsider", str(port)]
    with served(command, port, tmp_path_factory.mktemp("log") / "llamacpp.log") as url:
        yield url


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def check(kind: str, settings: dict[str, Any], **expected: str) -> None:
    results = run_checks("pool", kind, settings=[settings], expected_failures=expected)
    assert not [(r.name, r.message) for r in results if not r.ok]


def check_four_methods(source: Any, **options: Any) -> None:
    cache = Cache(None)
    check_methods(source, cache, options)
    cache.close()


def test_vllm_serve_passes_the_checks_and_says_what_transformers_says(vllm_url: str) -> None:
    names = ["base", *LORAS]
    given = {"models": names, "base_url": vllm_url, "logprobs": "yes"}
    check("openai", given)
    source, theirs = OpenAIPool(build(Options, given)), reference(*names, form="adapter")
    for one, other in zip(say(source.models()), say(theirs), strict=True):
        same(one, other, text_of_a_server=True)
    raw: dict[str, Any] = {"prompts": ["State the", "47, 3 and 6 are"], "raw": True}
    for one, other in zip(say(source.models(), **raw), say(theirs, **raw), strict=True):
        same(one, other, text_of_a_server=True)
    check_four_methods(source)


def test_transformers_serve_passes_the_checks_and_says_what_transformers_says(transformers_url: str) -> None:
    names = ("letters", "outsider")
    # it lists what lies in the Hub's cache, and serves any folder; it gives no log-probabilities
    entries = [{"model": weights(n), "name": n} for n in names]
    given = {"models": entries, "base_url": transformers_url, "check": False, "logprobs": "no"}
    check("openai", given, temperature_is_heeded="this server writes one text whatever temperature and seed it is sent")
    source = OpenAIPool(build(Options, given))
    prompts = [p for p in PROMPTS if isinstance(p, str)]  # it starts a new turn where one is to be continued
    for one, other in zip(say(source.models(), prompts), say(reference(*names), prompts), strict=True):
        assert one.text.rstrip("\ufffd") == other.text.rstrip("\ufffd")
    # what a cascade measures by default are log-probabilities: it says so, and names what does without
    cascade = installed().load("method", "cascade")
    problems = cascade(build(cascade.Options, {})).needs().problems(source.models())
    assert any(re.search(r"cannot return the log-probabilities of its tokens.*agreement", p) for p in problems), problems
    check_four_methods(source, cascade={"confidence": "agreement"})


@pytest.mark.slow  # a third server; what it alone does is in the tests of services
def test_llamacpp_passes_the_checks_and_says_what_transformers_says(llamacpp_url: str) -> None:
    given = {"models": ["outsider"], "base_url": llamacpp_url, "logprobs": "yes"}
    check("openai", given)
    source, theirs = OpenAIPool(build(Options, given)), reference("outsider")
    for one, other in zip(say(source.models()), say(theirs), strict=True):
        same(one, other, text_of_a_server=True)
    raw: dict[str, Any] = {"prompts": ["State the", "47, 3 and 6 are"], "raw": True}
    for one, other in zip(say(source.models(), **raw), say(theirs, **raw), strict=True):
        same(one, other, text_of_a_server=True)
    check_four_methods(OpenAIPool(build(Options, {**given, "models": ["outsider"] * 3})))


def test_a_mixed_pool_of_two_local_models_and_one_remote(vllm_url: str) -> None:
    mixed = pytest.importorskip("moco_pool_mixed", reason="the pool mixed is not installed")
    sections = [
        {"name": "tiny", "models": ["arithmetic", "outsider"]},
        {"name": "openai", "base_url": vllm_url, "models": ["facts"], "logprobs": "yes"},
    ]
    given = {"pools": sections, "order": ["facts", "arithmetic", "outsider"]}
    check("mixed", given)
    source = mixed.MixedPool(build(mixed.Options, given, plugins=installed()))
    theirs = [*reference("facts", form="adapter"), *reference("arithmetic", "outsider")]
    for one, other in zip(say(source.models()), say(theirs), strict=True):
        same(one, other, text_of_a_server=True)
    check_four_methods(source)


@pytest.mark.slow
def test_vllms_server_gives_the_rewards_of_the_checkpoint(tmp_path: Path) -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import random_checkpoints

    folder = random_checkpoints.write(tmp_path / "judge", classifier=True, num_labels=1)
    port = free_port()
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "judge"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-num-seqs", "16", "--kv-cache-memory-bytes", "64M"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    fast = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    talk = [Message("system", "Be kind."), Message("user", "Hello"), Message("assistant", "Hi there")]
    talks = [talk[: n + 1] for n in range(3)] + [[*talk[:2], Message("assistant", "")]]
    with served(command, port, tmp_path / "vllm.log", **fast) as url:
        source = OpenAIPool(
            build(Options, {"models": [{"model": "judge", "capabilities": ["reward"]}], "base_url": url})
        )

        async def work() -> list[tuple[float, ...]]:
            async with open_state() as state:
                context = state.context("metric")
                return await asyncio.gather(*(context.reward(source.models()[0], t) for t in talks))

        found = asyncio.run(work())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for asked, values in zip(talks, found, strict=True):
        text = tokenizer.apply_chat_template([{"role": m.role, "content": m.content} for m in asked], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            wanted = float(model.score(model.model(input_ids=ids).last_hidden_state[0, -1]))
        assert values == (pytest.approx(wanted, abs=1e-4),)
