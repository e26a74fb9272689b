"""Writing what was trained so that it is opened again as exactly that: an adapter beside its base, or a whole checkpoint."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moco_core.training import TrainingSite
from moco_toolkit_checkpoints.describe import TRAINING
from moco_toolkit_checkpoints.files import copy_files
from moco_toolkit_training.jobs import Job
from moco_toolkit_training.opening import HEADS, Student

__all__ = ["save"]


def save(
    job: Job, site: TrainingSite, student: Student, trainer: Any, versions: Mapping[str, str], place: Path | None = None
) -> None:
    """Write ``site.folder/model``, or a stage of a training that goes on to ``place``: beside its place, then renamed.

    An adapter is written for the base it was trained on, named as the pool names it. Heads are saved whole: a head is not
    what engines call an adapter. What was trained on which weights is recorded beside either.
    """
    last = place is None
    place = place or site.folder / "model"
    beside = place.with_name(f"{place.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    module = job.finish(trainer.accelerator.unwrap_model(trainer.model), beside)
    if student.adapter:
        module.save_pretrained(beside, selected_adapters=["default"])
        config = json.loads((beside / "adapter_config.json").read_text("utf-8"))
        config["base_model_name_or_path"] = site.info["named"]
        # peft writes its sets as they come, another way in every process, and the models' identities would follow
        config |= {k: sorted(v) for k, v in vars(module.peft_config["default"]).items() if isinstance(v, set)}
        (beside / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        (beside / "README.md").unlink(missing_ok=True)
        if site.info["tokenizer"] != site.entry["model"]:
            copy_files(Path(site.info["tokenizer"]), beside)
    else:
        if not last:
            module = copy.deepcopy(module).cpu()  # merging and storing change it, and it is trained further
        if job.lora is not None:
            module = module.merge_and_unload()
        module.to(dtype=_stored(site)).save_pretrained(beside)
        base = Path(site.entry["model"])
        if job.service not in HEADS:  # what the trainer wrote into them is its own business
            copy_files(base, beside, ("config.json", "generation_config.json"))
        copy_files(Path(site.info["tokenizer"]), beside)
        if site.info.get("template_text") is not None:
            (beside / "chat_template.jinja").write_text(site.info["template_text"], "utf-8")
    record = {
        "base": site.info["named"],
        "weights": site.info["weights"],
        "parent": str(site.entry.get("adapter") or ""),
        "service": job.service,
        "job": job.fingerprint,
        "seed": site.seed,
        "versions": versions,
    }
    (beside / TRAINING).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", "utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(beside, place)


def _stored(site: TrainingSite) -> Any:
    import torch

    return getattr(torch, site.entry["dtype"])  # as it will be opened
