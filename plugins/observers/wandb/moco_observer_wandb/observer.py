"""Runs in Weights & Biases: one of its runs for each of ours, in one group for each grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core import ConfigError, option
from moco_toolkit_tracking import Tracked, Tracker, TrackingObserver, TrackingOptions, safe

__all__ = ["Options", "Wandb"]


@attrs.frozen(kw_only=True)
class Options(TrackingOptions):
    """Options of wandb."""

    mode: Literal["online", "offline"] | None = option(
        None,
        help="offline writes files that `wandb sync` sends later; by default $WANDB_MODE, or online where wandb has a key",
    )
    entity: str = option("", help="the user or team; by default your own")
    folder: str = option("", help="where its files lie; by default $WANDB_DIR, or ./wandb")


class Wandb(TrackingObserver[Options]):
    """Files runs in Weights & Biases."""

    Options = Options
    library = "wandb"

    def connect(self) -> Tracker:
        import wandb

        mode = self.options.mode or os.environ.get("WANDB_MODE")
        if mode in (None, "online") and not wandb.login(
            prompt=False, verify=False
        ):  # wandb.init would ask in the terminal
            if mode == "online":
                raise ConfigError("wandb has no key: run `wandb login`, set WANDB_API_KEY, or -o observer.mode=offline")
            mode = "offline"
        return _Project(self.options, mode or "online")


@attrs.frozen
class _Project:
    options: Options
    mode: Any

    def open(self, name: str, group: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Tracked:
        import wandb

        run = wandb.init(
            project=self.options.project,
            entity=self.options.entity or None,
            dir=self.options.folder or None,
            mode=self.mode,
            name=name,
            group=group,
            config={**config, "moco": dict(tags)},
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        return _Run(run)


@attrs.define
class _Run:
    run: Any
    curves: set[str] = attrs.field(factory=set)

    def curve(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        axis = f"{prefix}/step"  # each curve has steps of its own; wandb's count what is sent
        if prefix not in self.curves:
            self.curves.add(prefix)
            self.run.define_metric(f"{prefix}/*", step_metric=axis)
        self.run.log({axis: step, **{f"{prefix}/{name}": value for name, value in values.items()}})

    def report(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], text: str, files: Sequence[Path]) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
        self.run.log({"table": table})
        artifact = wandb.Artifact(safe(f"report-{self.run.id}").replace(" ", "_"), type="report")
        for file in files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def close(self, status: str, figures: Mapping[str, float]) -> None:
        self.run.summary.update({**figures, "status": status})
        self.run.finish(exit_code=0 if status == "finished" else 1)
