"""Names of transformers, imported whole by whichever thread comes first.

While it is imported, a package of transformers puts another object in its own place; a thread that imports from it in the
meantime is left with the old one, which lacks the names. Threads that import this module wait for one another, so what runs
in threads (engines, methods) takes names of transformers from here.
"""

from importlib import import_module

from moco_toolkit_checkpoints.importing import uncollected, without

with uncollected():
    import transformers as library
    from transformers import utils

    # a threshold of assisted decoding, and losses of models that detect objects: a quarter of what is imported in all
    with without(utils, "is_sklearn_available", "is_scipy_available"):
        import_module("transformers.loss.loss_utils")
        import_module("transformers.generation.candidate_generator")

    from transformers import (
        CONFIG_MAPPING,
        AttentionInterface,
        AttentionMaskInterface,
        AutoConfig,
        AutoTokenizer,
        DynamicCache,
    )
    from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
    from transformers.core_model_loading import revert_weight_conversion
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask
    from transformers.utils import logging

__all__ = [
    "CONFIG_MAPPING",
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoConfig",
    "AutoTokenizer",
    "Cache",
    "DynamicCache",
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "library",
    "logging",
    "repeat_kv",
    "revert_weight_conversion",
    "sdpa_attention_forward",
    "sdpa_mask",
]
