"""The options of switch generation."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from moco_core import CapabilityError, ConfigError, Model, Plugin, option, plugin_option

__all__ = ["Options"]


@attrs.frozen(kw_only=True)
class Options:
    """Patches, and who chooses their writers."""

    patch_size: int = option(50, ge=1, help="tokens of a patch", paper="50")
    switcher: str | int = option(
        -1,
        help="the model that chooses, by name or index, zero-shot; train fits one on dev (needs the training toolkit)",
        paper="train",
    )
    switcher_writes: bool = option(True, help="whether the switcher is one of the writers too")
    choice: Literal["switcher", "random"] = option(
        "switcher", help="who names the writers: the switcher, or chance, as an ablation", paper="both (code)"
    )
    trace: Literal["list", "tags"] = option(
        "list",
        help="how the switcher reads the answer so far: a numbered list, or the authors' tags (for switchers trained on them)",
        paper="tags (code)",
    )
    force_ends: bool | None = option(
        None,
        help="give the first and the last patch to the last model; none: with three models",
        paper="with three models",
    )
    wait: bool = option(False, help="when a model ends the answer, append a cue and go on instead")
    max_waits: int = option(2, ge=0, help="how often wait does so per answer")
    wait_cue: str = option(" Wait,", help="the cue of wait", paper="Wait (s1)")
    answer_cue: str = option(
        "", help="text put once before the last patch of an answer that uses its whole budget; empty is off"
    )

    switcher_base: str | int = option(
        -1, help="the model that is trained as the switcher, by name or index (all of these: switcher=train)"
    )
    instances: int = option(500, ge=1, help="sampled places of dev answers that are labelled")
    rollouts: int = option(
        16, ge=1, help="answers that are finished from each of them, as many for every next writer (rounded up)"
    )
    fit_temperature: float = option(0.7, ge=0, help="sampling of those answers", paper="0.7")
    fit_top_p: float = option(0.9, gt=0, le=1, help="sampling of those answers", paper="0.9")
    tie_eps: float = option(
        0.0, ge=0, help="worths that differ by no more are equal; where all are, the place is left out"
    )
    reward_model: Plugin | None = plugin_option(
        "pool", None, help="the pool of the model whose reward an answer is worth; none takes the metric's score"
    )
    held_out: float = option(0.15, gt=0, lt=1, help="share of the labelled questions by which the best epoch is kept")
    lora_r: int = option(16, ge=1, help="rank of the switcher's adapter")
    lora_alpha: int = option(32, ge=1, help="its scale")
    learning_rate: float = option(1e-4, gt=0, help="of the switcher")
    epochs: int = option(3, ge=1, help="passes over the labelled places")

    def __attrs_post_init__(self) -> None:
        if self.wait and not self.wait_cue.strip():
            raise ConfigError("wait_cue: expected some text, since wait is on")

    @property
    def trains(self) -> bool:
        """Whether a switcher is trained."""
        return self.switcher == "train" and self.choice == "switcher"

    @property
    def chooser(self) -> str | int:
        """Who chooses, or whom the one that chooses is made of."""
        return self.switcher_base if self.switcher == "train" else self.switcher

    @property
    def judge(self) -> Model | None:
        """The reward model. Raises CapabilityError or ConfigError if it is none."""
        if self.reward_model is None:
            return None
        pool = self.reward_model.instance.pool
        if len(pool) != 1:
            raise ConfigError(f"reward_model: expected a pool of one model, got {len(pool)}")
        judge: Model = pool[0]
        if not judge.can("reward"):
            raise CapabilityError(f"reward_model: {judge.name!r} has no head that scores a conversation ('reward')")
        return judge

    def ends(self, writers: int) -> bool:
        """Return whether the first and the last patch belong to the last of so many writers."""
        return writers == 3 if self.force_ends is None else self.force_ends

    def deciding(self) -> dict[str, Any]:
        """Return what decides an answer beside models, question and sampling, as JSON data for its key."""
        return {
            "patch": self.patch_size,
            "choice": self.choice,
            "trace": self.trace,
            "ends": self.force_ends,
            "wait": [self.wait_cue, self.max_waits] if self.wait else None,
            "cue": self.answer_cue,
        }
