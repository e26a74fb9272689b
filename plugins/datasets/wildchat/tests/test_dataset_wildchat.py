"""WildChat from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_wildchat import WildChat
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("wildchat", settings=[{}, {"toxic": True, "scan_rows": 5}])


def read(**options: Any) -> dict[str, Example]:
    data = WildChat(build(WildChat.Options, {"path": str(WildChat.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_first_messages_are_kept_with_their_white_space() -> None:
    found = {e.id: e for e in read().values()}
    assert {i: (e.question.text(), e.question.subset) for i, e in found.items()} == {
        "f1": ("  Write a short poem about rain.", "English"),
        "f2": ("Wie sp\u00e4t ist es in Tokio?", "German"),
        "f5": ("Explain tides to a child.", "English"),
    }
    assert found["f1"].meta == {"baseline": "Rain falls.", "model": "gpt-4"} and found["f1"].references == ()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"language": "English"}, ["f1", "f5"]),
        ({"toxic": True}, ["f1", "f2", "f3", "f5"]),
        ({"redacted": False}, ["f1", "f5"]),
        ({"max_chars": 27}, ["f2", "f5"]),
        ({"scan_rows": 4, "toxic": True}, ["f1", "f2", "f3"]),
    ],
)
def test_filters(options: dict[str, Any], kept: list[str]) -> None:
    assert sorted(e.id for e in read(**options).values()) == kept


def test_what_is_left_out_is_counted() -> None:
    data = WildChat(WildChat.Options(**WildChat.sample(), dev_size=0, test_size=0))
    counts = [len(list(data.examples(split))) for split in ("dev", "test")]
    dropped = data.notes()["dropped"]
    assert sum(counts) == 3 and dropped["dev"]["toxic"] == dropped["dev"]["empty message"] == 1


def test_a_conversation_that_is_no_list_is_an_error(tmp_path: Path) -> None:
    row = {"conversation_hash": "x", "conversation": "hi", "language": "English", "toxic": False, "redacted": False}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match="field 'conversation': expected a list of turns"):
        read(path=str(tmp_path / "x.jsonl"))
