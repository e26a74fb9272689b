"""The fitted system: models on a graph, what each reads in a round, and whose word counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import attrs

from moco_core import Context, Model, Question, Reply, System
from moco_core.converters import floats, strings
from moco_method_structured_interaction.options import Options
from moco_method_structured_interaction.relcom import RelComTalk, genesis, update
from moco_toolkit_discussion import Adjacency, Talk, dot, from_matrix, refine, sources
from moco_toolkit_quoting import Sheet

__all__ = ["StructuredInteractionSystem"]


def _rows(saved: Sequence[Sequence[int]]) -> Adjacency:
    return from_matrix(len(saved), saved)


@attrs.frozen(eq=False, slots=False)
class StructuredInteractionSystem(System):
    """Models on a graph. ``nodes`` are their names in node order, ``output`` the node whose word counts (None: a vote)."""

    nodes: tuple[str, ...] = attrs.field(converter=strings)
    graph: Adjacency = attrs.field(converter=_rows)
    output: int | None = None
    skills: tuple[float, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(floats))

    @cached_property
    def members(self) -> tuple[Model, ...]:
        """The models in node order."""
        return tuple(self.pool.named(name, "structured_interaction.nodes") for name in self.nodes)

    @property
    def picture(self) -> str:
        """The graph in the DOT language."""
        names = [f"{node}: {name}" for node, name in enumerate(self.nodes)]
        return dot(self.graph, names, output=None if self.options.output == "summarizer" else self.output)

    async def respond(self, question: Question, context: Context) -> Reply:
        return await self.conclude(await self.discuss(question, context))

    async def discuss(self, question: Question, context: Context) -> Talk:
        """Hold rounds 0 to R and return what was said. Raises ModelCallError if no node ever answered."""
        options: Options = self.options
        kind = RelComTalk if options.format == "relcom" else Talk
        sampling = options.sampling(context.sampling)
        talk = kind(members=self.members, question=question, context=context, sampling=sampling, seed=options.seed)
        await talk.open(genesis(question) if options.format == "relcom" else None)
        for number in range(1, options.rounds + 1):
            sheets = {j: sheet for j in range(len(self.nodes)) if (sheet := self._sheet(talk, j, number))}
            if not sheets:
                break
            await talk.round(sheets)
            if options.stop == "fixed_point" and self._still(talk):
                break
        talk.require_answers()
        return talk

    async def conclude(self, talk: Talk) -> Reply:
        """Return what the output node says, or the vote where there is none or it cannot be read."""
        if self.options.output == "summarizer" or self.output is None:
            return await talk.close(self.output, self.skills)
        reply, answer = talk.last[self.output], talk.answers[-1][self.output]
        if reply is None or not answer.parsed:
            return talk.vote("vote_after_unparsed_node", skills=self.skills, preferred=self.output)
        meta = {"node": self.output, "model": self.nodes[self.output], "answer": answer.key}
        return Reply.of(reply, final="node", **meta, **talk.record())

    def _sheet(self, talk: Talk, node: int, number: int) -> Sheet | None:
        """Return what a node reads: its own last answer and those of its neighbours. None if no neighbour said anything."""
        read = [i for i in sources(self.graph, node) if talk.said[i]]
        if not read:
            return None
        if self.options.labels == "shuffled":
            read = [i for i in talk.order(node, number) if i in read]
            numbers = list(range(1, len(read) + 1))
        else:
            numbers = [i + 1 for i in read]
        own = talk.said[node] or None
        if isinstance(talk, RelComTalk):
            others = [(talk.said[i], talk.reasons[i]) for i in read]
            return update(talk.question, own, talk.memories[node], others, numbers)
        return refine(talk.question, own, [talk.said[i] for i in read], numbers)

    def _still(self, talk: Talk) -> bool:
        """Whether the last round changed nothing: no text where decoding is greedy, else no answer."""
        return talk.texts[-1] == talk.texts[-2] if talk.sampling.greedy else talk.settled("fixed_point")
