"""MoCo: several language models working as one.

The names below are all that a plugin author needs; ``moco_toolkit_authoring`` holds the conformance kit. They are imported when
they are first used, so that ``moco --help`` and ``moco list`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moco_core.api import LoadedSystem, OpenSystem, Results, load, open, register, run
    from moco_core.context import Context
    from moco_core.data import Dataset, DatasetFacts, Metric, Scored, Split
    from moco_core.errors import (
        CapabilityError,
        ConfigError,
        DatasetError,
        EngineOutOfMemory,
        MocoError,
        ModelCallError,
        NotFitted,
        PluginError,
        PoolError,
        PromptTooLong,
        StoreError,
    )
    from moco_core.hookspecs import hookimpl
    from moco_core.methods import Cost, Method, System
    from moco_core.models import CAPABILITIES, Call, Engine, Inbox, Model, Needs, Pool, PoolSource, Recipe
    from moco_core.options import NoOptions, Plugin, option, plain, plugin_option
    from moco_core.secrets import Secret
    from moco_core.types import (
        Answer,
        CallRecord,
        ContinuationScore,
        Evaluation,
        Example,
        Generation,
        Message,
        Question,
        Reply,
        Sampling,
        Score,
        Span,
        Unit,
        Usage,
        digest,
    )

_HOME = {
    "LoadedSystem": "moco_core.api",
    "OpenSystem": "moco_core.api",
    "Results": "moco_core.api",
    "load": "moco_core.api",
    "open": "moco_core.api",
    "register": "moco_core.api",
    "run": "moco_core.api",
    "CallRecord": "moco_core.types",
    "Context": "moco_core.context",
    "Evaluation": "moco_core.types",
    "Dataset": "moco_core.data",
    "DatasetFacts": "moco_core.data",
    "Metric": "moco_core.data",
    "Scored": "moco_core.data",
    "Split": "moco_core.data",
    "CapabilityError": "moco_core.errors",
    "ConfigError": "moco_core.errors",
    "DatasetError": "moco_core.errors",
    "EngineOutOfMemory": "moco_core.errors",
    "MocoError": "moco_core.errors",
    "ModelCallError": "moco_core.errors",
    "NotFitted": "moco_core.errors",
    "PluginError": "moco_core.errors",
    "PoolError": "moco_core.errors",
    "PromptTooLong": "moco_core.errors",
    "StoreError": "moco_core.errors",
    "hookimpl": "moco_core.hookspecs",
    "Cost": "moco_core.methods",
    "Method": "moco_core.methods",
    "System": "moco_core.methods",
    "CAPABILITIES": "moco_core.models",
    "Call": "moco_core.models",
    "Engine": "moco_core.models",
    "Inbox": "moco_core.models",
    "Model": "moco_core.models",
    "Needs": "moco_core.models",
    "Pool": "moco_core.models",
    "PoolSource": "moco_core.models",
    "Recipe": "moco_core.models",
    "NoOptions": "moco_core.options",
    "Plugin": "moco_core.options",
    "option": "moco_core.options",
    "Secret": "moco_core.secrets",
    "plain": "moco_core.options",
    "plugin_option": "moco_core.options",
    "Answer": "moco_core.types",
    "ContinuationScore": "moco_core.types",
    "Example": "moco_core.types",
    "Generation": "moco_core.types",
    "Message": "moco_core.types",
    "Question": "moco_core.types",
    "Reply": "moco_core.types",
    "Sampling": "moco_core.types",
    "Score": "moco_core.types",
    "Span": "moco_core.types",
    "Unit": "moco_core.types",
    "Usage": "moco_core.types",
    "digest": "moco_core.types",
}

__all__ = [
    "CAPABILITIES",
    "Answer",
    "Call",
    "CallRecord",
    "CapabilityError",
    "ConfigError",
    "Context",
    "ContinuationScore",
    "Cost",
    "Dataset",
    "DatasetError",
    "DatasetFacts",
    "Engine",
    "EngineOutOfMemory",
    "Evaluation",
    "Example",
    "Generation",
    "Inbox",
    "LoadedSystem",
    "Message",
    "Method",
    "Metric",
    "MocoError",
    "Model",
    "ModelCallError",
    "Needs",
    "NoOptions",
    "NotFitted",
    "OpenSystem",
    "Plugin",
    "PluginError",
    "Pool",
    "PoolError",
    "PoolSource",
    "PromptTooLong",
    "Question",
    "Recipe",
    "Reply",
    "Results",
    "Sampling",
    "Score",
    "Scored",
    "Secret",
    "Span",
    "Split",
    "StoreError",
    "System",
    "Unit",
    "Usage",
    "digest",
    "hookimpl",
    "load",
    "open",
    "option",
    "plain",
    "plugin_option",
    "register",
    "run",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
