"""Average the weights of the models, keeping only those that do not lower the dev score."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_greedy_soup.method import GreedySoup

    return GreedySoup
