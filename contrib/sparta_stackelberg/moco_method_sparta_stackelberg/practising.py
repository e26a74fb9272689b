"""GRPO in a round of duels: every duellist practises on the duel's instruction, and the others score its replies."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moco_core import Context, Model
from moco_method_sparta_stackelberg.options import Options
from moco_toolkit_duels import Duel, judge
from moco_toolkit_training import Completion, Grpo, Lora, Task

__all__ = ["Practice"]

LOW, HIGH = 1.0, 10.0


class Practice:
    """The GRPO jobs of one round. Judges, their weights and their reputations are those of its start.

    ``scores`` are all replies' weighted mean scores, by duel and duellist; nobody's score leaves a reply out of training.
    """

    def __init__(
        self,
        duels: Sequence[Duel],
        members: Sequence[Model],
        weights: Sequence[float],
        options: Options,
        context: Context,
    ) -> None:
        self.duels, self.members, self.weights, self.options, self.context = duels, members, weights, options, context

    def job(self, model: int) -> Grpo | None:
        """Return the job of one model: a task for every duel that it is in; None if it is in none."""
        rows = [
            Task(prompt=duel.question, extra={"duel": n, "model": model})
            for n, duel in enumerate(self.duels)
            if model in (duel.a, duel.b)
        ]
        if not rows:
            return None
        options = self.options
        return Grpo(
            rows=rows,
            judge=self._rewards,
            judged_by={
                "judges": [member.fingerprint for member in self.members],
                "weights": list(self.weights),
                "duels": [[duel.a, duel.b] for duel in self.duels],
                "how": [options.judging, options.rounds, options.judge_temperature, options.judge_max_new_tokens],
            },
            group=options.group,
            beta=options.grpo_beta,
            epsilon=options.grpo_epsilon,
            temperature=options.rollout_temperature,
            top_p=options.top_p,
            max_new_tokens=options.sampling(self.context.sampling).max_new_tokens,
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            batch=options.batch,
            warmup=options.warmup,
            max_length=options.max_length,
            patience=options.patience,
            lora=Lora(r=options.lora_r, alpha=options.lora_alpha, dropout=0.0) if options.lora_r else None,
            seed=options.seed,
        )

    async def _rewards(self, completions: Sequence[Completion]) -> list[float | None]:
        """Return weighted mean scores as shares of the scale."""
        scores: list[float | None] = await self.context.gather(self.score(c) for c in completions)
        return [None if score is None else (score - LOW) / (HIGH - LOW) for score in scores]

    async def score(self, completion: Completion) -> float | None:
        """Return the mean score of one reply by all who are not in its duel, weighted by their ratings; None if all abstain."""
        duel = self.duels[completion.task.extra["duel"]]
        scope = self.context.on(duel.question).role("judge")
        judges = [j for j in range(len(self.members)) if j not in (duel.a, duel.b)]
        text = completion.text.strip()
        given = await scope.gather(judge(self.members[j], duel.question, text, self.options, scope) for j in judges)
        known = [(self.weights[j], s) for j, s in zip(judges, given, strict=True) if s is not None]
        return math.fsum(w * s for w, s in known) / math.fsum(w for w, _ in known) if known else None

    async def means(self) -> list[tuple[float, float] | None]:
        """Return both duellists' mean scores over fresh replies, as many as a group has, for ratings and the leader.

        They are drawn from the models of the round's start. What is practised on in the training's own process is told to no
        one else, and a training that is found in the cache practises nothing.
        """
        sampling = self.options.sampling(self.context.sampling)

        async def one(n: int, duel: Duel, model: int) -> list[float]:
            scope, task = self.context.on(duel.question), Task(prompt=duel.question, extra={"duel": n, "model": model})
            replies = await scope.gather(
                scope.generate(
                    self.members[model], duel.question, sampling, sample=duel.number * self.options.group + k
                )
                for k in range(self.options.group)
            )
            scores = await scope.gather(self.score(Completion(task=task, text=reply.text)) for reply in replies)
            return [score for score in scores if score is not None]

        sides = await self.context.gather(
            one(n, duel, model) for n, duel in enumerate(self.duels) for model in (duel.a, duel.b)
        )
        means = [math.fsum(side) / len(side) if side else None for side in sides]
        pairs = zip(means[::2], means[1::2], strict=True)
        return [None if a is None or b is None else (a, b) for a, b in pairs]
