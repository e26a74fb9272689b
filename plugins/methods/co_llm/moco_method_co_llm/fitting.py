"""Fitting on the models: texts to learn from, one reading of each under both models, and the calibration on held-out dev."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

import moco_toolkit_decoding as decoding
from moco_core import ConfigError, Context, Example, Model, PromptTooLong, Reply, System, plain
from moco_method_co_llm.head import END, Positions, train_head, weak_labels
from moco_method_co_llm.options import Options
from moco_method_co_llm.thresholds import candidates

__all__ = ["calibrate", "fit_head", "fit_with_base", "split"]

VERSION = 2
"""Raised when the same texts and options give another head."""
DIGITS = 4
"""Decimals of heads and scores that are kept: later ones depend on which texts were read in one batch."""

Target = str | Sequence[int]
"""A reply to learn from: text, or the tokens that a model wrote, without the end token."""


def split(dev: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Return (to learn from, held out). The held-out ones are spread over dev, so that no kind of question is lost."""
    held = max(1, round(share * len(dev))) if len(dev) > 1 else 0
    chosen = {int(i * len(dev) / held) for i in range(held)}
    parts = [e for i, e in enumerate(dev) if i not in chosen], [e for i, e in enumerate(dev) if i in chosen]
    return parts if held else (list(dev), list(dev))


async def fit_head(
    models: Sequence[Model], options: Options, dev: Sequence[Example], context: Context
) -> Mapping[str, Any]:
    """Train the head of ``models`` (base, assistant), computed once for the same texts, models and options.

    Returns ``head`` (H numbers), ``thresholds`` to choose from, less deferral first, the ``shares`` of held-out positions that
    each of them defers, and a ``report`` for people. Raises ConfigError if there is nothing to learn from.
    """
    lesson = await Lesson.of(models, options, dev, context)

    async def compute(spent: decoding.Spent) -> dict[str, Any]:
        learn = await lesson.read(models, options, lesson.learn, context, spent, label="scoring targets")
        held = await lesson.read(models, options, lesson.held, context, spent, label="scoring held-out targets")
        start = await decoding.inspect(context, models[0], _mean_output_embedding)
        return await asyncio.to_thread(_train, learn, held, options, start, lesson.seed)

    what = lesson.what("co_llm.head", options, lesson.learn, lesson.held)
    found: Mapping[str, Any] = await decoding.fit_once(context, what, models, compute)
    context.note(**found["report"])
    return found


async def fit_with_base(
    models: Sequence[Model], options: Options, dev: Sequence[Example], context: Context
) -> tuple[Model, Mapping[str, Any]]:
    """Train the base model together with its head; return it, and what :func:`fit_head` returns, seen through it.

    The head starts from weak labels on the untrained base; both are then trained on the same texts, the held-out ones apart.
    """
    from moco_method_co_llm.joint import Joint, Scored, head_of
    from moco_toolkit_training import Lora

    base, assistant = models
    lesson = await Lesson.of(models, options, dev, context)

    async def begin(spent: decoding.Spent) -> dict[str, Any]:
        learn = await lesson.read(models, options, lesson.learn, context, spent, label="scoring targets")
        start = await decoding.inspect(context, base, _mean_output_embedding)
        positions = Positions.joined([r.positions for r in learn])
        head = await asyncio.to_thread(train_head, positions, options, start, lesson.seed, likelihood=False)
        return {
            "head": [round(x, DIGITS) for x in head.tolist()],
            "rows": [
                [r.prompt, r.positions.target[:-1].tolist(), [round(x, DIGITS) for x in r.positions.assistant.tolist()]]
                for r in learn
            ],
            "size": min(r.size for r in learn),
            "ends": sorted({i for r in learn for i in r.ends}),
        }

    found = await decoding.fit_once(context, lesson.what("co_llm.start", options, lesson.learn), models, begin)
    rows: Any = [Scored(prompt=prompt, ids=ids, assistant=scores) for prompt, ids, scores in found["rows"]]
    job = Joint(
        rows=rows,
        head=found["head"],
        size=found["size"],
        ends=found["ends"],
        lora=Lora(r=options.lora_r, alpha=options.lora_alpha) if options.train == "lora" else None,
        learning_rate=options.base_learning_rate,
        epochs=options.base_epochs,
        batch=options.base_batch,
        schedule="linear",
        warmup=options.warmup_ratio,
        max_length=options.max_seq_length,
    )
    trained = await context.train(base, job, name=f"{base.name}-deferring")
    head = [round(x, 6) for x in head_of(trained)]
    pair = [trained, assistant]

    async def look(spent: decoding.Spent) -> dict[str, Any]:
        part = lesson.held or lesson.learn
        read = await lesson.read(pair, options, part, context, spent, label="scoring held-out targets")
        told = await asyncio.to_thread(_judge, torch.tensor(head), read, options)
        return {**told, "report": {"texts": len(job.rows), "held_out_texts": len(read), **told["report"]}}

    what = lesson.what("co_llm.thresholds", options, lesson.held or lesson.learn)
    told = await decoding.fit_once(context, what, pair, look)
    context.note(**told["report"])
    return trained, {**told, "head": head}


