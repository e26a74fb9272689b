"""Describing a checkpoint as a model of this engine, without weights and without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import attrs

from moco_core.config import default_cache_path
from moco_core.errors import ConfigError
from moco_core.models import Engine, Model
from moco_pool_transformers.architectures import capabilities, loader, reads_both_ways
from moco_pool_transformers.options import Entry, Options
from moco_toolkit_checkpoints.describe import Checkpoint, Described
from moco_toolkit_checkpoints.describe import describe as describe_checkpoint

__all__ = ["describe", "model_of"]


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
    config, spec = described.config, described.spec
    name = loader(config, spec.task)
    if name is None and not config.get("auto_map"):
        raise ConfigError(
            f"{where}: {entry.model}: transformers {version('transformers')} opens no {' or '.join(config['architectures'])}"
            f"{' as a model that writes text' if spec.task == 'generate' else ''}; upgrade it (pip install -U transformers), "
            "or use another engine"
        )
    if spec.task == "generate" and reads_both_ways(config):
        raise ConfigError(
            f"{where}: {entry.model}: {' or '.join(config['architectures'])} does not read text from left to right alone, and "
            "writes in a way of its own, which this engine does not follow; use a causal language model"
        )
    return attrs.evolve(
        described, spec=attrs.evolve(spec, entry=attrs.asdict(entry), loader=name or "AutoModelForCausalLM")
    )


def model_of(
    described: Described,
    entry: Entry,
    name: str,
    engine: Engine,
    devices: Sequence[str],
    group: str = "",
    copy: int = 0,
) -> Model:
    """Return a described model in its place: its home is the first of ``devices``, replicas may be on the others.

    ``group`` is its device group, where that is not the home alone.
    """
    home, *more = devices
    spec = attrs.evolve(described.spec, device=home, base_key=(*described.spec.base_key, home))
    return Model(
        name=name,
        fingerprint=described.fingerprint,
        capabilities=capabilities(described.config, spec.task),
        engine=engine,
        description=entry.description,
        tokenizer=described.tokenizer,
        architecture=described.architecture,
        base=described.base,
        adapter=bool(spec.adapter),
        parameters=described.parameters,
        context_length=described.context,
        memory=described.memory,
        device_group=group or home,
        copy=copy,
        prices=entry.prices,
        info={"spec": spec, "replicas": tuple(more)} if more else {"spec": spec},
    )
