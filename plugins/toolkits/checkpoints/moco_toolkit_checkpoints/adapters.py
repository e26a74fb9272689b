"""What a LoRA adapter does to its base, told from its configuration and the names of its tensors.

A plain adapter adds ``scale * B A`` to some weights and leaves everything else alone: it can share a base with others, and its
update is what its factors say. Others replace modules, train biases, or were initialised by taking something away from the
base (PiSSA, OLoRA, LoftQ); putting one of those on a base changes the base itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["FACTOR", "beyond_factors", "changes_base", "misfit", "placed_by_tensors", "scale", "unusable"]

FACTOR = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(?:embedding_)?([AB])(?:\.[\w-]+)?$")
"""A factor's tensor without its ending ``.weight``: the module, and which of the two it is."""

_IN_LAYER = re.compile(r"\.lora_(?:embedding_)?[A-Za-z_]+(?:\.[\w-]+)*$")  # factors, magnitudes, biases of the update

_UNUSABLE = {
    "alora_invocation_tokens": "it is active from its invocation tokens on (aLoRA), which engines here cannot follow",
    "arrow_config": "it routes between other adapters (Arrow)",
    "monteclora_config": "it samples its weights (MonteCLoRA)",
    "use_qalora": "it belongs to a GPTQ base (QA-LoRA)",
}
_LOST_BASE = ("corda", "lora_ga")  # what they took from the base depends on data that is not saved with the adapter
_REBUILT_BASE = ("pissa", "olora", "loftq")  # what they take can be computed from the base again
_CHANGES = {
    "modules_to_save": "whole modules of its own (modules_to_save)",
    "trainable_token_indices": "embeddings of single tokens (trainable_token_indices)",
    "layer_replication": "repeated layers (layer_replication)",
    "target_parameters": "factors of bare parameters (target_parameters)",
    "kasa_config": "a truncated base (KaSA)",
}
_NOT_ADDED = {
    "use_dora": "DoRA magnitudes (use_dora)",
    "lora_bias": "biases of the update (lora_bias)",
    "use_bdlora": "block-diagonal factors (use_bdlora)",
}


def unusable(config: Mapping[str, Any]) -> str:
    """Return why no engine can give the model this adapter was trained as; empty if one can."""
    for key, why in _UNUSABLE.items():
        if config.get(key):
            return why
    start = _start(config)
    if start.startswith(_LOST_BASE):
        return (
            f"it was trained on a changed base (init_lora_weights: {start}) that cannot be computed again; save it with "
            "peft's path_initial_model_for_weight_conversion, or merged into a checkpoint"
        )
    return ""


def changes_base(config: Mapping[str, Any], tensors: Iterable[str]) -> str:
    """Return what of its base an adapter changes when it is put there; empty if it leaves every weight as it is.

    ``tensors`` are the names in its file.
    """
    for key, what in _CHANGES.items():
        if config.get(key):
            return what
    if config.get("bias", "none") != "none":
        return f"trained biases (bias: {config['bias']})"
    start = _start(config)
    if start.startswith(_REBUILT_BASE):
        return f"a base without what the adapter took from it (init_lora_weights: {start})"
    for name in tensors:
        if not _IN_LAYER.search(name):
            return f"a weight of its own ({name.removeprefix('base_model.model.')})"
    return ""


def beyond_factors(config: Mapping[str, Any], tensors: Iterable[str] = ()) -> str:
    """Return what an adapter is beside a sum of low-rank factors; empty for plain LoRA, which can be added and scaled."""
    for key, what in _NOT_ADDED.items():
        if config.get(key):
            return what
    return unusable(config) or changes_base(config, tensors)


def misfit(adapter: Mapping[str, tuple[int, ...]], base: Mapping[str, tuple[int, ...]]) -> str:
    """Return why LoRA factors cannot belong to a base, from shapes by name alone; empty if they can.

    Modules are looked up by the names in the base's files. Some architectures name them otherwise in memory, so a module
    that is not found says nothing, unless no module of the base is called anything like those of the adapter.
    """
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in adapter.items():
        match = FACTOR.match(key.removesuffix(".weight"))
        if match is not None and len(shape) == 2:
            pairs.setdefault(match[1], {})[match[2]] = shape
    # a head that is tied to the embedding stands in no file
    leaves = {name.removesuffix(".weight").rpartition(".")[2] for name in base} | {"lm_head", "embed_out"}
    if pairs and not any(module.rpartition(".")[2] in leaves for module in pairs):
        return f"that has nothing like {min(pairs)!r}"
    for module, pair in pairs.items():
        weight = base.get(f"{module}.weight")
        if weight is None or len(weight) != 2 or set(pair) != {"A", "B"}:
            continue
        inner, outer = pair["A"][1], pair["B"][0]
        if weight not in ((outer, inner), (inner, outer)):  # some layers keep their weight transposed
            return f"{module!r} is {weight[0]}x{weight[1]} there, the adapter changes {outer}x{inner}"
    return ""


def placed_by_tensors(config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return a plain adapter's configuration with modules and ranks as its tensors say, whatever patterns it was made with.

    ``shapes`` are its tensors' shapes by name; A has the rank first, for linear modules and embeddings alike.
    """
    ranks: dict[str, int] = {}
    for name, shape in shapes.items():
        match = FACTOR.match(name.removesuffix(".weight"))
        if match is not None and match[2] == "A":
            ranks[match[1]] = int(shape[0])
    rank = max(ranks.values(), default=1)
    return {
        **config,
        "r": rank,
        "rank_pattern": {re.escape(m): r for m, r in ranks.items() if r != rank},
        "target_modules": sorted(ranks),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "init_lora_weights": True,
    }


def scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what a module's update B A is multiplied by. Of patterns that match a module, peft takes the first."""
    patterns = config.get("alpha_pattern") or {}
    own = (alpha for name, alpha in patterns.items() if module == name or re.match(rf"(.*\.)?({name})$", module))
    alpha = float(next(own, config.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _start(config: Mapping[str, Any]) -> str:
    value = config.get("init_lora_weights", True)
    return value.lower() if isinstance(value, str) else ""
