"""Runs as TensorBoard event files: a folder for each run, below one for each grid."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import option
from moco_toolkit_tracking import Tracked, Tracker, TrackingObserver, TrackingOptions, flat

__all__ = ["Options", "Tensorboard"]


@attrs.frozen(kw_only=True)
class Options(TrackingOptions):
    """Options of tensorboard."""

    folder: str = option("tensorboard", help="where it writes: FOLDER/PROJECT/GROUP/RUN")


class Tensorboard(TrackingObserver[Options]):
    """Writes runs as TensorBoard event files."""

    Options = Options
    library = "tensorboard"

    def connect(self) -> Tracker:
        import tensorboard.summary.writer.event_file_writer  # noqa: F401

        return _Folder(Path(self.options.folder, self.options.project))


@attrs.frozen
class _Folder:
    path: Path

    def open(self, name: str, group: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Tracked:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        run = _Run(self.path / group / name, EventFileWriter(str(self.path / group / name)))
        if config:
            run.text("config", f"```json\n{json.dumps(config, indent=1)}\n```")
            told = {k: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for k, v in flat(config).items()}
            run.add(hparams_pb(told, trial_id=name))
        return run


@attrs.frozen
class _Run:
    folder: Path
    writer: Any

    def add(self, summary: Any, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(summary=summary, step=step, wall_time=time.time()))

    def text(self, name: str, text: str) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.add(text_pb(name, text))

    def curve(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in values.items():
            self.add(scalar_pb(f"{prefix}/{name}" if prefix else name, value), step)

    def report(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], text: str, files: Sequence[Path]) -> None:
        self.text("table", text)
        for file in files:
            shutil.copy(file, self.folder)

    def close(self, status: str, figures: Mapping[str, float]) -> None:
        self.text("status", status)
        self.curve("", 0, figures)
        self.writer.close()
