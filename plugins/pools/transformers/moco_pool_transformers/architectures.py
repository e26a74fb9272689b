"""What the installed transformers makes of an architecture, told from names alone: nothing is imported for it."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_toolkit_checkpoints.specs import Task

__all__ = ["capabilities", "loader", "reads_both_ways", "rolls_back"]

GENERATIVE = frozenset({"generate", "logprobs", "score", "step", "hidden", "embed", "weights", "train"})
CLASSIFYING = frozenset({"reward", "hidden", "embed", "weights", "train"})
ENCODING = frozenset({"embed", "weights", "train"})

_TABLES = {
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "AutoModel": "MODEL_MAPPING_NAMES",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
}
"""The library's classes that open models here, and where it lists what each of them opens."""

_ATTENTION = ("full_attention", "sliding_attention")
_NO_ROLLBACK = frozenset(
    # positions as biases of the attention, or windows cut out of a mask of its own, which no ready-made mask can say; no cache
    # at all; states beside it
    ["bloom", "gpt_neo", "openai-gpt", "llama4", "llama4_text", "minimax", "moshi"]
).union(["jamba", "bamba", "falcon_h1", "zamba", "zamba2"])
_BOTH_WAYS = frozenset({"xlnet", "cpmant", "paligemma"})
"""Types that read a prompt, or all of a text, in both directions, and write by ways of their own."""

_RECURRENT = ("mamba", "rwkv", "recurrent", "xlstm")


_OPENERS: Mapping[Task, tuple[str, ...]] = {
    "generate": ("AutoModelForCausalLM", "AutoModelForImageTextToText"),
    "reward": ("AutoModelForSequenceClassification",),
    "embed": ("AutoModel",),
}


def loader(config: Mapping[str, Any], task: Task) -> str | None:
    """Return the class of transformers that opens a checkpoint; None if the installed version knows none."""
    classes = [str(c) for c in config.get("architectures") or []]
    for name in _OPENERS[task]:
        known = _listed(name)
        if known is None or config.get("model_type") in known or known.intersection(classes):
            return name
    return None


def reads_both_ways(config: Mapping[str, Any]) -> bool:
    """Return whether a model that writes text does not read it from left to right alone, so that forwards that do would lie.

    Encoders that are used as decoders are among them: some count positions from their padding, or fill in masks.
    """
    kind = config.get("model_type")
    return kind in _BOTH_WAYS or kind in (_listed("AutoModelForMaskedLM") or ())


@functools.cache
def _listed(name: str) -> frozenset[str] | None:
    """Return the model types and classes that an automatic class opens; None if that cannot be found out."""
    spec = importlib.util.find_spec("transformers")
    folders = spec.submodule_search_locations if spec is not None else None
    try:
        text = (Path(next(iter(folders or ()))) / "models" / "auto" / "modeling_auto.py").read_text("utf-8")
    except (OSError, StopIteration):
        return None
    table = re.search(rf"^{_TABLES[name]} = OrderedDict\((.*?)^\)", text, re.S | re.M)
    return frozenset(re.findall(r'"([\w.-]+)"', table[1])) if table else None


def capabilities(config: Mapping[str, Any], task: Task) -> frozenset[str]:
    """Return what a model of this configuration can do on this engine."""
    if task != "generate":
        return CLASSIFYING if task == "reward" else ENCODING
    return GENERATIVE if rolls_back(config) else GENERATIVE - {"step"}


def rolls_back(config: Mapping[str, Any]) -> bool:
    """Return whether its state is keys and values that can be cropped, under a mask that is given to it."""
    text = config.get("text_config") or config
    types = {str(c.get("model_type", "")) for c in (config, text)}
    if types & _NO_ROLLBACK or any(name in kind for kind in types for name in _RECURRENT):
        return False
    if text.get("alibi") and "falcon" in types:
        return False
    if any(key.startswith(("mamba_", "ssm_")) for key in text):  # states beside keys and values, whatever the layers are called
        return False
    return all(kind in _ATTENTION for kind in text.get("layer_types") or ())
