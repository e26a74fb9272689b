"""The process of one training: reads what to do, trains, and says over its standard output what happens.

Run as ``python -m moco_toolkit_training.worker``. Every message is a line of JSON; everything that libraries print goes to
standard error, which is the training's log. It ends when whoever started it ends.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco_core.errors import ConfigError, MocoError, StoreError
from moco_core.training import TrainingSite
from moco_toolkit_training.jobs import Job

__all__ = ["main", "train"]

_HISTORY = 200
"""At most so many steps of a training are kept for the fit log."""


def train(
    job: Job,
    site: TrainingSite,
    *,
    most: int = 8,
    checkpointing: bool = False,
    interval: float | None = None,
    prepare: Callable[[Any], None] = lambda trainer: None,
) -> dict[str, Any]:
    """Train in this process and return the figures; the result lies in ``site.folder/model``.

    ``most`` rows are computed at once at most. A training that was killed goes on from its last checkpoint; ``interval`` are
    the seconds between two. ``prepare`` gets the trainer before it runs, for measurements. Raises a MocoError with one line
    for what a person can mend.
    """
    import torch
    from transformers import PrinterCallback
    from transformers.utils import logging as library_logging

    from moco_toolkit_training.encoding import absent, encode
    from moco_toolkit_training.keeping import stage_folder, stage_steps
    from moco_toolkit_training.opening import HEADS, open_student, refuse, renderer_of
    from moco_toolkit_training.saving import save
    from moco_toolkit_training.trainers import make_trainer, setting
    from moco_toolkit_training.watching import INTERVAL, Best, Stages, Watch, last_checkpoint, shown

    started = time.monotonic()
    library_logging.disable_progress_bar()
    refuse(job, site)
    if site.threads is not None and site.device == "cpu":
        torch.set_num_threads(site.threads)
    renderer = renderer_of(site)
    rows = encode(job, job.rows, renderer, site.info["context"])
    held_out = encode(job, job.held_out, renderer, site.info["context"]) if job.held_out else None
    lost = {"truncated": rows.truncated, "dropped": dict(rows.dropped), "warnings": [*rows.warnings(), *absent(job)]}
    if not rows.count:
        why = "no rows" if not job.rows else f"no row is left of {len(job.rows):,} ({', '.join(sorted(rows.dropped))})"
        if job.service in HEADS:
            raise ConfigError(f"{site.info['name']}: {job.service}: {why}")
        return {"skipped": why, **lost}
    how = setting(job, rows.count, most, checkpointing)
    student = open_student(job, site, renderer)
    if job.service not in HEADS:
        student.module.generation_config.eos_token_id = sorted(renderer.end_ids(site.info["ends"]))
    trainer = make_trainer(
        job,
        student,
        rows,
        held_out,
        how,
        folder=site.folder / "checkpoints",
        seed=site.seed,
        device=site.device,
        reward=_checked(job, site),
    )
    watch = Watch(
        site.info["name"],
        site.tell,
        patience=job.patience if job.service == "grpo" else None,  # type: ignore[attr-defined]
        interval=INTERVAL if interval is None else interval,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    trainer.add_callback(
        Stages(
            stage_steps(how.steps, job.keep),
            lambda step: save(job, site, student, trainer, _versions(), stage_folder(site.folder, step)),
        )
    )
    judged = held_out is not None and held_out.count > 0 and job.service != "grpo"
    best = Best(site.folder / "best.safetensors") if judged and job.keep_best else None
    if best is not None:
        trainer.add_callback(best)
    prepare(trainer)
    checkpoint = last_checkpoint(site.folder / "checkpoints")
    begun = time.monotonic()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    seconds = time.monotonic() - begun
    if best is not None:
        best.restore(trainer.accelerator.unwrap_model(trainer.model))
        trainer.remove_callback(best)
    held = trainer.evaluate()["eval_loss"] if judged else None
    trained, parameters = student.trained, student.parameters  # before adapters are merged
    save(job, site, student, trainer, _versions())
    shutil.rmtree(site.folder / "checkpoints", ignore_errors=True)
    if best is not None:
        best.file.unlink(missing_ok=True)
    history = [{"step": e["step"], **shown(e)} for e in trainer.state.log_history if "loss" in e]
    if job.service == "grpo":
        tokens = float(trainer.state.num_input_tokens_seen)
    else:
        tokens = rows.tokens * how.steps * how.batch / rows.count
    return {
        "rows": rows.count,
        "steps": how.steps,
        "batch": how.batch,
        "micro_batch": how.micro,
        "gradient_checkpointing": how.checkpointing,
        "parameters_trained": trained,
        "goes_on": student.goes_on,
        "first_loss": history[0]["loss"],
        "loss": history[-1]["loss"],
        **({} if held is None else {"held_out_loss": held}),
        **({} if best is None else {"kept_step": best.step}),
        "device": site.device,
        "dtype": str(student.module.dtype).removeprefix("torch."),
        "determinism": "bitwise" if site.device == "cpu" else "statistical",
        "threads": torch.get_num_threads() if site.device == "cpu" else None,
        "resumed_at": 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2]),
        "train_tokens": tokens,
        "train_flops": _operations(job, parameters, trained, tokens),
        "train_seconds": seconds,
        "start_seconds": begun - started + (watch.first_step or 0.0),
        "versions": _versions(),
        **lost,
        "history": history[:: -(-len(history) // _HISTORY)],
    }


def _checked(job: Job, site: TrainingSite) -> Callable[[Sequence[tuple[int, str]]], list[float | None]]:
    """Return the site's rewards, none of which is infinite or no number."""
    import math

    def reward(rollouts: Sequence[tuple[int, str]]) -> list[float | None]:
        found = list(site.reward(rollouts))
        for (row, _), value in zip(rollouts, found, strict=True):
            if value is not None and not math.isfinite(value):
                raise ConfigError(
                    f"{job.service}: the reward of a completion of row {row} is {value}, not a finite number"
                )
        return found

    return reward


