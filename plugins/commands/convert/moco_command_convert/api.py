"""The methods of its API level, and what their hyperparameters mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moco_command_convert.draft import PLACED, Draft, Way, ignored, to

__all__ = ["API"]


def _nudging(draft: Draft, keys: dict[str, Any]) -> None:
    gammas, nudgers = keys.pop("search_gamma", False), keys.pop("search_nudging", False)
    if gammas or nudgers:
        draft.options["tune"] = True
        if not gammas:
            draft.options["gamma_grid"] = [draft.options["gamma"]]
        if not nudgers:
            draft.options["candidates"] = [draft.options["nudging"]]


def _switch(draft: Draft, keys: dict[str, Any]) -> None:
    chosen = keys.pop("selector_model_name", None)
    if chosen:
        member = chosen in draft.members
        draft.options |= {"switcher": draft.helper(chosen, "selector_model_name"), "switcher_writes": member}
    else:
        draft.options["switcher"] = "train"
    base = keys.pop("selector_base_model", None)
    if base is not None and (name := draft.member(base, "selector_base_model", "the last member is trained")):
        draft.options["switcher_base"] = name
    if model := keys.pop("reward_model_name", None):
        draft.options["reward_model"] = {"name": "transformers", "models": [model]}
    if keys.pop("objective_flag", False):
        draft.options["answer_cue"] = " The answer is"


def _trained_router(draft: Draft, keys: dict[str, Any]) -> None:
    base = keys.pop("router_base_model", None)
    if base is not None and (name := draft.member(base, "router_base_model", "the smallest member is trained")):
        draft.options["base"] = name
    if model := keys.pop("reward_model_name", None):
        draft.options |= {"tie": "reward_model", "reward_model": {"name": "transformers", "models": [model]}}


def _graph_routing(draft: Draft, keys: dict[str, Any]) -> None:
    if model := keys.pop("embedding_model", None):
        draft.options["encoder"] = draft.helper(model, "embedding_model")
    text = keys.pop("task_description", None)
    if text is not None:
        draft.ignore("task_description", "one text for all questions tells a router nothing; see task_descriptions")


def _cascade(draft: Draft, keys: dict[str, Any]) -> None:
    share = keys.get("percentage", 0.5)
    if share != 0.5:
        draft.remarks.append(
            "percentage: read as documented, the share that a level accepts; modelco 1.1.2 itself accepts the rest"
        )


def _collm(draft: Draft, keys: dict[str, Any]) -> None:
    for key in ("training_dataset_name", "training_split", "training_num"):
        if key in keys:
            keys.pop(key)
            draft.ignore(key, "deferral is learnt on the run's own dev split; -o dev=N limits it")


API: Mapping[str, Way] = {
    "api_nudging": Way(
        name="nudging",
        keys={
            "gamma": to("gamma"),
            "base_model_id": to("base"),
            "nudging_model_id": to("nudging"),
            "use_kv_cache": ignored("keys and values are always kept, and change no answer"),
        },
        starts={"gamma": 0.4, "base": 0, "nudging": 1},
        decoding={"temperature": "temperature"},
        further=_nudging,
    ),
    "api_prompt_routing": Way(name="prompt_routing", keys={"model_descriptions": to("model_descriptions")}),
    "api_switch_generation": Way(
        name="switch_generation",
        keys={
            "patch_size": to("patch_size"),
            "wait_flag": to("wait"),
            "training_instance_num": to("instances"),
            "rollout_per_instance": to("rollouts"),
            "reward_model_gpu_id": PLACED,
        },
        starts={"patch_size": 25},
        further=_switch,
    ),
    "api_trained_router": Way(
        name="trained_router",
        keys={"model_descriptions": to("model_descriptions"), "reward_model_gpu_id": PLACED},
        starts={"router": "causal_lm"},
        further=_trained_router,
    ),
    "api_graph_routing": Way(
        name="graph_routing",
        keys={
            "model_descriptions": to("model_descriptions"),
            "hidden_features": to("hidden_features"),
            "train_mask_rate": to("train_mask_rate"),
            "scenario": to(
                "scenario", {"Performance First": "performance", "Balance": "balance", "Cost First": "cost"}
            ),
            "in_edges": ignored("an edge always carries score and cost"),
        },
        further=_graph_routing,
    ),
    "api_cascade": Way(
        name="cascade",
        keys={
            "mode": to("confidence", {"logit": "chow_average", "just_ask": "self_report"}),
            "percentage": to("accept_fraction"),
        },
        decoding={"temperature": "temperature"},
        further=_cascade,
    ),
    "api_mentor_collab": Way(
        name="mentor_collab",
        keys={
            "decision_proportion": to("decision_proportion"),
            "patch_size": to("patch_size"),
            "mode": to("verifier", {"free": "prompt", "train": "mlp"}),
            "task": ignored("the probe is trained on the run's own dev split"),
            "mlp_threshold": to("mlp_threshold"),
        },
    ),
    "api_collm": Way(
        name="co_llm",
        keys={
            "max_seq_length": to("max_seq_length"),
            "deferral_threshold": to("deferral_threshold"),
            "deferral_strategy": to("strategy"),
            "threshold_warmup_schedule": to("threshold_warmup"),
            "threshold_warmup_steps": to("warmup_tokens"),
        },
        starts={"max_seq_length": 512, "deferral_threshold": 0.5},
        further=_collm,
        tokens=2048,
    ),
}
