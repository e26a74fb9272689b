"""Majority voting over the pool, optionally over several samples of each model.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv 2203.11171; Li et al.,
"More Agents Is All You Need", arXiv 2402.05120.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    Answer,
    ConfigError,
    Context,
    Cost,
    Example,
    Generation,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    System,
)
from moco_method_majority_vote.options import Options
from moco_toolkit_voting import (
    OPEN_KINDS,
    Tie,
    Utility,
    ballots,
    bleu,
    correlations,
    cosine,
    log_odds,
    metric_utility,
    smoothed_accuracy,
    token_f1,
    vote,
)

__all__ = ["MajorityVote", "MajorityVoteSystem"]

_FROM_DEV = ("dev", "log_odds")  # weights that dev scores give
Tally = tuple[tuple[float, int], ...]


def _tally(saved: Sequence[Sequence[float]] | None) -> Tally | None:
    return None if saved is None else tuple((float(total), int(n)) for total, n in saved)


@attrs.frozen(eq=False, slots=False)
class MajorityVoteSystem(System):
    """The pool as voters. ``tally`` holds, per model, the sum of its dev scores and how many there were."""

    tie: Tie
    tally: Tally | None = attrs.field(default=None, converter=_tally)

    def weights(self, question: Question, voters: Sequence[int], replies: Sequence[Generation | None]) -> Any:
        """Return the weight of every vote, by the models (``voters``) that cast them, or None if all count the same."""
        if self.options.weights == "probability":
            weights = [_probability(reply) for reply in replies]
            return weights if any(weights) else None
        if self.options.weights == "equal" or self.tally is None:
            return None
        if self.options.weights == "dev":
            weights = [self._skill(i) for i in range(len(self.pool))]
        else:
            choices = max(2, len(question.letters or question.labels)) if question.letters or question.labels else 0
            if not choices:
                choices = 2 if question.answer_kind == "boolean" else self.options.open_answers
            weights = [log_odds(smoothed_accuracy(total, n, choices), choices) for total, n in self.tally]
        # nobody better than chance: every vote counts the same
        return [weights[i] for i in voters] if any(weights) else None

    async def respond(self, question: Question, context: Context) -> Reply:
        return await self.respond_weighed(question, context, {})

    async def respond_weighed(self, question: Question, context: Context, weights: Mapping[str, float]) -> Reply:
        """See :class:`moco_toolkit_voting.Weighable`: the weights multiply those of the votes."""
        sampling = self.options.sampling(context.sampling)
        voters = [(i, model, k) for i, model in enumerate(self.pool) for k in range(self.options.samples)]
        drawn: list[Generation | ModelCallError] = await context.gather(
            (context.generate(model, question, sampling, sample=k) for _, model, k in voters), tolerate=ModelCallError
        )
        replies = [None if isinstance(reply, ModelCallError) else reply for reply in drawn]
        if all(reply is None for reply in replies):
            raise next(reply for reply in drawn if isinstance(reply, ModelCallError))
        answers = ballots(context, question, [None if reply is None else reply.text for reply in replies])
        skills = None if self.tally is None else [self._skill(i) for i, _, _ in voters]
        own = self.weights(question, [i for i, _, _ in voters], replies)
        if weights:
            own = [
                w * weights.get(m.name, 1.0) for w, (_, m, _) in zip(own or [1.0] * len(voters), voters, strict=True)
            ]
        outcome = vote(
            [answer.key for answer in answers],
            weights=own,
            utility=await self._utility(question, answers, context),
            skills=skills,
            tie=self.tie,
            rng=context.rng("majority_vote", "tie", self.options.seed) if self.tie == "random" else None,
            lengths=None if self.options.reply == "best_model" else [len(r.text) if r else 0 for r in replies],
        )
        meta: dict[str, Any] = {
            "votes": [
                {"model": model.name, "sample": k, "answer": answer.key, "status": _status(reply, answer)}
                for (_, model, k), reply, answer in zip(voters, replies, answers, strict=True)
            ]
        }
        if outcome is None:
            chosen = self._spokesman(voters, replies)
            meta["unparsed"] = True
        else:
            chosen = outcome.voter
            meta |= {
                "answer": outcome.key,
                "support": dict(outcome.support),
                "margin": outcome.margin,
                "share": outcome.share,
                "tied": list(outcome.tied),
            }
        reply = replies[chosen]
        assert reply is not None  # only voters with a reply have a key or are spokesmen
        return Reply.of(reply, model=voters[chosen][1].name, **meta)

    def _skill(self, index: int) -> float:
        total, n = self.tally[index] if self.tally is not None else (0.0, 0)
        return total / n if n else 0.0

    def _spokesman(self, voters: Sequence[tuple[int, Model, int]], replies: Sequence[Generation | None]) -> int:
        """Return whose reply is handed on if nobody's could be read: the best dev model's, the first without a fit."""
        there = [j for j, reply in enumerate(replies) if reply is not None]
        return max(there, key=lambda j: (bool(getattr(replies[j], "text", "").strip()), self._skill(voters[j][0]), -j))

    async def _utility(self, question: Question, answers: Sequence[Answer], context: Context) -> Utility | None:
        """Return u as a function of two keys; None is equality."""
        kind, is_open = self.options.similarity, question.answer_kind in OPEN_KINDS
        if kind == "metric":
            utility = metric_utility(context.metric, question, answers)
            if utility is not None or not is_open:
                return utility
            kind = "bleu"
        if kind == "exact":
            if is_open:
                context.warn(
                    "majority_vote: whole replies are compared exactly, so hardly any two agree; "
                    "set similarity to bleu, token_f1 or embedding"
                )
            return None
        texts: dict[str, str] = {}
        for answer in answers:
            if answer.key is not None:
                texts.setdefault(answer.key, answer.text or answer.key)
        if kind == "embedding":
            if len(texts) < 2:
                return None
            found = await context.embed(_embedder(self.options, self.pool), list(texts.values()))
            vectors = dict(zip(texts, found, strict=True))
            return lambda a, b: cosine(vectors[a], vectors[b])
        measure = token_f1 if kind == "token_f1" else bleu
        return lambda a, b: measure(texts[a], texts[b])


class MajorityVote(Method[Options]):
    """Ask every model, reduce each reply to its answer, return the answer with the most support."""

    Options = Options
    system = MajorityVoteSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Majority vote"
    paper: ClassVar[str] = "arXiv 2203.11171, 2402.05120"

    def needs(self) -> Needs:
        capabilities = {"generate", "logprobs"} if self.options.weights == "probability" else {"generate"}
        if self.options.similarity != "embedding":
            return Needs(capabilities=capabilities)
        return Needs(capabilities=capabilities, optional={"embed"}, check=self._embedder_problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        calls = models * options.samples + (options.similarity == "embedding")
        return Cost(fit=models * dev if self._evaluates(models, dev) else 0, respond=calls)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MajorityVoteSystem:
        options = self.options
        if not dev and (options.tie == "best_model" or options.weights in _FROM_DEV):
            what = "tie: best_model" if options.tie == "best_model" else f"weights: {options.weights}"
            raise ConfigError(
                f"majority_vote.{what} needs dev examples, there are none; raise the dev limit or choose "
                "tie=order and weights=equal"
            )
        tie: Tie = ("best_model" if dev else "order") if options.tie == "auto" else options.tie
        if not self._evaluates(len(pool), len(dev)):
            return MajorityVoteSystem(pool, options, tie)
        evaluation = await context.evaluate(pool, dev, options.sampling(context.sampling))
        known = [[score for score in row if score is not None] for row in evaluation.scores]
        tally = [(float(sum(row)), len(row)) for row in known]
        context.note(
            dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)),
            error_correlation=correlations(evaluation.scores),
        )
        return MajorityVoteSystem(pool, options, tie, tally)

    def _evaluates(self, models: int, dev: int) -> bool:
        """Whether dev scores decide anything: not among the samples of one model."""
        decides = self.options.weights in _FROM_DEV or self.options.tie in ("auto", "best_model")
        return models > 1 and dev > 0 and decides

    def _embedder_problems(self, pool: Sequence[Model]) -> list[str]:
        try:
            _embedder(self.options, Pool(pool))
        except ConfigError as error:
            return list(error.problems)
        return []


def _embedder(options: Options, pool: Pool) -> Model:
    """Return the model that embeds. Raises ConfigError if there is none, or the named one cannot."""
    if options.embedder is not None:
        model = pool.named(options.embedder, "embedder")
        if not model.can("embed"):
            raise ConfigError(f"embedder: model {model.name!r} cannot embed; name one that can")
        return model
    found = next((m for m in pool if m.can("embed")), None)
    if found is None:
        raise ConfigError(
            "no model of the pool can embed (similarity=embedding); add one that can, or choose token_f1 or bleu"
        )
    return found


def _probability(reply: Generation | None) -> float:
    """Return a reply's probability per token, exp((1/T) sum_t log p_t); 0 without tokens."""
    if reply is None or not reply.token_logprobs:
        return 0.0
    return math.exp(math.fsum(reply.token_logprobs) / len(reply.token_logprobs))


def _status(reply: Generation | None, answer: Answer) -> str:
    if reply is None:
        return "failed"
    return answer.status if reply.text.strip() else "empty"
