"""A merge that leaves as a checkpoint is served by vLLM, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import moco_core as moco
from moco_core import cli, read_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]
ASK = """
import json, sys
from vllm import LLM, SamplingParams

asked, budget = json.loads(sys.argv[1]), int(sys.argv[2])
llm = LLM(model="merged", dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=1)
(out,) = llm.chat(asked, SamplingParams(temperature=0.0, max_tokens=budget), use_tqdm=False)
print(json.dumps(out.outputs[0].text))
"""
QUIET = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


def test_a_merge_leaves_as_a_checkpoint_that_vllm_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    pool = {"name": "tiny", "models": ["base", "arithmetic", "facts"]}
    merging = {"name": "dare_ties", "base": "base"}
    run = moco.run(pool=pool, method=merging, dataset="skills", dev=0, test=2, baselines=False).runs[0]
    assert cli._run(["export", str(run.folder), "--to", "merged"]) == 0
    row = next(iter(read_records(run.folder)))
    (call,) = row["calls"]
    asked = [{"role": role, "content": text} for role, text in call["seen"]["messages"]]
    given = [sys.executable, "-c", ASK, json.dumps(asked), str(call["completion_tokens"])]
    done = subprocess.run(given, env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == row["reply"]["text"]
