"""Two ways to ask a router: its labels are scored, or it writes one. Both show the list in one order or in every rotation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

import attrs

from moco_core import Context, Model, ModelCallError, Question, Sampling
from moco_method_prompt_routing.options import Options
from moco_method_prompt_routing.parse import parse_route
from moco_method_prompt_routing.prompts import default_labels
from moco_toolkit_quoting import transcript
from moco_toolkit_routing import route_prompt, scoring_labels

__all__ = ["Route", "Router", "ScoringRouter", "WritingRouter"]

_NOISE = 0.01  # below this share of the probability, which label has most of it says nothing


@attrs.frozen(kw_only=True)
class Route:
    """Where a question goes: the candidate's index, None if the choice could not be read (``reason`` says why).

    ``shares`` are the candidates' probabilities, or their shares of the replies; ``mass`` is the probability of all labels
    together, where they were scored.
    """

    choice: int | None
    shares: tuple[float, ...] = ()
    mass: float | None = None
    reason: str = ""


@attrs.frozen(kw_only=True)
class Router(ABC):
    """A model that is shown a question and one description per candidate."""

    model: Model
    descriptions: Sequence[str]
    options: Options

    async def choose(self, question: Question, context: Context) -> Route:
        """Return the router's choice; a call that fails makes none."""
        try:
            return await self._choose(question, self._orders(context), context)
        except ModelCallError as error:
            return Route(choice=None, reason=str(error))

    @abstractmethod
    async def _choose(self, question: Question, orders: Sequence[Sequence[int]], context: Context) -> Route:
        """Ask once per order of the list (candidates' indices, as shown), and make one choice of the answers."""

    def _orders(self, context: Context) -> list[list[int]]:
        count = len(self.descriptions)
        if self.options.order == "cyclic_average":
            return [[(start + place) % count for place in range(count)] for start in range(count)]
        order = list(range(count))
        if self.options.order == "shuffle":
            context.rng("prompt_routing", self.options.seed).shuffle(order)
        return [order]

    def _prompt(self, text: str, order: Sequence[int], labels: Sequence[str]) -> str:
        return route_prompt(text, [self.descriptions[i] for i in order], labels)


class ScoringRouter(Router):
    """Takes the label of the highest log-probability, averaged over the orders, less an empty question's if calibrated."""

    async def _choose(self, question: Question, orders: Sequence[Sequence[int]], context: Context) -> Route:
        count = len(self.descriptions)
        rows = await context.gather(self._scores(question, order, context) for order in orders)
        means = [math.fsum(scores[i] for scores, _ in rows) / len(rows) for i in range(count)]
        mass = math.fsum(mass for _, mass in rows) / len(rows)
        if mass < _NOISE:
            context.warn(
                f"prompt_routing: the router {self.model.name!r} gives the labels together less than {_NOISE:.0%} of its "
                "probability on some questions, so that its choice is noise there; decode=generate reads what it says"
            )
        return Route(choice=max(range(count), key=lambda i: (means[i], -i)), shares=_softmax(means), mass=mass)

    async def _scores(self, question: Question, order: Sequence[int], context: Context) -> tuple[list[float], float]:
        """Return every candidate's score, and the probability of all labels together."""
        labels = scoring_labels(len(order))
        found = await context.score(self.model, self._prompt(transcript(question), order, labels), labels)
        values = [score.logprob for score in found]
        mass = math.fsum(math.exp(value) for value in values)
        if self.options.calibrate:
            empty = await context.score(self.model, self._prompt("", order, labels), labels)
            values = [value - score.logprob for value, score in zip(values, empty, strict=True)]
        by_candidate = dict(zip(order, values, strict=True))
        return [by_candidate[i] for i in range(len(order))], mass


class WritingRouter(Router):
    """Takes the candidate that most of the router's short replies name."""

    async def _choose(self, question: Question, orders: Sequence[Sequence[int]], context: Context) -> Route:
        count = len(self.descriptions)
        replies = await context.gather(
            self._reply(question, order, number, context) for number, order in enumerate(orders)
        )
        named = Counter(choice for choice, _ in replies if choice is not None)
        if not named:
            return Route(choice=None, reason=f"unparsed: {replies[0][1][:200]}")
        shares = tuple(named[i] / len(replies) for i in range(count)) if len(replies) > 1 else ()
        return Route(choice=max(range(count), key=lambda i: (named[i], -i)), shares=shares)

    async def _reply(
        self, question: Question, order: Sequence[int], number: int, context: Context
    ) -> tuple[int | None, str]:
        """Return the candidate that a reply names, if any, and the reply."""
        options = self.options
        sampling = Sampling(temperature=options.route_temperature, max_new_tokens=options.max_route_tokens)
        prompt = self._prompt(transcript(question), order, default_labels(len(order)))
        reply = await context.generate(self.model, prompt, sampling, sample=number)
        place = parse_route(reply.text, len(order))
        return (None if place is None else order[place]), reply.text


def _softmax(values: Sequence[float]) -> tuple[float, ...]:
    top = max(values)
    if math.isinf(top):
        return tuple(1 / len(values) for _ in values)
    weights = [math.exp(value - top) for value in values]
    return tuple(weight / math.fsum(weights) for weight in weights)
