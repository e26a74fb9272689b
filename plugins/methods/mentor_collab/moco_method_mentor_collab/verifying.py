"""Who chooses between two segments: the generator itself, or a probe on its hidden state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.probe import Probe
from moco_method_mentor_collab.prompts import LABELS, Segment, choice, consultation
from moco_toolkit_decoding import DecodingSession

__all__ = ["Verifier", "features", "verifier_of"]

Verifier = Callable[[DecodingSession, Segment, Segment], Awaitable[bool]]
"""Returns whether the mentor's segment is taken; it leaves the generator's session as it was."""
TIE = 1e-5
"""A lead below this is rounding noise of a batch, and no lead."""


def verifier_of(options: Options, probe: Probe | None) -> Verifier:
    """Return the verifier that the options and the trained probe say."""

    async def by_prompt(session: DecodingSession, a: Segment, b: Segment) -> bool:
        lead = await _preference(session, a, b, options.wording)
        if options.debias:
            lead -= await _preference(session, b, a, options.wording)
        return lead > options.margin + TIE

    async def by_probe(session: DecodingSession, a: Segment, b: Segment) -> bool:
        assert probe is not None
        hidden = await features(session, consultation(a.shown(), b.shown(), options.wording))
        return probe.keeps(hidden) <= options.mlp_threshold

    return by_prompt if probe is None else by_probe


async def features(session: DecodingSession, shown: bytes) -> Any:
    """Return the generator's hidden state at the end of a consultation, before the choice, float32 (H,)."""
    here = session.mark()
    session.append_text(shown)
    try:
        return await session.hidden()
    finally:
        session.rollback(here)


async def _preference(session: DecodingSession, a: Segment, b: Segment, wording: str) -> float:
    """Return how much the generator prefers the label B to the label A, in log-probability over the labels' forms."""
    here = session.mark()
    session.append_text(consultation(a.shown(), b.shown(), wording) + choice(wording))
    try:
        first, second = await session.choice(LABELS)
    finally:
        session.rollback(here)
    return 0.0 if first == second else second - first  # a model that names no label prefers neither
