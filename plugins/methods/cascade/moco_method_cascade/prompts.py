"""The verification prompts of the cascade: plain text in, plain text out.

Both want one of `TRUE` and `FALSE` as the whole reply, so that the confidence can be read as
P(TRUE) / (P(TRUE) + P(FALSE)) from the next-token distribution, or from the text where there is none.
"""

import re

TRUE = "True"
FALSE = "False"

# A tag without attributes (`</quote>`, `<s>`, `<think>`), the start of a `<|control|>` token, or an `[INST]` mark.
_CONTROL = re.compile(r"<(?=[|｜]|/?[A-Za-z_]\w*>)|\[(?=/?INST\])")


def escape(text: str) -> str:
    """Put a space into every chat control mark and every bare tag of `text`, so that none is read as one."""
    return _CONTROL.sub(lambda match: match.group() + " ", text)


def p_true(question: str, reply: str) -> str:
    """Ask whether `reply` answers `question` correctly, without saying whose reply it is."""
    return (
        f"{_fence('question', question)}\nProposed answer:\n{_fence('quote', reply)}\n"
        f"Is the proposed answer correct? Reply with {TRUE} or {FALSE} and nothing else."
    )


def self_report(question: str, reply: str) -> str:
    """Ask a model whether it is confident in `reply`, its own answer to `question`."""
    return (
        f"{_fence('question', question)}\nYour own answer:\n{_fence('quote', reply)}\n"
        f"Are you confident that your own answer is correct? Reply with {TRUE} or {FALSE} and nothing else."
    )


def _fence(tag: str, text: str) -> str:
    return f"<{tag}>\n{escape(text.strip())}\n</{tag}>"
