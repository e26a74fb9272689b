"""Opening what is trained: tokenizer and weights of a model, its own adapter going on, or a new one, or a new head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from moco_core.errors import ConfigError
from moco_core.training import TrainingSite
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_training.jobs import Classify, Job

__all__ = ["Student", "open_student", "renderer_of"]

_NEW = r"(.*\.)?(score|classifier|pre_classifier)"
"""The modules of a new head, which are trained as they are."""

HEADS = {"classify", "rank", "reward"}
"""The services whose result gives numbers and writes no text."""


@attrs.define(kw_only=True, eq=False)
class Student:
    """The module that is trained, the tokenizer, and a second copy where the loss needs the start to compare with.

    ``adapter`` says whether what is saved is a LoRA adapter; ``goes_on``, whether that is the model's own, trained further.
    """

    module: Any
    renderer: Renderer
    adapter: bool
    goes_on: bool = False
    reference: Any = None

    @property
    def trained(self) -> int:
        """The number of parameters that are trained."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())


def renderer_of(site: TrainingSite) -> Renderer:
    """Return the renderer that asking uses for this model."""
    info = site.info
    tokenizer = AutoTokenizer.from_pretrained(
        info["tokenizer"], trust_remote_code=info["trust_remote_code"], local_files_only=True
    )
    if info.get("template_text") is not None:
        tokenizer.chat_template = info["template_text"]
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{info['name']}: its tokenizer has no end token; nothing could teach it to stop")
    return Renderer(
        info["name"],
        tokenizer,
        style=info["style"],
        overlong="error",
        context=None,
        tags=tuple((a, b) for a, b in info["tags"]),
        template_options=info["template_options"],
    )


def dtype_of(job: Job, site: TrainingSite) -> Any:
    """Return the type of the weights: float32 where all are trained and on a CPU, else what the device computes best."""
    if job.lora is None or site.device == "cpu" or site.entry["dtype"] == "float32":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def open_student(job: Job, site: TrainingSite, renderer: Renderer) -> Student:
    """Open the model. The generators are seeded before anything is drawn.

    A model with an adapter goes on from it: the adapter is loaded trainable, never replaced and never stacked upon. Training
    all weights of such a model, or a head on it, starts from the weights with the adapter merged in, and saves them whole.
    """
    transformers.set_seed(site.seed)
    head = job.service in HEADS
    adapter = str(site.entry.get("adapter") or "")
    module = _head(job, site) if head else _opened(site, str(site.info["loader"]), dtype_of(job, site))
    if adapter and (head or job.lora is None):
        module = _merged(module, adapter)
    if job.lora is None:
        module.requires_grad_(True)
        reference = None
        if job.service == "dpo" or (job.service == "grpo" and job.beta):  # type: ignore[attr-defined]
            reference = _opened(site, str(site.info["loader"]), torch.float32)
            if adapter:
                reference = _merged(reference, adapter)
        return Student(module=module, renderer=renderer, adapter=False, reference=reference)
    if adapter and not head:
        module = PeftModel.from_pretrained(module, adapter, is_trainable=True)
        return Student(module=module, renderer=renderer, adapter=True, goes_on=True)
    transformers.set_seed(site.seed)  # the adapter's start does not depend on what loading drew
    return Student(module=get_peft_model(module, _settings(job, head)), renderer=renderer, adapter=not head)


def _merged(module: Any, adapter: str) -> Any:
    settings = PeftConfig.from_pretrained(adapter)
    settings.task_type = (
        None  # adapters of text are merged into classifiers, too, which cannot be wrapped as models of text
    )
    return PeftModel.from_pretrained(module, adapter, config=settings).merge_and_unload()


def _settings(job: Job, head: bool) -> LoraConfig:
    assert job.lora is not None
    targets = job.lora.targets
    return LoraConfig(
        r=job.lora.r,
        lora_alpha=job.lora.alpha,
        lora_dropout=job.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=_NEW if head else None,
        bias="none",
        task_type=TaskType.SEQ_CLS if head else TaskType.CAUSAL_LM,
    )


def _opened(site: TrainingSite, loader: str, dtype: Any, **more: Any) -> Any:
    cls = AutoModelForSequenceClassification if loader == "classifier" else getattr(transformers, loader)
    module = cls.from_pretrained(
        site.entry["model"],
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=site.info["trust_remote_code"],
        **more,
    )
    return module.to(site.device)


def _head(job: Job, site: TrainingSite) -> Any:
    """Return a classifier whose new head says nothing yet: all its outputs are 0. A classifier keeps its head."""
    outputs = {"reward": 1, "rank": 2}.get(job.service) or job.classes  # type: ignore[attr-defined]
    known = site.info["task"] == "reward"
    more: Mapping[str, Any] = {} if known else {"num_labels": outputs}
    module = _opened(site, "classifier", dtype_of(job, site), **more)
    if module.config.num_labels != outputs:
        raise ConfigError(
            f"{site.info['name']}: its head has {module.config.num_labels} outputs and {job.service} needs {outputs}; "
            "train the model that it was made of"
        )
    if not known:
        last = [m for m in module.modules() if isinstance(m, torch.nn.Linear) and m.out_features == outputs][-1]
        with torch.no_grad():
            last.weight.zero_()
            if last.bias is not None:
                last.bias.zero_()
    return module


def refuse(job: Job, site: TrainingSite) -> None:
    """Raise ConfigError if a job asks of a model what it cannot become."""
    task = site.info["task"]
    if job.service not in HEADS and task != "generate":
        what = {"reward": "gives numbers", "embed": "is an encoder"}[task]
        raise ConfigError(f"{site.info['name']} {what} and writes no text: {job.service} cannot train it")
    if isinstance(job, Classify) and not job.rows:
        raise ConfigError("classify: no rows")
    if not Path(site.entry["model"]).is_dir():
        raise ConfigError(f"{site.info['name']}: no folder {site.entry['model']}")
