"""The methods of its text level, and what their hyperparameters mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moco_command_convert.draft import BOTH, FOLDER, PLACED, SWARM, Draft, Rule, Way, batch, count, ignored, to
from moco_core import ConfigError

__all__ = ["TEXT"]

RATINGS: Mapping[str, Rule] = {
    **{
        name: to(name)
        for name in (
            "num_iterations",
            "num_instructions",
            "random_match_prob",
            "num_opponents",
            "judge_rounds",
            "initial_k",
            "min_k",
            "min_deviation",
            "epsilon",
            "decay_rate",
            "decay_steps",
            "scaling_factor",
        )
    },
    "window_size": to("window"),
    "judge_batch_size": ignored("calls are batched by the engine; see batch_size"),
    "freeze_ratings": ignored("ratings that never move are scaling_factor set very high"),
    "debug": ignored("every rating stands in the run's fit log"),
}


def _moa(draft: Draft, keys: dict[str, Any]) -> None:
    draft.options["layers"] = count("round", keys.pop("round", 1)) + 1


def _structure(draft: Draft, keys: dict[str, Any]) -> None:
    draft.options["rounds"] = count("num_rounds", keys.pop("num_rounds", 3)) - 1
    if "structure_type" not in keys:
        raise ConfigError("structure_type: missing; text_structure needs it")
    matrix = keys.pop("structure_matrix", None)
    if keys["structure_type"] == "other":
        draft.options["adjacency"] = matrix
    elif matrix is not None:
        draft.ignore("structure_matrix", "structure_type names a topology")


def _blender(draft: Draft, keys: dict[str, Any]) -> None:
    if model := keys.pop("ranker_model_name", None):
        draft.options["judge"] = draft.helper(model, "ranker_model_name")
    if model := keys.pop("fuser_model_name", None):
        draft.options["fuser"] = draft.helper(model, "fuser_model_name")


def _finetuning(draft: Draft, keys: dict[str, Any]) -> None:
    batch(draft, keys, "sft_batch_size", "sft_grad_accum", "batch")
    if keys.pop("training_ratio", 1.0) != 1.0:
        draft.ignore("training_ratio", "a share; -o method.train_size=N says how many dev questions are debated")


def _agglm(draft: Draft, keys: dict[str, Any]) -> None:
    if model := keys.pop("agg_model", None):
        draft.options["aggregator"] = draft.helper(model, "agg_model")
    group = count("train_batch_size", keys.pop("train_batch_size", 4))
    draft.options |= {"num_generations": group, "batch": group}


def _sparta(draft: Draft, keys: dict[str, Any]) -> None:
    if "current_iteration" in keys:
        keys.pop("current_iteration")
        draft.ignore("current_iteration", "a run that is done again goes on where it was")


def _stackelberg(draft: Draft, keys: dict[str, Any]) -> None:
    _sparta(draft, keys)
    legacy = keys.pop("instruction_selection", None)
    if legacy is not None:
        kinds = {"exp3": ("probabilistic", "global"), "exp3_per_model": ("probabilistic", "per_model")}
        kind, scope = kinds.get(legacy, ("uniform", "global"))
        draft.options |= {"leader_type": kind, "leader_scope": scope}
    batch(draft, keys, "dpo_batch_size", "dpo_gradient_accumulation_steps", "batch")
    grpo = keys.get("training_algorithm", "dpo") == "grpo"
    for ours, theirs in (("learning_rate", "learning_rate"), ("epochs", "epoch")):
        for kind in ("dpo", "grpo"):
            key = f"{kind}_{theirs}"
            if key in keys:
                value = keys.pop(key)
                if (kind == "grpo") == grpo:
                    draft.options[ours] = value
                else:
                    draft.ignore(key, f"training_algorithm is {'grpo' if grpo else 'dpo'}")


TEXT: Mapping[str, Way] = {
    "text_multiagent_refine": Way(
        name="multiagent_refine", keys={"round": to("rounds")}, starts={"rounds": 3}, decoding=BOTH
    ),
    "text_moa": Way(
        name="mixture_of_agents",
        starts={"aggregator": "best"},
        decoding={**BOTH, "aggregator_temperature": "temperature"},
        further=_moa,
    ),
    "text_multiagent_feedback": Way(
        name="multiagent_feedback",
        keys={"round": to("rounds"), "feedback_count": to("feedback_count")},
        starts={"rounds": 3},
        decoding=BOTH,
    ),
    "text_knowledge_card": Way(
        name="knowledge_card",
        keys={"exclude_self": to("exclude_self")},
        starts={"exclude_self": False},
        decoding={"knowledge_temperature": "temperature", "top_p": "top_p"},
    ),
    "text_llm_blender": Way(
        name="llm_blender",
        keys={
            "top_k": to("top_k"),
            "ranker_gpu_id": PLACED,
            "fuser_gpu_id": PLACED,
            "ranker_max_response_length": to("judge_max_new_tokens"),
            "fuser_max_response_length": ignored("a fused reply is as long as others may be; see max_response_length"),
            "train_ranker_on_dev": to("train_ranker"),
            "train_fuser_on_dev": to("train_fuser"),
            "ranker_sft_learning_rate": to("ranker_learning_rate"),
            "ranker_sft_epoch": to("ranker_epochs"),
            "fuser_sft_learning_rate": to("fuser_learning_rate"),
            "fuser_sft_epoch": to("fuser_epochs"),
            **{
                f"{role}_sft_{what}": ignored("rows of an update are the option batch")
                for role in ("ranker", "fuser")
                for what in ("batch_size", "gradient_accumulation_steps")
            },
        },
        starts={"ranker": "judge", "aggregation": "max_wins", "fuser": 0},
        further=_blender,
    ),
    "text_heterogeneous_swarms": Way(
        name="heterogeneous_swarms",
        keys={
            **SWARM,
            "ratio": to("dev_ratio"),
            "restart_patience": ignored("it is a number of rounds there, and a share of patience here"),
        },
        starts={"population": 5, "max_iterations": 5, "dev_ratio": 0.25},
    ),
    "text_majority_vote": Way(
        name="majority_vote",
        keys={"tie": to("tie", {"random": "random", "dev-based": "best_model"})},
        starts={"tie": "random"},
    ),
    "text_slm_mux": Way(
        name="slm_mux",
        keys={
            "samples_per_model": to("samples"),
            "tie": to("tie", {"dev-based": "dev", "model-order": "order", "random": "random"}),
            "seed": to("seed"),
        },
        starts={"samples": 5, "dev_accuracy": "single", "seed": 42},
        decoding=BOTH,
    ),
    "text_structure": Way(
        name="structured_interaction",
        keys={
            "structure_type": to(
                "topology",
                {
                    k: {"circle": "cycle", "other": "custom"}.get(k, k)
                    for k in ["chain", "tree", "star", "circle", "complete", "other"]
                },
            )
        },
        decoding=BOTH,
        further=_structure,
    ),
    "text_multiagent_finetuning": Way(
        name="multiagent_finetuning",
        keys={
            "iterations": to("iterations"),
            "rounds": to("rounds"),
            "w": to("w"),
            "sft_epochs": to("epochs"),
            "sft_learning_rate": to("learning_rate"),
        },
        decoding=BOTH,
        further=_finetuning,
    ),
    "text_bbmas": Way(
        name="bbmas",
        keys={
            "max_num_agents_to_act": to("max_agents_per_round"),
            "min_num_agents_to_stop": to("min_agents_to_stop"),
            "agent_idle_threshold": to("agent_idle_threshold"),
            "max_iterations": to("max_rounds"),
            "max_num_retries": to("max_retries"),
        },
        starts={"max_rounds": 50},
    ),
    "text_sparta": Way(
        name="sparta",
        keys={**RATINGS, "score_type": to("score_type")},
        decoding=BOTH,
        further=_sparta,
    ),
    "text_sparta_stackelberg": Way(
        name="sparta_stackelberg",
        keys={
            **RATINGS,
            "num_instructions": ignored("duels draw from all of dev"),
            "score_type": ignored("judges weigh as their ratings say"),
            "run_id": FOLDER,
            "training_algorithm": to("training_algorithm"),
            "leader_type": to("leader_type"),
            "leader_scope": to("leader_scope"),
            "leader_uniform_mix": to("gamma"),
            "instr_sample_gamma": to("gamma"),
            "num_duels_per_iteration": to("num_duels_per_iteration"),
            "opponent_selection": to("matching"),
            "reputation_gap_sigma": to("sigma_g"),
            "reward_method": ignored("the leader is rewarded for difficulty and for the gap of scores, as in the paper"),
            "difficulty_reward_weight": to("difficulty_weight"),
            "preference_quality_reward_weight": ignored("it is what difficulty_weight leaves of 1"),
            "score_threshold": to("score_threshold"),
            "ideal_start_gap": to("g_start"),
            "ideal_end_gap": to("g_end"),
            "preference_gap_sigma": to("sigma_r"),
            "parallel_dpo_training": PLACED,
            "parallel_grpo_training": PLACED,
            "gpus_per_grpo_job": PLACED,
            "max_parallel_grpo_jobs": PLACED,
            "online_judge_gpu_ids": PLACED,
            "grpo_batch_size": ignored("rows of an update are the method's own option batch"),
            "grpo_gradient_accumulation_steps": ignored("rows of an update are the method's own option batch"),
            "grpo_num_generations": to("group"),
            "grpo_max_completion_length": to("max_new_tokens"),
            "grpo_beta": to("grpo_beta"),
            "grpo_epsilon": to("grpo_epsilon"),
            "grpo_scale_rewards": ignored("rewards are scaled within a group"),
            "grpo_loss_type": ignored("the loss is the method's own"),
            "reward_scale": ignored("scores of judges are mapped to [0, 1]"),
        },
        further=_stackelberg,
    ),
    "text_agglm": Way(
        name="agglm",
        keys={
            "agglm_log_path": FOLDER,
            "reuse_log": ignored("nothing is computed twice; moco cache prune forgets"),
            "learning_rate": to("learning_rate"),
            "weight_decay": ignored("adapters are trained without it"),
            "lr_scheduler": ignored("the rate's course is the training toolkit's"),
            "max_epochs": to("epochs"),
            "sample_size": to("sets_per_question"),
        },
        starts={"sets_per_question": 2, "learning_rate": 1e-4, "easy_ratio": 1.0, "lora_r": 64, "lora_alpha": 16},
        further=_agglm,
    ),
}
