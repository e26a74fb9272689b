"""The algorithm of {{name}}.

Replace it with yours; the shape stays. Every model call goes through ``context``, which batches, caches and seeds it: a
method only says what depends on what. Name the paper here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs

from moco_core import Context, Cost, Example, Method, ModelCallError, Needs, Pool, Question, Reply, System
from {{package}}.options import Options

__all__ = ["{{Class}}", "{{Class}}System"]


@attrs.frozen(eq=False, slots=False)
class {{Class}}System(System):
    """The fitted method. Its fields beside pool and options are what fitting learnt; they are saved with the run."""

    order: Sequence[int]
    """The models' order of precedence: indices into the pool, best first."""

    async def respond(self, question: Question, context: Context) -> Reply:
        models = [self.pool[i] for i in self.order for _ in range(self.options.samples)]
        replies = await context.gather((context.generate(m, question) for m in models), tolerate=ModelCallError)
        answered = [(m, r) for m, r in zip(models, replies, strict=True) if not isinstance(r, ModelCallError)]
        if not answered:
            raise replies[0]
        keys = [context.read(question, r.text).key for _, r in answered]
        votes = Counter(k for k in keys if k is not None)
        # most_common keeps the order of first appearance among equals: the model that ranks highest decides a tie.
        # When nothing could be read, the highest-ranking model's reply stands.
        chosen = keys.index(votes.most_common(1)[0][0]) if votes else 0
        model, reply = answered[chosen]
        return Reply.of(reply, chosen=model.name, votes=dict(votes))


class {{Class}}(Method[Options]):
    """{{summary}}"""

    Options = Options
    system = {{Class}}System
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "{{title}}"
    paper: ClassVar[str] = ""

    def needs(self) -> Needs:
        return Needs(min_models=2)

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=models * dev if self.options.rank else 0, respond=models * self.options.samples)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> {{Class}}System:
        order = list(range(len(pool)))
        if self.options.rank and dev:
            means = (await context.evaluate(pool, dev)).means()
            order.sort(key=lambda i: (-means[i], i))
            context.note(order=[pool[i].name for i in order], dev=list(means))
        return {{Class}}System(pool, self.options, order)
