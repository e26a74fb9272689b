"""Majority voting over the pool, optionally over several samples of each model.

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models", arXiv 2203.11171; Li et al.,
"More Agents Is All You Need", arXiv 2402.05120.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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
    Sampling,
    System,
    option,
)
from moco_toolkit_voting import (
    OPEN_KINDS,
    Tie,
    Utility,
    ballots,
    bleu,
    cosine,
    log_odds,
    metric_utility,
    smoothed_accuracy,
    token_f1,
    vote,
)

__all__ = ["MajorityVote", "MajorityVoteOptions", "MajorityVoteSystem"]


@attrs.frozen(kw_only=True)
class MajorityVoteOptions:
    """How replies are drawn, compared, weighted and chosen."""

    samples: int = option(
        1, ge=1, help="replies per model", paper="40 paths (self-consistency); 1 to 40 (Agent Forest)"
    )
    temperature: float = option(
        0.7, ge=0, help="sampling temperature; above 0 if samples > 1", paper="0.5-0.7; 1.0 (Agent Forest)"
    )
    top_p: float = option(1.0, gt=0, le=1, help="nucleus", paper="1.0 (Agent Forest)")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's")
    similarity: Literal["metric", "exact", "token_f1", "bleu", "embedding"] = option(
        "metric",
        help="utility u of two answers; metric: the run metric's own, and bleu where whole replies are the answer",
        paper="exact; pairwise equivalence (math); BLEU (code)",
    )
    embedder: str | int | None = option(
        None, help="pool model that embeds for similarity=embedding; none takes the first that can"
    )
    tie: Literal["auto", "best_model", "order", "random"] = option(
        "auto", help="who wins a tie; auto: best_model with a dev split, else order", paper="first most frequent"
    )
    weights: Literal["equal", "dev", "log_odds"] = option(
        "equal", help="voter weights: equal, dev score, or log-odds of the dev accuracy", paper="equal"
    )
    open_answers: int = option(
        10, ge=2, help="answers taken to be possible where a question has no closed set (weights=log_odds)"
    )
    reply: Literal["best_model", "shortest"] = option(
        "best_model", help="which reply of the winner's supporters is returned"
    )
    seed: int = option(0, help="added to the run's seed for random ties; replies are sampled with the run's alone")

    def __attrs_post_init__(self) -> None:
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError("temperature: expected number > 0 with samples > 1, or all samples are equal; got 0")


class MajorityVoteSystem(System):
    """The pool as voters. ``tally`` holds, per model, the sum of its dev scores and how many there were."""

    def __init__(
        self, pool: Pool, options: MajorityVoteOptions, tie: Tie, tally: Sequence[tuple[float, int]] | None = None
    ) -> None:
        self.pool = pool
        self.options = options
        self.tie: Tie = tie
        self.tally = None if tally is None else tuple((float(total), int(n)) for total, n in tally)

    def state(self) -> Mapping[str, Any]:
        return {"tie": self.tie, "tally": None if self.tally is None else [list(row) for row in self.tally]}

    def weights(self, question: Question) -> list[float] | None:
        """Return the weight of every model for one question, or None if all votes count the same."""
        if self.options.weights == "equal" or self.tally is None:
            return None
        if self.options.weights == "dev":
            weights = [total / n if n else 0.0 for total, n in self.tally]
        else:
            choices = max(2, len(question.letters or question.labels)) if question.letters or question.labels else 0
            if not choices:
                choices = 2 if question.answer_kind == "boolean" else self.options.open_answers
            weights = [log_odds(smoothed_accuracy(total, n, choices), choices) for total, n in self.tally]
        return weights if any(weights) else None  # nobody better than chance: every vote counts the same

    async def respond(self, question: Question, context: Context) -> Reply:
        sampling = _sampling(self.options, context)
        voters = [(i, model, k) for i, model in enumerate(self.pool) for k in range(self.options.samples)]
        drawn: list[Generation | ModelCallError] = await context.gather(
            (context.generate(model, question, sampling, sample=k) for _, model, k in voters), tolerate=ModelCallError
        )
        replies = [None if isinstance(reply, ModelCallError) else reply for reply in drawn]
        if all(reply is None for reply in replies):
            raise next(reply for reply in drawn if isinstance(reply, ModelCallError))
        answers = ballots(context, question, [None if reply is None else reply.text for reply in replies])
        per_model = self.weights(question)
        skills = None if self.tally is None else [self._skill(i) for i, _, _ in voters]
        outcome = vote(
            [answer.key for answer in answers],
            weights=None if per_model is None else [per_model[i] for i, _, _ in voters],
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
            vectors = dict(zip(texts, await context.embed(self._embedder(), list(texts.values())), strict=True))
            return lambda a, b: cosine(vectors[a], vectors[b])
        measure = token_f1 if kind == "token_f1" else bleu
        return lambda a, b: measure(texts[a], texts[b])

    def _embedder(self) -> Model:
        return _embedder(self.options, self.pool)


class MajorityVote(Method[MajorityVoteOptions]):
    """Ask every model, reduce each reply to its answer, return the answer with the most support."""

    Options = MajorityVoteOptions
    level = "text"
    title = "Majority vote"
    paper = "Wang et al. 2022, arXiv 2203.11171; Li et al. 2024, arXiv 2402.05120"

    def needs(self) -> Needs:
        if self.options.similarity != "embedding":
            return Needs()
        return Needs(optional=frozenset({"embed"}), check=self._embedder_problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        calls = models * options.samples + (options.similarity == "embedding")
        return Cost(fit=models * dev if self._evaluates(models, dev) else 0, respond=calls)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MajorityVoteSystem:
        options = self.options
        if not dev and (options.tie == "best_model" or options.weights != "equal"):
            what = "tie: best_model" if options.tie == "best_model" else f"weights: {options.weights}"
            raise ConfigError(
                f"majority_vote.{what} needs dev examples, there are none; raise the dev limit or choose "
                "tie=order and weights=equal"
            )
        if options.similarity == "embedding":
            _embedder(options, pool)  # a wrong name is an error now, not at the first question
        tie: Tie = ("best_model" if dev else "order") if options.tie == "auto" else options.tie
        if not self._evaluates(len(pool), len(dev)):
            return MajorityVoteSystem(pool, options, tie)
        evaluation = await context.evaluate(pool, dev, _sampling(options, context))
        known = [[score for score in row if score is not None] for row in evaluation.scores]
        tally = [(float(sum(row)), len(row)) for row in known]
        context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        return MajorityVoteSystem(pool, options, tie, tally)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MajorityVoteSystem:
        return MajorityVoteSystem(pool, self.options, state["tie"], state["tally"])

    def _evaluates(self, models: int, dev: int) -> bool:
        """Whether dev scores decide anything: not among the samples of one model."""
        return (
            models > 1 and dev > 0 and (self.options.weights != "equal" or self.options.tie in ("auto", "best_model"))
        )

    def _embedder_problems(self, pool: Sequence[Model]) -> list[str]:
        wanted = self.options.embedder
        if wanted is None and not any(model.can("embed") for model in pool):
            return [
                "no model of the pool can embed (similarity=embedding); add one that can, or choose token_f1 or bleu"
            ]
        return []


def _embedder(options: MajorityVoteOptions, pool: Pool) -> Model:
    """Return the model that embeds. Raises ConfigError if the named one does not exist or cannot."""
    if options.embedder is not None:
        model = pool.named(options.embedder, "majority_vote.embedder")
    else:
        model = next((m for m in pool if m.can("embed")), pool[0])
    if not model.can("embed"):
        raise ConfigError(f"majority_vote.embedder: model {model.name!r} cannot embed; name one that can")
    return model


def _sampling(options: MajorityVoteOptions, context: Context) -> Sampling:
    run = context.sampling
    return attrs.evolve(
        run,
        temperature=options.temperature,
        top_p=options.top_p,
        max_new_tokens=options.max_new_tokens or run.max_new_tokens,
    )


def _status(reply: Generation | None, answer: Answer) -> str:
    if reply is None:
        return "failed"
    return answer.status if reply.text.strip() else "empty"