@attrs.frozen(kw_only=True)
class Read:
    """A target that both models have read: the prompt's tokens, the positions, and what of the vocabulary both have."""

    prompt: Sequence[int]
    positions: Positions
    size: int
    ends: frozenset[int]


@attrs.frozen(kw_only=True)
class Lesson:
    """Dev in two parts, and the texts to learn from by example id."""

    learn: Sequence[Example]
    held: Sequence[Example]
    texts: Mapping[str, Sequence[Target]]
    seed: int

    @classmethod
    async def of(cls, models: Sequence[Model], options: Options, dev: Sequence[Example], context: Context) -> Lesson:
        """Raises ConfigError if there is nothing to learn from."""
        learn, held = split(dev, options.held_out)
        texts = await _targets(models, options, dev, context)
        if not any(e.id in texts for e in learn):
            raise ConfigError(
                "targets: no dev example gives a text to learn from; use targets=gold with references, or another assistant"
            )
        return cls(learn=learn, held=held, texts=texts, seed=context.rng("co_llm", "head").getrandbits(31))

    def what(self, kind: str, options: Options, *parts: Sequence[Example]) -> dict[str, Any]:
        """Return what a result of these parts depends on beside the models."""
        return {
            "kind": kind,
            "version": VERSION,
            "texts": [[[plain(e.question.messages()), self.texts.get(e.id, [])] for e in part] for part in parts],
            "options": options.training(),
            "seed": self.seed,
        }

    async def read(
        self,
        models: Sequence[Model],
        options: Options,
        part: Sequence[Example],
        context: Context,
        spent: decoding.Spent,
        *,
        label: str,
    ) -> list[Read]:
        """Read the texts of a part under both models; those that do not fit are left out.

        Raises ConfigError if none of the part that is learnt from fits.
        """

        async def one(example: Example, scope: Context) -> list[Read]:
            read = []
            for target in self.texts[example.id]:
                inner = scope.on(example.question)
                read.append(await _read(models, example, target, options, inner))
                spent.add(inner)
            return [found for found in read if found is not None]

        rows = await context.each([e for e in part if e.id in self.texts], one, label=label)
        found = [read for row in rows for read in row]
        if not found and part is self.learn:
            raise ConfigError(f"max_seq_length: no dev example fits into {options.max_seq_length} tokens; raise it")
        return found


def _train(learn: Sequence[Read], held: Sequence[Read], options: Options, start: Tensor, seed: int) -> dict[str, Any]:
    """Train the head and look at it on held-out positions; on those it was trained on if there are no others."""
    training = Positions.joined([r.positions for r in learn])
    head = train_head(training, options, start, seed=seed).mul(10**DIGITS).round().div(10**DIGITS)
    told = _judge(head, held or learn, options)
    positions = told["report"].pop("held_out_positions")
    return {
        **told,
        "head": [round(x, DIGITS) for x in head.tolist()],
        "report": {
            "texts": len(learn),
            "positions": len(training.target),
            "held_out_texts": len(held),
            "held_out_positions": positions if held else 0,
            **told["report"],
        },
    }


def _judge(head: Tensor, read: Sequence[Read], options: Options) -> dict[str, Any]:
    """Return the thresholds to choose from, and how well a head ranks these positions."""
    judged = Positions.joined([r.positions for r in read])
    sigma = (judged.hidden @ head).sigmoid()
    wanted = weak_labels(judged, "a").bool()
    area = decoding.auroc(sigma.tolist(), wanted.tolist())
    thresholds = candidates(sigma, judged.assistant_top != judged.base_top, options)
    return {
        "thresholds": thresholds,
        "shares": [round(float((sigma > eta).float().mean()), 4) for eta in thresholds],
        "report": {
            "held_out_positions": len(judged.target),
            "assistant_alone_right": round(float(wanted.float().mean()), 4),
            "auroc": None if area is None else round(area, 4),
        },
    }


