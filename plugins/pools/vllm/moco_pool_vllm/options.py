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
    task: Literal["auto", "generate", "embed", "reward"] = option(
        "auto", help="what vLLM serves it for; auto: what the checkpoint is for"
    )
    devices: tuple[int, ...] = option((), ge=0, help="GPUs to run on (tensor parallel over several); default: planned")
    gpu_share: float | None = option(None, gt=0, le=1, help="share of each of its GPUs' memory; default: planned")
    template: Literal["auto", "chat", "plain"] | Mapping[str, Any] = option(
        "auto",
        help="chat: the tokenizer's chat template; plain: bare text; auto: chat if there is a template; a mapping: arguments "
        "of the chat template, such as {enable_thinking: false}",
    )
    prices: tuple[float, float] | None = option(None, ge=0, help="money per million prompt and completion tokens")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the vLLM pool."""

    models: tuple[str | Entry, ...] = option(
        holds="path or id", help="the models in order: ids or folders, or mappings with details"
    )
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
    cache: str = option("", holds="path", help="folder that remembers file hashes; default: the user's cache folder")
