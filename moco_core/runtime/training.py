"""Training within a run: the result is an artifact, the devices are lent, figures go to the fit log and to the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_core.context import Context
from moco_core.models import Model
from moco_core.runtime.devices import Reservation
from moco_core.runtime.ledger import Ledger
from moco_core.runtime.scheduler import Scheduler
from moco_core.training import Trained, TrainingJob, TrainingSite
from moco_core.types import digest

FIGURES = "training.json"
"""The file within an artifact of a training that has its figures."""


async def train(
    context: Context, scheduler: Scheduler, ledger: Ledger, model: Model, job: TrainingJob, name: str
) -> Model:
    """See :meth:`moco_core.context.Context.train`."""
    what = {
        "kind": "training",
        "service": job.service,
        "model": model.fingerprint,
        "job": job.fingerprint,
        "seed": context.seed,
    }
    label = name or f"{model.name}-{job.service}-{digest(what)[:8]}"
    built = False

    async def build(folder: Path) -> None:
        nonlocal built
        built = True
        seed = int(digest("training", what)[:8], 16)
        figures = await _work(context, scheduler, model, job, label, folder, seed)
        (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")

    folder = await context.artifact(what, build, resume=True)
    figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    for line in figures.pop("history", ()):
        context.note(training=label, **line)
    context.note(training=label, service=job.service, model=model.name, reused=not built, **figures)
    for warning in figures.get("warnings", ()):
        context.warn(f"{label}: {warning}")
    ledger.train(context.phase, label, figures, cached=not built)
    if reason := figures.get("skipped"):
        context.warn(f"{label}: not trained: {reason}")
        return model
    return model.engine.derive(label, Trained(digest(what), folder / "model"), [model])


async def _work(
    context: Context, scheduler: Scheduler, model: Model, job: TrainingJob, label: str, folder: Path, seed: int
) -> Mapping[str, Any]:
    loop = asyncio.get_running_loop()
    devices = Reservation(scheduler.devices, (model.engine, model.device_group))

    async def judge(rollouts: Sequence[tuple[int, str]]) -> Sequence[float | None]:
        devices.release()  # a judge may need the very device
        try:
            return list(await job.reward(rollouts))
        finally:
            await devices.acquire()

    def show(figures: Mapping[str, Any]) -> None:
        context.progress(f"training {label}", figures.get("step", 0), figures.get("steps"), _said(figures))

    site = TrainingSite(
        folder=folder,
        seed=seed,
        tell=lambda figures: _soon(loop, show, figures),
        reward=lambda rollouts: asyncio.run_coroutine_threadsafe(judge(rollouts), loop).result(),
        cancelled=lambda: scheduler.closing,
    )
    await scheduler.starts.ready(model.engine)  # and so it is closed, whether it is ever called or not
    await devices.acquire()
    try:
        return await scheduler.in_thread(model.engine.train, model, job, site)
    finally:
        devices.release()


def _soon(loop: asyncio.AbstractEventLoop, show: Any, figures: Mapping[str, Any]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(show, figures)


def _said(figures: Mapping[str, Any]) -> str:
    """Return a moment's figures as people read them."""
    parts = [f"{key} {figures[key]:.4g}" for key in ("loss", "reward") if figures.get(key) is not None]
    if (left := figures.get("left")) is not None:
        parts.append(f"{int(left) // 60}:{int(left) % 60:02} left")
    return ", ".join(parts)
