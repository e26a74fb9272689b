"""Rankers: a judge's verdicts, a trained head's scores, a reward model's numbers, all as preferences of one over another."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from moco_core import Context, ContinuationScore, Message, Model, ModelCallError, Question, Sampling
from moco_method_llm_blender.aggregates import bias, lead, rank, scores
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.prompts import LABELS, Budget, comparison
from moco_method_llm_blender.verdicts import parse
from moco_toolkit_quoting import ask, send, transcript
from moco_toolkit_training import pairing

__all__ = ["HeadRanker", "JudgeRanker", "PairRanker", "Ranker", "Ranking", "RewardRanker", "order"]

Pairs = Sequence[tuple[int, int]]


@attrs.frozen(kw_only=True)
class Ranking:
    """Replies by their places, best first, with their scores (bubble: only the first place means anything).

    ``matrix`` are the preferences, ``unread`` how many comparisons could not be read or failed.
    """

    places: tuple[int, ...]
    scores: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    unread: int = 0

    def record(self, orders: int) -> dict[str, Any]:
        """Return what the run record shows."""
        out: dict[str, Any] = {"scores": [round(s, 9) for s in self.scores], "unread": self.unread}
        if orders == 2:
            mean, same = bias(self.matrix)
            out |= {"position_bias": round(mean, 9), "same_place": round(same, 9)}
        return out


class Ranker(ABC):
    """Who compares replies."""

    @abstractmethod
    async def preferences(
        self, question: Question, texts: Sequence[str], pairs: Pairs, context: Context
    ) -> list[float | None]:
        """Return how much each pair's first reply is preferred when it is shown first; None where that cannot be read."""


async def _tolerant(calls: Iterable[Any], context: Context) -> list[float | None]:
    found = await context.gather(calls, tolerate=ModelCallError)
    return [None if isinstance(value, ModelCallError) else value for value in found]


@attrs.frozen(kw_only=True)
class JudgeRanker(Ranker):
    """A model that names the better of two: by the log-probabilities of its labels where ``scored``, else in writing."""

    model: Model
    options: Options
    scored: bool

    async def preferences(
        self, question: Question, texts: Sequence[str], pairs: Pairs, context: Context
    ) -> list[float | None]:
        one = self._scored if self.scored else self._written
        return await _tolerant((one(question, texts[i], texts[j], context) for i, j in pairs), context)

    def messages(self, question: Question, a: str, b: str) -> tuple[Message, ...]:
        """Return what is read of a pair where nothing has to be cut further."""
        return (Message("user", self._sheet(question, a, b).whole),)

    def _sheet(self, question: Question, a: str, b: str) -> Any:
        options = self.options
        budget = Budget.of(self.model, options.source_tokens, options.candidate_tokens, options.judge_max_new_tokens)
        return comparison(budget.question(question), budget.reply(a), budget.reply(b))

    async def _written(self, question: Question, a: str, b: str, context: Context) -> float | None:
        sampling = Sampling(temperature=0.0, max_new_tokens=self.options.judge_max_new_tokens)
        asked = await ask(context, self.model, self._sheet(question, a, b), sampling)
        return parse(asked.reply.text) or None

    async def _scored(self, question: Question, a: str, b: str, context: Context) -> float | None:
        forms = [form for label in LABELS for form in (label, f" {label}")]

        async def call(messages: Sequence[Message]) -> tuple[ContinuationScore, ...]:
            return await context.score(self.model, messages, forms)

        found = (await send(call, self.model, self._sheet(question, a, b), 1)).reply
        first, second = (_log_sum([score.logprob for score in found[k : k + 2]]) for k in (0, 2))
        return first - second if math.isfinite(first) and math.isfinite(second) else None


