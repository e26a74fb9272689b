"""How acceptance thresholds are set on a table of dev confidences, scores and costs. Pure functions.

Level i accepts a reply with confidence c if c >= tau_i. A threshold of plus infinity never accepts: the level is left
out and costs nothing; minus infinity accepts everything, so no confidence is computed and later levels are never
reached. With those two values at the ends of every grid, all order-preserving sub-lists of the levels are among the
settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

__all__ = ["Outcome", "Setting", "Table", "by_fraction", "oracle", "search", "simulate"]


@attrs.frozen(kw_only=True)
class Table:
    """What the levels did on dev: ``[level][question]``.

    ``confidence`` lacks the last level. ``cost`` is that of a reply, ``check`` that of its confidence.
    """

    confidence: Sequence[Sequence[float]]
    score: Sequence[Sequence[float]]
    cost: Sequence[Sequence[float]]
    check: Sequence[Sequence[float]]

    @property
    def levels(self) -> int:
        return len(self.confidence) + 1

    @property
    def questions(self) -> int:
        return len(self.confidence[0])


@attrs.frozen(kw_only=True)
class Setting:
    """Thresholds of all levels but the last, with their mean dev score and cost; ``depth`` counts the levels in use."""

    thresholds: tuple[float, ...]
    score: float
    cost: float
    depth: int


@attrs.frozen(kw_only=True)
class Outcome:
    """What one level does on dev: how many questions reach it and stop there, their mean score, and its cost in all."""

    reached: int
    accepted: int
    score: float | None
    cost: float


def by_fraction(confidence: Sequence[Sequence[float]], fractions: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return one threshold per level, and the share of the questions reaching it that each accepts.

    Level i accepts the fraction f_i of those that still reach it, most confident first: tau_i is the (1 - f_i) quantile
    of their confidences, taken as one of their values. Among equal confidences the nearest possible share decides.
    """
    surviving = list(range(len(confidence[0])))
    thresholds, shares = [], []
    for row, fraction in zip(confidence, fractions, strict=True):
        pool = surviving or list(range(len(row)))  # nobody left: what the level does on all questions is the best guess
        values = sorted({row[j] for j in pool if math.isfinite(row[j])}, reverse=True)
        best: tuple[float, float, float] | None = None
        for value in values:
            share = sum(row[j] >= value for j in pool) / len(pool)
            # a lower threshold wins a draw: it is the cheaper one
            if best is None or abs(share - fraction) <= best[0]:
                best = (abs(share - fraction), value, share)
        threshold, share = (math.inf, 0.0) if best is None else best[1:]
        thresholds.append(threshold)
        shares.append(share)
        surviving = [j for j in surviving if not row[j] >= threshold]
    return thresholds, shares


def simulate(table: Table, thresholds: Sequence[float]) -> tuple[float, float, list[Outcome]]:
    """Return mean score, mean cost and what each level does on dev under given thresholds."""
    surviving = list(range(table.questions))
    outcomes, total_score, total_cost = [], 0.0, 0.0
    for level, threshold in enumerate((*thresholds, -math.inf)):
        if threshold == math.inf or not surviving:
            outcomes.append(Outcome(reached=0, accepted=0, score=None, cost=0.0))
            continue
        everything = threshold == -math.inf
        accepted = surviving if everything else [j for j in surviving if table.confidence[level][j] >= threshold]
        cost = math.fsum(table.cost[level][j] for j in surviving)
        if not everything:
            cost += math.fsum(table.check[level][j] for j in surviving)
        score = math.fsum(table.score[level][j] for j in accepted)
        mean = score / len(accepted) if accepted else None
        outcomes.append(Outcome(reached=len(surviving), accepted=len(accepted), score=mean, cost=cost))
        total_score, total_cost = total_score + score, total_cost + cost
        taken = set(accepted)
        surviving = [j for j in surviving if j not in taken]
    return total_score / table.questions, total_cost / table.questions, outcomes


def oracle(table: Table) -> tuple[float, float]:
    """Return mean score and cost of stopping every question at its first level with the best score of all."""
    score = cost = 0.0
    for j in range(table.questions):
        column = [row[j] for row in table.score]
        stop = column.index(max(column))
        score += column[stop]
        cost += math.fsum(table.cost[level][j] for level in range(stop + 1))
    return score / table.questions, cost / table.questions


def search(
    table: Table, *, grid: int, max_depth: int | None = None, budget: float | None = None, target: float | None = None
) -> Setting | None:
    """Return the best thresholds, or None if none is feasible.

    With ``budget``: the best mean score at a mean cost of at most ``budget`` (FrugalGPT). With ``target``: the lowest
    mean cost at a mean score of at least ``target``. Ties go to the cheaper setting (the better one under ``target``),
    then to fewer levels. Every level tries ``grid`` quantiles of the confidences that still reach it: this is
    exhaustive, less the branches that provably hold nothing better.
    """
    return _Search(table, grid, max_depth or table.levels, budget, target).run()


