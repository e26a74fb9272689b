"""Runs in Trackio: one of its runs for each of ours, in one group for each grid."""

from __future__ import annotations

import contextvars
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from moco_core import MocoError, option
from moco_toolkit_tracking import Tracked, Tracker, TrackingObserver, TrackingOptions, flat, silenced

__all__ = ["Options", "Trackio"]


@attrs.frozen(kw_only=True)
class Options(TrackingOptions):
    """Options of trackio."""

    space: str = option(
        "", help="a Space on the Hub (USER/NAME) that runs are sent to; by default they stay in $TRACKIO_DIR"
    )
    server: str = option(
        "", help="the URL of a server of your own, in place of a Space; its token is $TRACKIO_WRITE_TOKEN"
    )


class Trackio(TrackingObserver[Options]):
    """Files runs in Trackio."""

    Options = Options
    library = "trackio"

    def connect(self) -> Tracker:
        with silenced():
            import trackio  # noqa: F401
        if self.options.server:
            _greet(self.options.server)
        return _Project(self.options)


def _greet(server: str) -> None:
    """Raise MocoError if nobody answers: Trackio itself would go on without a server."""
    try:
        with urllib.request.urlopen(server, timeout=10):
            pass
    except urllib.error.HTTPError:
        pass  # an answer
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise MocoError(f"no Trackio server at {urlsplit(server).netloc}: {reason}") from None


@attrs.frozen
class _Project:
    options: Options

    def open(self, name: str, group: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Tracked:
        import trackio

        def init() -> Any:
            return trackio.init(
                project=self.options.project,
                name=name,
                group=group,
                space_id=self.options.space or None,
                server_url=self.options.server or None,
                config={**flat(config), **{f"moco.{key}": value for key, value in tags.items()}},
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

        with silenced():  # a context of its own: trackio ends the run that it knows as the current one
            return _Run(contextvars.Context().run(init))


@attrs.frozen
class _Run:
    run: Any

    def curve(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        self.run.log({f"{prefix}/{name}": value for name, value in values.items()}, step=step)

    def report(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], text: str, files: Sequence[Path]) -> None:
        import trackio

        self.run.log({"table": trackio.Table(columns=list(columns), data=[list(row) for row in rows])})
        self.run.log({"report": trackio.Markdown(text)})
        with silenced():
            for file in files:
                self.run.log_artifact(str(file), name=file.name, type="report")

    def close(self, status: str, figures: Mapping[str, float]) -> None:
        self.run.log({**figures, "status": status})
        with silenced():
            self.run.finish()
