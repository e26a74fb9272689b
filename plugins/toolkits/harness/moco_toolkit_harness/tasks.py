"""Loading tasks of lm-evaluation-harness, with one line for whatever keeps one from being read."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import ConfigError, DatasetError
from moco_core.errors import suggest
from moco_toolkit_data.hub import asked_once

__all__ = ["SAMPLE", "Place", "docs_of", "load_tasks"]

SAMPLE = Path(__file__).parent / "sample"
"""A folder with two small tasks over generated data, to try things with."""


@attrs.frozen(kw_only=True)
class Place:
    """Where a document is: in a task, whose configuration lies in a folder (empty: the library's own), and in a split."""

    task: str
    include_path: str = ""
    split: str = "test"
    index: int = 0


@functools.cache
def _manager(include_path: str, defaults: bool) -> Any:
    """Return the index of all tasks: that of the library's own takes a while, so it is made once."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm-evaluation-harness is not installed: pip install lm-eval")
    # its remarks on tasks' configurations are for their authors
    logging.getLogger("lm_eval").setLevel(os.environ.get("LMEVAL_LOG_LEVEL", "ERROR").upper())
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path or None, include_defaults=defaults)


@functools.lru_cache(maxsize=8)
def load_tasks(name: str, include_path: str = "") -> Mapping[str, Any]:
    """Return the tasks that a name stands for (a task, a group or a tag), by their own names.

    Raises DatasetError, one line, for a name that there is not, for data that cannot be read, and for tasks whose answers
    are neither chosen nor written, or whose metric runs what a model wrote.
    """
    if include_path and not Path(include_path).is_dir():
        raise DatasetError(f"include_path: {include_path} is no folder")
    manager = _manager(include_path, False) if include_path else None
    if manager is None or name not in manager.all_tasks:
        manager = _manager(include_path, True)
    if name not in manager.all_tasks:
        where = f", nor has {include_path}" if include_path else ""
        raise DatasetError(f"lm-eval has no task {name!r}{where}{suggest(name, manager.all_tasks)} (lm-eval ls tasks)")
    try:
        with asked_once():
            found: Mapping[str, Any] = manager.load(name)["tasks"]
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DatasetError(
            f"task {name!r} cannot be loaded: {reason[:300]}; without a network its data have to be in the cache of datasets "
            f"already, or in local files that a task in include_path reads"
        ) from None
    for its, task in found.items():
        if task.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
            raise DatasetError(
                f"task {its!r} measures {task.OUTPUT_TYPE} of given texts; only answers can be scored here"
            )
        if getattr(task.config, "unsafe_code", False) or getattr(task, "UNSAFE_CODE", False):
            raise DatasetError(
                f"task {its!r} runs code that a model wrote, outside of a sandbox; take humaneval or mbpp here"
            )
    return found


def docs_of(task: Any, split: str) -> Sequence[Any]:
    """Return a task's documents: those that it is scored on for ``test``; of its other splits, the last, for ``dev``."""
    if split == "test":
        found: Sequence[Any] = task.eval_docs
        return found
    if task.has_test_docs() and task.has_validation_docs():
        return list(task.validation_docs())
    return list(task.training_docs()) if task.has_training_docs() else []
