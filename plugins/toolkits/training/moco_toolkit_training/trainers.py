"""One trainer for each service, made of libraries: trl's where it has one, transformers' for classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from transformers import Trainer, TrainingArguments

from moco_core.types import digest
from moco_toolkit_checkpoints.importing import without
from moco_toolkit_training.encoding import Encoded
from moco_toolkit_training.jobs import Job
from moco_toolkit_training.opening import Student

__all__ = ["Setting", "make_trainer", "setting"]


@attrs.frozen(kw_only=True)
class Setting:
    """How a job's batches are made up: rows (or completions) per update, how many of them at once, updates, warm-up."""

    batch: int
    micro: int
    steps: int
    warmup: int
    checkpointing: bool = False

    @property
    def accumulation(self) -> int:
        return self.batch // self.micro


def setting(job: Job, rows: int, most: int, checkpointing: bool = False) -> Setting:
    """Return the setting for ``rows`` sequences of which ``most`` fit into memory at once.

    The batch is halved until an epoch has ``min_steps`` updates, and so that it can be made up of equal parts that fit.
    """
    unit = job.group if job.service == "grpo" else 1  # type: ignore[attr-defined]
    per = job.batch // unit
    while per > 1 and rows / per < job.min_steps:
        per //= 2
    epoch = max(1, rows // per if job.service == "grpo" else math.ceil(rows / per))  # trl leaves an odd rest out
    steps = job.max_steps or math.ceil(job.epochs * epoch)
    batch = per * unit
    micro = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= max(1, most))
    warmup = round(job.warmup * steps)
    return Setting(batch=batch, micro=micro, steps=steps, warmup=warmup, checkpointing=checkpointing)


def make_trainer(
    job: Job,
    student: Student,
    rows: Encoded,
    held_out: Encoded | None,
    how: Setting,
    *,
    folder: Path,
    seed: int,
    device: str,
    reward: Callable[[Sequence[tuple[int, str]]], Sequence[float | None]],
) -> Any:
    """Return a trainer that is ready to run; every value that decides the result is given to it by name."""
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": how.micro,
        "per_device_eval_batch_size": how.micro,
        "gradient_accumulation_steps": how.accumulation,
        "max_steps": how.steps,
        "learning_rate": job.rate,
        "lr_scheduler_type": job.schedule,
        "warmup_steps": how.warmup,
        "weight_decay": job.weight_decay,
        "max_grad_norm": job.clip,
        "optim": "adamw_torch",
        "seed": seed,
        "data_seed": seed,
        "bf16": device != "cpu" and torch.cuda.is_bf16_supported(),
        "use_cpu": device == "cpu",
        "gradient_checkpointing": how.checkpointing,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # the watch says when
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    given: dict[str, Any] = {
        "model": student.module,
        "processing_class": student.renderer.tokenizer,
        "train_dataset": _dataset(rows.columns),
        "eval_dataset": _dataset(held_out.columns) if held_out is not None and held_out.count else None,
    }
    make: Callable[..., Any] = _MAKERS.get(job.service, _own)
    return make(job, student, rows, common, given, reward)


def _dataset(columns: Mapping[str, Sequence[Any]]) -> Any:
    """Return columns as a dataset of the library's, with a fingerprint of ours: hashing it would cost time for nothing."""
    return Dataset(InMemoryTable.from_pydict(dict(columns)), fingerprint=digest(columns)[:16])


def _sft(job: Any, student: Student, rows: Encoded, common: Any, given: Any, reward: Any) -> Any:
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(args=SFTConfig(max_length=None, packing=False, loss_type="nll", **common), **given)


