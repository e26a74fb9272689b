"""Telling observers what happens. One that raises is reported once and switched off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from moco_core import hookspecs

__all__ = ["Observers"]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class Observers:
    """The observers of a run: installed plugins, and objects with ``hookimpl`` methods (the progress display)."""

    def __init__(
        self,
        manager: pluggy.PluginManager | None = None,
        objects: Sequence[Any] = (),
        report: Callable[[str], None] = _to_stderr,
    ) -> None:
        if manager is None:
            manager = pluggy.PluginManager("moco")
            manager.add_hookspecs(hookspecs)
        self._manager = manager
        for item in objects:
            manager.register(item)
        self._report = report

    def tell(self, hook: str, event: Any) -> None:
        """Call one hook of every observer that has it, one by one. Never raises."""
        caller = getattr(self._manager.hook, hook)
        for impl in list(caller.get_hookimpls()):
            others = [i.plugin for i in caller.get_hookimpls() if i is not impl]
            alone = self._manager.subset_hook_caller(hook, others) if others else caller
            try:
                alone(event=event)
            except Exception as error:
                self._manager.unregister(impl.plugin)
                self._report(f"observer {impl.plugin_name!r} is switched off: {hook}: {type(error).__name__}: {error}")
