"""What pool checks are tried on: the plan of a test, and what the models of a pool say to its prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core.models import Model, PoolSource
from moco_core.types import Generation, Question, Sampling, canonical
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_authoring.suite import Case
from moco_toolkit_authoring.traces import Trace, process_as_it_was, unseen_folder

__all__ = ["PoolCase", "PoolPlan", "Said"]

_PROMPTS = (
    "What is 2 + 3?",
    "Say a word.",
    "Repeat: apple pear plum apple pear plum. Then say which fruit came first, and which came last of all.",
    "A?",
    "What is 7 + 8? End with: The answer is X.",
)
_INSTEAD = "draw from a generator of the call's own seed; tell what people should know in Generation.meta"


Said = dict[tuple[str, str], Generation]
"""What models said, by their names and the prompts."""


@attrs.frozen(kw_only=True)
class PoolPlan:
    """What pool checks work with. At most ``models`` models are asked, with ``max_new_tokens`` each.

    ``variants`` bounds how many options are varied, one at a time, to see whether they change replies.
    """

    prompts: Sequence[str] = _PROMPTS
    models: int = 2
    max_new_tokens: int = 8
    variants: int = 8


@attrs.define(eq=False)
class PoolCase(Case):
    """A pool with one setting."""

    plan: PoolPlan

    def source(self) -> PoolSource[Any]:
        source: PoolSource[Any] = self.make()
        return source

    def chosen(self, source: PoolSource[Any] | None = None, capability: str = "generate") -> list[Model]:
        """Return the models to ask: the first few that can."""
        models = [m for m in (source or self.source()).models() if m.can(capability)]
        return models[: self.plan.models]

    def sampling(self, temperature: float) -> Sampling:
        return Sampling(temperature=temperature, max_new_tokens=self.plan.max_new_tokens)

    def tell(self) -> str:
        return canonical([(m.name, m.fingerprint, m.copy, sorted(m.capabilities)) for m in self.source().models()])

    def greedy(self) -> Said:
        """Return what :meth:`texts` does without sampling, asked for once by all checks."""
        return self.once("greedy", self._greedy)[0]  # type: ignore[no-any-return]

    def sampled(self) -> Said:
        """Return the same at temperature 1."""
        return self.asked()[0]

    def asked(self) -> tuple[Said, Trace]:
        """Return also what was left behind in the process, by then warm: what its libraries do as they are imported is done."""
        self.greedy()
        return self.once("sampled", self._sampled)  # type: ignore[no-any-return]

    def _greedy(self) -> tuple[Said, Trace]:
        with process_as_it_was(_INSTEAD, shared=False) as trace:
            said = self.texts(0.0, together=False)
        return said, trace

    def _sampled(self) -> tuple[Said, Trace]:
        with unseen_folder(self.given) as written, process_as_it_was(_INSTEAD) as trace:
            models = self.chosen()  # held meanwhile, so that a file or a thread of theirs does not end with them
            said = self.texts(1.0, together=False, models=models)
            files = written()
        if files:
            trace.problems.append(f"{', '.join(files[:3])} was written into the working directory; use an option of the pool's")
        del models
        return said, trace

    def texts(
        self, temperature: float, *, together: bool, seed: int = 0, models: Sequence[Model] | None = None
    ) -> Said:
        """Return what freshly opened models say to every prompt, asked all together or one after the other."""
        chosen = self.chosen() if models is None else models

        async def work() -> Said:
            out: Said = {}
            async with open_state(seed=seed, sampling=self.sampling(temperature)) as state:

                async def ask(model: Model, prompt: str) -> None:
                    question = Question(id=prompt, prompt=prompt)
                    context = state.context("respond", question)
                    out[model.name, prompt] = await context.generate(model, question)

                jobs = [(m, p) for m in chosen for p in self.plan.prompts]
                if together:
                    await asyncio.gather(*(ask(m, p) for m, p in reversed(jobs)))
                else:
                    for model, prompt in jobs:
                        await ask(model, prompt)
            return out

        return asyncio.run(work())
