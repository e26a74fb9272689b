"""The routing prompt: plain text in, plain text out.

The question may hold numbered options or instructions of its own, so it stands between delimiters that nothing in it
can close.
"""

import re
from collections.abc import Sequence

# A tag without attributes (`</question>`, `<s>`, `<think>`), the start of a `<|control|>` token, or an `[INST]` mark.
_CONTROL = re.compile(r"<(?=[|｜]|/?[A-Za-z_]\w*>)|\[(?=/?INST\])")


def escape(text: str) -> str:
    """Put a space into every chat control mark and every bare tag of `text`, so that none is read as one."""
    return _CONTROL.sub(lambda match: match.group() + " ", text)


def default_labels(count: int) -> tuple[str, ...]:
    """The labels of `count` models in list order: "1", "2", ..."""
    return tuple(str(number) for number in range(1, count + 1))


def route(question: str, descriptions: Sequence[str], labels: Sequence[str]) -> str:
    """Ask which model should answer `question`; the wanted reply is one of `labels` and nothing else.

    `descriptions` and `labels` belong together position by position and are shown in that order; line breaks inside a
    description become spaces. Raises ValueError if their numbers differ or there are none.
    """
    if not labels or len(labels) != len(descriptions):
        raise ValueError(f"{len(descriptions)} descriptions need as many labels, and at least one; got {len(labels)}")
    pairs = zip(labels, descriptions, strict=True)
    rows = "\n".join(f"{label}: {escape(' '.join(text.split()))}" for label, text in pairs)
    return (
        "Which model should answer this question?\n"
        f"<question>\n{escape(question.strip())}\n</question>\n"
        f"Models:\n{rows}\n"
        f"Reply with the label of the best model and nothing else: {', '.join(labels)}."
    )
