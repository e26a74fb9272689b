"""What a verifier reads: the two segments, and the choice between them."""

from __future__ import annotations

import attrs

__all__ = ["LABELS", "Segment", "choice", "consultation"]

LABELS = ("A", "B")
END_MARKER = "(the answer ends here)"
_CONSULT = {
    "request": "\n\n[Two ways to go on]\nOption A: {a}\nOption B: {b}\n",
    "choice": "\n\nNow I will choose the next sequence from the two options below.\nOption (A): {a}\nOption (B): {b}\n",
}
_CHOICE = {
    "request": "Which option is the better continuation, A or B? Answer with one letter.\nAnswer:",
    "choice": "My choice: Option (",
}


@attrs.frozen
class Segment:
    """A model's next words: tokens of its own, their bytes, and whether the model ends the answer after them."""

    ids: tuple[int, ...]
    data: bytes
    ended: bool

    def shown(self) -> str:
        """Return the segment as the verifier reads it."""
        text = self.data.decode("utf-8", "replace")
        return f"{text} {END_MARKER}".strip() if self.ended else text


def consultation(a: str, b: str, wording: str) -> bytes:
    """Return the text that shows the generator both segments, up to just before the choice."""
    return _CONSULT[wording].format(a=a, b=b).encode()


def choice(wording: str) -> bytes:
    """Return the text after which one of :data:`LABELS` comes next."""
    return _CHOICE[wording].encode()
