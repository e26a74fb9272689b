"""Mixture of agents: layers of proposers read the answers of the layer before, and an aggregator writes the last."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_mixture_of_agents.method import MixtureOfAgents

    return MixtureOfAgents
