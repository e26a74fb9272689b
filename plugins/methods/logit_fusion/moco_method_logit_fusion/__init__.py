"""Logit fusion: several models in lock-step, one token at a time from their combined scores."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_logit_fusion.method import LogitFusion

    return LogitFusion
