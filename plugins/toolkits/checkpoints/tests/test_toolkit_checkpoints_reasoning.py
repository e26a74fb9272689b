"""Separating reasoning from the answer: whole blocks, blocks the prompt opened, blocks that never end, channels."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS, Separated, left_open, markers, separate, split


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>2 + 2</think>\n\n4", "", ("2 + 2", "4")),
        ("2 + 2</think>4", "", ("2 + 2", "4")),
        ("2 + 2</think>4", "</think>", ("2 + 2", "4")),
        ("2 + 2 and so on", "</think>", ("2 + 2 and so on", "")),
        ("<think>2 + 2", "", ("2 + 2", "")),
        ("4", "", ("", "4")),
        (" 4\n", "", ("", " 4\n")),
        ("Sure. <think>hm</think> 42 <think>so</think> yes", "", ("hm\n\nso", "Sure. 42 yes")),
        ("<Think type='x'>a</THINK> b", "", ("a", "b")),
        ("a</think>b</think>c", "", ("a\n\nb", "c")),
        ("x<think>a</think>y<reasoning>b</reasoning>z", "", ("a\n\nb", "xyz")),
        ("<think>a<think>b</think>c</think>d", "", ("a<think>b\n\nc", "d")),
        ("<think>tags such as <reasoning> are odd</think>d", "", ("tags such as <reasoning> are odd", "d")),
        ("b<think>a", "", ("b\n\na", "")),
        ("a < b, c > d, [1], x <think y> z", "", ("", "a < b, c > d, [1], x <think y> z")),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "", ("a", "b")),
        ("<|channel>thought\na<channel|>b", "", ("a", "b")),
        ("<think>a</think>It is <|begin_of_box|>b<|end_of_box|>", "", ("a", "It is b")),
        ("Write `<think>` first. 4", "", ("", "Write `<think>` first. 4")),
        ("<think>end it with `</think>` or so</think>4", "", ("end it with `</think>` or so", "4")),
    ],
)
def test_a_reply_in_two(text: str, opened: str, expected: tuple[str, str]) -> None:
    assert split(text, DEFAULT_TAGS, opened) == expected


@pytest.mark.parametrize("pair", DEFAULT_TAGS, ids=[opening for opening, _ in DEFAULT_TAGS])
def test_every_pair_of_the_table_is_read(pair: tuple[str, str]) -> None:
    opening, closing = pair
    assert separate(f"{opening}So it is A. Hmm.{closing}C") == Separated("So it is A. Hmm.", "C")
    assert separate(f"So it is A. Hmm.{closing}\nC") == Separated("So it is A. Hmm.", "C")
    assert separate(f"{opening}So it is A. Hmm.") == Separated("So it is A. Hmm.", "", cut=True)
    assert left_open(f"<|assistant|>{opening}\n", DEFAULT_TAGS) == closing
    assert separate(f"{opening}a{closing}b", ()) == Separated("", f"{opening}a{closing}b")


HARMONY = [
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>", "a", "b"),
    ("<|channel|>final<|message|>b", "", "b"),
    ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|message|>b<|return|>", "a", "b"),
    ('<|channel|>final <|constrain|>json<|message|>{"answer": "C"}<|return|>', "", '{"answer": "C"}'),
    (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=f <|constrain|>json<|message|>"
        "{}<|call|><|start|>assistant<|channel|>final<|message|>b",
        "a\n\n{}",
        "b",
    ),
    ("analysisAdding 2 and 2. The answer is 5? No.assistantfinal4", "Adding 2 and 2. The answer is 5? No.", "4"),
    ("analysisHm.assistantanalysisAgain.assistantfinalThe answer is 4.", "Hm.\n\nAgain.", "The answer is 4."),
    ('analysisHm.assistantfinal json{"answer": 4}', "Hm.", '{"answer": 4}'),
    ("finalThe answer is 4.", "", "The answer is 4."),
]


@pytest.mark.parametrize(("text", "reasoning", "answer"), HARMONY)
def test_the_final_channel_is_the_answer_with_and_without_its_special_tokens(
    text: str, reasoning: str, answer: str
) -> None:
    assert separate(text) == Separated(reasoning, answer)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("Here is my thought process: a. Here is my response: b", "a.", "b"),
        ("Here's my thought process:\na\nHere's my response:\nb", "a", "b"),
        ("Here is my thought process: a", "", "Here is my thought process: a"),
        ("a\n[BEGIN FINAL RESPONSE]\nb\n[END FINAL RESPONSE]\n<|end|>", "a", "b"),
        ("<|think|>a<|end|><|begin|>assistant<|content|>b<|end|>", "a", "b"),
        ("analysis\na\nassistantfinal\nb", "a", "b"),
    ],
)
def test_headings_and_marks_of_a_new_turn_part_a_reply(text: str, reasoning: str, answer: str) -> None:
    assert separate(text) == Separated(reasoning, answer)


@pytest.mark.parametrize(
    "text",
    [
        "<|channel|>analysis<|message|>The answer is A",
        "<|channel|>analysis",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>fin",
        "analysisThe answer is A",
    ],
)
def test_channels_without_a_final_one_are_cut(text: str) -> None:
    assert separate(text).cut and separate(text).answer == ""


@pytest.mark.parametrize("text", ["analysis of variance", "final answer: 4", "finally", "Analysis: assistantfinal"])
def test_ordinary_words_are_no_channels(text: str) -> None:
    assert separate(text) == Separated("", text)


def test_a_prompt_that_ends_inside_a_block_names_its_closing_tag() -> None:
    assert left_open("<|assistant|><think>\n", DEFAULT_TAGS) == "</think>"
    assert left_open("<think></think>", DEFAULT_TAGS) == ""


def test_decoding_must_leave_tags_and_the_marks_of_channels() -> None:
    special = ["<s>", "<think>", "<|channel|>", "<|end|>"]
    assert markers(special, DEFAULT_TAGS) == {"<think>", "<|channel|>", "<|end|>"}
    assert markers(["<|end|>", "[THINK]"], DEFAULT_TAGS) == {"[THINK]"}  # the end of a turn elsewhere
    assert markers(special, ()) == set()


PIECES = st.sampled_from(
    [
        *(t for pair in DEFAULT_TAGS for t in pair),
        "a",
        " ",
        "\n",
        "analysis",
        "assistantfinal",
        "<|channel|>",
        "final",
        "<|message|>",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_cut_reply_has_no_answer_and_an_answer_holds_no_block(text: str) -> None:
    found = separate(text)
    if found.cut:
        assert found.answer == ""
    elif "<|channel|>" not in text and not text.lstrip().startswith(("analysis", "commentary", "final")):
        assert not separate(found.answer).cut


class _Counted(str):
    """A text that counts the characters copied out of it."""

    copied = 0

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        part = super().__getitem__(key)
        type(self).copied += len(part)
        return part


@pytest.mark.parametrize("piece", ["[THINK]", "</think>", "<think>a</think>b"])
def test_a_text_full_of_tags_is_copied_once(piece: str) -> None:
    _Counted.copied = 0
    text = _Counted(piece * 1000)
    separate(text)
    assert _Counted.copied <= len(text)
