"""The configuration of an earlier run, to run it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moco_core.errors import StoreError
from moco_core.runs.records import read_run

_KEYS = ("pool", "method", "dataset", "metric", "seed", "sampling", "dev", "test")


def configuration(folder: Path) -> dict[str, Any]:
    """Return what a run folder was made from, as the data of a run configuration.

    Run again, it is the same run in the same folder: what it computed comes from the cache. Of a single model's run, a
    configuration that runs all single models is returned. Secrets were masked: they come from the environment. Raises
    StoreError if ``folder`` is no run folder.
    """
    head = read_run(folder)
    config, label = head.get("config"), head.get("label")
    if not isinstance(config, dict) or not all(isinstance(config.get(k), dict) for k in ("pool", "method", "dataset")):
        raise StoreError(f"{folder}/run.json: holds no configuration; run it from its own configuration file")
    out = {key: config[key] for key in _KEYS if config.get(key) is not None}
    if head.get("role") == "baseline":
        del out["method"]
    elif label and label != config["method"].get("name"):
        out["method"] = {**config["method"], "label": label}
    if (named := (head.get("dataset") or {}).get("label")) and named != config["dataset"].get("name"):
        out["dataset"] = {**config["dataset"], "label": named}
    return {**out, "out": str(folder.parent)}
