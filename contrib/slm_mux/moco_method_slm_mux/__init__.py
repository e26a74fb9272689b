"""SLM-MUX: every model answers several times; the answer of the one that agrees most with itself stands."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_slm_mux.method import SlmMux

    return SlmMux
