"""The options of MentorCollab."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
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
    wording: Literal["request", "choice"] = option(
        "request",
        help="how the generator is asked to choose: by a request, or by a sentence to complete, which suits base models",
        paper="choice (code)",
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

    @property
    def by_chance(self) -> bool:
        """Whether chance decides where the mentor is consulted."""
        return 0 < self.decision_proportion < 100

    def writing(self) -> dict[str, Any]:
        """Return what decides how an answer is written beside models, question, sampling and verifier, as JSON data."""
        return {
            "proportion": self.decision_proportion,
            "patch": self.patch_size,
            "word": self.max_word_tokens,
            "stops": [self.repeat_stop, self.problem_stop],
        }

    def judging(self) -> list[Any]:
        """Return what decides the verdicts of the prompt verifier, as JSON data."""
        return [self.margin, self.debias, self.wording]
