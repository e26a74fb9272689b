"""Configurations of modelco, one of our own for each of its methods, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
SWARM = {
    "patience": 4,
    "inertia": 0.1,
    "cognitive_coeff": 0.2,
    "social_coeff": 0.3,
    "repel_coeff": 0.1,
    "step_length": 0.6,
    "step_length_factor": 0.9,
    "minimum_step_length": 0.2,
}
RATINGS = {
    "num_iterations": 2,
    "num_instructions": 20,
    "random_match_prob": 0.3,
    "num_opponents": 2,
    "judge_rounds": 2,
    "initial_k": 8.0,
    "min_k": 4.0,
    "min_deviation": 0.2,
    "epsilon": 0.02,
    "decay_rate": 0.8,
    "decay_steps": 5,
    "scaling_factor": 10.0,
}

CASES: Mapping[str, Sequence[tuple[dict[str, Any], dict[str, Any], list[str], list[str]]]] = {
    # the method: its hyperparameters, our options, models added to the pool, keys with a remark
    "api_nudging": [
        ({}, {"gamma": 0.4, "base": 0, "nudging": 1, "temperature": 0.5}, [], []),
        (
            {"gamma": 0.3, "base_model_id": 1, "nudging_model_id": 0, "search_gamma": True, "use_kv_cache": True},
            {"gamma": 0.3, "base": 1, "nudging": 0, "temperature": 0.5, "tune": True, "candidates": [0]},
            [],
            ["use_kv_cache"],
        ),
        (
            {"search_nudging": True},
            {"gamma": 0.4, "base": 0, "nudging": 1, "temperature": 0.5, "tune": True, "gamma_grid": [0.4]},
            [],
            [],
        ),
    ],
    "api_prompt_routing": [
        ({"model_descriptions": ["a", "b", "c"]}, {"model_descriptions": ["a", "b", "c"]}, [], []),
    ],
    "api_switch_generation": [
        (
            {
                "patch_size": 10,
                "selector_model_name": "org/switcher",
                "objective_flag": True,
                "wait_flag": True,
                "reward_model_gpu_id": 0,
            },
            {
                "patch_size": 10,
                "switcher": "switcher",
                "switcher_writes": False,
                "answer_cue": " The answer is",
                "wait": True,
            },
            ["org/switcher"],
            ["reward_model_gpu_id", "selector_model_name"],
        ),
        (
            {
                "selector_base_model": "org/base",
                "training_instance_num": 9,
                "rollout_per_instance": 2,
                "reward_model_name": "org/reward",
            },
            {
                "patch_size": 25,
                "switcher": "train",
                "instances": 9,
                "rollouts": 2,
                "reward_model": {"name": "transformers", "models": ["org/reward"]},
            },
            [],
            ["selector_base_model"],
        ),
        (
            {"selector_base_model": "org/small"},
            {"patch_size": 25, "switcher": "train", "switcher_base": "small"},
            [],
            [],
        ),
        (
            {"selector_model_name": "org/large"},
            {"patch_size": 25, "switcher": "large", "switcher_writes": True},
            [],
            [],
        ),
    ],
    "api_trained_router": [
        (
            {
                "router_base_model": "org/small",
                "model_descriptions": ["a", "b", "c"],
                "reward_model_name": "org/reward",
            },
            {
                "router": "causal_lm",
                "base": "small",
                "model_descriptions": ["a", "b", "c"],
                "tie": "reward_model",
                "reward_model": {"name": "transformers", "models": ["org/reward"]},
            },
            [],
            [],
        ),
        ({"router_base_model": "org/other"}, {"router": "causal_lm"}, [], ["router_base_model"]),
    ],
    "api_graph_routing": [
        (
            {
                "embedding_model": "org/minilm",
                "task_description": "exams",
                "hidden_features": 16,
                "in_edges": 3,
                "train_mask_rate": 0.4,
                "scenario": "Cost First",
            },
            {"encoder": "minilm", "hidden_features": 16, "train_mask_rate": 0.4, "scenario": "cost"},
            ["org/minilm"],
            ["task_description", "in_edges", "embedding_model"],
        ),
    ],
    "api_cascade": [
        (
            {"mode": "logit", "percentage": 0.5},
            {"confidence": "chow_average", "accept_fraction": 0.5, "temperature": 0.5},
            [],
            [],
        ),
        (
            {"mode": "just_ask", "percentage": 0.3},
            {"confidence": "self_report", "accept_fraction": 0.3, "temperature": 0.5},
            [],
            ["percentage"],
        ),
    ],
    "api_mentor_collab": [
        (
            {"decision_proportion": 10, "patch_size": 8, "mode": "train", "task": "Math", "mlp_threshold": 0.6},
            {"decision_proportion": 10, "patch_size": 8, "verifier": "mlp", "mlp_threshold": 0.6},
            [],
            ["task"],
        ),
    ],
    "api_collm": [
        (
            {
                "training_dataset_name": "org/maths",
                "training_split": "train",
                "training_num": 10,
                "max_seq_length": 256,
                "deferral_threshold": 0.3,
                "deferral_strategy": "compose",
                "threshold_warmup_schedule": "cosine",
                "threshold_warmup_steps": 5,
            },
            {
                "max_seq_length": 256,
                "deferral_threshold": 0.3,
                "strategy": "compose",
                "threshold_warmup": "cosine",
                "warmup_tokens": 5,
            },
            [],
            ["training_dataset_name", "training_split", "training_num"],
        ),
        ({}, {"max_seq_length": 512, "deferral_threshold": 0.5}, [], []),
    ],
    "text_multiagent_refine": [({}, {"rounds": 3, **BOTH}, [], []), ({"round": 1}, {"rounds": 1, **BOTH}, [], [])],
    "text_moa": [
        ({"round": 2}, {"layers": 3, "aggregator": "best", "aggregator_temperature": 0.5, **BOTH}, [], []),
        ({}, {"layers": 2, "aggregator": "best", "aggregator_temperature": 0.5, **BOTH}, [], []),
    ],
    "text_multiagent_feedback": [
        ({"round": 2, "feedback_count": 1}, {"rounds": 2, "feedback_count": 1, **BOTH}, [], [])
    ],
    "text_knowledge_card": [
        ({}, {"exclude_self": False, "knowledge_temperature": 0.5, "top_p": 0.8}, [], []),
        ({"exclude_self": True}, {"exclude_self": True, "knowledge_temperature": 0.5, "top_p": 0.8}, [], []),
    ],
    "text_llm_blender": [
        (
            {"top_k": 2, "ranker_model_name": "org/ranker", "ranker_gpu_id": 0, "fuser_model_name": "org/large"},
            {"top_k": 2, "ranker": "judge", "judge": "ranker", "aggregation": "max_wins", "fuser": "large"},
            ["org/ranker"],
            ["ranker_model_name", "ranker_gpu_id"],
        ),
    ],
    "text_heterogeneous_swarms": [
        (
            {"population": 4, "max_iterations": 2, "ratio": 0.5, **SWARM, "restart_patience": 3},
            {"population": 4, "max_iterations": 2, "dev_ratio": 0.5, **SWARM},
            [],
            ["restart_patience"],
        ),
        ({}, {"population": 5, "max_iterations": 5, "dev_ratio": 0.25}, [], []),
    ],
    "text_majority_vote": [({}, {"tie": "random"}, [], []), ({"tie": "dev-based"}, {"tie": "best_model"}, [], [])],
    "text_slm_mux": [
        (
            {"samples_per_model": 3, "tie": "model-order", "seed": 7},
            {"samples": 3, "tie": "order", "seed": 7, "dev_accuracy": "single", **BOTH},
            [],
            [],
        ),
    ],
    "text_structure": [
        ({"structure_type": "circle"}, {"topology": "cycle", "rounds": 2, **BOTH}, [], []),
        (
            {"structure_type": "other", "structure_matrix": [[0, 1, 0], [0, 0, 1], [0, 0, 0]], "num_rounds": 4},
            {"topology": "custom", "adjacency": [[0, 1, 0], [0, 0, 1], [0, 0, 0]], "rounds": 3, **BOTH},
            [],
            [],
        ),
        (
            {"structure_type": "star", "structure_matrix": [[0]]},
            {"topology": "star", "rounds": 2, **BOTH},
            [],
            ["structure_matrix"],
        ),
    ],
    "text_multiagent_finetuning": [
        (
            {
                "iterations": 2,
                "rounds": 3,
                "w": 0.4,
                "sft_epochs": 2,
                "sft_learning_rate": 1e-4,
                "sft_batch_size": 2,
                "training_ratio": 0.5,
            },
            {"iterations": 2, "rounds": 3, "w": 0.4, "epochs": 2, "learning_rate": 1e-4, "batch": 32, **BOTH},
            [],
            ["training_ratio"],
        ),
    ],
    "text_bbmas": [
        (
            {
                "max_num_agents_to_act": 2,
                "min_num_agents_to_stop": 2,
                "agent_idle_threshold": 4,
                "max_iterations": 20,
                "max_num_retries": 1,
            },
            {
                "max_agents_per_round": 2,
                "min_agents_to_stop": 2,
                "agent_idle_threshold": 4,
                "max_rounds": 20,
                "max_retries": 1,
            },
            [],
            [],
        ),
        ({}, {"max_rounds": 50}, [], []),
    ],
    "text_sparta": [
        (
            {
                **RATINGS,
                "window_size": 8,
                "score_type": "dynamic",
                "judge_batch_size": 4,
                "current_iteration": 0,
                "debug": True,
            },
            {**RATINGS, "window": 8, "score_type": "dynamic", **BOTH},
            [],
            ["judge_batch_size", "current_iteration", "debug"],
        ),
    ],
    "text_sparta_stackelberg": [
        (
            {
                "training_algorithm": "dpo",
                "leader_type": "uniform",
                "leader_uniform_mix": 0.1,
                "dpo_learning_rate": 1e-6,
                "grpo_learning_rate": 1e-5,
                "run_id": "mine",
                "parallel_dpo_training": True,
            },
            {"training_algorithm": "dpo", "leader_type": "uniform", "gamma": 0.1, "learning_rate": 1e-6},
            [],
            ["grpo_learning_rate", "run_id", "parallel_dpo_training"],
        ),
    ],
    "text_agglm": [
        (
            {"agg_model": "org/small", "sample_size": 3, "train_batch_size": 8, "max_epochs": 2, "reuse_log": False},
            {
                "aggregator": "small",
                "sets_per_question": 3,
                "num_generations": 8,
                "batch": 8,
                "epochs": 2,
                "learning_rate": 1e-4,
                "easy_ratio": 1.0,
                "lora_r": 64,
                "lora_alpha": 16,
            },
            [],
            ["reuse_log"],
        ),
    ],
    "logit_logit_fusion": [({}, {}, [], [])],
    "logit_logit_contrastive": [({"k": 1}, {"k": 1}, [], [])],
    "weight_greedy_soup": [({}, {}, [], [])],
    "weight_dare_ties": [
        (
            {"base_model_name": "org/base", "density": 0.5, "population": 3},
            {"base": "base", "density": 0.5, "preset": "mergekit", "weights": [1 / 3] * 3},
            ["org/base"],
            ["base_model_name", "population"],
        ),
        (
            {"base_model_name": "org/small", "mode": "optimized", "population": 3, "max_iterations": 2},
            {
                "base": "small",
                "density": 1.0,
                "preset": "mergekit",
                "weights": "search",
                "population": 3,
                "max_iterations": 2,
            },
            [],
            [],
        ),
    ],
    "weight_model_swarms": [
        (
            {
                "swarm_base_path": "logs",
                "base_model": "org/base",
                "fast_merge_flag": True,
                "max_iterations": 3,
                **SWARM,
            },
            {"max_iterations": 3, **SWARM},
            [],
            ["swarm_base_path", "base_model", "fast_merge_flag"],
        ),
    ],
    "weight_lorahub": [
        (
            {"lorahub_dev_samples": 3, "lora_weight_bound": 1.0, "regular_coef": 0.1},
            {
                "dev_samples": 3,
                "lora_weight_bound": 1.0,
                "regular_coef": 0.1,
                "objective": "score",
                "max_inference_step": 20,
            },
            [],
            [],
        ),
    ],
    "weight_expo": [
        ({}, {"mode": "worst_to_best", "alpha": 0.3}, [], []),
        (
            {
                "mode": "topk_bottomk",
                "k": 2,
                "alpha_mode": "optimized",
                "alpha_candidates": [0.1, 0.5],
                "expo_base_path": "x",
            },
            {"mode": "topk_bottomk", "k": 2, "alpha": "search", "alpha_grid": [0.1, 0.5], "refine": False},
            [],
            ["expo_base_path"],
        ),
        (
            {
                "mode": "pairs",
                "sft_models": ["org/small"],
                "dpo_models": ["org/large"],
                "alpha": 0.5,
                "pair_selection": "dpo_score",
            },
            {"mode": "pair", "source": "small", "target": "large", "alpha": 0.5},
            [],
            ["pair_selection"],
        ),
    ],
}
ALL = [(method, *case) for method, cases in CASES.items() for case in cases]


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


@pytest.mark.parametrize(("method", "given", "options", "added", "told"), ALL)
def test_a_configuration_becomes_one_of_ours(
    method: str, given: dict[str, Any], options: dict[str, Any], added: list[str], told: list[str]
) -> None:
    found = read(configuration(method, **given), Path("reference.json"))
    assert found is not None
    settings, remarks = found
    assert settings == {
        "pool": {"name": "transformers", "models": [*MODELS, *added], "max_batch": 8},
        "method": {"name": METHODS[method].name, **options},
        "dataset": "gsm8k",
        "metric": "exact_match",
        "sampling": {"temperature": 0.5, "top_p": 0.8, "max_new_tokens": 64},
    }
    assert sorted({remark.partition(":")[0] for remark in remarks}) == sorted({*told, "gpu_ids", "task"})
    if METHODS[method].name in installed().cards("method"):  # the options themselves are right
        made = plugin_of(installed(), "method", settings["method"], "method").make()
        assert made.options is not None


@pytest.mark.parametrize("method", METHODS)
def test_every_option_that_a_key_stands_for_is_one_of_the_method(method: str) -> None:
    way = METHODS[method]
    if way.name not in installed().cards("method"):
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
