"""What the cascade learns from dev: every level's replies in a table, and the thresholds that the table suggests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import ConfigError, Context, Example, Model, ModelCallError, Pool, Reply
from moco_method_cascade.asking import Step, ask
from moco_method_cascade.diagnostics import auroc, curve
from moco_method_cascade.head import Head, fit_head
from moco_method_cascade.options import Options, per_level
from moco_method_cascade.thresholds import Table, by_fraction, oracle, search, simulate
from moco_toolkit_routing import pricing

__all__ = ["Fitted", "fit", "levels_of"]


@attrs.frozen(kw_only=True)
class Fitted:
    """Thresholds of all levels but the last, and for ``deferral`` and ``scorer`` what tells (None: nothing to tell)."""

    thresholds: tuple[float, ...]
    heads: tuple[Head | None, ...] = ()
    scorers: tuple[Model | None, ...] = ()


def levels_of(pool: Sequence[Model]) -> list[Model]:
    """Return who is asked, from weak to strong: the members that write text."""
    return [model for model in pool if model.can("generate")]


async def fit(pool: Pool, dev: Sequence[Example], options: Options, context: Context) -> Fitted:
    """Answer dev at the levels, learn heads and thresholds, and tell what the cascade does on dev."""
    everybody, pool = pool, Pool(levels_of(pool))
    steps, scores = await _answer(pool, dev, options, context)
    heads: tuple[Head | None, ...] = ()
    if options.confidence == "deferral":
        heads = _learn(pool, steps, scores, context)
    scorers: tuple[Model | None, ...] = ()
    if options.confidence == "scorer":
        from moco_method_cascade.scorer import learn_scorers

        scorers, held, steps = await learn_scorers(everybody, pool, dev, steps, scores, options, context)
        scores = [[level[q] for q in held] for level in scores]
        context.note(thresholds_set_on=len(held))
    table = _table(pool, steps, scores)
    _check_costs(pool, table, options)
    if options.select == "fixed":
        thresholds = per_level(options.thresholds, len(pool) - 1)
    else:
        thresholds = _choose(table, options, context)
    _report(pool, steps, table, thresholds, options, context)
    return Fitted(thresholds=thresholds, heads=heads, scorers=scorers)


async def _answer(
    pool: Pool, dev: Sequence[Example], options: Options, context: Context
) -> tuple[list[list[Step]], list[list[float]]]:
    """Answer dev at every level, all with the settings of test time; return steps and scores by level and question.

    A failed call defers. If it is the last level's, the deepest earlier reply stands, as it does in a test.
    """
    models = list(pool) if options.whole else list(pool)[:-1]
    prices = pricing(pool, options.prices)

    async def one(example: Example, scope: Context) -> list[tuple[Step, float]]:
        async def at(level: int, model: Model) -> tuple[Step, float]:
            try:
                step = await ask(level, model, example.question, scope, options, prices, check=level < len(pool) - 1)
            except ModelCallError:
                return Step(), 0.0
            assert step.reply is not None  # ask returns a reply or raises
            return step, (await scope.grade(example, Reply.of(step.reply))).value or 0.0

        row = await scope.gather(at(level, model) for level, model in enumerate(models))
        if len(row) == len(pool) and row[-1][0].reply is None:
            said = [score for step, score in row if step.reply is not None and step.reply.text.strip()]
            row[-1] = (row[-1][0], said[-1] if said else 0.0)
        return row

    rows = await context.each(dev, one, label="cascade on dev")
    levels = [[row[level] for row in rows] for level in range(len(models))]
    return [[step for step, _ in level] for level in levels], [[score for _, score in level] for level in levels]


def _learn(
    pool: Pool, steps: list[list[Step]], scores: Sequence[Sequence[float]], context: Context
) -> tuple[Head | None, ...]:
    """Fit a head per level, and put its cross-fitted confidences into the steps."""
    heads = []
    for level in range(len(pool) - 1):
        rows = [step.reply.token_logprobs if step.reply is not None else None for step in steps[level]]
        keeps = [after <= mine for mine, after in zip(scores[level], scores[level + 1], strict=True)]
        head, confidences = fit_head(rows, keeps)
        if head is None:
            context.warn(
                f"cascade: on dev {pool[level + 1].name} is better than {pool[level].name} always or never, so that nothing "
                "can be learnt about when to defer; that level is left out"
            )
        heads.append(head)
        # an empty reply stays at minus infinity
        steps[level] = [
            step if step.confidence == -math.inf else attrs.evolve(step, confidence=value)
            for step, value in zip(steps[level], confidences, strict=True)
        ]
    return tuple(heads)


def _table(pool: Pool, steps: Sequence[Sequence[Step]], scores: Sequence[Sequence[float]]) -> Table:
    """Return the table of all levels; what is not known of a last level that dev was not asked at is NaN."""
    questions = len(steps[0])
    unknown = [] if len(steps) == len(pool) else [[math.nan] * questions]
    free = [[0.0] * questions] * len(unknown)
    return Table(
        confidence=[[step.confidence for step in level] for level in steps[: len(pool) - 1]],
        score=[*scores, *unknown],
        cost=[*([step.cost for step in level] for level in steps), *free],
        check=[*([step.check for step in level] for level in steps), *free],
    )


def _check_costs(pool: Pool, table: Table, options: Options) -> None:
    """Raise ConfigError if the cost of a reply decides and is unknown."""
    if options.select not in ("budget", "target"):
        return
    for model, replies, checks in zip(pool, table.cost, table.check, strict=True):
        lacking = sum(math.isnan(a + b) for a, b in zip(replies, checks, strict=True))
        if lacking:
            raise ConfigError(
                f"cascade.select: {options.select} needs the cost of every dev reply, and what {lacking} of "
                f"{model.name!r} cost is unknown (no usage was reported); choose accept_fraction or fixed"
            )


def _choose(table: Table, options: Options, context: Context) -> tuple[float, ...]:
    """Return the thresholds that the table suggests. Raises ConfigError if no setting is within the budget."""
    if options.select == "accept_fraction":
        return _by_fraction(table, options, context)
    if options.select == "budget":
        setting = search(table, grid=options.grid, max_depth=options.max_depth, budget=options.budget)
        if setting is None:
            least = min(math.fsum(row) / table.questions for row in table.cost)
            raise ConfigError(f"cascade.budget: {options.budget:g} is below the cheapest level's {least:g}; raise it")
        return setting.thresholds
    wanted = (options.target or 1.0) * max(math.fsum(row) / table.questions for row in table.score)
    setting = search(table, grid=options.grid, max_depth=options.max_depth, target=wanted)
    if setting is None:
        setting = search(table, grid=options.grid, max_depth=options.max_depth, budget=math.inf)
        assert setting is not None  # every setting is within an infinite budget
        context.warn(f"cascade: no setting scores {wanted:.3f} on dev; the best one scores {setting.score:.3f}")
    return setting.thresholds


def _by_fraction(table: Table, options: Options, context: Context) -> tuple[float, ...]:
    fractions = per_level(options.accept_fraction, table.levels - 1)
    thresholds, shares = by_fraction(table.confidence, fractions)
    reached = table.questions
    for level, (wanted, got) in enumerate(zip(fractions, shares, strict=True), 1):
        if got == 0.0:
            context.warn(f"cascade: level {level} never gave a usable confidence on dev and is left out")
        elif abs(wanted - got) > 1 / (reached or table.questions) + 1e-9:
            context.warn(
                f"cascade: level {level} accepts {got:.0%} of the dev questions that reach it instead of {wanted:.0%}, "
                f"because many of its confidences ({options.confidence}) are equal"
            )
        reached -= round(got * reached)
    return tuple(thresholds)


def _report(
    pool: Pool,
    steps: Sequence[Sequence[Step]],
    table: Table,
    thresholds: Sequence[float],
    options: Options,
    context: Context,
) -> None:
    """Note share, score and cost per level and of the whole on dev, and how well confidences tell right from wrong.

    Warn if dev contradicts the order of the models.
    """
    score, cost, outcomes = simulate(table, thresholds)
    known = len(steps)
    means = [math.fsum(row) / table.questions for row in table.score[:known]]
    masses = [[step.mass for step in level if step.mass is not None] for level in steps]
    levels = [
        {
            "model": model.name,
            "threshold": str(tau) if math.isinf(tau) else tau,
            "share": outcome.accepted / table.questions,
            "score": _finite(outcome.score),
            "cost": _finite(outcome.cost / table.questions),
        }
        for model, tau, outcome in zip(pool, (*thresholds, -math.inf), outcomes, strict=True)
    ]
    for level, row in enumerate(levels[:-1]):
        row["auroc"] = auroc(table.confidence[level], table.score[level])
        if masses[level]:
            row["verdict_mass"] = math.fsum(masses[level]) / len(masses[level])
    note: dict[str, Any] = {
        "levels": levels,
        "cost_unit": pricing(pool, options.prices).unit,
        "alone": dict(zip(pool.names, means, strict=False)),
    }
    if options.whole:
        best, best_cost = oracle(table)
        note |= {
            "score": score,
            "cost": _finite(cost),
            "oracle": {"score": best, "cost": _finite(best_cost)},
            "curve": curve(table),
        }
    context.note(**note)
    wrong = [
        f"{pool[i].name} ({means[i]:.3f}) before {pool[i + 1].name} ({means[i + 1]:.3f})"
        for i in range(known - 1)
        if means[i] > means[i + 1]
    ]
    if wrong:
        context.warn(
            f"cascade: the pool should go from weak to strong, dev says otherwise: {'; '.join(wrong)}; reorder the pool"
        )


def _finite(value: float | None) -> float | None:
    """JSON has no infinities: what is unknown is None."""
    return value if value is not None and math.isfinite(value) else None
