"""Separating reasoning from the answer: whole blocks, blocks the prompt opened, blocks that never end."""

from __future__ import annotations

import pytest

from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS, left_open, split


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>2 + 2</think>\n\n4", "", ("2 + 2", "4")),
        ("2 + 2</think>4", "", ("2 + 2", "4")),
        ("2 + 2</think>4", "</think>", ("2 + 2", "4")),
        ("2 + 2 and so on", "</think>", ("2 + 2 and so on", "")),
        ("<think>2 + 2", "", ("2 + 2", "")),
        ("4", "", ("", "4")),
        ("[THINK]a[/THINK]b", "", ("a", "b")),
    ],
)
def test_split(text: str, opened: str, expected: tuple[str, str]) -> None:
    assert split(text, DEFAULT_TAGS, opened) == expected


def test_a_prompt_that_ends_inside_a_block_names_its_closing_tag() -> None:
    assert left_open("<|assistant|><think>\n", DEFAULT_TAGS) == "</think>"
    assert left_open("<think></think>", DEFAULT_TAGS) == ""
