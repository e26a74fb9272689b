"""Configurations of modelco, one of our own for each of its methods, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

import moco_core as moco
from moco_command_convert.methods import METHODS
from moco_command_convert.reading import METRICS, TASKS, read
from moco_core import ConfigError, Model, NoOptions, PoolSource, cli
from moco_core.catalogue import installed
from moco_core.config import plugin_of
from moco_toolkit_authoring.scripted import ScriptedPool

MODELS = ["org/small", "org/middle", "org/large"]
BOTH = {"temperature": 0.5, "top_p": 0.8}
CASES = yaml.safe_load(Path(__file__).with_name("methods.yaml").read_text(encoding="utf-8"))["methods"]
ALL = [(method, case) for method, cases in CASES.items() for case in cases]


def configuration(method: str, **given: Any) -> dict[str, Any]:
    return {
        "method": method,
        "task": "gsm8k",
        "task_type": "exact_match",
        "gpu_ids": [0, 1],
        "model_names": list(MODELS),
        "hyperparameters": {"max_response_length": 64, **BOTH, "batch_size": 8, **given},
    }


def test_there_is_a_case_for_each_of_the_29_methods() -> None:
    assert list(CASES) == list(METHODS) and len(METHODS) == 29


@pytest.mark.parametrize(("method", "case"), ALL)
def test_a_configuration_becomes_one_of_ours(method: str, case: dict[str, Any]) -> None:
    found = read(configuration(method, **case["given"]), Path("reference.json"))
    assert found is not None
    settings, remarks = found
    assert settings == {
        "pool": {"name": "transformers", "models": [*MODELS, *case.get("adds", [])], "max_batch": 8},
        "method": {"name": METHODS[method].name, **case["becomes"]},
        "dataset": "gsm8k",
        "metric": "exact_match",
        "sampling": {"temperature": 0.5, "top_p": 0.8, "max_new_tokens": 64},
    }
    assert sorted({remark.partition(":")[0] for remark in remarks}) == sorted({*case.get("told", []), "gpu_ids", "task"})
    if METHODS[method].name in installed().plugins("method"):  # the options themselves are right
        made = plugin_of(installed(), "method", settings["method"], "method").make()
        assert made.options is not None


@pytest.mark.parametrize("method", METHODS)
def test_every_option_that_a_key_stands_for_is_one_of_the_method(method: str) -> None:
    way = METHODS[method]
    if way.name not in installed().plugins("method"):
        pytest.skip(f"{way.name} is not installed")
    own = {field.name for field in attrs.fields(installed().load("method", way.name).Options)}
    assert {*(rule.option for rule in way.keys.values() if rule.option), *way.starts, *way.decoding} <= own


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_a_dataset(task: str) -> None:
    found = read({**configuration("text_moa"), "task": task}, Path("reference.json"))
    assert found is not None
    plugin_of(installed(), "dataset", found[0]["dataset"], "dataset").make()


@pytest.mark.parametrize("kind", METRICS)
def test_every_task_type_is_a_metric(kind: str) -> None:
    found = read({**configuration("text_moa"), "task_type": kind}, Path("reference.json"))
    assert found is not None
    plugin_of(installed(), "metric", found[0]["metric"], "metric").make()


def test_what_is_left_out_has_the_other_librarys_defaults() -> None:
    bare = {"method": "api_collm", "task": "gsm8k", "model_names": MODELS[:2]}
    found = read(bare, Path("reference.json"))
    assert found is not None
    settings, remarks = found
    assert settings["sampling"] == {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 2048}
    assert "metric" not in settings and "task_type: missing: the dataset's own metric is taken" in remarks


def test_every_key_that_does_nothing_is_named_with_a_reason() -> None:
    given = {**configuration("text_moa", rounds=2, load_in_8bit=True, big_model_mode=True), "gpus": 1}
    found = read(given, Path("reference.json"))
    assert found is not None
    told = dict(remark.split(": ignored: ") for remark in found[1] if ": ignored: " in remark)
    assert told["rounds"] == "text_moa of modelco 1.1.2 documents no such key"
    assert told["gpus"] == "modelco 1.1.2 reads no such key, did you mean 'gpu_ids'?"
    assert told["gpu_ids"].endswith("CUDA_VISIBLE_DEVICES=0,1 restricts them")
    assert {"load_in_8bit", "big_model_mode"} < set(told)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"method": "api_cascad"}, "method: modelco 1.1.2 has no 'api_cascad', did you mean 'api_cascade'?"),
        ({"model_names": "one"}, "model_names: expected a list of models, got 'one'"),
        ({"task": "nowhere"}, "task: there is neither a dataset 'nowhere' nor a file nowhere.json"),
        ({"task": 3}, "task: expected a name, got 3"),
        ({"task_type": "kernel_bench"}, "task_type: 'kernel_bench' has no counterpart"),
        ({"hyperparameters": [1]}, "hyperparameters: expected a mapping"),
        (
            {"method": "text_majority_vote", "hyperparameters": {"tie": "first"}},
            "tie: 'first' is none of random, dev-based",
        ),
        ({"method": "text_structure", "hyperparameters": {}}, "structure_type: missing"),
        ({"hyperparameters": {"round": "two"}}, "round: expected a whole number, got 'two'"),
    ],
)
def test_what_cannot_be_read_is_one_line(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({**configuration("text_moa"), **change}, Path("reference.json"))
    (problem,) = caught.value.problems
    assert problem.startswith(f"reference.json: {line}")


def test_other_json_is_left_alone() -> None:
    assert read({"method": "majority_vote", "dataset": "skills"}, Path("run.json")) is None


# ---------------------------------------------------------------- at the command line


class Said(PoolSource[NoOptions]):
    """Scripted models."""

    def models(self) -> Sequence[Model]:
        return ScriptedPool({n: lambda call: "The answer is B." for n in "abc"}).models()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a configuration for data of its own, in modelco's documented form."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    rows = [
        {"id": i, "question": f"Item {i}?", "choices": {"A": "x", "B": "y"}, "answer": "AB"[i % 2]} for i in range(8)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.json").write_text(json.dumps({"name": "mine", "dev": rows[:4], "test": rows[4:]}))
    given = {**configuration("text_majority_vote"), "task": "mine", "task_type": "multiple_choice"}
    (tmp_path / "reference.json").write_text(json.dumps(given))
    return tmp_path


def test_bench_runs_it_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run(["bench", "reference.json", "-p", "said", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "reference.json: gpu_ids: ignored: devices are found by themselves" in err
    (report,) = json.loads(out)
    scores = {row["label"]: row["score"]["mean"] for row in report["rows"]}
    assert report["metric"] == "multiple_choice" and scores == {"a": 0.5, "b": 0.5, "c": 0.5, "majority_vote": 0.5}


def test_convert_writes_yaml_that_runs_alike(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._run(["convert", "reference.json", "--to", "ours.yaml"]) == 0
    text = Path("ours.yaml").read_text()
    assert text.startswith("# gpu_ids: ignored: ")
    found = read(json.loads(Path("reference.json").read_text()), Path("reference.json"))
    assert found is not None and yaml.safe_load(text) == found[0]
    assert cli._run(["bench", "ours.yaml", "-p", "said", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert cli._run(["bench", "reference.json", "-p", "said", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [r["folder"] for r in first[0]["rows"]] == [r["folder"] for r in again[0]["rows"]]
    assert cli._run(["convert", "reference.json", "--to", "ours.yaml"]) == 2
    assert "is there already" in capsys.readouterr().err
    Path("other.json").write_text("{}")
    assert cli._run(["convert", "other.json"]) == 2
    assert (
        capsys.readouterr().err == "error: other.json: no configuration of modelco: it has no model_names and no task\n"
    )


def test_checkpoints_of_ones_own_are_planned_as_they_stand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = Path(pytest.importorskip("moco_pool_tiny", reason="has small checkpoints").__file__).parent / "weights"
    given = json.loads(Path("reference.json").read_text())
    given["model_names"] = [str(weights / name) for name in ("base", "facts")]
    Path("reference.json").write_text(json.dumps(given))
    assert cli._run(["plan", "reference.json", "--json"]) == 0
    assert "majority_vote" in capsys.readouterr().out
