"""Any method under a supervisor that drops members whose replies others, a judge or a reward model distrust."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_supervisor.method import Supervisor

    return Supervisor
