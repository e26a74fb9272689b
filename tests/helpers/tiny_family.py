"""The tiny pool's checkpoints, for engines that are to say what the transformers engine says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from moco_core.models import Model
from moco_core.types import Generation, Message, Sampling
from moco_toolkit_authoring import open_state

MARGIN = 1e-3
"""Log-probabilities agree within this, and so do those of the two tokens where greedy replies part."""

PROMPTS: tuple[str | tuple[Message, ...], ...] = (
    "What is the sum of 47, 3 and 6?",
    "State the town that Quin has.",
    "What becomes of 35 by gaining 2 and losing 6?",
    "the quick brown fox",  # nothing they were trained on
    (Message("system", "Be brief."), Message("user", "Sort 9, 4 and 7."), Message("assistant", "The")),
)
LORAS = ("arithmetic", "letters", "facts", "generalist")


def weights(name: str) -> str:
    """Return the folder of a checkpoint (``base``, ``letters``, ...) or an adapter (``letters-lora``); skip without."""
    pool = pytest.importorskip("moco_pool_tiny.pool", reason="the pool tiny is not installed")
    return str(pool.WEIGHTS / name)


def family() -> list[dict[str, Any]]:
    """Return pool entries: the base, and the models that are adapters on it."""
    base = weights("base")
    tuned = [{"model": base, "adapter": weights(f"{n}-lora"), "name": n} for n in LORAS]
    return [{"model": base, "name": "base"}, *tuned]


def reference(*names: str, form: str = "full") -> list[Model]:
    """Return the tiny pool's models on the transformers engine."""
    pool = pytest.importorskip("moco_pool_tiny.pool", reason="the pool tiny is not installed")
    return list(pool.TinyPool(pool.Options(models=names, form=form)).models())


def say(
    models: Sequence[Model], prompts: Sequence[Any] = PROMPTS, *, raw: bool = False, **how: Any
) -> list[Generation]:
    """Ask every model everything together, greedily."""

    async def work() -> list[Generation]:
        async with open_state(sampling=Sampling(**{"max_new_tokens": 16, **how})) as state:
            context = state.context("fit")
            calls = [context.generate(m, p, raw=raw) for m in models for p in prompts]
            found: list[Generation] = await context.gather(calls)
            return found

    return asyncio.run(work())


def same(one: Generation, other: Generation, *, text_of_a_server: bool = False) -> None:
    """Equal greedy replies; or the log-probabilities of the first tokens that differ show a tie within the margin."""
    assert one.usage.prompt_tokens == other.usage.prompt_tokens
    for i, (a, b) in enumerate(zip(one.token_ids, other.token_ids, strict=False)):
        p, q = one.token_logprobs[i], other.token_logprobs[i]
        assert abs(p - q) < MARGIN, f"token {i}: {a} ({p}) and {b} ({q})"
        if a != b:
            return
    # servers hold back characters that are not complete when the budget ends
    texts = [g.text.rstrip("\ufffd") if text_of_a_server else g.text for g in (one, other)]
    assert texts[0] == texts[1]
    assert (one.finish_reason, one.token_ids) == (other.finish_reason, other.token_ids)
