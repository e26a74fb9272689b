"""Training the probe: at every disagreement on dev, which segment leads the generator to the better answer?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch

from moco_core import Context, Example, Reply
from moco_core.types import Sampling
from moco_method_mentor_collab.probe import Probe, train_probe
from moco_method_mentor_collab.writing import Segment, Writing, features, verifier_of
from moco_toolkit_decoding import StepSession

if TYPE_CHECKING:
    from moco_method_mentor_collab import MentorSystem

__all__ = ["train_on_dev"]


@attrs.frozen(eq=False)
class _Labelled:
    hidden: Any
    keep: bool
    question: str


async def train_on_dev(system: MentorSystem, dev: Sequence[Example], context: Context) -> Probe | None:
    """Return the trained probe, or None (with a warning) if dev gives too few usable labels."""
    options = system.options

    async def one(example: Example, scope: Context) -> list[_Labelled]:
        found: list[_Labelled] = []

        async def label(session: StepSession, a: Segment, b: Segment) -> None:
            hidden = await features(session, a, b)
            first, second = await scope.gather(
                _worth(session, s, example, options.label_samples, scope) for s in (a, b)
            )
            if first != second:
                found.append(_Labelled(hidden, first > second, example.id))

        writing = await Writing.open(system.models, example.question, options, system.shared, scope)
        writing.on_choice = label
        await writing.run(verifier_of(options, None))
        return found

    rows = [row for part in await context.each(dev, one, label="labelling segments") for row in part]
    keep = sum(r.keep for r in rows)
    context.note(labels=len(rows), keep=keep)
    if len(rows) < options.min_labels or keep in (0, len(rows)):
        context.warn(
            f"verifier=mlp: {len(rows)} usable labels on dev ({keep} for the generator), {options.min_labels} of both kinds "
            "are needed; the prompt verifier is used instead"
        )
        return None
    probe, accuracy = train_probe(
        torch.stack([r.hidden for r in rows]),
        torch.tensor([r.keep for r in rows]),
        [r.question for r in rows],
        dropout=options.mlp_dropout,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        seed=context.rng("mentor_collab", "probe").getrandbits(31),
    )
    context.note(held_out_accuracy=accuracy)
    return probe


async def _worth(session: StepSession, segment: Segment, example: Example, samples: int, scope: Context) -> float:
    """Return the mean score of the answers that the generator writes alone after this segment."""
    total = 0.0
    sampling = attrs.evolve(scope.sampling, temperature=0.0)
    for n in range(samples):
        one = session.fork()
        one.append_text(segment.data)
        if not segment.ended:
            room = sampling.max_new_tokens - one.n_tokens
            settings, generator = _settings(sampling, samples), scope.rng("label", n, one.text)
            if room > 0:
                await one.draft(room, sampling=settings, generator=generator, commit=True)
        graded = await scope.grade(example, Reply(text=one.text))
        one.close()
        total += graded.value or 0.0
    return total / samples


def _settings(greedy: Sampling, samples: int) -> Sampling:
    return greedy if samples == 1 else attrs.evolve(greedy, temperature=0.7)
