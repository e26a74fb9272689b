"""`control: controller`: a control unit names which roles and experts write next (LbMAS, arXiv 2507.01701)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from moco_core import Generation
from moco_method_bbmas import prompts
from moco_method_bbmas.board import Entry
from moco_method_bbmas.options import ROLES
from moco_method_bbmas.parse import final_answer, mentions, parse_agents, parse_experts, parse_ids
from moco_method_bbmas.table import Table, spoken

__all__ = ["Team", "gather_team"]

_KINDS: Mapping[str, str] = {"planner": "plan", "critic": "critique"}
_TAGS: Mapping[str, str] = {"cleaner": "remove", "conflict_resolver": "conflict"}
_UNKNOWN = "knows the subject of the question"


@attrs.frozen(kw_only=True)
class _Post:
    """What a role adds to the board."""

    kind: str
    text: str
    references: tuple[int, ...] | None = None


def member(table: Table, name: str) -> int:
    """Return the place in the pool of the model that plays a role: the one that `roles` names, else one drawn."""
    named = table.options.roles.get(name)
    if named is not None:
        model = table.pool.named(named, f"bbmas.roles.{name}")
        return next(i for i, other in enumerate(table.pool) if other is model)
    return table.context.rng("bbmas", table.options.seed, "role", name).randrange(len(table.pool))


async def gather_team(table: Table) -> Team:
    """Make up the experts of a question and return the whole team."""
    count = table.options.num_experts
    made = await table.ask(
        "generator",
        member(table, "generator"),
        [],
        lambda shown, attempt: prompts.experts(table.question.text(), count),
        parse_experts,
        doing="makes up experts",
    )
    pairs = [] if made is None else made[1][:count]
    pairs += [("", _UNKNOWN)] * (count - len(pairs))
    duties = dict(prompts.DUTIES)
    duties |= {
        f"expert {i}": f"is {identity}: {ability}" if identity else ability
        for i, (identity, ability) in enumerate(pairs, 1)
    }
    return Team(table=table, duties=duties, models={name: member(table, name) for name in duties})


@attrs.frozen(kw_only=True, eq=False)
class Team:
    """Roles and experts of one question. ``duties`` says what each does, ``models`` which model of the pool plays it."""

    table: Table
    duties: Mapping[str, str]
    models: Mapping[str, int]

    def record(self) -> list[dict[str, str]]:
        """Return who played what, for the record of the reply."""
        return [{"name": n, "model": self.table.pool[self.models[n]].name, "duty": d} for n, d in self.duties.items()]

    async def hold_rounds(self) -> int:
        """Hold rounds until the decider gives a final answer, or there are no more; return how many were held."""
        table = self.table
        for number in range(1, table.options.max_rounds + 1):
            table.round = number
            actors = await self._named()
            found = await table.context.gather(self._act(name) for name in actors)
            known = {entry.id for entry in table.board.shown}
            for name, post in zip(actors, found, strict=True):
                if post is not None:
                    references = mentions(post.text, known) if post.references is None else post.references
                    model = table.pool[self.models[name]].name
                    table.board.post(name, model, number, post.kind, post.text, references)
            if any(entry.kind == "finalize" for entry in table.board.entries):
                return number
        return table.options.max_rounds

    async def _named(self) -> list[str]:
        """Return whom the control unit names; all experts if it names nobody that there is."""
        table, names = self.table, list(self.duties)
        chosen = await table.show(
            "control_unit",
            member(table, "control_unit"),
            lambda board, attempt: prompts.control(table.question.text(), board, self.duties),
            lambda text: parse_agents(text, names),
            doing="chooses",
        )
        return [name for name in names if name not in ROLES] if chosen is None else chosen[1]

    async def _act(self, name: str) -> _Post | None:
        """Have one member of the team do its work; None if it adds nothing."""
        table, known = self.table, [entry.id for entry in self.table.board.shown]

        def read(text: str) -> tuple[str, str, tuple[int, ...]] | None:
            """Return the reply, the decider's answer and the entries that are named."""
            if name == "decider":
                return None if (answer := final_answer(text)) is None else (text, answer, ())
            if name in _TAGS:
                return None if (ids := parse_ids(text, _TAGS[name], known)) is None else (text, "", ids)
            return text, "", ()

        done = await table.show(
            name,
            self.models[name],
            lambda board, attempt: prompts.perform(
                table.question.text(), board, name, self.duties[name], table.question.answer_format
            ),
            read,
            doing="acts",
        )
        if done is None:
            return None
        text, answer, ids = done[1]
        if name == "decider":
            return _Post(kind="finalize", text=answer) if answer else _Post(kind="wait", text=text)
        if name == "cleaner":
            return _Post(kind="remove", text=text, references=ids) if ids else None
        if name == "conflict_resolver":
            return await self._discuss([entry for entry in table.board.shown if entry.id in ids])
        return _Post(kind=_KINDS.get(name, "step"), text=text)

    async def _discuss(self, entries: list[Entry]) -> _Post | None:
        """Have the authors of contradicting entries look again, in private, and the resolver write what came out of it."""
        table = self.table
        authors = list(dict.fromkeys(entry.author for entry in entries if entry.author in self.models))
        if len(authors) < 2:
            return None

        async def defend(author: str) -> tuple[Generation, str] | None:
            return await table.ask(
                f"{author}, in private",
                self.models[author],
                [entry.text for entry in entries],
                lambda shown, attempt: prompts.defend(table.question.text(), author, shown),
                spoken,
                doing="defends",
                retries=0,
            )

        found = await table.context.gather(defend(author) for author in authors)
        statements = [said[1] for said in found if said is not None]
        if not statements:
            return None
        outcome = await table.ask(
            "conflict_resolver",
            self.models["conflict_resolver"],
            statements,
            lambda shown, attempt: prompts.resolve(table.question.text(), shown),
            spoken,
            doing="resolves",
            retries=0,
        )
        if outcome is None:
            return None
        return _Post(kind="resolve", text=outcome[1], references=tuple(entry.id for entry in entries))
