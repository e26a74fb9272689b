"""The pool plugin: its options, and its models described without loading a weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import attrs

from moco_core.errors import ConfigError
from moco_core.models import Model, PoolSource
from moco_core.options import option
from moco_pool_transformers.engine import TransformersEngine
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS

__all__ = ["Entry", "Options", "TransformersPool"]


@attrs.frozen(kw_only=True)
class Entry:
    """One model of the pool."""

    model: str = option(help="Hub id or local folder of a checkpoint in safetensors")
    name: str = option("", help="name within the pool; default: the last part of the id or path")
    description: str = option("", help="what it is good at, for methods that choose models by description")
    adapter: str = option("", help="Hub id or local folder of a LoRA adapter (peft) on that checkpoint")
    revision: str | None = option(None, help="branch, tag or commit of the Hub repository")
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = option("", help="instead of the pool's dtype")
    device: str = option("", help="instead of the pool's device: cpu, cuda, cuda:1, ...")
    replicas: int | None = option(None, ge=1, help="instead of the pool's replicas")
    template: Literal["auto", "chat", "plain"] = option(
        "auto", help="chat: the tokenizer's chat template; plain: bare text; auto: chat if there is a template"
    )
    prices: tuple[float, float] | None = option(None, ge=0, help="money per million prompt and completion tokens")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the transformers pool."""

    models: tuple[str | Entry, ...] = option(help="the models in order: ids or folders, or mappings with details")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="numeric type of the weights; auto: float32 on CPU, the checkpoint's own type on accelerators"
    )
    device: str = option(
        "auto", help="cpu, cuda, cuda:N, mps; auto: every CUDA device, models placed by size, else CPU"
    )
    replicas: int | Literal["auto"] = option(
        "auto",
        ge=1,
        help="on how many devices each model may be at once; auto: further ones where room is left; 1: one",
    )
    max_batch: int = option(64, ge=1, help="requests decoded together")
    memory: float | None = option(
        None, gt=0, help="GiB of weights kept in memory per device; default: 85 % of what is free at the first load"
    )
    overlong: Literal["error", "truncate_left"] = option(
        "error",
        help="prompt longer than the context: fail that call, or drop its oldest tokens (recorded in the reply)",
    )
    reasoning_tags: tuple[tuple[str, str], ...] = option(
        DEFAULT_TAGS, help="opening and closing tags of reasoning blocks; an empty list leaves replies as they are"
    )
    trust_remote_code: bool = option(False, help="run Python code that comes with a checkpoint")
    cache: str = option("", help="folder that remembers file hashes; default: the user's cache folder")


class TransformersPool(PoolSource[Options]):
    """Any causal language models that transformers loads, several at once, on CPU or CUDA."""

    Options = Options

    @cached_property
    def engine(self) -> TransformersEngine:
        options = self.options
        return TransformersEngine(
            max_batch=options.max_batch,
            budget=None if options.memory is None else int(options.memory * 2**30),
            trust_remote_code=options.trust_remote_code,
            options=options,
        )

    def models(self) -> Sequence[Model]:
        """Describe the models in order; configuration, tokenizer and headers are read, no weights.

        Raises ConfigError listing every entry that cannot be used.
        """
        from moco_pool_transformers.describe import describe, place

        problems: list[str] = []
        found = []
        for i, item in enumerate(self.options.models):
            entry = Entry(model=item) if isinstance(item, str) else item
            try:
                found.append(describe(entry, self.options, f"models[{i}]"))
            except ConfigError as error:
                problems += error.problems
        if not self.options.models:
            problems.append("models: empty; name at least one model")
        if problems:
            raise ConfigError(problems)
        names = _names([d.name for d in found])
        copies: Counter[str] = Counter()
        out = []
        for described, name, (device, *more) in zip(found, names, place(found, names, self.options), strict=True):
            copy = copies[described.fingerprint]
            copies[described.fingerprint] += 1
            out.append(described.model(name, self.engine, device, copy, tuple(more)))
        return tuple(out)

    def export(self, model: Model, folder: Path) -> None:
        self.engine.export(model, folder)


def _names(wanted: Sequence[tuple[str, bool]]) -> list[str]:
    """Make names unique: given names are kept (the pool refuses equal ones), default names are numbered."""
    given = {name for name, explicit in wanted if explicit}
    counts = Counter(name for name, _ in wanted)
    used: set[str] = set(given)
    out = []
    for name, explicit in wanted:
        if explicit:
            out.append(name)
            continue
        candidate, number = name, 1
        while candidate in used or (counts[name] > 1 and number == 1):
            candidate = f"{name}-{number}"
            number += 1
        used.add(candidate)
        out.append(candidate)
    return out
