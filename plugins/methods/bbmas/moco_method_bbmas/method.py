"""A blackboard on which models solve a question together.

Han and Zhang, "Exploring Advanced LLM Multi-Agent Systems Based on Blackboard Architecture", arXiv 2507.01701. The default,
agents that choose their own actions, follows the reference library of the 26 methods; `control: controller` is the paper's
LbMAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    Needs,
    Pool,
    Question,
    Reply,
    System,
    plain,
    suggest,
)
from moco_core.converters import floats
from moco_method_bbmas.agents import hold_rounds
from moco_method_bbmas.ending import conclusions_of, final_round, most_similar, put_to_vote
from moco_method_bbmas.options import ROLES, WORKERS, Options
from moco_method_bbmas.table import Table
from moco_method_bbmas.team import gather_team
from moco_toolkit_discussion import model_problems

__all__ = ["Bbmas", "BbmasSystem"]


@attrs.frozen(eq=False, slots=False)
class BbmasSystem(System):
    """The pool around a blackboard. ``skills`` are the dev means, if measured."""

    skills: tuple[float, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(floats))

    async def respond(self, question: Question, context: Context) -> Reply:
        table = Table(pool=self.pool, question=question, context=context, options=self.options)
        if self.options.control == "controller":
            return await self._led(table)
        rounds = await hold_rounds(table)
        conclusions, forced = conclusions_of(table), False
        if not conclusions:
            conclusions, forced = await final_round(table, rounds + 1), True
        if not conclusions:
            return await self._alone(table, rounds)
        chosen, vote = await put_to_vote(table, conclusions, self.skills)
        winner = conclusions[chosen]
        final = "vote" if vote else "agreed" if len(conclusions) > 1 else "concluded"
        facts = {"forced": forced, "conclusions": [plain(c) for c in conclusions], "chosen": chosen, **vote}
        return self._reply(table, rounds, winner.text, final=final, model=self.pool[winner.author].name, **facts)

    async def _led(self, table: Table) -> Reply:
        """Controller mode: the decider's answer, else the one most similar to the others' last answers."""
        team = await gather_team(table)
        rounds = await team.hold_rounds()
        facts: dict[str, Any] = {"team": team.record()}
        decided = next((entry for entry in table.board.entries if entry.kind == "finalize"), None)
        if decided is not None:
            return self._reply(table, rounds, decided.text, final="decided", model=decided.model, **facts)
        conclusions = await final_round(table, rounds + 1)
        if not conclusions:
            return await self._alone(table, rounds, **facts)
        chosen = most_similar(conclusions, self.skills or [0.0] * len(self.pool))
        winner = conclusions[chosen]
        facts |= {"conclusions": [plain(c) for c in conclusions], "chosen": chosen}
        return self._reply(table, rounds, winner.text, final="similar", model=self.pool[winner.author].name, **facts)

    async def _alone(self, table: Table, rounds: int, **facts: Any) -> Reply:
        """Nobody concluded anything: the best model on dev answers by itself, the first one if nothing was measured.

        Raises the first failed call's error if nothing was ever written because of it.
        """
        if table.failure is not None and not table.board.entries:
            raise table.failure
        skills = self.skills or [0.0] * len(self.pool)
        index = max(range(len(self.pool)), key=lambda i: (skills[i], -i))
        reply = await table.context.generate(self.pool[index], table.question, table.sampling)
        return self._reply(table, rounds, reply.text, final="alone", model=self.pool[index].name, **facts)

    def _reply(self, table: Table, rounds: int, text: str, **facts: Any) -> Reply:
        board = [plain(entry) for entry in table.board.entries]
        return Reply(text=text, meta={**facts, "rounds": rounds, "board": board, "failed": table.log()})


class Bbmas(Method[Options]):
    """Agents read one blackboard, some of them write on it in every round, and what they conclude is put to a vote."""

    Options = Options
    system = BbmasSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Blackboard multi-agent system"
    paper: ClassVar[str] = "arXiv 2507.01701"

    def needs(self) -> Needs:
        # fewer agents could never end the discussion
        least = self.options.min_agents_to_stop if self.options.control == "self" else 1
        return Needs(min_models=least, check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options, tries = self.options, 1 + self.options.max_retries
        if options.control == "self":
            most = tries * 2 * min(options.max_agents_per_round, models) * options.max_rounds + 2 * models
        else:
            team = len(ROLES) + options.num_experts
            # experts; per round the control unit, everybody once, and a conflict of everybody; last answers
            most = tries + options.max_rounds * (tries * (1 + team) + team + 1) + models + 1
        return Cost(fit=models * dev if options.rank_by_dev else 0, respond=most)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> BbmasSystem:
        if not self.options.rank_by_dev:
            return BbmasSystem(pool, self.options)
        if not dev:
            raise ConfigError(
                "bbmas.rank_by_dev needs dev examples, there are none; raise the dev limit, or set rank_by_dev=false"
            )
        evaluation = await context.evaluate(pool, dev, attrs.evolve(context.sampling, temperature=0.0))
        context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        return BbmasSystem(pool, self.options, skills=evaluation.means())

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        out: list[str] = []
        options = self.options
        if options.control == "self" and options.min_agents_to_stop > len(pool):
            out.append(
                f"bbmas.min_agents_to_stop: {options.min_agents_to_stop} of {len(pool)} models cannot conclude; lower it"
            )
        for role, model in options.roles.items():
            if role not in WORKERS:
                known = ", ".join(WORKERS)
                out.append(f"bbmas.roles: there is no role {role!r}; roles: {known}{suggest(role, WORKERS)}")
            else:
                out += model_problems(pool, [model], f"bbmas.roles.{role}")
        return out
