"""Every two of several systems: differences, p corrected for their number, and groups that cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np

from moco_core import Estimate, RunResult, Unit, estimate
from moco_core.cli.screen import printable
from moco_core.runs.report import mean_units
from moco_core.runs.stats import bonett_price
from moco_core.types import canonical
from moco_toolkit_comparison import holm, interval, letters, pairwise
from moco_toolkit_comparison.words import brief

__all__ = ["Grid", "grid_of"]

_MANY = 12
"""Systems from which on the pairs are no longer listed."""


@attrs.frozen(kw_only=True)
class System:
    """One system: its runs with one seed each, and the means over seeds of every question."""

    label: str
    runs: tuple[RunResult, ...]
    units: tuple[Unit, ...]
    score: Estimate
    group: str = ""


@attrs.frozen(kw_only=True)
class Two:
    """``system`` minus ``other`` on the ``n`` questions that both have; ``p_holm`` is corrected for all pairs."""

    system: str
    other: str
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    n: int
    p: float
    p_holm: float


@attrs.frozen(kw_only=True)
class Grid:
    """Systems, best first, and every two of them that share questions."""

    systems: tuple[System, ...]
    pairs: tuple[Two, ...]
    level: float

    def lines(self) -> Iterator[str]:
        """Yield the systems with their letters, then the pairs."""
        first = self.systems[0].runs[0]
        yield f"{len(self.systems)} systems on {first.dataset}, metric {first.metric}; p by Holm over {len(self.pairs)} pairs"
        table = [("system", "score", "95% interval", "group", "n", "seeds")]
        for s in self.systems:
            span = f"[{s.score.low:.3f}, {s.score.high:.3f}]"
            table.append((_short(s.label), f"{s.score.mean:.3f}", span, s.group, str(s.score.n), str(len(s.runs))))
        yield from _aligned(table)
        yield f"systems that share a letter cannot be told apart at {self.level:.0%}"
        if len(self.systems) > _MANY:
            yield f"the {len(self.pairs)} pairs are in --json"
            return
        yield ""
        pairs = [("system", "other", "difference", "95% interval", "p", "p Holm", "won", "lost")]
        for t in self.pairs:
            span, counts = f"[{t.low:+.3f}, {t.high:+.3f}]", (str(t.wins), str(t.losses))
            pairs.append(
                (_short(t.system), _short(t.other), f"{t.difference:+.3f}", span, _p(t.p), _p(t.p_holm), *counts)
            )
        yield from _aligned(pairs, texts=2)

    def data(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        first = self.systems[0].runs[0]
        return {
            "dataset": first.dataset,
            "metric": first.metric,
            "level": self.level,
            "systems": [
                {
                    "label": s.label,
                    "group": s.group,
                    "score": attrs.asdict(s.score),
                    "folders": [str(r.folder) for r in s.runs],
                }
                for s in self.systems
            ],
            "pairs": [attrs.asdict(two) for two in self.pairs],
        }


def grid_of(runs: Sequence[RunResult]) -> Grid:
    """Compare every two systems; runs that differ in their seed alone are one. Their level is the strictest of the runs'."""
    found: dict[str, list[RunResult]] = {}
    for run in runs:
        found.setdefault(
            canonical([run.label, run.config["method"], run.config["dataset"], run.config["metric"]]), []
        ).append(run)
    level = max((r.rule.get("level", 0.95) for r in runs), default=0.95)
    systems = [_system(members) for members in found.values()]
    systems.sort(key=lambda s: -s.score.mean)
    ids = dict.fromkeys(u.id for s in systems for u in s.units)
    scores = np.array([[{u.id: u.score for u in s.units}.get(id, math.nan) for id in ids] for s in systems])
    raw, places = pairwise(scores), [(i, j) for j in range(len(systems)) for i in range(j)]
    shared = [p for p in places if not np.isnan(scores[p[0]] - scores[p[1]]).all()]
    corrected = holm([float(raw[place]) for place in shared])
    differ = np.zeros(raw.shape, dtype=bool)
    pairs = []
    for (i, j), p in zip(shared, corrected, strict=True):
        assert p is not None  # every pair has a test
        differ[i, j] = differ[j, i] = p < 1 - level
        pairs.append(_two(systems[i].label, systems[j].label, scores[[i, j]], float(raw[i, j]), p, level))
    groups = letters(differ)
    named = tuple(attrs.evolve(s, group=g) for s, g in zip(systems, groups, strict=True))
    return Grid(systems=named, pairs=tuple(pairs), level=level)


def _system(members: Sequence[RunResult]) -> System:
    units = mean_units(members)
    score = estimate(units, members[0].seed)
    assert score is not None, "runs without scores are refused"
    return System(label=members[0].label, runs=tuple(members), units=units, score=score)


def _two(system: str, other: str, scores: Any, p: float, p_holm: float, level: float) -> Two:
    scores = scores[:, ~np.isnan(scores).any(axis=0)]
    difference = scores[0] - scores[1]
    wins, losses, n = int((difference > 0).sum()), int((difference < 0).sum()), difference.size
    if np.isin(scores, (0.0, 1.0)).all():
        low, high = bonett_price(wins, losses, n, level)
    else:
        low, high = interval([difference[None]], lambda means: means[0][:, 0], level=level)
    return Two(
        system=system, other=other, difference=float(difference.mean()), low=low, high=high,
        wins=wins, losses=losses, n=n, p=p, p_holm=p_holm,
    )  # fmt: skip


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _short(text: str) -> str:
    return brief(printable(" ".join(text.split())), 24)


def _aligned(table: Sequence[Sequence[str]], texts: int = 1) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(
            c.ljust(w) if i < texts else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
