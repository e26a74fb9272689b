"""Training the probe: at every disagreement on dev, which segment leads the generator to the better answer?

What is written on dev is kept question by question, and the probe that is trained on it as files, so that neither is computed
again, and a killed run goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

import moco_toolkit_decoding as decoding
from moco_core import Context, Example, Model, PromptTooLong, Reply, Sampling, plain
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.probe import Probe, train_probe
from moco_method_mentor_collab.prompts import Segment, consultation
from moco_method_mentor_collab.verifying import features, verifier_of
from moco_method_mentor_collab.writing import Writing
from moco_toolkit_decoding.text import cut_at

__all__ = ["fit_probe"]

VERSION = 2
"""Raised when the same dev examples, models and options give another probe."""
SAMPLING_TEMPERATURE = 0.7
"""Of the completions of a segment if more than one decides its label."""


@attrs.frozen
class Choice:
    """A disagreement: the generator's tokens before it, what the verifier is shown, and whether the generator was right."""

    ids: tuple[int, ...]
    shown: str
    keep: bool


async def fit_probe(
    models: Sequence[Model], options: Options, shared: bool, dev: Sequence[Example], context: Context
) -> Probe | None:
    """Return the trained probe of ``models`` (generator, mentor), or None (with a warning) if dev gives too few labels."""

    async def one(example: Example, scope: Context) -> list[Choice]:
        try:
            return await _choices(models, options, shared, example, scope)
        except PromptTooLong:
            return []  # nothing can be learnt from a question that cannot be read

    found = await context.each(dev, one, label="labelling segments")
    rows = [choice for part in found for choice in part]
    keep = sum(row.keep for row in rows)
    context.note(labels=len(rows), keep=keep)
    if len(rows) < options.min_labels or keep in (0, len(rows)):
        context.warn(
            f"verifier=mlp: {len(rows)} usable labels on dev ({keep} for the generator), {options.min_labels} of both kinds "
            "are needed; the prompt verifier is used instead"
        )
        return None
    folder = await _trained(
        models[0], options, [(e, part) for e, part in zip(dev, found, strict=True) if part], context
    )
    context.note(**json.loads((folder / "report.json").read_text(encoding="utf-8")))
    return await asyncio.to_thread(Probe.load, folder / "probe.safetensors")


async def _choices(
    models: Sequence[Model], options: Options, shared: bool, example: Example, scope: Context
) -> list[Choice]:
    """Return the disagreements of one dev question whose segments lead to answers of different worth."""
    sampling = attrs.evolve(scope.sampling, temperature=0.0)

    async def compute(spent: decoding.Spent) -> list[Any]:
        inner = scope.on(example.question)
        found: list[Any] = []

        async def tell(session: decoding.DecodingSession, a: Segment, b: Segment) -> None:
            endings = await inner.gather(_endings(session, s, options.label_samples, sampling, inner) for s in (a, b))
            found.append([list(session.ids), a.shown(), b.shown(), *endings])

        writing = await Writing.open(models, example.question, options, shared, inner)
        writing.on_choice = tell
        await writing.run(verifier_of(options, None))
        spent.add(inner)
        return found

    what = {
        "kind": "mentor_collab.endings",
        "version": VERSION,
        "question": [example.id, plain(example.question.messages())],
        "sampling": sampling.params(),
        "options": [options.writing(), options.judging(), options.label_samples],
        "shared": shared,
        "seed": scope.seed,
    }
    out = []
    for ids, a, b, *endings in await decoding.fit_once(scope, what, models, compute):
        first, second = [await _worth(example, texts, scope) for texts in endings]
        if first != second:
            shown = consultation(a, b, options.wording).decode()
            out.append(Choice(tuple(ids), shown, first > second))
    return out


async def _endings(
    session: decoding.DecodingSession, segment: Segment, samples: int, sampling: Sampling, scope: Context
) -> list[str]:
    """Return the answers that the generator writes alone after this segment, as a run would return them."""
    out = []
    settings = sampling if samples == 1 else attrs.evolve(sampling, temperature=SAMPLING_TEMPERATURE)
    for n in range(samples):
        one = session.fork()
        one.append_text(segment.data)
        room = sampling.max_new_tokens - one.n_tokens
        if not segment.ended and room > 0:
            await one.draft(room, sampling=settings, generator=scope.rng("label", n, one.text), commit=True)
        found = cut_at(one.text, sampling.stop)
        out.append(one.answer_in(one.text if found is None else found[0])[1])
        one.close()
    return out


async def _worth(example: Example, texts: Sequence[str], scope: Context) -> float:
    """Return the mean score of answers."""
    grades = [await scope.grade(example, Reply(text=text)) for text in texts]
    return sum(grade.value or 0.0 for grade in grades) / len(grades)


async def _trained(
    generator: Model, options: Options, rows: Sequence[tuple[Example, Sequence[Choice]]], context: Context
) -> Path:
    """Return the folder of the probe trained on these rows, and of what is told about it."""
    choices = {example.id: part for example, part in rows}
    seed = context.rng("mentor_collab", "probe").getrandbits(31)
    fresh = False

    async def build(folder: Path) -> None:
        nonlocal fresh
        fresh = True
        spent = decoding.Spent([generator])

        async def one(example: Example, scope: Context) -> list[Any]:
            hidden = await _read(generator, example, choices[example.id], scope)
            spent.add(scope)
            return hidden

        hidden = await context.each([example for example, _ in rows], one, label="reading choices")
        probe, report = await asyncio.to_thread(
            train_probe,
            torch.stack([state for part in hidden for state in part]),
            torch.tensor([choice.keep for _, part in rows for choice in part]),
            [example.id for example, part in rows for _ in part],
            dropout=options.mlp_dropout,
            learning_rate=options.learning_rate,
            epochs=options.epochs,
            seed=seed,
        )
        probe.save(folder / "probe.safetensors")
        (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
        (folder / "spent.json").write_text(json.dumps(spent.data()), encoding="utf-8")

    what = {
        "kind": "mentor_collab.probe",
        "version": VERSION,
        "model": generator.fingerprint,
        "choices": [[plain(e.question.messages()), plain(part)] for e, part in rows],
        "training": [options.mlp_dropout, options.learning_rate, options.epochs],
        "seed": seed,
    }
    folder = await context.artifact(what, build)
    if not fresh:  # sessions count themselves
        decoding.Spent([generator], json.loads((folder / "spent.json").read_text(encoding="utf-8"))).count(context)
    return folder


async def _read(generator: Model, example: Example, choices: Sequence[Choice], scope: Context) -> list[Any]:
    """Return the generator's hidden state at each of the choices of one answer."""
    session = await decoding.open_session(scope, generator, example.question)
    out = []
    try:
        for choice in choices:
            start = session.mark()
            session.append_tokens(choice.ids)
            out.append(await features(session, choice.shown.encode()))
            session.rollback(start)
    finally:
        session.close()
    return out
