"""The methods of its logit and weight levels, and what their hyperparameters mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moco_command_convert.draft import FOLDER, SWARM, Draft, Way, ignored, to
from moco_core import ConfigError

__all__ = ["MERGING"]


def _dare_ties(draft: Draft, keys: dict[str, Any]) -> None:
    if base := keys.pop("base_model_name", None):
        draft.options["base"] = draft.helper(base, "base_model_name")
    mode = keys.pop("mode", "average")
    if mode not in ("average", "optimized"):
        raise ConfigError(f"mode: {mode!r} is none of average, optimized")
    merged = len([m for m in draft.members if m != base])
    draft.options["weights"] = "search" if mode == "optimized" else [1 / merged] * merged
    if mode == "average":
        for key in [k for k in keys if k in SWARM]:
            keys.pop(key)
            draft.options.pop(key, None)
            draft.ignore(key, "mode is average")


def _expo(draft: Draft, keys: dict[str, Any]) -> None:
    mode = keys.pop("mode", "worst_to_best")
    sources, targets = keys.pop("sft_models", None), keys.pop("dpo_models", None)
    if mode == "pairs":
        if not (isinstance(sources, list) and isinstance(targets, list) and sources and targets):
            raise ConfigError("sft_models, dpo_models: mode pairs needs a list of each")
        if len(sources) > 1 or len(targets) > 1:
            draft.remarks.append(
                "sft_models, dpo_models: the first pair alone is taken; run one configuration per pair"
            )
        pair = {"source": draft.helper(sources[0], "sft_models"), "target": draft.helper(targets[0], "dpo_models")}
        draft.options |= {"mode": "pair", **pair}
    elif mode in ("worst_to_best", "topk_bottomk"):
        draft.options["mode"] = mode
    else:
        raise ConfigError(f"mode: {mode!r} is none of worst_to_best, topk_bottomk, pairs")
    alpha, grid = keys.pop("alpha", 0.3), keys.pop("alpha_candidates", [0.1, 0.2, 0.3, 0.4, 0.5])
    if keys.pop("alpha_mode", "fixed") == "optimized":
        draft.options |= {"alpha": "search", "alpha_grid": grid, "refine": False}
    else:
        draft.options["alpha"] = alpha


MERGING: Mapping[str, Way] = {
    "logit_logit_fusion": Way(name="logit_fusion"),
    "logit_logit_contrastive": Way(name="logit_contrastive", keys={"k": to("k")}),
    "weight_greedy_soup": Way(name="greedy_soup"),
    "weight_dare_ties": Way(
        name="dare_ties",
        keys={
            "density": to("density"),
            "population": to("population"),
            "max_iterations": to("max_iterations"),
            **{
                k: ignored("the search's other settings are fixed here")
                for k in SWARM
                if k not in ("population", "max_iterations")
            },
        },
        starts={"density": 1.0, "preset": "mergekit"},
        further=_dare_ties,
    ),
    "weight_model_swarms": Way(
        name="model_swarms",
        keys={
            **SWARM,
            "restart_patience": to("restart_patience"),
            "swarm_base_path": FOLDER,
            "base_model": ignored("an adapter names its base, and full models share an architecture"),
            "fast_merge_flag": ignored("adapters are recognised"),
        },
    ),
    "weight_lorahub": Way(
        name="lorahub",
        keys={
            "lorahub_dev_samples": to("dev_samples"),
            "max_inference_step": to("max_inference_step"),
            "lora_weight_bound": to("lora_weight_bound"),
            "regular_coef": to("regular_coef"),
        },
        starts={"objective": "score", "max_inference_step": 20},
    ),
    "weight_expo": Way(
        name="expo",
        keys={
            "k": to("k"),
            "expo_base_path": FOLDER,
            "pair_selection": ignored("a pair is named, not chosen"),
        },
        further=_expo,
    ),
}
