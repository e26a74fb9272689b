"""The pool plugin: its models described and placed without loading a weight."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from moco_core.errors import ConfigError
from moco_core.models import Model, PoolSource
from moco_core.types import digest
from moco_pool_vllm.engine import VLLMEngine
from moco_pool_vllm.options import Entry, Options
from moco_pool_vllm.placement import Base, Placement, plan
from moco_toolkit_checkpoints.describe import unique_names

__all__ = ["Entry", "Options", "VLLMPool"]

_GIB = 2**30


CAPABILITIES: Mapping[str, frozenset[str]] = {
    "generate": frozenset({"generate", "logprobs", "score"}),
    "embed": frozenset({"embed"}),
    "reward": frozenset({"reward"}),
}
"""What vLLM gives, by task. Steps with roll-back, hidden states, weights and training are the transformers engine's."""


class VLLMPool(PoolSource[Options]):
    """Causal language models, classifiers and LoRA adapters served by vLLM, several at once."""

    Options = Options

    @cached_property
    def engine(self) -> VLLMEngine:
        return VLLMEngine(self.options)

    def models(self) -> Sequence[Model]:
        """Describe the models in order and plan where they run; configuration and headers are read, no weights.

        Raises ConfigError: vLLM is not installed, an entry cannot be used, a GPU share cannot fit.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                "pool vllm: vLLM is not installed; pip install 'moco-pool-vllm[gpu]' for NVIDIA GPUs or 'moco-pool-vllm[cpu]' "
                "for processors (any other build is imported as well), or use the pool transformers"
            )
        if not self.options.models:
            raise ConfigError("models: empty; name at least one model")
        from moco_pool_vllm.describe import describe

        problems: list[str] = []
        entries = [Entry(model=m) if isinstance(m, str) else m for m in self.options.models]
        found = []
        for i, entry in enumerate(entries):
            try:
                found.append(describe(entry, self.options, f"models[{i}]"))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        bases = self._bases(entries, found)
        placed = plan(
            list(bases.values()), self.options.gpu_share, int(self.options.kv_cache * _GIB), beside=self.beside
        )
        copies: Counter[str] = Counter()
        out = []
        for entry, (described, task, _), name in zip(
            entries, found, unique_names([d.name for d, *_ in found]), strict=True
        ):
            key = _base_key(entry, described, task)
            place = placed[key]
            limit = self.options.max_model_len
            top = [self.options.top_logprobs] if self.options.top_logprobs else []
            fingerprint = digest("vllm", described.fingerprint, task, limit, _numeric(self.options.engine_args), *top)
            context = described.first_context or described.context  # of two rotary tables vLLM takes one for all
            context = context if limit is None else min(limit, context or limit)
            out.append(
                Model(
                    name=name,
                    fingerprint=fingerprint,
                    capabilities=_capabilities(task, bases[key], place),
                    engine=self.engine,
                    description=entry.description,
                    tokenizer=described.tokenizer,
                    architecture=described.architecture,
                    base=described.base,
                    adapter=bool(described.spec.adapter),
                    parameters=described.parameters,
                    context_length=context,
                    memory=described.memory,
                    device_group=str(place),
                    copy=copies[fingerprint],
                    prices=entry.prices,
                    info={
                        "spec": described.spec,
                        "task": task,
                        "base": key,
                        "place": place,
                        "top_logprobs": self.options.top_logprobs,
                    },
                )
            )
            copies[fingerprint] += 1
        self.engine.bases = bases
        return tuple(out)

    def _bases(self, entries: Sequence[Entry], found: Sequence[Any]) -> dict[str, Base]:
        """Collect the engines that are needed: one per base checkpoint and task, whatever adapters and copies there are."""
        out: dict[str, Base] = {}
        for entry, (described, task, rank) in zip(entries, found, strict=True):
            key = _base_key(entry, described, task)
            adapters = {described.spec.adapter: rank} if described.spec.adapter else {}
            known = out.get(key)
            if known is not None:
                out[key] = attrs.evolve(known, adapters={**known.adapters, **adapters})
                continue
            out[key] = Base(
                key=key,
                name=entry.name or described.name[0],
                spec=described.spec,
                task=task,
                bytes=described.spec.base_bytes,
                dtype=described.spec.dtype,
                devices=entry.devices,
                share=entry.gpu_share,
                tensor_parallel=len(entry.devices) or self.options.tensor_parallel,
                adapters=adapters,
            )
        return out


def _capabilities(task: str, base: Base, place: Placement) -> frozenset[str]:
    # vLLM's CPU kernels for adapters take one row of logits per request: prompt log-probabilities stop the engine
    return CAPABILITIES[task] - ({"score"} if base.adapters and place.device_group == "cpu" else set())


def _base_key(entry: Entry, described: Any, task: str) -> str:
    return digest("vllm base", list(described.spec.base_key), task, list(entry.devices), entry.gpu_share)[:16]


def _numeric(args: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments may change numbers (quantisation, attention backend): all of them count."""
    return {k: str(v) for k, v in args.items()}
