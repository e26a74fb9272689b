"""Several engines in one session, for real: texts, scores, embeddings and rewards, in turns; processes that end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from random_checkpoints import write
from tiny_family import PROMPTS, same, weights

import moco_pool_vllm.pool as pool_module
from moco_core.context import Context
from moco_core.errors import ConfigError, ModelCallError
from moco_core.options import build
from moco_core.types import Message, Sampling
from moco_pool_transformers.options import Options as TransformersOptions
from moco_pool_transformers.pool import TransformersPool
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Placement
from moco_pool_vllm.pool import VLLMPool
from moco_toolkit_authoring import open_state

# vLLM and what it imports warn at their own pace
pytestmark = pytest.mark.filterwarnings("default")

QUICK: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "kv_cache": 0.05, "max_num_seqs": 8}
TALK = (Message("user", "what is"), Message("assistant", "Paris"))
TEXTS = ("the quick brown fox", "a", "what is the capital of France?")
TAILS = ("5", " Paris. Stop here.", "", "ital of France")
QUESTION = "what is the cap"


async def everything(context: Context, writer: Any, embedder: Any, judge: Any) -> dict[str, Any]:
    """Ask for all that vLLM gives, all at once."""

    async def noted(name: str, work: Any) -> tuple[str, Any]:
        result = await work
        alive.append({p.pid for p in multiprocessing.active_children()})
        return name, result

    alive: list[set[int | None]] = []
    sampling = Sampling(max_new_tokens=8)
    texts = (noted(f"text {i}", context.generate(writer, p, sampling)) for i, p in enumerate(PROMPTS))
    found = dict(
        await context.gather(
            [
                noted("embed", context.embed(embedder, TEXTS)),
                *texts,
                noted("reward", context.reward(judge, TALK)),
                noted("score", context.score(writer, QUESTION, TAILS)),
                noted("raw score", context.score(writer, QUESTION, TAILS, raw=True)),
                noted("reward again", context.reward(judge, TALK[:1])),
            ]
        )
    )
    return {**found, "alive": alive}


def ask(*models: Any) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with open_state() as state:
            return await everything(state.context("fit"), *models)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """One session on three engines that take turns, and one on transformers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base, judge = write(folder / "base"), write(folder / "judge", 3, classifier=True, num_labels=2)
    outsider, cache = weights("outsider"), str(folder)
    real = pool_module.plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pool_module,
            "plan",
            lambda *a, **k: {key: Placement(device_group=p.device_group, sliced=True) for key, p in real(*a, **k).items()},
        )
        models = [outsider, {"model": base, "task": "embed"}, judge]
        source = VLLMPool(build(Options, {"models": models, "cache": cache, **QUICK}))
        mine = ask(*source.models())
    left = multiprocessing.active_children()
    local = TransformersPool(
        TransformersOptions(models=(outsider, base, judge), dtype="float32", device="cpu", cache=cache)
    )
    yield SimpleNamespace(vllm=mine, transformers=ask(*local.models()), source=source, left=left)


def test_greedy_replies_are_those_of_transformers(run: SimpleNamespace) -> None:
    for i in range(len(PROMPTS)):
        same(run.vllm[f"text {i}"], run.transformers[f"text {i}"])


def test_scores_are_those_of_transformers(run: SimpleNamespace) -> None:
    for kind in ("score", "raw score"):
        for one, other in zip(run.vllm[kind], run.transformers[kind], strict=True):
            assert one.token_ids == other.token_ids
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)


def test_embeddings_are_those_of_transformers(run: SimpleNamespace) -> None:
    assert len(run.vllm["embed"]) == len(TEXTS)
    for a, b in zip(run.vllm["embed"], run.transformers["embed"], strict=True):
        assert a == pytest.approx(b, abs=1e-3)


def test_rewards_are_those_of_transformers(run: SimpleNamespace) -> None:
    for kind in ("reward", "reward again"):
        assert run.vllm[kind] == pytest.approx(run.transformers[kind], abs=1e-3)


