"""The options of nudging."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from moco_core import option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """When the nudging model speaks, and for how long."""

    gamma: float = option(
        0.4,
        gt=0,
        le=1,
        help="the base model goes on while its top probability is at least this",
        paper="0.4 (code: 0.3)",
    )
    nudge_tokens: int = option(16, ge=1, help="tokens the nudging model drafts at a time", paper="16")
    base_chunk: int = option(
        16, ge=1, help="base tokens per call, and what repetition_guard compares; decides nothing else", paper="16"
    )
    max_rounds: int = option(150, ge=1, help="nudges after which an answer ends", paper="150")
    temperature: float = option(0.0, ge=0, help="of both models", paper="0")
    agreement_rule: bool = option(
        True, help="the base model also takes over where it predicts the nudging model's next word", paper="true"
    )
    repetition_guard: bool = option(
        False,
        help="end before a base chunk of more than five words that the answer already has, and drop a repeated end",
        paper="true (code)",
    )
    base_eos: Literal["defer", "stop"] = option(
        "defer", help="the base model's end token: let the nudging model decide, or end the answer", paper="defer"
    )
    base_prompt: Literal["plain", "chat"] = option(
        "plain", help="what the base model reads: the bare text, or its chat template", paper="plain"
    )
    plain_template: str = option(
        "Question: {question}\nAnswer:",
        check=lambda text: None if "{question}" in text else "expected {question} in it",
        help="the text of base_prompt=plain",
    )
    base: str | int = option(0, help="base model, by name or index")
    nudging: str | int = option(1, help="nudging model, by name or index")
    tune: bool = option(False, help="choose gamma and the nudging model on dev")
    gamma_grid: tuple[float, ...] = option((0.2, 0.3, 0.4, 0.5), gt=0, le=1, help="values of gamma that tune tries")
    candidates: tuple[str | int, ...] = option(
        (), help="nudging models that tune tries; all but the base if none are named"
    )

    def deciding(self, gamma: float) -> dict[str, Any]:
        """Return what decides an answer beside models, question and sampling, as JSON data for its key."""
        return {
            "gamma": gamma,
            "draft": self.nudge_tokens,
            "rounds": self.max_rounds,
            "agreement": self.agreement_rule,
            "base_eos": self.base_eos,
            "prompt": self.plain_template if self.base_prompt == "plain" else None,
            "guard": self.base_chunk if self.repetition_guard else None,
        }
