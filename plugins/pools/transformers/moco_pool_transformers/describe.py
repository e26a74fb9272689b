"""Describing a checkpoint as a model of this engine, without weights and without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.config import default_cache_path
from moco_core.models import Engine, Model
from moco_pool_transformers.options import Entry, Options
from moco_toolkit_checkpoints.describe import Checkpoint, Described
from moco_toolkit_checkpoints.describe import describe as describe_checkpoint

__all__ = ["describe", "model_of"]

_RECURRENT = ("mamba", "rwkv", "recurrent", "linear_attention", "xlstm", "conv")


GENERATIVE = frozenset({"generate", "logprobs", "score", "step", "hidden", "embed", "weights", "train"})
CLASSIFYING = frozenset({"reward", "hidden", "embed", "weights"})


def describe(entry: Entry, options: Options, where: str) -> Described:
    """Describe one entry. Raises ConfigError."""
    described = describe_checkpoint(
        Checkpoint(
            model=entry.model,
            name=entry.name,
            adapter=entry.adapter,
            revision=entry.revision,
            dtype=entry.dtype or options.dtype,
            device=entry.device or options.device,
            template=entry.template,
            overlong=options.overlong,
            tags=options.reasoning_tags,
            trust_remote_code=options.trust_remote_code,
            # beside the call cache, wherever the user put that
            hashes=Path(options.cache) if options.cache else default_cache_path(os.environ).parent / "hashes",
        ),
        where,
    )
    return attrs.evolve(described, spec=attrs.evolve(described.spec, entry=attrs.asdict(entry)))


def model_of(
    described: Described, entry: Entry, name: str, engine: Engine, devices: Sequence[str], copy: int = 0
) -> Model:
    """Return a described model in its place: its home is the first of ``devices``, replicas may be on the others."""
    home, *more = devices
    spec = attrs.evolve(described.spec, device=home, base_key=(*described.spec.base_key, home))
    return Model(
        name=name,
        fingerprint=described.fingerprint,
        capabilities=_capabilities(described.config, spec.classifier),
        engine=engine,
        description=entry.description,
        tokenizer=described.tokenizer,
        architecture=described.architecture,
        base=described.base,
        adapter=bool(spec.adapter),
        parameters=described.parameters,
        context_length=described.context,
        memory=described.memory,
        lane=home,
        copy=copy,
        prices=entry.prices,
        info={"spec": spec, "replicas": tuple(more)} if more else {"spec": spec},
    )


def _capabilities(config: Mapping[str, Any], classifier: bool) -> frozenset[str]:
    if classifier:
        return CLASSIFYING
    text = config.get("text_config") or config
    kinds = [str(k) for k in text.get("layer_types") or []] + [str(config.get("model_type", ""))]
    if any(r in k for k in kinds for r in _RECURRENT):
        return GENERATIVE - {"step"}  # recurrent states cannot be rolled back
    return GENERATIVE