class _Search:
    """Depth-first search over the levels with bounds on what the rest can still give."""

    def __init__(self, table: Table, grid: int, max_depth: int, budget: float | None, target: float | None) -> None:
        n, last = table.questions, table.levels - 1
        self.table, self.grid, self.max_depth, self.last = table, grid, max_depth, last
        self.limit = math.inf if budget is None else budget * n * (1 + 1e-12)
        self.floor = -math.inf if target is None else target * n - 1e-9
        self.by_cost = target is not None
        self.best: tuple[float, float, int] | None = None
        self.found: tuple[tuple[float, ...], float, float, int] | None = None
        # the most a question can score, and the least it must cost, from a level on
        self.most = [[max(table.score[k][j] for k in range(i, last + 1)) for j in range(n)] for i in range(last + 1)]
        self.least = [[min(table.cost[k][j] for k in range(i, last + 1)) for j in range(n)] for i in range(last + 1)]

    def run(self) -> Setting | None:
        self._level(0, list(range(self.table.questions)), 0.0, 0.0, (), 0)
        if self.found is None:
            return None
        taus, score, cost, depth = self.found
        n = self.table.questions
        return Setting(thresholds=taus, score=score / n, cost=cost / n, depth=depth)

    def _level(self, i: int, rows: list[int], score: float, cost: float, taus: tuple[float, ...], depth: int) -> None:
        table = self.table
        if depth == self.max_depth or self._hopeless(
            score + sum(self.most[i][j] for j in rows), cost + sum(self.least[i][j] for j in rows)
        ):
            return
        asked = cost + math.fsum(table.cost[i][j] for j in rows)
        everything = score + math.fsum(table.score[i][j] for j in rows)
        closing = () if i == self.last else (-math.inf,) * (self.last - i)
        self._offer(everything, asked, taus + closing, depth + 1)
        if i == self.last:
            return
        checked = asked + math.fsum(table.check[i][j] for j in rows)
        if depth + 1 < self.max_depth and checked <= self.limit:
            self._thresholds(i, rows, score, checked, taus, depth + 1)
        self._level(i + 1, rows, score, cost, (*taus, math.inf), depth)

    def _thresholds(
        self, i: int, rows: list[int], score: float, cost: float, taus: tuple[float, ...], depth: int
    ) -> None:
        """Try the quantiles of the confidences that reach level i; what accepts everybody was tried before."""
        table, confidence = self.table, self.table.confidence[i]
        ranked = sorted((j for j in rows if math.isfinite(confidence[j])), key=lambda j: -confidence[j])
        rest = [j for j in rows if not math.isfinite(confidence[j])]
        seen = 0
        gained = 0.0
        left_score = sum(table.score[self.last][j] for j in rows)
        left_cost = sum(table.cost[self.last][j] for j in rows)
        for point in range(1, self.grid):
            count = min(len(ranked), max(1, round(point / (self.grid - 1) * len(rows))))
            while 0 < count < len(ranked) and confidence[ranked[count]] == confidence[ranked[count - 1]]:
                count += 1
            if count <= seen or count == len(rows):
                continue
            for j in ranked[seen:count]:
                gained += table.score[i][j]
                left_score -= table.score[self.last][j]
                left_cost -= table.cost[self.last][j]
            seen = count
            chosen = (*taus, confidence[ranked[count - 1]])
            if i + 1 == self.last:
                self._offer(score + gained + left_score, cost + left_cost, chosen, depth + 1)
            else:
                self._level(i + 1, ranked[count:] + rest, score + gained, cost, chosen, depth)

    def _hopeless(self, most: float, least: float) -> bool:
        if least > self.limit or most < self.floor:
            return True
        if self.best is None:
            return False
        key = self._key(most, least, 0)
        return key[:2] < self.best[:2]

    def _offer(self, score: float, cost: float, taus: tuple[float, ...], depth: int) -> None:
        if cost > self.limit or score < self.floor:
            return
        key = self._key(score, cost, depth)
        if self.best is None or key > self.best:
            self.best, self.found = key, (taus, score, cost, depth)

    def _key(self, score: float, cost: float, depth: int) -> tuple[float, float, int]:
        """Return what is maximised, rounded so that sums in another order still tie."""
        gain, saving = float(f"{score:.10g}"), -float(f"{cost:.10g}")
        return (saving, gain, -depth) if self.by_cost else (gain, saving, -depth)
