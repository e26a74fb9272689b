"""Connecting to a Ray cluster, or starting one on this machine that nobody else reaches."""

from moco_toolkit_ray.cluster import Connection, Node, connect, gone, here, nodes
from moco_toolkit_ray.faults import cause_of, out_of_memory

__all__ = ["Connection", "Node", "cause_of", "connect", "gone", "here", "nodes", "out_of_memory"]
