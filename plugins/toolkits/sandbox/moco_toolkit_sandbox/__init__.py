"""Runs untrusted programs without network, files of the user, or the power to do harm.

``Sandbox(isolation).run(program)`` runs one Python program in a fresh process and tells how it ended.
"""

from moco_toolkit_sandbox.outcome import Limits, Outcome, SandboxError, SandboxUnavailable, Status
from moco_toolkit_sandbox.sandbox import ISOLATIONS, Isolation, Sandbox

__all__ = [
    "ISOLATIONS",
    "Isolation",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailable",
    "Status",
]
