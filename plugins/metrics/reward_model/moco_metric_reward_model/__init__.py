"""Reward model: the score that a sequence-classification reward model gives a reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core import (
    Answer,
    CapabilityError,
    ConfigError,
    Context,
    DatasetError,
    Example,
    Message,
    Metric,
    Model,
    Plugin,
    Question,
    Reply,
    Score,
    Scored,
    hookimpl,
    option,
    plugin_option,
)
from moco_toolkit_answers import judge_of, read_open, strip_reasoning

__all__ = ["Options", "RewardModel", "moco_metric"]


_OWN = "dataset"


@attrs.frozen(kw_only=True)
class Options:
    """The reward model, and what its score is compared with."""

    pool: Plugin | None = plugin_option("pool", None, help="the reward model's pool, as in a run: {name: ..., ...}")
    model: str = option("", help="the reward model's name in that pool; default: its first model")
    label: int = option(0, ge=0, help="which output of the head is the reward")
    report: Literal["reward", "win_rate"] = option("reward", help="the reward, or wins against the baseline's replies")
    baseline: str = option(
        "", holds="path or id", help="replies to compare with: JSON lines of {id, text}, or dataset: its own"
    )

    def __attrs_post_init__(self) -> None:
        if self.report == "win_rate" and not self.baseline:
            raise ConfigError("baseline: missing; report: win_rate compares with those replies: a file, or dataset")


_Options = Options  # inside the class the name means the attribute


class RewardModel(Metric[Options]):
    """The reward r(question, reply), a real number without bounds; not comparable between reward models.

    The reward model sees the conversation in its own chat template. Reasoning is removed; an empty reply is scored, not
    skipped. ``meta["characters"]`` holds the reply's length, because rewards favour long replies. With ``baseline`` each
    score also tells the baseline's reward and who won (1, 0, or 0.5). Reference: Skywork-Reward (arXiv 2410.18451).
    """

    Options = Options
    binary = False

    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self._replies: dict[str, str] | None = None

    @cached_property
    def judge(self) -> Model:
        """The reward model. Raises ConfigError or CapabilityError if the metric's pool has none."""
        model = judge_of("reward_model", self.options.pool, self.options.model)
        if not model.can("reward"):
            raise CapabilityError(
                f"metric.pool: model {model.name!r} cannot score a conversation (capability 'reward'); choose a "
                "sequence-classification reward model"
            )
        return model

    def check(self) -> Sequence[str]:
        """Look for the reward model. Raises ConfigError or CapabilityError if there is none."""
        self.judge  # noqa: B018
        return ()

    def read(self, question: Question, text: str) -> Answer:
        """Return the whole reply without reasoning."""
        return read_open(question, text)

    async def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply with one call of the reward model (two with a baseline)."""
        answer = read_open(example.question, reply.text)
        body = (strip_reasoning(reply.text) or "").strip()
        reward = await self._reward(example.question, body, context)
        meta: dict[str, Any] = {"characters": len(body)}
        if not self.options.baseline:
            return Score(value=reward, answer=answer, meta=meta)
        other = await self._reward(example.question, self._baseline(example), context)
        win = 0.5 if reward == other else float(reward > other)
        meta |= {"reward": reward, "baseline": other, "win": win}
        return Score(value=win if self.options.report == "win_rate" else reward, answer=answer, meta=meta)

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """Mean length of the replies in characters; with a baseline also the mean reward and the win rate."""
        out: dict[str, float] = {}
        for name in ("characters", "reward", "win"):
            values = [float(r.score.meta[name]) for r in rows if name in r.score.meta]
            if values:
                out["win_rate" if name == "win" else name] = sum(values) / len(values)
        return out

    async def _reward(self, question: Question, body: str, context: Context) -> float:
        values = await context.reward(self.judge, [*question.messages(), Message("assistant", body)])
        if self.options.label >= len(values):
            raise ConfigError(
                f"metric.label: expected less than {len(values)}, the outputs of {self.judge.name!r}, got "
                f"{self.options.label}"
            )
        return float(values[self.options.label])

    def _baseline(self, example: Example) -> str:
        if self.options.baseline == _OWN:
            if not isinstance(text := example.meta.get("baseline"), str):
                raise DatasetError(
                    f"question {example.id!r}: the dataset brings no baseline reply (meta['baseline']); give a file as "
                    "metric.baseline"
                )
            return (strip_reasoning(text) or "").strip()
        if self._replies is None:
            self._replies = _replies(Path(self.options.baseline))
        if example.id not in self._replies:
            raise DatasetError(
                f"{self.options.baseline}: no reply with id {example.id!r}; the baseline must answer every question"
            )
        return (strip_reasoning(self._replies[example.id]) or "").strip()


def _replies(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    out: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            out[str(row["id"])] = str(row["text"])
        except (ValueError, KeyError, TypeError):
            raise DatasetError(f"{path}: row {number}: expected an object with the fields id and text") from None
    return out


@hookimpl
def moco_metric() -> type[RewardModel]:
    return RewardModel
