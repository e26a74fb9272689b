"""All that a report can say of its systems beyond score and p: ceilings, corrected tests, groups, emergence, verdicts, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import median, stdev
from typing import Any

import attrs
import numpy as np

from moco_core import Report, Row, Versus, compare
from moco_toolkit_comparison.costs import NOT_OURS, QUANTITIES, Amount, answering, costs, front, total
from moco_toolkit_comparison.power import detectable
from moco_toolkit_comparison.statistics import Array, gap_closed, holm, letters, pairwise, resampled
from moco_toolkit_comparison.verdicts import Rule, Verdict, judge

__all__ = ["Comparison", "Emergence", "Standing", "table_of"]


@attrs.frozen
class Emergence:
    """Of the ``open`` questions that no single model got right, how many the system did; a mean over seeds."""

    solved: float
    open: float

    @property
    def share(self) -> float | None:
        return self.solved / self.open if self.open else None


@attrs.frozen(kw_only=True)
class Standing:
    """One system of a report and what is said of it.

    ``p_holm`` is its p against the best single model, corrected for all systems of the report; ``group`` holds the letters of
    those it cannot be told apart from. ``cost`` are amounts per question, ``times`` how many times the best single model's.
    ``versus_controls`` compares a method with each of its controls. ``of`` names the method that a control belongs to,
    ``control`` what it is; ``efficient`` says that no system is both cheaper and better.
    """

    row: Row
    p_holm: float | None
    group: str
    gap: float | None
    gap_interval: tuple[float, float] | None
    emergence: Emergence | None
    control_emergence: Mapping[str, Emergence]
    seed_sd: float | None
    verdict: Verdict | None
    versus_controls: Mapping[str, Versus]
    cost: Mapping[str, Amount]
    times: Amount
    efficient: bool
    control: str
    of: str

    @property
    def label(self) -> str:
        return self.row.label


def table_of(rows: Sequence[Row]) -> Array:
    """Return scores (systems, units) over all units that any system has; NaN where one is missing."""
    places: dict[str, int] = {}
    for row in rows:
        for unit in row.units:
            places.setdefault(unit.id, len(places))
    table = np.full((len(rows), len(places)), np.nan)
    for i, row in enumerate(rows):
        for unit in row.units:
            table[i, places[unit.id]] = unit.score
    return table


@attrs.frozen(slots=False)
class Comparison:
    """A report, looked into. ``prices`` replace what the models cost when they were asked.

    ``oracle`` is the mean of the best reply that any single model gave per question, ``random`` the expected score of a
    member drawn at random, ``chance`` that of a guess; None where it is not known.
    """

    report: Report
    prices: Mapping[str, tuple[float, float]] | None = None

    # ---------------------------------------------------------------- ceilings and floors

    @cached_property
    def singles(self) -> tuple[Row, ...]:
        return tuple(r for r in self.report.rows if r.role == "baseline" and r.units)

    @cached_property
    def _single_scores(self) -> Array:
        return table_of(self.singles)

    @property
    def oracle(self) -> float | None:
        return float(np.nanmax(self._single_scores, axis=0).mean()) if self.singles else None

    @property
    def random(self) -> float | None:
        return float(np.nanmean(self._single_scores, axis=0).mean()) if self.singles else None

    @property
    def chance(self) -> float | None:
        return next((r.chance for row in self.report.rows for r in row.runs if r.chance is not None), None)

    # ---------------------------------------------------------------- differences

    @cached_property
    def scored(self) -> tuple[Row, ...]:
        """The systems that have scores, best first."""
        found = [r for r in self.report.rows if r.estimate]
        return tuple(sorted(found, key=lambda r: -r.estimate.mean if r.estimate else 0))

    @cached_property
    def scores(self) -> Array:
        return table_of(self.scored)

    @cached_property
    def p_values(self) -> Array:
        """The corrected p of every pair of ``scored`` systems."""
        raw = pairwise(self.scores)
        pairs = [(i, j) for i in range(len(raw)) for j in range(i)]
        for (i, j), p in zip(pairs, holm([float(raw[i, j]) for i, j in pairs]), strict=True):
            raw[i, j] = raw[j, i] = p
        return raw

    @property
    def detectable(self) -> float | None:
        """The smallest difference to the best single model that would be found 8 times in 10, at the usual disagreement."""
        best, found = self.report.best, []
        for row in self.report.rows:
            if best is not None and row.role == "method" and row.units:
                a, b = table_of([row, best])
                difference = (a - b)[~np.isnan(a - b)]
                found.append(detectable(difference, level=self.rule.level))
        known = [f for f in found if f is not None]
        return median(known) if known else None

    @cached_property
    def rule(self) -> Rule:
        """What the configuration of the runs fixed for verdicts; the strictest where they differ."""
        found = [r.rule for row in self.report.rows for r in row.runs if r.rule]
        return Rule(max(f["level"] for f in found), max(f["gain"] for f in found)) if found else Rule()

    # ---------------------------------------------------------------- systems

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """All systems, in the order of the report."""
        rows, best = self.report.rows, self.report.best
        corrected = holm([r.versus.p_value if r.versus else None for r in rows])
        groups = {id(r): g for r, g in zip(self.scored, letters(self.p_values < 1 - self.rule.level), strict=True)}
        cost = [answering(r.runs, self.prices) for r in rows]
        unit = self.unit
        own = cost[rows.index(best)][unit] if best is not None else Amount(None)
        efficient = front([(c[unit].value, r.estimate.mean if r.estimate else None) for r, c in zip(rows, cost, strict=True)])
        return tuple(
            Standing(
                row=row,
                p_holm=corrected[i],
                group=groups.get(id(row), ""),
                gap=self._gap(row),
                gap_interval=self._gap_interval(row),
                emergence=self.emergence(row),
                control_emergence={c: e for c, r in self.controls(row).items() if (e := self.emergence(r))},
                seed_sd=stdev(row.seed_means.values()) if len(row.seed_means) > 1 else None,
                verdict=self._verdict(row),
                versus_controls={
                    c: v
                    for c, r in self.controls(row).items()
                    if (v := compare(row.units, r.units, self.report.seeds[0], self.rule.level)) is not None
                },
                cost=cost[i],
                times=_ratio(cost[i][unit], own),
                efficient=efficient[i],
                control=_control_of(row),
                of=next((r.label for r in rows if row in self.controls(r).values()), ""),
            )
            for i, row in enumerate(rows)
        )

    @property
    def unit(self) -> str:
        """In what systems are compared by cost: money where all of it is known, else tokens."""
        known = [answering(r.runs, self.prices)["money"] for r in self.report.rows if r.estimate]
        return "money" if known and all(a.value and not a.at_least for a in known) else "tokens"

    def controls(self, row: Row) -> dict[str, Row]:
        """Return the controls of a method by what they are (``self``, ``equal budget``, ``placebo``)."""
        if row.role != "method":
            return {}
        mine = row.runs[0].config["method"]
        return {_control_of(r): r for r in self.report.rows if r.role == "control" and _held_by(r) == mine and r.units}

    def emergence(self, row: Row) -> Emergence | None:
        """Return how much of what no single model got right the system did; None for single models and graded metrics."""
        if row.role == "baseline" or not self.singles or not all(r.binary for r in row.runs):
            return None
        found = []
        for run in row.runs:
            alone = [r for single in self.singles for r in single.runs if r.seed == run.seed]
            solved = {u.id for r in alone for u in r.units if u.score >= 1}
            tried = {u.id for r in alone for u in r.units} - solved
            mine = [u for u in run.units if u.id in tried]
            found.append((sum(u.score >= 1 for u in mine), len(mine)))
        return Emergence(*(sum(column) / len(found) for column in zip(*found, strict=True)))

    def _gap(self, row: Row) -> float | None:
        best = self.report.best
        if row.role == "baseline" or best is None or self.oracle is None or not (row.estimate and best.estimate):
            return None
        return gap_closed(row.estimate.mean, best.estimate.mean, self.oracle)

    def _gap_interval(self, row: Row) -> tuple[float, float] | None:
        best = self.report.best
        if best is None or self._gap(row) is None:
            return None
        mine, base, ceiling = (self._drawn[key] for key in (id(row), id(best), "oracle"))
        with np.errstate(divide="ignore", invalid="ignore"):
            gaps = (mine - base) / (ceiling - base)
        gaps = gaps[np.isfinite(gaps)]
        low, high = np.quantile(gaps, [0.025, 0.975]) if len(gaps) else (math.nan, math.nan)
        return None if math.isnan(low) else (float(low), float(high))

    @cached_property
    def _drawn(self) -> dict[int | str, Array]:
        """The bootstrap means of every system, and of the oracle, over the same questions."""
        rows = [r for r in self.report.rows if r.units]
        table = table_of([*rows, *self.singles])
        ceiling = np.fmax.reduce(table[len(rows) :], axis=0)  # NaN where no single model answered
        means = resampled(np.vstack([table[: len(rows)], ceiling]))
        return dict(zip([*map(id, rows), "oracle"], means.T, strict=True))

    def _verdict(self, row: Row) -> Verdict | None:
        best, seed = self.report.best, self.report.seeds[0]
        if row.role != "method" or best is None or not row.units:
            return None
        # a placebo asks what learning is worth, not what collaboration is
        against = {"best single": best, **{c: r for c, r in self.controls(row).items() if c != "placebo"}}
        found = {name: compare(row.units, other.units, seed, self.rule.level) for name, other in against.items()}
        return judge({name: (c.low, c.high) for name, c in found.items() if c is not None}, self.rule.gain)

    # ---------------------------------------------------------------- as data

    def curve(self) -> list[tuple[float, float]]:
        """Return (cost, score) of the best single model with growing budgets: alone, and as every equal-budget control."""
        points = [
            (s.cost[self.unit].value, s.row.estimate.mean)
            for s in self.standings
            if s.row.estimate and (s.row.best or s.control == "equal budget")
        ]
        return sorted((c, score) for c, score in points if c is not None)

    def data(self) -> dict[str, Any]:
        """Return the report as JSON data, with all of this."""
        body = self.report.data()
        for row, standing in zip(body["rows"], self.standings, strict=True):
            row |= _data(standing)
        return body | {
            "oracle": self.oracle,
            "random_pick": self.random,
            "chance": self.chance,
            "rule": attrs.asdict(self.rule),
            "detectable": self.detectable,
            "cost_unit": self.unit,
            "curve": self.curve(),
            "pairs": {"systems": [r.label for r in self.scored], "p_holm": self.p_values.tolist()},
        }


def _data(s: Standing) -> dict[str, Any]:
    lines = [(run.seed, line) for run in s.row.runs for line in costs(run)]
    return {
        "p_holm": s.p_holm,
        "group": s.group,
        "gap_closed": s.gap,
        "gap_closed_interval": s.gap_interval,
        "emergence": _emergence(s.emergence),
        "control_emergence": {name: _emergence(e) for name, e in s.control_emergence.items()},
        "seed_sd": s.seed_sd,
        "verdict": s.verdict and attrs.asdict(s.verdict),
        "versus_controls": {name: attrs.asdict(v) for name, v in s.versus_controls.items()},
        "control": s.control or None,
        "control_of": s.of or None,
        "cost_per_question": {name: attrs.asdict(amount) for name, amount in s.cost.items()},
        "cost_times_best_single": attrs.asdict(s.times),
        "cost_total": {n: attrs.asdict(a) for n, a in total(li for _, li in lines if li.phase not in NOT_OURS).items()},
        "costs": [
            {"seed": seed, "phase": li.phase, "role": li.role, "model": li.model, "saved": dict(li.saved)}
            | {name: attrs.asdict(li.amounts[name]) for name in QUANTITIES}
            for seed, li in lines
        ],
        "pareto": s.efficient,
    }


def _emergence(found: Emergence | None) -> dict[str, Any] | None:
    return None if found is None else {"solved": found.solved, "open": found.open, "share": found.share}


def _control_of(row: Row) -> str:
    return str(row.runs[0].config["method"].get("kind", "")).replace("_", " ") if row.role == "control" else ""


def _held_by(row: Row) -> Any:
    return row.runs[0].config["method"].get("method")


def _ratio(amount: Amount, own: Amount) -> Amount:
    if amount.value is None or not own.value or own.at_least:
        return Amount(None)
    return Amount(amount.value / own.value, amount.at_least)
