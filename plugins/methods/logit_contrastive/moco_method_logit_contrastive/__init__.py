"""Contrastive decoding: add what good models say to a base model's scores, subtract what bad ones say."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_logit_contrastive.method import LogitContrastive

    return LogitContrastive
