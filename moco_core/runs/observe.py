"""Telling observers what happens. One that raises is reported once and told nothing more."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from moco_core.catalogue import installed
from moco_core.errors import error_line
from moco_core.options import Plugin


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class Observers:
    """The observers of a benchmark: plugins that its configuration names, and objects with ``hookimpl`` methods."""

    def __init__(
        self,
        manager: pluggy.PluginManager | None = None,
        objects: Sequence[Any] = (),
        report: Callable[[str], None] = _to_stderr,
    ) -> None:
        self._manager = manager or installed().manager()
        self.report = report
        """Tells the user one line."""
        for item in objects:
            self._manager.register(item)

    def add(self, plugin: Plugin) -> None:
        """Make an observer of a configuration and tell it everything from now on. Never raises."""
        made = None
        try:
            made = plugin.make()
            self._manager.register(made, name=plugin.name)
            self._manager.check_pending()
        except Exception as error:
            if self._manager.is_registered(made):
                self._manager.unregister(made)
            self.report(f"observer {plugin.name!r} is switched off: {error_line(error)}")

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
                self.report(f"observer {impl.plugin_name!r} is switched off: {hook}: {error_line(error)}")
