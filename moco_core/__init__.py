"""MoCo: several language models working as one.

The names below are all that a plugin author needs; ``moco_core.testing`` holds the conformance kit.
"""

from moco_core.context import CallRecord, Context, Evaluation
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
    PromptTooLong,
    StoreError,
)
from moco_core.hookspecs import hookimpl
from moco_core.methods import Cost, Method, System
from moco_core.models import CAPABILITIES, Call, Engine, Inbox, Model, Needs, Pool, PoolSource, Recipe
from moco_core.options import NoOptions, option
from moco_core.types import (
    Answer,
    ContinuationScore,
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
)

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
    "Message",
    "Method",
    "Metric",
    "MocoError",
    "Model",
    "ModelCallError",
    "Needs",
    "NoOptions",
    "NotFitted",
    "PluginError",
    "Pool",
    "PoolSource",
    "PromptTooLong",
    "Question",
    "Recipe",
    "Reply",
    "Sampling",
    "Score",
    "Scored",
    "Span",
    "Split",
    "StoreError",
    "System",
    "Unit",
    "Usage",
    "hookimpl",
    "option",
]