def _dpo(job: Any, student: Student, rows: Encoded, common: Any, given: Any, reward: Any) -> Any:
    from trl import DPOConfig, DPOTrainer

    class Ready(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # token ids already

    settings = DPOConfig(beta=job.beta, loss_type=["sigmoid"], max_length=None, disable_dropout=True, **common)
    return _compared(Ready(args=settings, ref_model=student.reference, **given), student)


def _compared(trainer: Any, student: Student) -> Any:
    """Have a new adapter compared with the base that it lies on.

    The library keeps a frozen copy of every adapter that it is given. That of a new one adds zeros to the base's own
    activations, at the price of another pass through all of its matrices in every update.
    """
    if student.adapter and not student.goes_on and "ref" in trainer.model.peft_config:
        trainer.model.delete_adapter("ref")
    return trainer


def _reward(job: Any, student: Student, rows: Encoded, common: Any, given: Any, reward: Any) -> Any:
    from trl import RewardConfig, RewardTrainer

    columns = [ids for name in ("chosen_ids", "rejected_ids") for ids in rows.columns[name]]
    student.renderer.tokenizer.pad_token = _padding(student, columns)
    settings = RewardConfig(max_length=None, disable_dropout=False, **common)
    return RewardTrainer(args=settings, **given)


def _grpo(job: Any, student: Student, rows: Encoded, common: Any, given: Any, reward: Any) -> Any:
    from trl import import_utils

    with without(import_utils, "is_vllm_available"):  # it takes longer to import than a small training takes
        from trl import GRPOConfig, GRPOTrainer

    renderer = student.renderer
    ids = dict(zip(rows.columns["prompt"], rows.columns["ids"], strict=True))
    opened = dict(zip(rows.columns["prompt"], rows.columns["opened"], strict=True))

    class Ready(GRPOTrainer):  # type: ignore[misc]
        def _tokenize_prompts(self, prompts: Any) -> Any:
            return [list(ids[p]) for p in prompts], None, {}

    def judged(prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **others: Any) -> list[float | None]:
        texts = [renderer.answer(c, opened[p]) for p, c in zip(prompts, completion_ids, strict=True)]
        return list(reward([(int(p), text) for p, text in zip(prompts, texts, strict=True)]))

    settings = GRPOConfig(
        num_generations=job.group,
        max_completion_length=job.max_new_tokens,
        temperature=job.temperature,
        top_p=job.top_p,
        top_k=0,
        beta=job.beta,
        epsilon=job.epsilon,
        num_iterations=1,
        loss_type=job.loss,
        scale_rewards=job.scale,
        mask_truncated_completions=False,
        disable_dropout=True,
        use_vllm=False,
        generation_kwargs={"eos_token_id": sorted(student.module.generation_config.eos_token_id)},
        **{**common, "per_device_eval_batch_size": job.group},
    )
    trainer = Ready(
        args=settings,
        reward_funcs=[judged],
        **{**given, "train_dataset": _dataset({"prompt": rows.columns["prompt"]}), "eval_dataset": None},
    )
    return _compared(trainer, student)


def _classes(job: Any, student: Student, rows: Encoded, common: Any, given: Any, reward: Any) -> Any:
    tokenizer = student.renderer.tokenizer
    pad = tokenizer.convert_tokens_to_ids(_padding(student, rows.columns["input_ids"]))
    student.module.config.get_text_config().pad_token_id = pad

    def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in batch)
        ids = [[*row["input_ids"], *[pad] * (width - len(row["input_ids"]))] for row in batch]
        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor([row["labels"] for row in batch]),
        }

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """Cross-entropy with probabilities; of two classes, binary cross-entropy on the difference of their scores.

        ``num_items_in_batch`` counts the labels of a whole update: every row of it weighs the same.
        """
        losses = torch.nn.functional.cross_entropy(outputs.logits.float(), labels, reduction="none")
        return losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch / labels.shape[-1])

    settings = TrainingArguments(remove_unused_columns=False, **common)
    return Trainer(args=settings, data_collator=collate, compute_loss_func=loss, **given)


def _own(job: Job, student: Student, rows: Encoded, common: Any, given: Any, reward: Any) -> Any:
    return job.trainer(student, rows.columns, common, given)


def _padding(student: Student, rows: Sequence[Sequence[int]]) -> str:
    """Return a token that ends no row: a classifier looks for the last one that is no padding."""
    tokenizer = student.renderer.tokenizer
    ends = {ids[-1] for ids in rows}
    wanted = [tokenizer.pad_token_id, *tokenizer.all_special_ids, *range(len(tokenizer))]
    return str(tokenizer.convert_ids_to_tokens(next(i for i in wanted if i is not None and i not in ends)))


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "sft": _sft,
    "dpo": _dpo,
    "grpo": _grpo,
    "classify": _classes,
    "reward": _reward,
    "rank": _classes,
}