def _operations(job: Job, parameters: int, trained: int, tokens: float) -> float:
    """Estimate floating-point operations: 2 per parameter and token for each pass through the weights.

    One pass forwards, one back to the activations, and one to the gradients of the weights that are trained; one more
    forwards for a reference, and another to write completions.
    """
    forward = 1 + (job.service == "dpo" or (job.service == "grpo" and bool(job.beta)))  # type: ignore[attr-defined]
    passes = forward + 1 + (job.service == "grpo")
    return float(2 * tokens * (passes * parameters + trained))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "trl", "accelerate")}


# ---------------------------------------------------------------- the process


def main() -> None:
    """Read a job and a site from standard input, train, and report."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is the log
    source = sys.stdin.buffer
    job, given, settings = pickle.load(source)
    answers: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(source, answers), daemon=True).start()

    def say(message: Mapping[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    def reward(rollouts: Sequence[tuple[int, str]]) -> list[float | None]:
        say({"reward": rollouts})
        answer = answers.get()
        return list(answer)

    site = TrainingSite(
        tell=lambda figures: say({"tell": dict(figures)}), reward=reward, cancelled=lambda: False, **given
    )
    say(_outcome(job, site, settings))


def _listen(source: Any, answers: queue.Queue[Any]) -> None:
    """Hand on what comes in; when nobody is left to talk to, end at once."""
    for line in source:
        answers.put(json.loads(line))
    os._exit(1)


def _outcome(job: Job, site: TrainingSite, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Train, and return the figures or what went wrong."""
    import torch

    try:
        return {"figures": train(job, site, **settings)}
    except MocoError as error:
        return {"error": str(error), "kind": type(error).__name__}
    except (torch.OutOfMemoryError, MemoryError) as error:
        return {"error": str(error), "kind": "memory"}
    except Exception as error:
        traceback.print_exc()
        if _disk(error):
            line = f"{site.folder}: cannot be written: {getattr(error, 'strerror', None) or error}; free some space"
            return {"error": line, "kind": StoreError.__name__}
        if "can't allocate memory" in str(error):  # torch says it so on a CPU
            return {"error": str(error), "kind": "memory"}
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", "kind": ""}


def _disk(error: Exception) -> bool:
    """Return whether an error is that of a full disk, as the system or one of the writers of files says it."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return full or "No space left" in str(error) or "file write failed" in str(error)


if __name__ == "__main__":
    main()
