"""AggLM: draw several solutions, have a trained model read them all and write the final one.

Zhao, Aggarwal, Saha, Celikyilmaz, Weston and Kulikov 2025, "The Majority is not always right: RL training for solution
aggregation", arXiv 2509.06870.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_method_agglm.drawing import Solution, draw, shuffled
from moco_method_agglm.fitting import expected, held_out, learn, require_room
from moco_method_agglm.options import Options
from moco_method_agglm.prompts import VERSION, Room
from moco_method_agglm.sets import plan
from moco_toolkit_discussion import model_problems
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, LEAST, ask
from moco_toolkit_training import kept, restore_trained, save_trained
from moco_toolkit_voting import ballots, vote

__all__ = ["Agglm", "AgglmSystem"]

_MODEL = "model"


@attrs.frozen(eq=False, slots=False)
class AgglmSystem(System):
    """The pool writes solutions, ``aggregator`` (a member) reads them, or what was ``trained`` from it.

    ``m`` solutions are in a set; ``ratio`` are the aggregator's characters per token; ``data`` is the digest of what it was
    trained on, with the prompt of version ``prompt``.
    """

    aggregator: str
    m: int
    ratio: float = CHARACTERS_PER_TOKEN
    data: str = ""
    prompt: int = VERSION
    trained: Model | None = None

    def __attrs_post_init__(self) -> None:
        if self.prompt != VERSION:
            raise ConfigError(
                f"agglm: the system was fitted for prompt version {self.prompt}, this is version {VERSION}; fit it again"
            )

    @cached_property
    def reader(self) -> Model:
        """The model that writes final solutions."""
        return self.trained or self.pool.named(self.aggregator, "agglm.aggregator")

    def state(self) -> Mapping[str, Any]:
        return {**System.state(attrs.evolve(self, trained=None)), "trained": kept(self.trained)}

    def save_files(self, folder: Path) -> None:
        if self.trained is not None:
            save_trained(self.trained, folder / _MODEL)

    async def respond(self, question: Question, context: Context) -> Reply:
        options: Options = self.options
        (planned,) = plan(len(self.pool), self.m, 1)
        solutions = await draw(self.pool, planned, question, context, options.solving(context.sampling))
        if all(s.generation is None for s in solutions):
            raise next(s.failure for s in solutions if s.failure is not None)
        meta: dict[str, Any] = {"solutions": [s.record() for s in solutions]}
        keys = {s.answer.key for s in solutions}
        if options.skip_if_unanimous and len(keys) == 1 and None not in keys:
            return _handed_on(solutions[0], final="unanimous", **meta)
        shown = shuffled(solutions, 0, options.seed, context)
        if shown:
            reply = await self._aggregate(question, [s.text for s in shown], context, meta)
            if reply is not None:
                return reply
        outcome = vote([s.answer.key for s in solutions])
        if outcome is not None:
            return _handed_on(solutions[outcome.voter], final="majority", **meta)
        first = next(s for s in solutions if s.generation is not None)
        return _handed_on(first, final="unparsed", unparsed=True, **meta)

    async def _aggregate(
        self, question: Question, texts: Sequence[str], context: Context, meta: dict[str, Any]
    ) -> Reply | None:
        """Return the final solution if one of two attempts can be read; else tell in ``meta`` what became of them."""
        options: Options = self.options
        room = Room.of(self.reader, options.max_prompt, options.final(context.sampling).max_new_tokens, self.ratio)
        meta["attempts"] = []
        try:
            sheet = room.fit(question, texts)
            for number, sampling in enumerate((options.final(context.sampling), options.retry(context.sampling))):
                asked = await ask(
                    context,
                    self.reader,
                    sheet,
                    sampling,
                    before=question.messages()[:-1],
                    ratio=self.ratio,
                    sample=number,
                )
                (answer,) = ballots(context, question, [asked.reply.text])
                meta["attempts"].append(answer.status)
                meta["cut"] = asked.cut or list(sheet.quotes) != list(texts)
                if answer.parsed:
                    return Reply.of(asked.reply, final="aggregated", model=self.reader.name, answer=answer.key, **meta)
        except ModelCallError as error:
            meta["attempts"].append(str(error))
        return None


def _handed_on(solution: Solution, **meta: Any) -> Reply:
    assert solution.generation is not None  # it has an answer, or was asked for
    return Reply.of(solution.generation, model=solution.model.name, **meta)


class Agglm(Method[Options]):
    """One model is trained on dev to read several solutions and write the final one, also where most of them are wrong."""

    Options = Options
    system = AgglmSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Trained aggregation of solutions"
    paper: ClassVar[str] = "arXiv 2509.06870"

    def needs(self) -> Needs:
        return Needs(optional={"train"} if self.options.train else (), check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        m, sets = options.size(models), options.sets_per_question
        respond = m + 2
        if not options.train:
            return Cost(fit=0, respond=respond)
        return Cost(fit=dev * sets * m + held_out(dev, options) * sets * (options.checkpoints + 1), respond=respond)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        options, cost = self.options, self.cost(len(pool), dev)
        if not options.train:
            return cost
        return expected(cost, Pool(pool).named(options.aggregator, "agglm.aggregator"), dev, options, sampling)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> AgglmSystem:
        options = self.options
        aggregator, m = pool.named(options.aggregator, "agglm.aggregator"), options.size(len(pool))
        require_room(aggregator, dev, options, m, context.sampling)
        if not options.train:
            return AgglmSystem(pool, options, aggregator.name, m)
        if not dev:
            raise ConfigError(
                "agglm: trains on dev and there are no dev examples; raise the dev limit, or choose train=false"
            )
        learnt = await learn(pool, aggregator, dev, options, context)
        return AgglmSystem(pool, options, aggregator.name, m, learnt.ratio, learnt.data, trained=learnt.trained)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> AgglmSystem:
        trained = restore_trained(pool, state.get("trained"), folder / _MODEL)
        return AgglmSystem(pool, self.options, **{**state, "trained": trained})

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, m = self.options, self.options.size(len(pool))
        out = model_problems(pool, [options.aggregator], "aggregator")
        if out:
            return out
        aggregator = Pool(pool).named(options.aggregator)
        if options.train and not aggregator.can("train"):
            out.append(
                f"aggregator: model {aggregator.name!r} cannot be trained (capability 'train'); `moco list pool --can train` "
                "names the pools whose models can, train=false asks it as it is"
            )
        if m < len(pool):
            out.append(f"m: {m} solutions cannot come from {len(pool)} models; raise m or name fewer models")
        repeated = m > len(pool) or (options.train and options.sets_per_question > 1)
        if not options.solution_temperature and repeated:
            out.append(
                f"solution_temperature: greedy models say the same each time; {m} solutions and sets_per_question of "
                f"{options.sets_per_question} need sampling (or m={len(pool)} and sets_per_question=1)"
            )
        reply, least = options.max_new_tokens or 1, m * LEAST
        if aggregator.context_length is not None and min(options.max_prompt, aggregator.context_length - reply) < least:
            out.append(
                f"aggregator: {aggregator.name}'s context of {aggregator.context_length} tokens less {reply} of the reply (and "
                f"max_prompt of {options.max_prompt}) cannot hold {m} solutions of at least {LEAST} tokens each; lower m or "
                "max_new_tokens, or choose an aggregator with a longer context"
            )
        return out
