"""MentorCollab: a small model writes and now and then weighs a large mentor's next words against its own.

Wang, Wang, Feng, Hajishirzi and Tsvetkov 2026, "MentorCollab: Selective Large-to-Small Inference-Time Guidance for Efficient
Reasoning", arXiv 2602.05307.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import (
    CAPABILITIES,
    ConfigError,
    Context,
    Cost,
    Example,
    Method,
    Model,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_method_mentor_collab.options import Options

__all__ = ["MentorCollab", "MentorSystem"]

_FILE = "probe.safetensors"
_CHUNK = 16  # tokens of one request for words


@attrs.frozen(eq=False, slots=False)
class MentorSystem(System):
    """The pool's indices of generator and mentor, and the probe if one was trained (else the generator judges by itself)."""

    generator: int
    mentor: int
    probe: Any = None

    def state(self) -> Mapping[str, Any]:
        return {"generator": self.generator, "mentor": self.mentor, "probe": self.probe is not None}

    def save_files(self, folder: Path) -> None:
        if self.probe is not None:
            self.probe.save(folder / _FILE)

    @property
    def models(self) -> list[Model]:
        return [self.pool[self.generator], self.pool[self.mentor]]

    @cached_property
    def shared(self) -> bool:
        """Whether the two models have one tokenizer, so that they exchange token ids instead of text."""
        return decoding.exchange_ids(self.models)

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_mentor_collab.verifying import verifier_of
        from moco_method_mentor_collab.writing import Writing  # torch is imported when it is needed

        o, models = self.options, self.models

        async def compute() -> dict[str, Any]:
            writing = await Writing.open(models, question, o, self.shared, context)
            return await writing.run(verifier_of(o, self.probe))

        judge = o.judging() if self.probe is None else [self.probe.fingerprint(), o.mlp_threshold, o.wording]
        return await decoding.answer_once(
            context,
            "mentor_collab",
            models,
            question,
            {**o.writing(), "judge": judge},
            compute,
            seeded=o.by_chance,
            sampling=attrs.evolve(context.sampling, temperature=0.0),
        )


class MentorCollab(Method[Options]):
    """Consult a large mentor at random places and keep the better segment."""

    Options = Options
    system = MentorSystem
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "MentorCollab"
    paper: ClassVar[str] = "arXiv 2602.05307"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "score", "hidden"}),
            min_models=2,
            check=self._problems,
        )

    def _roles(self, pool: Sequence[Model]) -> tuple[int, int]:
        return decoding.two_roles(pool, {"generator": self.options.generator, "mentor": self.options.mentor})

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < 2:
            return []  # that there are too few is said already
        try:
            generator = pool[self._roles(pool)[0]]
        except ConfigError as error:
            return list(error.problems)
        missing = [c for c in ("step", "hidden") if not generator.can(c)]
        if self.options.verifier == "mlp" and missing:
            return [
                f"model {generator.name!r} cannot {CAPABILITIES[missing[0]]} (capability {missing[0]!r}), which verifier=mlp "
                f"needs of the generator; use verifier=prompt, or models that can (`moco list pool --can {missing[0]}`)"
            ]
        return []

    def cost(self, models: int, dev: int) -> Cost:
        # labelling takes a session of each model, and the features another one of the generator
        return Cost(fit=3 * dev if self.options.verifier == "mlp" else 0, respond=2)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        """One session per model that steps; a model that only writes text is asked anew for every piece.

        A step of an answer takes a token at least. It is a word and a segment of each model, with up to three requests for
        what is left of a character, and two verdicts of the generator; or words of the generator alone, of which as many are
        asked for as tokens are left, in chunks.
        """
        generator, mentor = (pool[i] for i in self._roles(pool))
        steps, most = sampling.max_new_tokens, self.options.max_word_tokens
        each = math.ceil((most + 3) / _CHUNK) + 1 + 3
        alone = 1 + 2 * most / _CHUNK
        asked = 1 if mentor.can("step") else each * steps
        asked += 1 if generator.can("step") else math.ceil((each + 2 + alone) * steps)
        return Cost(fit=(asked + 1) * dev if self.options.verifier == "mlp" else 0, respond=asked)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MentorSystem:
        generator, mentor = self._roles(pool)
        system = MentorSystem(pool, self.options, generator, mentor)
        if self.options.verifier == "prompt":
            return system
        if not dev:
            raise ConfigError("verifier: mlp needs dev examples to train its probe; use verifier=prompt")
        from moco_method_mentor_collab.fitting import fit_probe

        probe = await fit_probe(system.models, self.options, system.shared, dev, context)
        return attrs.evolve(system, probe=probe)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MentorSystem:
        from moco_method_mentor_collab.probe import Probe

        probe = Probe.load(folder / _FILE) if state["probe"] else None
        return MentorSystem(pool, self.options, state["generator"], state["mentor"], probe)