@attrs.frozen(kw_only=True)
class HeadRanker(Ranker):
    """A trained head that reads question and both replies and gives each of these a score."""

    model: Model
    options: Options

    def row(self, question: Question, a: str, b: str) -> tuple[str, str, str]:
        """Return question and replies as the head reads them."""
        budget = Budget.of(self.model, self.options.source_tokens, self.options.candidate_tokens)
        return budget.question(question), budget.reply(a), budget.reply(b)

    async def preferences(
        self, question: Question, texts: Sequence[str], pairs: Pairs, context: Context
    ) -> list[float | None]:
        async def one(a: str, b: str) -> float | None:
            found = await context.reward(self.model, pairing(*self.row(question, a, b)))
            value = found[0] - found[1] if len(found) == 2 else math.nan
            return value if math.isfinite(value) else None

        return await _tolerant((one(texts[i], texts[j]) for i, j in pairs), context)


@attrs.frozen(kw_only=True)
class RewardRanker(Ranker):
    """A reward model that scores each reply alone: N calls, and no order."""

    model: Model

    async def preferences(
        self, question: Question, texts: Sequence[str], pairs: Pairs, context: Context
    ) -> list[float | None]:
        async def one(text: str) -> float | None:
            (value,) = await context.reward(self.model, [*question.messages(), Message("assistant", text)])
            return value if math.isfinite(value) else None

        places = sorted({place for pair in pairs for place in pair})
        found = dict(zip(places, await _tolerant((one(texts[i]) for i in places), context), strict=True))
        return [None if found[i] is None or found[j] is None else found[i] - found[j] for i, j in pairs]  # type: ignore[operator]


@attrs.frozen(kw_only=True)
class PairRanker(Ranker):
    """A published cross-encoder that reads question and both replies and gives each of these a score."""

    model: Model

    async def preferences(
        self, question: Question, texts: Sequence[str], pairs: Pairs, context: Context
    ) -> list[float | None]:
        asked = transcript(question)

        async def one(a: str, b: str) -> float | None:
            first, second = await context.call(self.model, "reward", {"pair": [asked, a, b]}, {})
            return first - second if math.isfinite(first - second) else None

        return await _tolerant((one(texts[i], texts[j]) for i, j in pairs), context)


async def order(
    ranker: Ranker | None,
    question: Question,
    texts: Sequence[str],
    skills: Sequence[float],
    options: Options,
    context: Context,
) -> Ranking:
    """Rank replies; without a ranker by the skills of who wrote them."""
    n = len(texts)
    matrix = [[0.0] * n for _ in range(n)]
    unread = 0

    async def compare(pairs: Pairs) -> None:
        nonlocal unread
        found = await ranker.preferences(question, texts, pairs, context)  # type: ignore[union-attr]
        for (i, j), value in zip(pairs, found, strict=True):
            unread += value is None
            matrix[i][j] = value or 0.0
            if options.orders == 1 or isinstance(ranker, RewardRanker):
                matrix[j][i] = -matrix[i][j]

    if ranker is not None and options.aggregation == "bubble" and not isinstance(ranker, RewardRanker):
        permutation = list(range(n))
        context.rng("llm_blender", "bubble", options.seed).shuffle(permutation)
        winner = permutation[0]
        for following in permutation[1:]:
            await compare([(winner, following), (following, winner)][: options.orders])
            if lead(matrix, winner, following) < 0:
                winner = following
        places = [winner, *sorted((i for i in range(n) if i != winner), key=lambda i: (-skills[i], i))]
        return _ranking(places, [float(i == winner) for i in range(n)], matrix, unread)
    if ranker is not None:
        both = options.orders == 2 and not isinstance(ranker, RewardRanker)
        await compare([(i, j) for i in range(n) for j in range(n) if i < j or (both and i != j)])
    how = "max_logits" if options.aggregation == "bubble" else options.aggregation
    s = scores(matrix, how)
    return _ranking(rank(s, matrix, skills), s, matrix, unread)


def _ranking(places: Sequence[int], s: Sequence[float], matrix: Sequence[Sequence[float]], unread: int) -> Ranking:
    return Ranking(places=tuple(places), scores=tuple(s), matrix=tuple(map(tuple, matrix)), unread=unread)


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values)) if math.isfinite(top) else top
