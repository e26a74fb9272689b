"""The process of a training: what it is told and says, how it ends, and that a run gets the same model from it."""

from __future__ import annotations

import asyncio
import errno
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from training_lab import JOBS

from moco_core import EngineOutOfMemory, ModelCallError, StoreError
from moco_core.runs.results import costs_of
from moco_core.runtime.cache import Cache
from moco_core.types import digest
from moco_toolkit_authoring import ScriptedPool, open_state
from moco_toolkit_training import Sft
from moco_toolkit_training.fitting import Fit, _shape, fit, memory, predicted_memory
from moco_toolkit_training.process import WORKER, _environment, run

HEAD = """
import json, os, pickle, sys, time
job, site, settings = pickle.load(sys.stdin.buffer)
def say(**message): print(json.dumps(message), flush=True)
"""


def fake(lab, body: str, *, job: Any = JOBS["sft"], **site: Any) -> Any:
    """Run a job in a process that only says what a training would say."""
    place = attrs.evolve(lab.site(), **site)
    return run(
        job.service, job.sent(), Fit(most=8, checkpointing=False, memory=0), place, [sys.executable, "-c", HEAD + body]
    )


def test_out_of_memory_halves_what_is_computed_at_once_and_goes_on(lab):
    body = """
if settings["most"] > 2: say(error="CUDA out of memory", kind="memory")
else: say(figures={"rows": len(job.rows), "most": settings["most"]})
"""
    figures = fake(lab, body)
    assert (figures["rows"], figures["most"], figures["halved"]) == (8, 2, 2)


def test_one_row_that_does_not_fit_is_told_with_what_to_do(lab):
    with pytest.raises(
        EngineOutOfMemory, match="sft: one row at a time does not fit into the memory of cpu; lower max_length"
    ):
        fake(lab, 'say(error="no", kind="memory")')


def test_figures_of_the_way_and_rewards_go_to_and_fro(lab):
    body = """
say(tell={"step": 1})
say(reward=[[0, "four"], [1, "a"]])
rewards = json.loads(sys.stdin.buffer.readline())
say(figures={"rewards": rewards, "judge": job.judge.__name__})
"""
    told = []
    figures = fake(lab, body, job=JOBS["grpo"], tell=told.append, reward=lambda r: [float(len(t)) for _, t in r])
    assert told == [{"step": 1}] and figures["rewards"] == [4.0, 1.0] and figures["judge"] == "_elsewhere"


def test_a_process_that_dies_is_an_error_with_the_end_of_its_log(lab):
    with pytest.raises(ModelCallError, match=r"sft failed: its process ended: no such kernel \(log: .*log.txt\)"):
        fake(lab, 'print("no such kernel", file=sys.stderr); os._exit(3)')


def test_errors_for_people_arrive_as_they_are(lab):
    with pytest.raises(StoreError, match=r"^/x: cannot be written$"):
        fake(lab, 'say(error="/x: cannot be written", kind="StoreError")')
    with pytest.raises(ModelCallError, match="sft failed: ValueError: odd"):
        fake(lab, 'say(error="ValueError: odd", kind="")')


def test_a_run_that_is_stopped_ends_the_process(lab):
    body = """
say(tell={"pid": os.getpid()})
time.sleep(600)
"""
    seen: list[Any] = []
    with pytest.raises(ModelCallError, match="the run was stopped while it was trained"):
        fake(lab, body, tell=seen.append, cancelled=lambda: bool(seen))
    assert not Path(f"/proc/{seen[0]['pid']}").exists()


def test_a_process_sees_its_own_device_alone(lab, monkeypatch):
    body = 'say(figures={k: os.environ.get(k) for k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")} | {"on": site["device"]})'
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    found = fake(lab, body, device="cuda:1")
    assert (found["CUDA_VISIBLE_DEVICES"], found["on"]) == ("5", "cuda:0")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = fake(lab, body, threads=2)
    assert (found["CUDA_VISIBLE_DEVICES"], found["OMP_NUM_THREADS"], found["on"]) == ("", "2", "cpu")


