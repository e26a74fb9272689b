"""The kinds of plugin, their entry-point groups, and the version of the hook specification."""

SPEC = 1
"""Version of the hook specification. A plugin states it in its keywords as ``spec-1``; another number is refused."""

KINDS = ("pool", "method", "dataset", "metric", "observer", "executor")
"""Every kind of plugin that is a class with options."""

GROUPS = {kind: f"moco.{kind}" for kind in (*KINDS, "command", "doctor", "reader", "report")}
"""The entry-point group of every kind. A command's entry point names a click command, a doctor's a function that yields
findings as (``ok``, ``note`` or ``problem``; what was looked at; what about it). A report's names a function that gets the
comparisons of a benchmark (:class:`~moco_core.runs.report.Report`) and returns, for each, an object with the methods ``data``
and ``lines``: what ``moco run`` and ``moco bench`` show in its place. A reader's names a function that gets the data of a JSON
file that stands for a configuration, and its path, and returns the configuration and remarks about it, a line each, or None
where the file's form is another."""
