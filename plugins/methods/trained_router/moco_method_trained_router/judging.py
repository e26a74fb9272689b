"""What the router is told to be worth: notes and warnings about dev, none of which changes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moco_core import Context
from moco_method_trained_router.choosing import choose
from moco_method_trained_router.fitting import Learnt
from moco_method_trained_router.options import Options
from moco_toolkit_routing import Outcomes, cost_curve, report, strong_curve, wins_by_fold

__all__ = ["judge", "tell_lesson"]


def tell_lesson(outcomes: Outcomes, usable: Sequence[int], options: Options, context: Context) -> None:
    """Note dev scores and how much there is to learn; warn about models that are never best, and about a missing cost."""
    winners = outcomes.winners(options.tie_eps)
    counts = [sum(i in won and len(won) < len(outcomes.names) for won in winners) for i in range(len(outcomes.names))]
    context.note(
        dev_scores=dict(zip(outcomes.names, outcomes.means(), strict=True)),
        relative_costs=dict(zip(outcomes.names, outcomes.relative_costs, strict=True)),
        cost_unit=outcomes.unit,
        best_on=dict(zip(outcomes.names, counts, strict=True)),
        learnt_from=len(usable),
    )
    never = [name for name, count in zip(outcomes.names, counts, strict=True) if not count]
    if never and len(never) < len(counts):
        context.warn(f"trained_router: never best on dev, and so hardly ever chosen: {', '.join(never)}")
    if options.cost_weight and not outcomes.cost_signal:
        context.warn("trained_router: the models' costs are equal or unknown: no cost signal, cost_weight does nothing")
    wanted = options.parts
    if 1 < len(winners) < wanted:
        context.warn(f"trained_router: {len(winners)} dev questions are too few for {wanted} folds: one fold for each")
    if len(winners) == 1:
        context.warn("trained_router: one dev question: nothing is held out, and what was learnt cannot be judged")


def judge(
    outcomes: Outcomes, learnt: Learnt, fallback: int, threshold: float | None, options: Options, context: Context
) -> None:
    """Note what routing is worth on dev questions that the routers asked had not seen; warn where it is below the best."""
    rows = list(range(outcomes.questions)) if learnt.parts else list(learnt.held)
    values = list(learnt.values if learnt.parts else learnt.held_values)
    if not rows:
        return
    costs, part = outcomes.relative_costs, outcomes.only(rows)
    found = [choose(row, costs, threshold, options) for row in values]
    routes = [fallback if choice is None else choice for choice in found]
    figures: dict[str, Any] = {
        "routing": report(part, routes),
        "judged_by": f"{len(learnt.parts)} folds" if learnt.parts else "the held-out share",
    }
    if learnt.parts:
        figures["by_fold"] = wins_by_fold(outcomes, routes, learnt.parts)
    if options.mode == "binary":
        wins = [row[1] if row else 0.0 for row in values]
        figures["curve"] = strong_curve(wins, part.scores[0], part.scores[1])
    elif curve := cost_curve(part, values):
        figures["curve"] = curve
    context.note(**figures)
    worth = figures["routing"]
    if worth["routed"] < worth["best_single"]:
        context.warn(
            f"trained_router: on dev questions that it has not seen, routing scores {worth['routed']:.3f} and the best "
            f"single model ({worth['best_single_model']}) {worth['best_single']:.3f}"
        )
