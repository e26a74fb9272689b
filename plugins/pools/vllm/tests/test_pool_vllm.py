"""What needs no engine: descriptions, the arguments of engines, the plan that is shown, and bad input."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from random_checkpoints import write, write_lora
from vllm_bases import GIB

from moco_core import cli
from moco_core.errors import ConfigError
from moco_core.options import build
from moco_pool_vllm.opening import engine_args
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Placement
from moco_pool_vllm.pool import VLLMPool


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests do not open vLLM: whether it is installed does not matter to them."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object() if name == "vllm" else real(name, *a))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("checkpoints")
    base = write(root / "base")
    return {
        "root": str(root),
        "base": base,
        "other": write(root / "other", hidden_size=96, num_attention_heads=3),
        "judge": write(root / "judge", classifier=True, num_labels=2),
        "lora": write_lora(root / "lora", base, rank=4),
        "lora2": write_lora(root / "lora2", base, 2, rank=12),
    }


def pool(folders: dict[str, str], *models: Any, **options: Any) -> VLLMPool:
    return VLLMPool(build(Options, {"models": list(models), "cache": folders["root"], "dtype": "float32", **options}))


def test_models_state_what_vllm_gives(folders: dict[str, str]) -> None:
    base = folders["base"]
    lora = {"model": base, "adapter": folders["lora"], "name": "tuned"}
    entries = [base, lora, folders["judge"], {"model": base, "task": "embed"}]
    plain, tuned, judge, embed = pool(folders, *entries).models()
    assert pool(folders, base).models()[0].capabilities == {"generate", "logprobs", "score"}
    # with adapters, vLLM's CPU build cannot give prompt log-probabilities
    assert plain.capabilities == tuned.capabilities == {"generate", "logprobs"}
    assert judge.capabilities == {"reward"} and embed.capabilities == {"embed"}
    # an adapter given as a model stands on the base that it names
    alone = pool(folders, folders["lora"]).models()[0]
    assert (alone.adapter, alone.fingerprint, alone.base) == (True, tuned.fingerprint, tuned.base)
    assert (plain.device_group, plain.context_length, tuned.adapter) == ("cpu", 512, True)
    assert plain.tokenizer == tuned.tokenizer and len({m.fingerprint for m in (plain, tuned, judge, embed)}) == 4
    # the adapter is served on the resident base; another task needs another engine
    assert plain.info["base"] == tuned.info["base"] != embed.info["base"]
    assert pool(folders, base, max_model_len=64).models()[0].context_length == 64


def test_arguments_of_the_engine(folders: dict[str, str]) -> None:
    base = folders["base"]
    loras = [{"model": base, "adapter": folders[n]} for n in ("lora", "lora2")]
    source = pool(folders, base, *loras, max_num_seqs=5, engine_args={"block_size": 16})
    source.models()
    (only,) = source.engine.bases.values()
    args = engine_args(only, Placement(device_group="cpu"), source.options)
    assert (args["model"], args["dtype"], args["max_num_seqs"], args["block_size"]) == (base, "float32", 5, 16)
    assert (args["enable_lora"], args["max_loras"], args["max_lora_rank"]) == (True, 3, 16)
    assert args["kv_cache_memory_bytes"] == 2 * GIB and args["load_format"] == "safetensors"
    assert args["generation_config"] == "vllm" and not args["trust_remote_code"]
    two = engine_args(only, Placement(device_group="cuda:0+1", devices=(0, 1), share=0.4, sliced=True), source.options)
    assert (two["gpu_memory_utilization"], two["tensor_parallel_size"]) == (0.4, 2) and "enable_sleep_mode" not in two


def test_likeliest_tokens_are_part_of_what_is_asked(folders: dict[str, str]) -> None:
    base = folders["base"]
    plain, some, many = (pool(folders, base, top_logprobs=k) for k in (0, 3, 50))
    prints = [source.models()[0].fingerprint for source in (plain, some, many)]
    assert len(set(prints)) == 3 and prints[0] == pool(folders, base).models()[0].fingerprint
    args = [
        engine_args(next(iter(s.engine.bases.values())), Placement(device_group="cpu"), s.options) for s in (plain, some, many)
    ]
    assert [a.get("max_logprobs") for a in args] == [None, None, 50]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"adapter": "lora", "model": "other"}, "was trained on another base"),
        ({"model": "judge", "task": "generate"}, "judge is a sequence classifier"),
        ({"model": "base", "task": "reward"}, "base is a language model"),
        ({"model": "base", "adapter": "lora", "task": "embed"}, "serves adapters on models that generate"),
        ({"model": "base", "devices": [0]}, "devices [0] asked for, but there is no GPU here"),
        ({"model": "/nowhere"}, "does not exist"),
    ],
)
def test_bad_entries_are_one_line(
    folders: dict[str, str], entry: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moco_pool_vllm.placement.gpus", list)
    real = {k: folders.get(v, v) if isinstance(v, str) else v for k, v in entry.items()}
    with pytest.raises(ConfigError) as caught:
        pool(folders, real).models()
    assert line in str(caught.value) and len(caught.value.problems) == 1


def test_vllm_is_not_installed(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(ConfigError, match=r"pip install 'moco-pool-vllm\[gpu\]' .* or 'moco-pool-vllm\[cpu\]'"):
        pool(folders, folders["base"]).models()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"models": ["base"], "gpu_share": 0.1},
            "base needs about 2.0 GiB on each of cuda:0, which is more than 0.1 of",
        ),
        ({"models": [{"model": "base", "gpu_share": 0.1}]}, "which is more than 0.1 of its 8.0 GiB; raise gpu_share"),
        ({"models": ["base", {"model": "other", "adapter": "lora"}]}, "models[1].adapter: "),
        ({"models": ["base", "/nowhere"]}, "models[1]: /nowhere does not exist"),
    ],
)
def test_on_the_command_line_it_is_one_line_before_any_question(
    folders: dict[str, str],
    given: dict[str, Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On one GPU of 8 GiB, simulated."""
    monkeypatch.setattr("moco_pool_vllm.placement.gpus", lambda: [8 * GIB])

    def real(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: real(v) for k, v in value.items()}
        return folders.get(value, value)

    models = [real(m) for m in given["models"]]
    code, err = moco(monkeypatch, tmp_path, capsys, **{**given, "models": models, "dtype": "float32"})
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and line in err, err


