"""What a router learns from: one target per question, told by how the models did on dev."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import CapabilityError, ConfigError, Context, Evaluation, Example, Message, Model
from moco_method_trained_router.options import Options
from moco_toolkit_routing import Outcomes

__all__ = ["Lesson", "reward_model", "targets"]

Target = tuple[float, ...]


@attrs.frozen(kw_only=True)
class Lesson:
    """Dev as a router sees it.

    ``inputs`` is what it reads (None where a question could not be embedded), ``targets`` a share per model (None: nothing
    to learn), ``scores[q][i]`` how model i did.
    """

    inputs: Sequence[Target | None]
    targets: Sequence[Target | None]
    scores: Sequence[Target]

    def usable(self, rows: Sequence[int]) -> list[int]:
        """Return the questions among ``rows`` that can be learnt from."""
        return [q for q in rows if self.inputs[q] is not None and self.targets[q] is not None]

    @property
    def models(self) -> int:
        return len(self.scores[0])


def reward_model(options: Options) -> Model | None:
    """Return the model that ``tie=reward_model`` asks. Raises CapabilityError or ConfigError if it cannot judge."""
    if options.reward_model is None or options.tie != "reward_model":
        return None
    pool = options.reward_model.instance.pool
    if len(pool) != 1:
        raise ConfigError(f"reward_model: expected a pool of one model, got {len(pool)}")
    if not pool[0].can("reward"):
        raise CapabilityError(f"reward_model: {pool[0].name!r} has no head that scores a conversation ('reward')")
    judge: Model = pool[0]
    return judge


async def targets(
    dev: Sequence[Example], evaluation: Evaluation, outcomes: Outcomes, options: Options, context: Context
) -> list[Target | None]:
    """Return one share per model and question, by the tie policy; None for a question that is left out.

    With ``objective=score`` the shares are the scores themselves.
    """
    columns = list(zip(*outcomes.scores, strict=True))
    if options.objective == "score":
        if any(not 0 <= s <= 1 for column in columns for s in column):
            raise ConfigError("trained_router.objective: score needs scores in [0, 1], the metric gives others")
        return [tuple(column) for column in columns]
    winners = outcomes.winners(options.tie_eps)
    if options.tie == "drop":
        return [_shares(won, len(columns[q])) if len(won) < len(columns[q]) else None for q, won in enumerate(winners)]
    if options.tie == "cheapest":
        costs = outcomes.relative_costs
        return [_shares((min(won, key=lambda i: (costs[i], i)),), len(costs)) for won in winners]
    judge = reward_model(options)
    if judge is None:
        return [_shares(won, len(outcomes.names)) for won in winners]

    async def preferred(example: Example, scope: Context) -> tuple[int, ...]:
        q = places[example.id]
        if len(winners[q]) == 1:
            return winners[q]
        talks = [
            (*example.question.messages(), Message("assistant", evaluation.replies[i][q].text)) for i in winners[q]
        ]
        scores = await scope.gather(scope.reward(judge, talk) for talk in talks)
        return (winners[q][max(range(len(talks)), key=lambda k: (scores[k][0], -k))],)

    places = {example.id: q for q, example in enumerate(dev)}
    chosen = await context.each(dev, preferred, label="judging ties")
    return [_shares(won, len(outcomes.names)) for won in chosen]


def _shares(won: Sequence[int], models: int) -> Target:
    return tuple(1 / len(won) if i in won else 0.0 for i in range(models))
