"""What trains a base model and its deferral head together, in the training's process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from moco_method_co_llm.head import deferral_loss

__all__ = ["Deferring", "make_trainer"]

_NONE = -100


class Deferring(nn.Module):
    """A base model and a head g on its last hidden state, float32 (H,).

    Checkpoints hold what is trained and nothing else: a frozen base lies where it was opened from.
    """

    _keys_to_ignore_on_save = None  # the trainer asks for it as it reads a checkpoint

    def __init__(self, base: nn.Module, head: Sequence[float], size: int, ends: Sequence[int]) -> None:
        super().__init__()
        self.base, self.size = base, size
        self.head = nn.Parameter(torch.tensor(head, dtype=torch.float32, device=next(base.parameters()).device))
        self.ends = [i for i in ends if i < size]
        self.config: Any = base.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        assistant: Tensor,
        num_items_in_batch: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return the mean loss over the labelled positions of a whole update.

        ``labels`` int64 (B, L): the token that follows each position, ``size`` for an end, -100 for none; ``assistant``
        float32 (B, L) its log-probability by the assistant.
        """
        out = self.base(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False)
        where = labels != _NONE
        scores = out.logits[where][:, : self.size].float().log_softmax(-1)
        ended = scores[:, self.ends].logsumexp(-1, keepdim=True)
        base = torch.cat([scores, ended], -1).gather(-1, labels[where][:, None])[:, 0]
        u = out.hidden_states[-1][where].float() @ self.head
        losses = deferral_loss(u, base, assistant[where])
        return {"loss": losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        self.base.gradient_checkpointing_enable(**settings)  # type: ignore[operator]
        self.base.enable_input_require_grads()  # type: ignore[operator]


def make_trainer(job: Any, student: Any, common: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return the trainer of a :class:`~moco_method_co_llm.joint.Joint` job."""
    module = Deferring(student.module, job.head, job.size, job.ends)

    def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        shape = (len(batch), width)
        ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        labels, assistant = torch.full(shape, _NONE), torch.zeros(shape)
        for i, row in enumerate(batch):
            length, told = len(row["input_ids"]), len(row["target"])
            ids[i, :length] = torch.tensor(row["input_ids"])
            mask[i, :length] = 1
            labels[i, length - told : length] = torch.tensor(row["target"])  # the last one is told by the last token
            assistant[i, length - told : length] = torch.tensor(row["assistant"])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "assistant": assistant}

    settings = TrainingArguments(remove_unused_columns=False, label_names=["labels"], **common)
    return Trainer(args=settings, data_collator=collate, **{**given, "model": module})