def _mean_output_embedding(loaded: Any) -> Tensor:
    """The head starts in the middle of the tokens: the mean of the output embedding, float32 (H,)."""
    getter = getattr(loaded.module, "get_output_embeddings", None)
    layer = getter() if getter is not None else None
    if layer is None:
        width = getattr(loaded.module, "width", 0) or loaded.module.config.hidden_size
        return torch.zeros(width)
    mean: Tensor = layer.weight.detach()[: loaded.vocab if hasattr(loaded, "vocab") else None].float().mean(0).cpu()
    return mean


# -------------------------------------------------------------------- texts to learn from


async def _targets(
    models: Sequence[Model], options: Options, dev: Sequence[Example], context: Context
) -> dict[str, list[Target]]:
    """Return the replies to learn from, by example id."""

    async def gold(example: Example, scope: Context) -> list[Target]:
        text = await decoding.gold_text(example, scope)
        return [text] if text else []

    async def accepted(example: Example, scope: Context) -> list[Target]:
        asked = models if options.targets == "either" else models[1:]
        replies = await scope.gather(_accepted(model, example, scope) for model in asked)
        return [reply for i, reply in enumerate(replies) if reply is not None and reply not in replies[:i]]

    found: list[list[Target]] = []
    if options.targets != "gold":
        found = await context.each(dev, accepted, label="replies to learn from")
    if options.targets == "gold" or (options.targets == "auto" and not any(found)):
        found = await context.each(dev, gold)
    return {e.id: targets for e, targets in zip(dev, found, strict=True) if targets}


async def _accepted(model: Model, example: Example, scope: Context) -> Target | None:
    """Return a model's greedy reply if it is complete and the metric takes it for right."""
    try:
        reply = await scope.generate(model, example.question, attrs.evolve(scope.sampling, temperature=0.0))
    except PromptTooLong:
        return None
    score = (await scope.grade(example, Reply.of(reply))).value
    if score is None or score < 0.5 or not reply.text or reply.finish_reason != "eos":
        return None
    return list(reply.token_ids) or reply.text


async def _read(
    models: Sequence[Model], example: Example, target: Target, options: Options, scope: Context
) -> Read | None:
    """Read a reply under both models; None if it does not fit. Its last position is the end, whichever token says so."""
    try:
        sessions = await scope.gather(decoding.open_step_session(scope, m, example.question) for m in models)
    except PromptTooLong:
        return None
    try:
        vocabulary = sessions[0].vocabulary
        size = min(s.vocabulary.size for s in sessions)
        ends = frozenset().union(*(s.vocabulary.ends for s in sessions))
        ids = vocabulary.encode(target.encode()) if isinstance(target, str) else list(target)
        while ids and ids[-1] in ends:
            ids.pop()
        longest = max(len(s.opened.prompt) for s in sessions) + len(ids) + 1
        if not ids or max(ids) >= size or longest > options.max_seq_length:
            return None
        mine, theirs = await scope.gather(
            [sessions[0].trace(ids, hidden=True, size=size), sessions[1].trace(ids, size=size)]
        )
        for session in sessions:
            session.append_tokens(ids)
        last = await scope.gather(session.peek(full=True) for session in sessions)
    finally:
        for session in sessions:
            session.close()
    closing = torch.tensor(sorted(i for i in ends if i < size))
    end = [seen.full[:size].log_softmax(-1)[closing].logsumexp(0) for seen in last]
    tops = [[END if i in ends else i for i in traced.top_ids] for traced in (mine, theirs)]
    positions = Positions(
        hidden=mine.hidden,
        base=torch.cat([torch.tensor(mine.logprobs), end[0][None]]),
        assistant=torch.cat([torch.tensor(theirs.logprobs), end[1][None]]),
        base_top=torch.tensor(tops[0]),
        assistant_top=torch.tensor(tops[1]),
        target=torch.tensor([*ids, END]),
    )
    return Read(
        prompt=list(sessions[0].opened.prompt), positions=positions, size=size, ends=frozenset(closing.tolist())
    )


# -------------------------------------------------------------------- calibration


async def calibrate(
    systems: Mapping[float, System], assistant: str, held: Sequence[Example], context: Context
) -> float:
    """Return the threshold whose system has the best mean score on held-out dev; of equal ones the first.

    The score and the share of the assistant's tokens are noted for each: what deferral brings and what it costs.
    """
    best, top = 1.0, -math.inf
    for threshold, system in systems.items():
        graded = await decoding.graded_replies(system, held, context, label=f"threshold {threshold:.3g}")
        mean = sum(score for score, _ in graded) / len(graded)
        spans = [span for _, reply in graded for span in reply.spans]
        tokens = sum(span.tokens for span in spans)
        deferred = sum(span.tokens for span in spans if span.model == assistant)
        context.note(threshold=threshold, score=mean, deferred=round(deferred / max(1, tokens), 4))
        if mean > top:
            best, top = threshold, mean
    return best