def test_vllm_is_not_installed_on_the_command_line(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else real(name, *a))
    code, err = moco(monkeypatch, tmp_path, capsys, models=[folders["base"]])
    assert (
        code == 2
        and err.startswith("error: pool vllm: vLLM is not installed; pip install 'moco-pool-vllm[")
        and err.count("\n") == 1
    )


def moco(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str], **options: Any
) -> tuple[int, str]:
    """Run a method on the pool; return the exit code and what was said on standard error."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    monkeypatch.chdir(folder)
    given = [f"-opool.{key}={json.dumps(value)}" for key, value in {"cache": str(folder), **options}.items()]
    code = cli._run(["run", "majority_vote", "-p", "vllm", "-d", "skills", "--dev", "1", "--test", "2", *given])
    out, err = capsys.readouterr()
    assert out == "" and not (folder / "runs").exists()
    return code, err


def test_the_plan_is_shown(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two simulated GPUs: each engine's place and share, who has to take turns, and what vLLM cannot serve."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    monkeypatch.setattr("moco_pool_vllm.placement.gpus", lambda: [8 * GIB, 8 * GIB])
    lora = {"model": folders["base"], "adapter": folders["lora"], "name": "tuned"}
    models = [folders["base"], lora, folders["other"], folders["judge"]]

    def groups(cache: float) -> dict[str, str]:
        given = [f"-opool.models={json.dumps(models)}", f"-opool.cache={tmp_path}", f"-opool.kv_cache={cache}"]
        code = cli._run(["plan", "majority_vote", "-p", "vllm", "-d", "skills", "--json", *given])
        body = json.loads(capsys.readouterr().out)
        assert code == 2 and "judge" in body["problems"][0]  # a classifier does not write
        fusion = body["ruled_out"].get("logit_fusion")
        assert fusion is None or "`moco list pool --can step`" in fusion
        return {m["model"]: m["device_group"] for m in body["models"]}

    # the largest has a GPU to itself, and the adapter is where its base is
    together = groups(2.0)
    assert together == {"other": "cuda:0, 90 %", **dict.fromkeys(("base", "tuned", "judge"), "cuda:1, 45 %")}
    turns = {name: group + ", in turns" for name, group in together.items() if name != "other"}
    assert groups(4.0) == {"other": "cuda:0, 90 %", **{n: group.replace("45", "90") for n, group in turns.items()}}
