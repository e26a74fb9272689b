"""What every model did on every dev question: the table that routers learn from and are judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Evaluation, Example
from moco_toolkit_routing.pricing import Pricing

__all__ = ["Outcomes", "settled"]


@attrs.frozen(kw_only=True)
class Outcomes:
    """Scores and costs, model by question: ``scores[i][q]`` and ``costs[i][q]`` (NaN where a cost is unknown).

    ``subsets`` has one name per question, ``unit`` is that of the costs.
    """

    names: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    costs: tuple[tuple[float, ...], ...]
    subsets: tuple[str, ...]
    unit: str = ""

    @classmethod
    def of(cls, evaluation: Evaluation, dev: Sequence[Example], prices: Pricing) -> Outcomes:
        """Make the table of an evaluation on dev; what the metric does not score counts 0."""
        return cls(
            names=evaluation.names,
            scores=tuple(tuple(score or 0.0 for score in row) for row in evaluation.scores),
            costs=tuple(
                tuple(prices.cost(i, reply) for reply in replies) for i, replies in enumerate(evaluation.replies)
            ),
            subsets=tuple(example.question.subset for example in dev),
            unit=prices.unit,
        )

    @property
    def questions(self) -> int:
        return len(self.subsets)

    def only(self, rows: Sequence[int]) -> Outcomes:
        """Return the table of some questions."""
        return attrs.evolve(
            self,
            scores=tuple(tuple(row[q] for q in rows) for row in self.scores),
            costs=tuple(tuple(row[q] for q in rows) for row in self.costs),
            subsets=tuple(self.subsets[q] for q in rows),
        )

    def means(self, rows: Sequence[int] | None = None) -> tuple[float, ...]:
        """Return every model's mean score, on all questions or on some; 0 without any."""
        where = range(self.questions) if rows is None else rows
        return tuple(math.fsum(row[q] for q in where) / max(1, len(where)) for row in self.scores)

    def best(self, rows: Sequence[int] | None = None) -> int:
        """Return the model with the best mean score; of equal ones the cheaper, then the first."""
        means, costs = self.means(rows), self.relative_costs
        return max(range(len(means)), key=lambda i: (round(means[i], 9), -costs[i], -i))

    def mean_costs(self) -> tuple[float, ...]:
        """Return every model's mean cost of the replies whose cost is known; NaN where none is."""
        known = [[c for c in row if math.isfinite(c)] for row in self.costs]
        return tuple(math.fsum(row) / len(row) if row else math.nan for row in known)

    @property
    def relative_costs(self) -> tuple[float, ...]:
        """The models' mean costs as shares of the dearest one's; all 0 if one is unknown."""
        means = self.mean_costs()
        top = max(means, default=0.0)
        if not all(map(math.isfinite, means)) or top <= 0:
            return (0.0,) * len(means)
        return tuple(mean / top for mean in means)

    @property
    def cost_signal(self) -> bool:
        """Whether the models' costs are known and differ."""
        return len({round(cost, 9) for cost in self.relative_costs}) > 1

    def winners(self, tie: float = 0.0) -> list[tuple[int, ...]]:
        """Return, per question, the models whose score is within ``tie`` of the best."""
        columns = list(zip(*self.scores, strict=True))
        return [tuple(i for i, s in enumerate(column) if s >= max(column) - tie) for column in columns]


def settled(outcomes: Outcomes, tie: float = 0.0) -> list[int]:
    """Return the questions on which the models differ: only these say anything about who should answer."""
    return [q for q, won in enumerate(outcomes.winners(tie)) if len(won) < len(outcomes.names)]
