"""Merging weights as values: recipes evaluated in memory, streamed to disk only when asked."""

from moco_toolkit_merging.comparison import Report, compare
from moco_toolkit_merging.compatibility import check_finite, check_models
from moco_toolkit_merging.export import ExportFailed, check_folder, export_merge, model_card
from moco_toolkit_merging.merges import Merge, SourceRef, base_of, resolve
from moco_toolkit_merging.needs import share_base, strangers, weight_needs
from moco_toolkit_merging.operations import (
    OPERATIONS,
    Consensus,
    Extrapolate,
    Linear,
    Mean,
    Mergekit,
    dump_operation,
    load_operation,
)
from moco_toolkit_merging.recipes import AdapterRecipe, BaseRecipe, MergeRecipe
from moco_toolkit_merging.rules import Operation
from moco_toolkit_merging.search import Search
from moco_toolkit_merging.systems import MergedSystem, finish, prepare, saved_merges
from moco_toolkit_merging.workspace import Workspace

__all__ = [
    "OPERATIONS",
    "AdapterRecipe",
    "BaseRecipe",
    "Consensus",
    "ExportFailed",
    "Extrapolate",
    "Linear",
    "Mean",
    "Merge",
    "MergeRecipe",
    "MergedSystem",
    "Mergekit",
    "Operation",
    "Report",
    "Search",
    "SourceRef",
    "Workspace",
    "base_of",
    "check_finite",
    "check_folder",
    "check_models",
    "compare",
    "dump_operation",
    "export_merge",
    "finish",
    "load_operation",
    "model_card",
    "prepare",
    "resolve",
    "saved_merges",
    "share_base",
    "strangers",
    "weight_needs",
]
