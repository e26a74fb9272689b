"""The comparison of a benchmark: every system against the best single model of the pool, with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from moco_core.catalogue import Catalogue
from moco_core.runs.results import RunResult, subsets_of
from moco_core.runs.stats import Estimate, Versus, compare, estimate
from moco_core.types import Unit, canonical

_ORDER = ("baseline", "control", "method")


@attrs.frozen(kw_only=True)
class Row:
    """One system in a report: its runs, one for each seed, and what they come to together.

    ``units`` are the means over seeds of every question: seeds are no further questions. ``versus`` compares it with the best
    single model; None for that model itself.
    """

    label: str
    role: str
    best: bool
    estimate: Estimate | None
    versus: Versus | None
    runs: tuple[RunResult, ...]
    units: tuple[Unit, ...] = ()

    @property
    def seed_means(self) -> dict[int, float]:
        """The mean score with each seed that has one."""
        return {r.seed: sum(u.score for u in r.units) / len(r.units) for r in self.runs if r.units}

    @property
    def extra_metrics(self) -> dict[str, float]:
        """The extra metrics, as means over seeds."""
        names = dict.fromkeys(name for r in self.runs for name in r.extra_metrics)
        return {name: _mean([r.extra_metrics[name] for r in self.runs if name in r.extra_metrics]) for name in names}

    @property
    def subsets(self) -> dict[str, dict[str, float]]:
        return subsets_of(self.units)

    def mean(self, what: Callable[[RunResult], float]) -> float:
        """Return the mean over the runs."""
        return _mean([what(r) for r in self.runs])

    def total(self, what: Callable[[RunResult], float]) -> Any:
        """Return the sum over the runs."""
        return sum(what(r) for r in self.runs)

    def data(self) -> dict[str, Any]:
        """Return the row as JSON data; counts and costs are sums over seeds, shares are means."""
        return {
            "label": self.label,
            "role": self.role,
            "best_single": self.best,
            "score": None if self.estimate is None else attrs.asdict(self.estimate),
            "seed_means": {str(seed): mean for seed, mean in self.seed_means.items()},
            "extra_metrics": self.extra_metrics,
            "subsets": self.subsets,
            "versus_best_single": None if self.versus is None else attrs.asdict(self.versus),
            "questions": self.total(lambda r: r.questions),
            "failed": self.total(lambda r: r.failed),
            "unparsed": self.mean(lambda r: r.unparsed),
            "truncated": self.mean(lambda r: r.truncated),
            "calls": self.total(lambda r: r.calls),
            "cached_calls": self.total(lambda r: r.cached_calls),
            "completion_tokens": self.total(lambda r: r.usage.completion_tokens),
            "prompt_tokens": self.total(lambda r: r.usage.prompt_tokens),
            "seconds": self.total(lambda r: r.seconds),
            "status": next((r.status for r in self.runs if r.status != "finished"), "finished"),
            "folder": str(self.runs[0].folder),
            "folders": [str(r.folder) for r in self.runs],
            "left_out": self.runs[0].left_out,
            "warnings": list(dict.fromkeys(w for r in self.runs for w in r.warnings)),
            "error": next((r.first_error for r in self.runs if r.first_error), ""),
        }


@attrs.frozen(kw_only=True)
class Report:
    """All systems on one dataset, over all seeds. ``chosen_on`` says how the best single model was chosen, if any."""

    dataset: str
    seeds: tuple[int, ...]
    metric: str
    rows: tuple[Row, ...]
    chosen_on: str

    @property
    def best(self) -> Row | None:
        """The best single model's row."""
        return next((r for r in self.rows if r.best), None)

    def data(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {
            "dataset": self.dataset,
            "seeds": list(self.seeds),
            "metric": self.metric,
            "best_single_chosen_on": self.chosen_on or None,
            "rows": [r.data() for r in self.rows],
        }


def mean_units(runs: Sequence[RunResult]) -> tuple[Unit, ...]:
    """Return the mean score of every unit over the runs that have it, in the order of the first."""
    if len(runs) == 1:
        return runs[0].units
    found: dict[str, list[Unit]] = {}
    for unit in (u for run in runs for u in run.units):
        found.setdefault(unit.id, []).append(unit)
    return tuple(Unit(id, _mean([u.score for u in units]), units[0].subset) for id, units in found.items())


def best_single(systems: Mapping[str, Sequence[RunResult]]) -> tuple[str, str]:
    """Return the key of the best single model and how it was chosen: by dev score, else (no dev split) by test score.

    ``systems`` are the runs of every system. Two empty texts if no single model has a score.
    """
    singles = {key: runs for key, runs in systems.items() if runs[0].role == "baseline" and any(r.units for r in runs)}
    if not singles:
        return "", ""
    dev = {key: [r.dev_mean for r in runs if r.dev_mean is not None] for key, runs in singles.items()}
    if all(dev.values()):
        return max(singles, key=lambda key: _mean(dev[key])), "dev"  # of equals, the first
    # choosing on test favours the baseline, never a method
    return max(singles, key=lambda key: _mean([u.score for u in mean_units(singles[key])])), "test (no dev split)"


def make_reports(results: Iterable[RunResult]) -> list[Report]:
    """Compare runs with each other that differ in method and seed alone: on one dataset, with one pool and metric."""
    groups: dict[str, list[RunResult]] = {}
    for result in sorted(results, key=lambda r: r.position):
        compared = {name: part for name, part in result.config.items() if name not in ("pool", "method", "seed")}
        groups.setdefault(canonical([compared, result.models]), []).append(result)
    return [_report(members) for members in groups.values()]


def shown(reports: Sequence[Report], catalogue: Catalogue, columns: Sequence[str] = ()) -> Sequence[Any]:
    """Return reports as a package of the group ``moco.report`` shows them, which refuses unknown columns; else as they are."""
    for info in catalogue.plugins("report").values():
        return catalogue.entry(info)(reports, columns)  # type: ignore[no-any-return]
    return reports


def _report(members: Sequence[RunResult]) -> Report:
    runs: dict[str, dict[int, RunResult]] = {}
    for result in members:  # a system is what was configured, whatever it is called
        runs.setdefault(canonical([result.label, result.config["method"]]), {})[result.seed] = result
    systems = {key: tuple(by_seed.values()) for key, by_seed in runs.items()}
    best, chosen_on = best_single(systems)
    units = {key: mean_units(found) for key, found in systems.items()}
    seed = members[0].seed
    rows = [
        Row(
            label=found[0].label,
            role=found[0].role,
            best=key == best,
            estimate=estimate(units[key], seed),
            versus=compare(units[key], units[best], seed) if best and key != best else None,
            runs=found,
            units=units[key],
        )
        for key, found in systems.items()
    ]
    rows.sort(key=lambda r: (_ORDER.index(r.role), r.estimate.mean if r.estimate else -1.0))
    return Report(
        dataset=members[0].dataset,
        seeds=tuple(dict.fromkeys(r.seed for r in members)),
        metric=members[0].metric,
        rows=tuple(rows),
        chosen_on=chosen_on,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
