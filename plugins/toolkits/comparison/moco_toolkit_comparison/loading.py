"""Runs from their folders, as far as they can be read, and whether they may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_core import ConfigError, RunResult, StoreError
from moco_core.types import canonical

__all__ = ["comparable", "differences", "load_runs"]

_SHOWN = 5
"""Differences that are named where there are many."""


def load_runs(places: Iterable[Path | str]) -> tuple[list[RunResult], list[str]]:
    """Return the runs in these folders and below them, and one line for every folder that cannot be read.

    A run that is being written or was killed is among the runs, without units. Raises ConfigError if a place is no folder or
    holds no run at all.
    """
    runs: dict[Path, RunResult] = {}
    problems: list[str] = []
    for place in map(Path, places):
        if not place.is_dir():
            raise ConfigError(f"{place}: no such folder")
        files = sorted(place.glob("**/run.json"))
        if not files:
            raise ConfigError(f"{place}: holds no run (no run.json in it or below it)")
        for file in files:
            try:
                runs.setdefault(file.parent.resolve(), RunResult.read(file.parent))
            except StoreError as error:
                problems.append(str(error))
    if not runs:
        raise ConfigError(problems)
    return sorted(runs.values(), key=lambda r: (r.dataset, r.position, r.id)), problems


def differences(a: RunResult, b: RunResult) -> list[str]:
    """Return in what two runs differ that makes their scores no comparison of systems, one line each."""
    out = []
    for what, one, other in (
        ("dataset", a.config["dataset"]["name"], b.config["dataset"]["name"]),
        *_metrics(a.config["metric"], b.config["metric"]),
        ("questions of the test split (fingerprint)", a.test_fingerprint, b.test_fingerprint),
        ("number of test questions", a.questions, b.questions),
    ):
        if one != other:
            out.append(f"{what}: {_short(one)} and {_short(other)}")
    for name in sorted({*a.versions} & {*b.versions} & _scoring(a)):
        if a.versions[name] != b.versions[name]:
            out.append(f"version of {name}: {a.versions[name]} and {b.versions[name]}")
    return out


def _metrics(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the names of two metrics, or of one metric its options, one by one."""
    if one["name"] != other["name"]:
        return [("metric", one["name"], other["name"])]
    options = dict.fromkeys([*one, *other])
    return [(f"metric.{key}", one.get(key, "(none)"), other.get(key, "(none)")) for key in options]


def comparable(runs: Sequence[RunResult], force: bool = False, *, side_by_side: bool = False) -> list[str]:
    """Return what makes runs incomparable, naming the runs. Raises ConfigError with these lines unless forced.

    ``side_by_side`` is for what compares runs within a dataset and a metric alone, and shows these beside each other.
    """
    first: dict[str, RunResult] = {}
    found = [
        f"{run.folder} differs from {base.folder} in {line}"
        for run in runs
        for base in [first.setdefault(canonical([run.dataset, run.config["metric"]]) if side_by_side else "", run)]
        for line in differences(base, run)
    ]
    if found and not force:
        shown = [*found[:_SHOWN], f"... and {len(found) - _SHOWN} differences more"] if len(found) > _SHOWN + 1 else found
        raise ConfigError([*shown, "these runs are not comparable; name those that are, or --force to take them all the same"])
    return found


def _scoring(run: RunResult) -> set[str]:
    """The distributions that decide what a question is, what is read from a reply, and what is right."""
    kinds = ("dataset", "metric")
    return {f"moco-{kind}-{run.config[kind]['name']}".replace("_", "-") for kind in kinds} | {"moco-toolkit-answers"}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
