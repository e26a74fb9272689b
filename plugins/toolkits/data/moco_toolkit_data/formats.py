"""The sentences that tell a model how to answer, one per form of answer, as the readers of answers expect them."""

from __future__ import annotations

__all__ = ["BOXED", "CODE", "LETTER", "NUMBER", "SHORT"]

LETTER = 'End with "The answer is" followed by the letter of the correct option.'
NUMBER = 'End with "The answer is" followed by the final number.'
SHORT = 'End with "The answer is" followed by the shortest possible answer.'
BOXED = "Put the final answer in \\boxed{}."
CODE = "Answer with one Python code block."
