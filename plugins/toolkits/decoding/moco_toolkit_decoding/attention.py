"""Masked attention on a CPU in which heads that share keys and values read them where they lie.

transformers repeats keys and values once per head wherever there is a mask, since some backends cannot do without; torch's
kernel for CPUs can, and gives the same bits several times as fast.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from moco_toolkit_checkpoints.transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    repeat_kv,
    sdpa_attention_forward,
    sdpa_mask,
)

__all__ = ["SHARED", "decoder_of", "share_keys"]

SHARED = "moco_shared"
"""The name of this attention among those of transformers."""


def decoder_of(module: Any) -> Any:
    """Return the part of a model below its head."""
    module = module.get_base_model() if hasattr(module, "get_base_model") else module
    return getattr(module, getattr(module, "base_model_prefix", ""), module)


def share_keys(module: Any) -> None:
    """Have a module attend this way where that saves work and changes no bit: on a CPU, with fewer keys than heads."""
    config = module.config
    heads = getattr(config, "num_attention_heads", 1)
    if (
        module.device.type == "cpu"
        and config._attn_implementation == "sdpa"
        and (getattr(config, "num_key_value_heads", None) or heads) < heads
        and not config.sub_configs
        and not _names_sdpa(type(module))
        and _changes_no_bit()
    ):
        AttentionInterface.register(SHARED, _attend)
        AttentionMaskInterface.register(SHARED, sdpa_mask)
        module.set_attn_implementation(SHARED)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Attend as transformers' ``sdpa`` does: query (B, H, Q, D), key and value (B, G, W, D) -> (B, Q, H, D)."""
    plain = settings.get("position_bias") is None and settings.get("cache") is None and not settings.get("dropout")
    if attention_mask is None or not plain or torch.is_grad_enabled():
        out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return out
    scale = settings.get("scaling")
    found = scaled_dot_product_attention(query, key, value, attention_mask, scale=scale, enable_gqa=True)
    return found.transpose(1, 2).contiguous(), None


def _names_sdpa(cls: type) -> bool:
    """Return whether a class asks for the attention by its name, and so does something of its own with it."""
    try:
        return '"sdpa"' in inspect.getsource(sys.modules[cls.__module__])
    except (KeyError, OSError, TypeError):
        return True


@functools.cache
def _changes_no_bit() -> bool:
    """Compare both ways on ragged rows: not every version of torch has one kernel for both."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 1, 16, generator=generator)
    key, value = torch.randn(2, 3, 2, 70, 16, generator=generator)
    mask = torch.arange(70) < torch.tensor([9, 70, 33])[:, None, None, None]
    with torch.inference_mode():
        want = scaled_dot_product_attention(query, repeat_kv(key, 2), repeat_kv(value, 2), mask)
        try:
            return torch.equal(scaled_dot_product_attention(query, key, value, mask, enable_gqa=True), want)
        except (TypeError, RuntimeError):
            return False
