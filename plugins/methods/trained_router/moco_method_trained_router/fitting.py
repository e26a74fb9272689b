"""Learning a router from dev, and telling what it is worth on questions that it did not learn from."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import Context, Example, ModelCallError, digest, plain
from moco_method_trained_router.heads import HEADS, Head, restored
from moco_method_trained_router.lesson import Lesson
from moco_method_trained_router.options import IN_FORCE, Options
from moco_toolkit_quoting import transcript
from moco_toolkit_routing import Encoder, folds, holdout

__all__ = ["FILE", "Learnt", "embed", "learn", "load"]

VERSION = 1
"""Raised when the same lesson and options give another router."""
FILE = "router.safetensors"
_FIGURES = "fit.json"

Values = Sequence[Sequence[float]]


@attrs.frozen(kw_only=True)
class Learnt:
    """What there is to know of a fitted router beside its weights.

    ``held`` are the dev questions that the router itself never saw, ``held_values`` its probabilities there. ``parts`` are the
    folds and ``values`` the probabilities of every dev question by a router that was fitted without it; empty without folds.
    """

    held: Sequence[int]
    held_values: Values
    parts: Sequence[Sequence[int]] = ()
    values: Values = ()
    facts: Any = None


async def embed(encoder: Encoder, dev: Sequence[Example], context: Context) -> list[tuple[float, ...] | None]:
    """Return the vectors of the dev questions; None where a question cannot be embedded."""

    async def one(example: Example, scope: Context) -> tuple[float, ...] | None:
        try:
            return await encoder.encode(transcript(example.question), scope)
        except ModelCallError as error:
            failures.append(str(error))
            return None

    failures: list[str] = []
    vectors = await context.each(dev, one, label="embedding dev")
    if failures:
        context.warn(f"trained_router: {len(failures)} dev questions could not be embedded: {failures[0]}")
    return vectors


async def learn(
    lesson: Lesson, strata: Sequence[Any], options: Options, seed: int, context: Context
) -> tuple[Head, Learnt]:
    """Return the router and what is known of it, fitted at most once ever for the same lesson, options and seed."""
    what = {
        "kind": f"trained_router.{options.router}",
        "version": VERSION,
        "lesson": digest(plain(attrs.asdict(lesson)), [list(s) for s in strata]),
        "options": {k: v for k, v in plain(options).items() if k in _DECIDING},
        "seed": seed,
    }

    async def build(folder: Path) -> None:
        await asyncio.to_thread(_build, lesson, strata, options, seed, folder)

    folder = await context.artifact(what, build)
    return load(folder, options), Learnt(**json.loads((folder / _FIGURES).read_text("utf-8")))


_DECIDING = frozenset(
    ("router", "objective", "tie_eps", "val_fraction", "folds", "hidden", "patience", "dim", "noise", *IN_FORCE)
)


def load(folder: Path, options: Options) -> Head:
    """Read a router from its folder."""
    from safetensors.numpy import load_file

    return restored(load_file(str(folder / FILE)), options)


def _build(lesson: Lesson, strata: Sequence[Any], options: Options, seed: int, folder: Path) -> None:
    from safetensors.numpy import save_file

    everything = list(range(len(lesson.scores)))
    head, held, kept = _fit(lesson, everything, strata, options, seed)
    parts: list[list[int]] = []
    values: list[list[float]] = [[] for _ in everything]
    if options.parts > 1 and len(everything) > 1:
        parts = folds(strata, options.parts, random.Random(seed))
        for number, part in enumerate(parts):
            rest = [q for q in everything if q not in set(part)]
            if not lesson.usable(rest):
                continue
            other, _, _ = _fit(lesson, rest, strata, options, seed + 1 + number)
            for q in part:
                values[q] = _values(other, lesson, q)
    figures = Learnt(
        held=held,
        held_values=[_values(head, lesson, q) for q in held],
        parts=parts,
        values=values if parts else (),
        facts=attrs.asdict(kept) if kept is not None else None,
    )
    (folder / _FIGURES).write_text(json.dumps(attrs.asdict(figures)), encoding="utf-8")
    save_file({name: array.copy() for name, array in head.arrays.items()}, str(folder / FILE))


def _fit(
    lesson: Lesson, rows: Sequence[int], strata: Sequence[Any], options: Options, seed: int
) -> tuple[Head, list[int], Any]:
    """Fit on some questions, of which a share is held out; return the router, that share, and the epoch that was kept."""
    inner, outer = holdout([strata[q] for q in rows], options.val_fraction, random.Random(seed))
    train, held = [rows[k] for k in inner], [rows[k] for k in outer]
    if not lesson.usable(train):  # what can be learnt from was all held out
        train, held = list(rows), []
    head, kept = HEADS[options.router].fit(lesson, train, held, options, seed)
    return head, held, kept


def _values(head: Head, lesson: Lesson, q: int) -> list[float]:
    """Return a router's probabilities; an empty row where it has none that are finite."""
    vector = lesson.inputs[q]
    values = [] if vector is None else head.probabilities(vector)
    return values if all(map(math.isfinite, values)) else []
