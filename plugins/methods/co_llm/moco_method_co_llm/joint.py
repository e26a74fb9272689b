"""Training the base model together with the deferral head, on the marginal likelihood of both models: a job of this method's.

Shen et al. 2024, arXiv 2403.03870. The assistant is frozen: its log-probabilities of the targets are data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import Model
from moco_core.training import Trained
from moco_toolkit_training import Job

__all__ = ["Joint", "Scored", "head_of"]

_FILE = "deferral_head.json"


@attrs.frozen(kw_only=True)
class Scored:
    """A prompt's tokens, the target's tokens without the end, and the assistant's log-probability of each and of the end."""

    prompt: tuple[int, ...] = attrs.field(converter=tuple)
    ids: tuple[int, ...] = attrs.field(converter=tuple)
    assistant: tuple[float, ...] = attrs.field(converter=tuple)


@attrs.frozen(kw_only=True, slots=False)
class Joint(Job):
    """Base and head minimise -log((1 - sigma(g.h)) P_0 + sigma(g.h) P_1) of :class:`Scored` rows, from a given ``head`` on.

    The probabilities are those over the first ``size`` tokens, which both models have; ``ends`` are the tokens any of which
    ends a reply. The base's softmax knows nothing of the head.
    """

    service = "co_llm"
    rates = (1e-4, 2e-5)
    rows: tuple[Scored, ...] = attrs.field(converter=tuple)
    head: tuple[float, ...] = attrs.field(converter=tuple)
    size: int
    ends: tuple[int, ...] = attrs.field(converter=tuple)

    def columns(self, row: Scored, bound: int) -> Mapping[str, Any] | None:
        ids = [*row.prompt, *row.ids]
        if len(ids) > bound:
            return None
        return {"input_ids": ids, "target": [*row.ids, self.size], "assistant": list(row.assistant)}

    def trainer(self, student: Any, rows: Mapping[str, list[Any]], common: Mapping[str, Any], given: Any) -> Any:
        from moco_method_co_llm.joint_loss import make_trainer

        return make_trainer(self, student, common, given)

    def finish(self, module: Any, folder: Path) -> Any:
        (folder / _FILE).write_text(json.dumps(module.head.tolist()), encoding="utf-8")
        return module.base


def head_of(trained: Model) -> Sequence[float]:
    """Return the head that was trained with a base model."""
    assert isinstance(trained.recipe, Trained)
    head: Sequence[float] = json.loads((trained.recipe.folder / _FILE).read_text(encoding="utf-8"))
    return head