def test_threads_of_a_training_wait_passively_unless_the_user_has_set_anything_of_them(monkeypatch, lab):
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    site = attrs.evolve(lab.site(), threads=None)
    assert _environment(site)["OMP_WAIT_POLICY"] == "PASSIVE" and "OMP_NUM_THREADS" not in _environment(site)
    for name, value in (("OMP_WAIT_POLICY", "ACTIVE"), ("OMP_NUM_THREADS", "7"), ("GOMP_SPINCOUNT", "100")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            found = _environment(site)
            assert found[name] == value and found.get("OMP_WAIT_POLICY") == (value if "WAIT" in name else None)


def test_a_training_whose_run_was_killed_ends(lab):
    worker = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    site = lab.site()
    given = {
        f.name: getattr(site, f.name) for f in attrs.fields(type(site)) if f.name not in ("tell", "reward", "cancelled")
    }
    worker.stdin.write(pickle.dumps((JOBS["sft"], given, {})))
    worker.stdin.close()  # nobody is there any more
    assert worker.wait(timeout=60) == 1


def test_a_full_disk_is_one_line_and_the_checkpoints_stay(lab, monkeypatch):
    from moco_toolkit_training import saving
    from moco_toolkit_training.worker import _outcome

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site = lab.site()
    with monkeypatch.context() as patch:
        patch.setattr(saving, "save", full)
        said = _outcome(JOBS["sft"], site, {"interval": 0.0})
    line = f"{site.folder}: cannot be written: No space left on device; free some space"
    assert said == {"error": line, "kind": "StoreError"}
    assert _outcome(JOBS["sft"], site, {})["figures"]["resumed_at"] == 3


def test_memory_is_predicted_before_anything_starts(lab):
    site, job = lab.site(), Sft(rows=JOBS["sft"].rows, max_length=256)
    shape = _shape(Path(lab.base), "float32", "cpu", 512)
    whole = memory(attrs.evolve(job, lora=None), shape, 0, False)
    assert whole == lab.model.parameters * 16  # float32: weights, gradients, two moments
    figures, _ = lab.train(attrs.evolve(job, max_steps=1))
    head = 16 * sum(32 + 400 for _ in range(2))  # the prediction has factors on embedding and head, too
    adapters = memory(job, shape, 0, False) - 4 * lab.model.parameters
    assert 12 * figures["parameters_trained"] < adapters < 12 * (figures["parameters_trained"] + 2 * head)
    assert predicted_memory(job, lab.model) == memory(job, shape, 8, False)
    assert predicted_memory(job, ScriptedPool({"a": "x"}).pool[0]) == 0
    roomy = attrs.evolve(site, info={**site.info, "room": 1 << 30})
    assert fit(job, roomy).most == 8 and not fit(job, roomy).checkpointing
    tight = attrs.evolve(site, info={**site.info, "room": memory(job, shape, 2, False)})
    assert fit(job, tight).most == 2 and fit(job, tight).memory == memory(job, shape, 2, False)
    with pytest.raises(EngineOutOfMemory, match=r"sft needs about 0.0 GiB on cpu and 0.0 are free; lower max_length"):
        fit(job, attrs.evolve(site, info={**site.info, "room": 1000}))


def test_a_run_gets_from_a_new_process_the_bits_of_this_one_and_no_second_training(lab, tmp_path):
    """GRPO through the context: practised in a process with the run's own rewards, told, kept, answered with; then found again
    by another run.
    """
    asked: list[str] = []

    async def judge(completions: Any) -> Any:
        asked.extend(c.task.prompt[0].content for c in completions)
        return [float(len(c.text)) for c in completions]

    job = attrs.evolve(JOBS["grpo"], judge=judge)
    shown: list[Any] = []
    notes: list[Any] = []

    async def work(asks: bool) -> tuple[Any, Any]:
        cache = Cache(tmp_path / "calls.sqlite")
        async with open_state(cache=cache) as state:
            state.on_progress = lambda *told: shown.append(told)
            state.on_note = lambda phase, note: notes.append(note)
            context = state.context("fit")
            model = await context.train(lab.model, job, name="tuned")
            said = await context.generate(model, "What is 1 + 3?") if asks else None
        cache.close()
        return model, (said, costs_of(state.ledger)["fit"]["tuned"]["trained"])

    model, (said, cost) = asyncio.run(work(True))
    (folder,) = (tmp_path / "calls.artifacts").glob("*/model")
    what = json.loads((folder.parent / "artifact.json").read_text())["what"]
    assert what["kind"] == "training" and what["model"] == lab.model.fingerprint
    assert len(asked) == 16 and set(asked) <= {f"Say {i}" for i in range(4)}  # four steps of four completions
    _, here = lab.train(job, seed=int(digest("training", what)[:8], 16))
    assert not importlib.import_module("trl.generation").is_vllm_available()  # or every training would import it for nothing
    # every file, or the model's fingerprint, seeds and replies would depend on the process that trained it
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in here.iterdir()}
    assert said.token_ids and model.adapter and model.base == lab.model.info["spec"].base_print
    assert [t[:3] for t in shown] == [("training tuned", step, 4) for step in (1, 2, 3, 4)] and "loss" in shown[-1][3]
    assert [n["step"] for n in notes if "step" in n] == [1, 2, 3, 4] and notes[-1]["reused"] is False
    assert cost["tokens"] > 0 and cost["flops"] > 0 and cost["saved_tokens"] == 0
    first, notes[:] = list(notes), []
    again, (_, spared) = asyncio.run(work(False))
    assert again.fingerprint == model.fingerprint and len(shown) == 4  # nothing was trained
    assert notes[:-1] == first[:-1] and notes[-1] == {**first[-1], "reused": True}
    assert spared["saved_tokens"] == spared["tokens"] == cost["tokens"]


ASKING = """
import asyncio, json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_pool_transformers.pool import Options, TransformersPool
from moco_toolkit_authoring import open_state
from training_lab import JOBS

async def work():
    (model,) = TransformersPool(build(Options, json.loads(sys.argv[2]))).models()
    notes = []
    async with open_state(cache=Cache(Path(sys.argv[3]))) as state:
        state.on_note = lambda phase, note: notes.append(note)
        tuned = await state.context("fit").train(model, JOBS["sft"])
    print(json.dumps([tuned.fingerprint, notes[-1]["reused"]]))

asyncio.run(work())
"""


@pytest.mark.slow  # three processes that import everything
def test_of_two_processes_that_want_one_training_one_trains_and_the_other_waits_and_uses_it(lab, tmp_path):
    options = {"models": [lab.base], "device": "cpu", "cache": str(tmp_path / "hashes")}
    paths = [str(Path(__file__).parent), *(p for p in sys.path if p.endswith("helpers"))]
    command = [sys.executable, "-c", ASKING, json.dumps(paths), json.dumps(options), str(tmp_path / "calls.sqlite")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    (one, first), (other, second) = (json.loads(p.communicate(timeout=300)[0].splitlines()[-1]) for p in both)
    assert one == other and {first, second} == {False, True}
    assert len(list((tmp_path / "calls.artifacts").glob("*/model"))) == 1