def test_models_that_take_switchers_are_never_there_together_and_leave_nothing(run: SimpleNamespace) -> None:
    alive = run.vllm["alive"]
    assert run.source.engine.loads == 3  # fewest changes: all calls of a model in one turn
    assert max(map(len, alive)) == 1 and len(set().union(*alive)) == 3
    assert not run.left  # each process has ended, the last one with the session
    assert not [pid for pid in set().union(*alive) if Path(f"/proc/{pid}").exists()]


def test_a_checkpoint_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    given = {"models": [write(tmp_path / "base")], "cache": str(tmp_path), **QUICK, "max_model_len": 100_000}
    source = VLLMPool(build(Options, given))

    async def work() -> Any:
        async with open_state() as state:
            context, (model,) = state.context("fit"), source.models()
            return await context.gather((context.generate(model, p) for p in ("a", "b")), tolerate=ConfigError)

    errors = asyncio.run(work())
    assert all(isinstance(e, ConfigError) for e in errors) and "\n" not in str(errors[0])
    assert "vLLM cannot open" in str(errors[0])


def test_a_worker_that_is_killed_fails_its_calls_and_is_replaced(tmp_path: Path) -> None:
    """As by the system for want of memory: one line for each call under way; the others open a new process."""
    source = VLLMPool(build(Options, {"models": [weights("outsider")], "cache": str(tmp_path), **QUICK}))
    (model,) = source.models()

    async def work() -> tuple[list[Any], set[int | None]]:
        async with open_state(sampling=Sampling(max_new_tokens=200, temperature=1.5)) as state:
            context = state.context("fit")
            await context.generate(model, PROMPTS[0])
            (worker,) = multiprocessing.active_children()
            done = 0

            async def ask(number: int) -> Any:
                nonlocal done
                reply = await context.generate(model, f"count {number}")
                done += 1
                return reply

            asked = asyncio.ensure_future(context.gather((ask(i) for i in range(200)), tolerate=ModelCallError))
            while done < 20:
                await asyncio.sleep(0.001)
            worker.kill()
            return await asked, {worker.pid, *(p.pid for p in multiprocessing.active_children())}

    found, pids = asyncio.run(work())
    errors = [f for f in found if isinstance(f, ModelCallError)]
    assert 0 < len(errors) <= 2 * QUICK["max_num_seqs"]  # what was under way; the others were asked of the new process
    assert all(str(e).startswith("outsider: vLLM: ") and "\n" not in str(e) for e in errors)
    assert source.engine.loads == 2 and len(pids) == 2
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# ---------------------------------------------------------------- Ctrl-C

# a shell's background jobs inherit that SIGINT is ignored
MOCO = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from moco_core.cli import main; main()"


def members(session: int) -> dict[int, str]:
    """Return the living processes of a session, with their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, owner = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(owner) == session and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_interrupting_an_opening_leaves_one_line_and_no_process(tmp_path: Path) -> None:
    """Ctrl-C, as a terminal sends it to the whole group, while the worker process is on its way."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    given = {"models": [weights("base")], "cache": str(tmp_path), **QUICK}
    command = [
        sys.executable,
        "-c",
        MOCO,
        "run",
        "majority_vote",
        "-p",
        "vllm",
        "-d",
        "skills",
        "--test",
        "2",
        "--dev",
        "1",
    ]
    command += [f"-opool.{key}={json.dumps(value)}" for key, value in given.items()]
    environ = {**os.environ, "MOCO_CACHE": str(tmp_path / "calls.sqlite")}
    with subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=tmp_path,
    ) as process:
        try:
            while not any("spawn_main" in line or "EngineCore" in line for line in members(process.pid).values()):
                assert process.poll() is None, process.stderr and process.stderr.read()[-2000:]
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            out, said = process.communicate(timeout=120)
        finally:
            process.kill()
    lines = [
        line for line in said.splitlines() if line and not line.startswith("Triton is installed")
    ]  # vLLM's, on import
    assert (process.returncode, out, lines) == (130, "", ["stopped; run the same command again to go on where it was"])
    for _ in range(100):  # multiprocessing's own helper sees the end a moment later
        if not members(process.pid):
            break
        time.sleep(0.1)
    assert not members(process.pid)
