"""A method to serve, and models that answer when they are let."""

from __future__ import annotations

import threading
from typing import Any

from .conftest import say

VOTE = {"name": "majority_vote", "tie": "order"}


def hold(seconds: float = 30.0) -> tuple[threading.Event, Any]:
    """Return an event and a script that waits for it."""
    gate = threading.Event()

    def script(call: Any) -> str:
        gate.wait(seconds)
        return say(call)

    return gate, script
