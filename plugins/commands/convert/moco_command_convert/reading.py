"""Reading a configuration of modelco: the parts that all its methods have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_command_convert.draft import Draft, Way
from moco_command_convert.methods import METHODS
from moco_core import ConfigError
from moco_core.errors import suggest

__all__ = ["METRICS", "TASKS", "read"]

_REWARD = "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"
_VERIFIER = "TIGER-Lab/general-verifier"

_SAME = (
    *("agieval", "arc_challenge", "mmlu_redux", "bbh", "gsm8k", "math", "wikidyk", "sciencemeter", "popqa", "blend"),
    *(
        "truthfulqa",
        "coconot",
        "alpacaeval",
        "wildchat",
        "sciriff",
        "culturebench",
        "human_interest",
        "mbpp",
        "humaneval",
    ),
    *("medmcqa", "medqa", "pubmedqa", "theoremqa"),
)

TASKS: Mapping[str, Any] = {
    **dict.fromkeys(_SAME),
    **{f"gpqa_{size}": {"name": "gpqa", "config": size} for size in ("diamond", "extended", "main")},
    **{f"tablemwp_{kind}": {"name": "tablemwp", "variant": kind} for kind in ("multiple_choice", "free_text")},
}
"""Its tasks that datasets of ours are, None where the name is the same."""

METRICS: Mapping[str, Any] = {
    "multiple_choice": "multiple_choice",
    "exact_match": "exact_match",
    "f1_match": "token_f1",
    "general_verifier": {"name": "answer_verifier", "pool": {"name": "transformers", "models": [_VERIFIER]}},
    "noncompliance": "noncompliance",
    "reward_model": {"name": "reward_model", "pool": {"name": "transformers", "models": [_REWARD]}},
    "coding": "code_execution",
    "text_generation": "none",
    "generation_diversity": "generation_diversity",
}
"""Its task types, as metrics."""

_GENERAL = {
    "big_model_mode": "a model that does not fit one device is placed over several by the engine",
    "load_in_8bit": "the transformers engine loads weights as they are; dtype chooses among floating-point types",
}
_KEYS = ("method", "task", "task_type", "gpu_ids", "model_names", "hyperparameters")


def read(data: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], list[str]] | None:
    """Return a configuration of modelco as one of MoCo, with a remark for every key that is ignored or read with a grain of
    salt; None if it is none of modelco's. Raises ConfigError with all problems that can be told.
    """
    if not {"model_names", "hyperparameters", "task"} & set(data):
        return None
    if lacking := [k for k in ("method", "task", "model_names") if k not in data]:
        raise ConfigError([f"{path}: {key}: missing" for key in lacking])
    way = METHODS.get(str(data["method"]))
    if way is None:
        near = suggest(str(data["method"]), METHODS) or f"; they are {', '.join(METHODS)}"
        raise ConfigError(f"{path}: method: modelco 1.1.2 has no {data['method']!r}{near}")
    members, given = data["model_names"], data.get("hyperparameters") or {}
    if not (isinstance(members, list) and members and all(isinstance(m, str) and m for m in members)):
        raise ConfigError(f"{path}: model_names: expected a list of models, got {members!r}")
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path}: hyperparameters: expected a mapping, got {given!r}")
    draft = Draft(tuple(members), models=list(members))
    try:
        settings = _settings(data, dict(given), way, draft, path)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None
    for key in data:
        if key not in _KEYS:
            draft.ignore(key, f"modelco 1.1.2 reads no such key{suggest(key, _KEYS)}")
    return settings, draft.remarks


def _settings(data: Mapping[str, Any], keys: dict[str, Any], way: Way, draft: Draft, path: Path) -> dict[str, Any]:
    dataset, metric = _dataset(data["task"], path, draft), _metric(data.get("task_type"), draft)
    if "gpu_ids" in data:
        ids = data["gpu_ids"]
        listed = ",".join(map(str, ids)) if isinstance(ids, list) else str(ids)
        draft.ignore("gpu_ids", f"devices are found by themselves; CUDA_VISIBLE_DEVICES={listed} restricts them")
    tokens = keys.pop("max_response_length", way.tokens)
    sampling = {"temperature": keys.pop("temperature", 0.7), "top_p": keys.pop("top_p", 0.9), "max_new_tokens": tokens}
    pool: dict[str, Any] = {"name": "transformers", "models": draft.models}
    if "batch_size" in keys:
        pool["max_batch"] = keys.pop("batch_size")
    for key in [k for k in _GENERAL if k in keys]:
        keys.pop(key)
        draft.ignore(key, _GENERAL[key])
    draft.options |= {**way.starts, **{ours: sampling[theirs] for ours, theirs in way.decoding.items()}}
    for key, rule in way.keys.items():  # those that further keys depend on come first
        if key in keys and rule.option:
            rule.apply(key, keys[key], draft)
    if way.further is not None:
        way.further(draft, keys)
    for key, value in keys.items():
        known = way.keys.get(key)
        if known is None:
            draft.ignore(key, f"{data['method']} of modelco 1.1.2 documents no such key{suggest(key, way.keys)}")
        elif known.why:
            known.apply(key, value, draft)
    settings = {"pool": pool, "method": {"name": way.name, **draft.options}, "dataset": dataset}
    if metric is not None:
        settings["metric"] = metric
    return {**settings, "sampling": sampling}


def _dataset(task: Any, path: Path, draft: Draft) -> Any:
    if not isinstance(task, str) or not task:
        raise ConfigError(f"task: expected a name, got {task!r}")
    if task in TASKS:
        draft.remarks.append(
            f"task: {task} is read from its own source; -o dataset.split_source=study takes modelco's items of it"
        )
        return TASKS[task] or task
    for folder in (path.parent, path.parent / "data", path.parent / "model_collaboration" / "data"):
        file = folder / f"{task}.json"
        if file.is_file():
            return {"name": str(file.resolve()), "label": task}
    raise ConfigError(
        f"task: there is neither a dataset {task!r} nor a file {task}.json beside the configuration or in data/"
        + suggest(task, TASKS)
    )


def _metric(kind: Any, draft: Draft) -> Any:
    if kind is None:
        draft.remarks.append("task_type: missing: the dataset's own metric is taken")
        return None
    if kind not in METRICS:
        raise ConfigError(f"task_type: {kind!r} has no counterpart; there are {', '.join(METRICS)}")
    return METRICS[kind]
