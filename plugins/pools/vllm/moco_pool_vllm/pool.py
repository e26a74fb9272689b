"""The pool plugin: its options, and its models described and placed without loading a weight."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs

from moco_core.errors import ConfigError
from moco_core.models import Model, PoolSource
from moco_core.options import option
from moco_core.types import digest
from moco_pool_vllm.engine import VLLMEngine
from moco_pool_vllm.placement import Base, Place, plan
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS

__all__ = ["Entry", "Options", "VLLMPool"]

_GIB = 2**30


@attrs.frozen(kw_only=True)
class Entry:
    """One model of the pool."""

    model: str = option(help="Hub id or local folder of a checkpoint in safetensors")
    name: str = option("", help="name within the pool; default: the last part of the id or path")
    description: str = option("", help="what it is good at, for methods that choose models by description")
    adapter: str = option("", help="Hub id or local folder of a LoRA adapter (peft) on that checkpoint")
    revision: str | None = option(None, help="branch, tag or commit of the Hub repository")
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = option("", help="instead of the pool's dtype")
    task: Literal["auto", "generate", "embed", "reward"] = option(
        "auto", help="what vLLM serves it for; auto: generate, and reward for sequence classifiers"
    )
    devices: tuple[int, ...] = option((), ge=0, help="GPUs to run on (tensor parallel over several); default: planned")
    gpu_share: float | None = option(None, gt=0, le=1, help="share of each of its GPUs' memory; default: planned")
    template: Literal["auto", "chat", "plain"] = option(
        "auto", help="chat: the tokenizer's chat template; plain: bare text; auto: chat if there is a template"
    )
    prices: tuple[float, float] | None = option(None, ge=0, help="money per million prompt and completion tokens")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the vLLM pool."""

    models: tuple[str | Entry, ...] = option(help="the models in order: ids or folders, or mappings with details")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="numeric type of the weights; auto: float32 on CPU, the checkpoint's own type on GPUs"
    )
    max_model_len: int | None = option(None, ge=2, help="context length in tokens; default: the checkpoint's own")
    max_num_seqs: int = option(64, ge=1, help="requests that vLLM decodes together, per model")
    tensor_parallel: int = option(1, ge=1, help="GPUs per model, where an entry names no devices")
    gpu_share: float = option(0.9, gt=0, le=1, help="share of each GPU's memory that all models together may take")
    kv_cache: float = option(2.0, gt=0, help="GiB kept for key/value caches: the least on a GPU, all there is on a CPU")
    swap: Literal["process", "sleep"] = option(
        "process", help="models that do not fit together: end the worker process, or vLLM's sleep mode (weights in RAM)"
    )
    enforce_eager: bool = option(False, help="no CUDA graphs and no compilation: slower, starts sooner")
    top_logprobs: int = option(
        0,
        ge=0,
        le=100,
        help="how many of the likeliest tokens of each step to note in a reply's meta; the others are cut off",
    )
    prefix_caching: bool = option(True, help="keep the caches of prompts that begin alike")
    overlong: Literal["error", "truncate_left"] = option(
        "error",
        help="prompt longer than the context: fail that call, or drop its oldest tokens (recorded in the reply)",
    )
    reasoning_tags: tuple[tuple[str, str], ...] = option(
        DEFAULT_TAGS, help="opening and closing tags of reasoning blocks; an empty list leaves replies as they are"
    )
    trust_remote_code: bool = option(False, help="run Python code that comes with a checkpoint")
    engine_args: Mapping[str, Any] = option(factory=dict, help="further arguments of vLLM's AsyncEngineArgs")
    cache: str = option("", help="folder that remembers file hashes; default: the user's cache folder")


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
                "pool vllm: vLLM is not installed; pip install vllm (NVIDIA GPUs; other builds are imported as well), or use "
                "the pool transformers"
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
            list(bases.values()), self.options.gpu_share, int(self.options.kv_cache * _GIB), swap=self.options.swap
        )
        copies: Counter[str] = Counter()
        out = []
        from moco_pool_transformers.pool import _names

        for entry, (described, task), name in zip(entries, found, _names([d.name for d, _ in found]), strict=True):
            key = _base_key(entry, described, task)
            place = placed[key]
            limit = self.options.max_model_len
            top = [self.options.top_logprobs] if self.options.top_logprobs else []
            fingerprint = digest("vllm", described.fingerprint, task, limit, _numeric(self.options.engine_args), *top)
            context = described.context if limit is None else min(limit, described.context or limit)
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
                    lane=str(place),
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
        for entry, (described, task) in zip(entries, found, strict=True):
            key = _base_key(entry, described, task)
            adapters = {described.spec.adapter: described.spec.adapter_rank} if described.spec.adapter else {}
            known = out.get(key)
            if known is not None:
                out[key] = attrs.evolve(known, adapters={**known.adapters, **adapters})
                continue
            out[key] = Base(
                key=key,
                name=entry.name or described.name[0],
                folder=described.spec,
                task=task,
                bytes=described.spec.base_bytes,
                dtype=described.spec.dtype,
                devices=entry.devices,
                share=entry.gpu_share,
                tensor_parallel=len(entry.devices) or self.options.tensor_parallel,
                adapters=adapters,
            )
        return out


def _capabilities(task: str, base: Base, place: Place) -> frozenset[str]:
    # vLLM's CPU kernels for adapters take one row of logits per request: prompt log-probabilities stop the engine
    return CAPABILITIES[task] - ({"score"} if base.adapters and place.lane == "cpu" else set())


def _base_key(entry: Entry, described: Any, task: str) -> str:
    return digest("vllm base", list(described.spec.base_key), task, list(entry.devices), entry.gpu_share)[:16]


def _numeric(args: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments may change numbers (quantisation, attention backend): all of them count."""
    return {k: str(v) for k, v in args.items()}
