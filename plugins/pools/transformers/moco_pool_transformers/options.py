"""The options of the pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from moco_core.options import option
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS

__all__ = ["Entry", "Options"]


@attrs.frozen(kw_only=True)
class Entry:
    """One model of the pool."""

    model: str = option(holds="path or id", help="Hub id or local folder of a checkpoint in safetensors")
    name: str = option("", help="name within the pool; default: the last part of the id or path")
    description: str = option("", help="what it is good at, for methods that choose models by description")
    adapter: str = option(
        "", holds="path or id", help="Hub id or local folder of a LoRA adapter (peft) on that checkpoint"
    )
    revision: str | None = option(None, help="branch, tag or commit of the Hub repository")
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = option("", help="instead of the pool's dtype")
    device: str = option("", help="instead of the pool's device: cpu, cuda, cuda:1, ...")
    replicas: int | None = option(None, ge=1, help="instead of the pool's replicas")
    template: Literal["auto", "chat", "plain"] | Mapping[str, Any] = option(
        "auto",
        help="chat: the tokenizer's chat template; plain: bare text; auto: chat if there is a template; a mapping: arguments "
        "of the chat template, such as {enable_thinking: false}",
    )
    prices: tuple[float, float] | None = option(None, ge=0, help="money per million prompt and completion tokens")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the transformers pool."""

    models: tuple[str | Entry, ...] = option(
        holds="path or id", help="the models in order: ids or folders, or mappings with details"
    )
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
    prefix_memory: float = option(
        0.0,
        ge=0,
        help="GiB per device in which the keys and values of prompts are kept for prompts that begin alike; 0: none are",
    )
    overlong: Literal["error", "truncate_left"] = option(
        "error",
        help="prompt longer than the context: fail that call, or drop its oldest tokens (recorded in the reply)",
    )
    reasoning_tags: tuple[tuple[str, str], ...] = option(
        DEFAULT_TAGS, help="opening and closing tags of reasoning blocks; an empty list leaves replies as they are"
    )
    trust_remote_code: bool = option(False, help="run Python code that comes with a checkpoint")
    cache: str = option("", holds="path", help="folder that remembers file hashes; default: the user's cache folder")
