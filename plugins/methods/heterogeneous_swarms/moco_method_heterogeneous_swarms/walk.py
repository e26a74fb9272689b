"""Running a graph of models on one question: who reads nobody answers first, the sink's reply is the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import Context, Generation, Model, ModelCallError, Question, Reply, Sampling
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_discussion import Adjacency, layers, refine, sources, summarise
from moco_toolkit_quoting import ask

__all__ = ["walk"]


async def walk(
    graph: Adjacency,
    nodes: Sequence[Model],
    question: Question,
    context: Context,
    sampling: Sampling,
    max_message_tokens: int,
) -> Reply:
    """Return the sink's reply, with who read whom and what did not work in its ``meta``.

    Nodes of one depth answer at the same time. A node that fails has said nothing: what is empty is quoted as empty. Raises
    ModelCallError if the sink fails.
    """
    before = question.messages()[:-1]
    message = attrs.evolve(sampling, max_new_tokens=min(sampling.max_new_tokens, max_message_tokens))
    said: dict[int, str] = {}
    record: list[dict[str, Any]] = []
    cut = False

    async def answer(node: int, last: bool) -> Generation:
        nonlocal cut
        settings, read = sampling if last else message, sources(graph, node)
        tell = context.tell if last else None
        if not read:
            # the node's number tells nodes apart that one model plays
            return await context.generate(nodes[node], question, settings, sample=node, tell=tell)
        texts = [said[i] for i in read]
        sheet = summarise(question, texts) if last else refine(question, None, texts)
        asked = await ask(context, nodes[node], sheet, settings, before=before, sample=node, tell=tell)
        cut = cut or asked.cut
        return asked.reply

    order = layers(graph)
    (sink,) = [node for node, row in enumerate(graph) if not any(row)]
    for layer in order:
        replies = await context.gather((answer(node, node == sink) for node in layer), tolerate=ModelCallError)
        for node, reply in zip(layer, replies, strict=True):
            line: dict[str, Any] = {"node": node, "model": nodes[node].name, "reads": sources(graph, node)}
            if isinstance(reply, ModelCallError):
                if node == sink:
                    raise reply
                said[node] = ""
                line["failed"] = str(reply)
            else:
                said[node] = (strip_reasoning(reply.text) or "").strip()
                if node == sink:
                    final = reply
            record.append(line)
    return Reply.of(final, model=nodes[sink].name, nodes=record, quotes_cut=cut)
