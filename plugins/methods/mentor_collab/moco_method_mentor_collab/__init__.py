"""MentorCollab: a small model writes and now and then weighs a large mentor's next words against its own.

Wang, Wang, Feng, Hajishirzi and Tsvetkov 2026, "MentorCollab: Selective Large-to-Small Inference-Time Guidance for Efficient
Reasoning", arXiv 2602.05307.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

import moco_toolkit_decoding as decoding
from moco_core import Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, System, hookimpl
from moco_core.errors import ConfigError
from moco_core.models import CAPABILITIES
from moco_core.options import option

__all__ = ["MentorCollab", "MentorCollabOptions"]


@attrs.frozen(kw_only=True)
class MentorCollabOptions:
    """How often the mentor is consulted, and who judges."""

    decision_proportion: float = option(
        25.0, ge=0, le=100, help="percentage of word starts at which the mentor is consulted", paper="5 (code)"
    )
    patch_size: int = option(16, ge=1, help="tokens of a lookahead segment", paper="16")
    verifier: Literal["prompt", "mlp"] = option(
        "prompt",
        help="who chooses between two segments: the generator itself, or a probe on its hidden state",
        paper="both",
    )
    mlp_threshold: float = option(
        0.5, gt=0, lt=1, help="the generator's segment is kept above this (verifier=mlp)", paper="0.5"
    )
    mlp_dropout: float = option(0.1, ge=0, lt=1, help="dropout of the probe while it is trained", paper="0.1")
    learning_rate: float = option(1e-4, gt=0, help="of the probe")
    epochs: int = option(20, ge=1, help="most passes over the probe's examples")
    label_samples: int = option(1, ge=1, help="completions per segment that decide its label; 1 is greedy")
    min_labels: int = option(50, ge=2, help="with fewer usable labels the prompt verifier is used instead")
    max_word_tokens: int = option(12, ge=1, help="a word is over after so many tokens", paper="12")
    margin: float = option(
        0.0, ge=0, help="how much the mentor's segment must lead by, in log-probability (verifier=prompt)"
    )
    debias: bool = option(
        False, help="ask a second time with the options swapped, and add the scores (verifier=prompt)"
    )
    repeat_stop: int = option(
        0, ge=0, help="end after the same segment so many times in a row; 0 is off", paper="3 (code)"
    )
    problem_stop: bool = option(
        False, help="end before a new block that starts with Question or Problem", paper="true (code)"
    )
    generator: str | int = option(0, help="the model that writes, by name or index")
    mentor: str | int = option(1, help="the model that is consulted, by name or index")


class MentorCollab(Method[MentorCollabOptions]):
    """Consult a large mentor at random places and keep the better segment."""

    Options = MentorCollabOptions
    level: ClassVar[Literal["api"]] = "api"
    title: ClassVar[str] = "MentorCollab"
    paper: ClassVar[str] = "arXiv 2602.05307"

    def needs(self) -> Needs:
        return Needs(
            capabilities=frozenset({"generate"}),
            optional=frozenset({"step", "score", "hidden"}),
            min_models=2,
            check=self._check,
        )

    @property
    def _named(self) -> dict[str, str | int]:
        return {"generator": self.options.generator, "mentor": self.options.mentor}

    def _check(self, pool: Sequence[Model]) -> list[str]:
        if len(pool) < 2:
            return []  # that there are too few is said already
        if problems := decoding.role_problems(pool, self._named):
            return problems
        generator = pool[self._roles(pool)[0]]
        missing = [c for c in ("step", "hidden") if not generator.can(c)]
        if self.options.verifier == "mlp" and missing:
            return [
                f"model {generator.name!r} cannot {CAPABILITIES[missing[0]]} (capability {missing[0]!r}), which verifier=mlp "
                "needs of the generator; use verifier=prompt, or the transformers engine (pip install moco-pool-transformers)"
            ]
        return []

    def _roles(self, pool: Sequence[Model]) -> tuple[int, int]:
        return decoding.two_roles(pool, self._named)

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=2 * dev if self.options.verifier == "mlp" else 0, respond=2)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MentorSystem:
        generator, mentor = self._roles(pool)
        system = MentorSystem(pool, self.options, generator, mentor, None)
        if self.options.verifier == "prompt":
            return system
        if not dev:
            raise ConfigError("verifier: mlp needs dev examples to train its probe; use verifier=prompt")
        from moco_method_mentor_collab.training import train_on_dev

        return MentorSystem(pool, self.options, generator, mentor, await train_on_dev(system, dev, context))

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MentorSystem:
        probe = None
        if state["probe"]:
            from moco_method_mentor_collab.probe import Probe

            probe = Probe.load(folder / "probe.safetensors")
        return MentorSystem(pool, self.options, state["generator"], state["mentor"], probe)


class MentorSystem(System):
    """A generator, its mentor, and the probe if one was trained (else the generator judges by itself)."""

    def __init__(self, pool: Pool, options: MentorCollabOptions, generator: int, mentor: int, probe: Any) -> None:
        self.pool = pool
        self.options = options
        self.generator, self.mentor = generator, mentor
        self.probe = probe

    def state(self) -> Mapping[str, Any]:
        return {"generator": self.generator, "mentor": self.mentor, "probe": self.probe is not None}

    def save_files(self, folder: Path) -> None:
        if self.probe is not None:
            self.probe.save(folder / "probe.safetensors")

    @property
    def models(self) -> list[Model]:
        return [self.pool[self.generator], self.pool[self.mentor]]

    @cached_property
    def shared(self) -> bool:
        """Whether the two models have one tokenizer, so that they exchange token ids instead of text."""
        return decoding.exchange_ids(self.models)

    async def respond(self, question: Question, context: Context) -> Reply:
        from moco_method_mentor_collab.writing import Writing, verifier_of

        o = self.options
        models = self.models

        async def compute() -> dict[str, Any]:
            writing = await Writing.open(models, question, o, self.shared, context)
            return await writing.run(verifier_of(o, self.probe))

        settings = {
            "proportion": o.decision_proportion,
            "patch": o.patch_size,
            "word": o.max_word_tokens,
            "judge": [o.margin, o.debias] if self.probe is None else [self.probe.fingerprint(), o.mlp_threshold],
            "stops": [o.repeat_stop, o.problem_stop],
        }
        greedy = attrs.evolve(context.sampling, temperature=0.0)
        # the run's seed decides where the mentor is consulted
        return await decoding.answer_once(
            context, "mentor_collab", models, question, settings, compute, seeded=True, sampling=greedy
        )


@hookimpl
def moco_method() -> type[MentorCollab]:
    return MentorCollab
