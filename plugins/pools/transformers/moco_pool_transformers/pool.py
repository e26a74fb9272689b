"""The pool plugin: its models described without loading a weight."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from moco_core.errors import ConfigError
from moco_core.models import Model, PoolSource
from moco_pool_transformers.cpu import CpuPlan, cores, settle
from moco_pool_transformers.engine import TransformersEngine
from moco_pool_transformers.options import Entry, Options

__all__ = ["Entry", "Options", "TransformersPool"]


class TransformersPool(PoolSource[Options]):
    """Any causal language models that transformers loads, several at once, on CPU or CUDA."""

    Options = Options

    @cached_property
    def engine(self) -> TransformersEngine:
        return TransformersEngine(self.options)

    def models(self) -> Sequence[Model]:
        """Describe the models in order; configuration, tokenizer and headers are read, no weights.

        Raises ConfigError listing every entry that cannot be used.
        """
        from moco_pool_transformers.describe import describe, model_of
        from moco_pool_transformers.placement import place
        from moco_toolkit_checkpoints.describe import unique_names

        settle(os.environ)
        problems: list[str] = []
        found = []
        entries = [Entry(model=item) if isinstance(item, str) else item for item in self.options.models]
        for i, entry in enumerate(entries):
            try:
                found.append(describe(entry, self.options, f"models[{i}]"))
            except ConfigError as error:
                problems += error.problems
        if not self.options.models:
            problems.append("models: empty; name at least one model")
        if problems:
            raise ConfigError(problems)
        names = unique_names([d.name for d in found])
        copies: Counter[str] = Counter()
        out = []
        places = place(found, entries, names, self.options, self.beside)
        # bases on the CPU -> parameters; adapters are decoded where their base is
        bases = {d.spec.base_key[0]: d.parameters for d, (home, *_) in zip(found, places, strict=True) if home == "cpu"}
        plan = self.engine.cpu = CpuPlan.of(list(bases.values()), cores(), os.environ)
        groups = plan.names(bases)
        for described, entry, name, devices in zip(found, entries, names, places, strict=True):
            copy = copies[described.fingerprint]
            copies[described.fingerprint] += 1
            group = groups.get(described.spec.base_key[0], devices[0]) if devices[0] == "cpu" else devices[0]
            out.append(model_of(described, entry, name, self.engine, devices, group, copy))
        return tuple(out)

    def export(self, model: Model, folder: Path) -> None:
        self.engine.export(model, folder)
