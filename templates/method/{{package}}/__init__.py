"""{{summary}}"""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from {{package}}.method import {{Class}}

    return {{Class}}
