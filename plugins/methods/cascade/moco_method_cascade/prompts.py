"""The verification prompts of the cascade: plain text in, plain text out.

Both want one of ``TRUE`` and ``FALSE`` as the whole reply, so that the confidence can be read as
P(TRUE) / (P(TRUE) + P(FALSE)) from the next-token distribution, or from the text where there is none.
"""

from __future__ import annotations

from moco_toolkit_quoting import fence

__all__ = ["FALSE", "TRUE", "p_true", "self_report"]

TRUE = "True"
FALSE = "False"


def p_true(question: str, reply: str) -> str:
    """Ask whether ``reply`` answers ``question`` correctly, without saying whose reply it is."""
    return (
        f"{fence('question', question)}\nProposed answer:\n{fence('quote', reply)}\n"
        f"Is the proposed answer correct? Reply with {TRUE} or {FALSE} and nothing else."
    )


def self_report(question: str, reply: str) -> str:
    """Ask a model whether it is confident in ``reply``, its own answer to ``question``."""
    return (
        f"{fence('question', question)}\nYour own answer:\n{fence('quote', reply)}\n"
        f"Are you confident that your own answer is correct? Reply with {TRUE} or {FALSE} and nothing else."
    )
