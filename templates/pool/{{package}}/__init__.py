"""{{summary}}

The models here only shuffle the words they are given. Replace ``_Engine.submit`` with calls to whatever runs yours; an
engine that must form batches itself implements ``serve`` instead of ``submit``.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from moco_core import Call, CapabilityError, Engine, Generation, Model, PoolSource, Sampling, Usage, hookimpl, option
from moco_core.types import digest

__all__ = ["{{Class}}", "Options", "moco_pool"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of {{name}}."""

    models: tuple[str, ...] = option(("first", "second"), help="names of the models, in order")


class _Engine(Engine):
    """Answers each call on its own; the scheduler keeps at most ``max_in_flight`` of them open."""

    batches_itself: ClassVar[bool] = True
    max_in_flight = 16

    async def submit(self, call: Call) -> Any:
        if call.kind != "generate":
            raise CapabilityError(f"{call.model.name} can only generate text, not {call.kind!r}")
        prompt = call.input["text"] if "text" in call.input else "\n".join(m[1] for m in call.input["messages"])
        return _write(call.model, prompt, Sampling.from_params(call.params), call.seed)

    async def close(self) -> None:
        """Close connections here. It may be called without any call before, and twice."""


def _write(model: Model, prompt: str, sampling: Sampling, seed: int | None) -> Generation:
    """Write a reply. ``seed`` is None for greedy decoding; a reply may depend on nothing but these arguments."""
    words = prompt.split()
    random.Random(digest(model.fingerprint, prompt, seed)).shuffle(words)
    finish = "length" if len(words) > sampling.max_new_tokens else "eos"
    words = words[: sampling.max_new_tokens]
    text = " ".join(words)
    cuts = [at for at in (text.find(stop) for stop in sampling.stop) if at >= 0]
    if cuts:
        text, finish = text[: min(cuts)], "stop"
    return Generation(
        text=text,
        finish_reason="stop" if finish == "stop" else "length" if finish == "length" else "eos",
        usage=Usage(len(prompt.split()), len(words)),
    )


class {{Class}}(PoolSource[Options]):
    """{{summary}}"""

    Options = Options

    @functools.cached_property
    def _engine(self) -> _Engine:
        return _Engine()

    def models(self) -> Sequence[Model]:
        # The fingerprint names everything that decides a reply: change it when weights, templates or settings change.
        return [
            Model(
                name=name,
                fingerprint=digest("{{name}}", 1, name),
                capabilities=frozenset({"generate"}),
                engine=self._engine,
                description="shuffles the words it is given",
            )
            for name in self.options.models
        ]


@hookimpl
def moco_pool() -> type[{{Class}}]:
    return {{Class}}
