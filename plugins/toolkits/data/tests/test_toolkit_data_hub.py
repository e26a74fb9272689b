"""Rows of the Hub: what the datasets library is asked for, which commit was read, and what is told when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sums_dataset import Sums, ids, rows, write

from moco_core import DatasetError
from moco_toolkit_data import Hub, SourceOptions
from moco_toolkit_data.hub import full_commit


@pytest.mark.slow  # importing datasets takes seconds
def test_rows_come_through_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = tmp_path / "repo"
    write(repo / "validation.jsonl", rows(2))
    write(repo / "test.jsonl", rows(9, 10))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("USE_TORCH", "0")

    class Local(Sums):
        hub = (Hub(str(repo)),)

    for streaming in (False, True):
        data = Local(SourceOptions(streaming=streaming, test_size=0))
        assert ids(data, "test") == [f"s{i}" for i in range(10, 19)]
        assert ids(Local(SourceOptions(streaming=streaming, scan_rows=3, test_size=0)), "test") == ["s10", "s11", "s12"]
    assert data.notes()["revision"] == "r1"


FAR = """
from moco_core import DatasetError
from moco_toolkit_data.hub import Hub, hub_rows
for _ in range(2):
    try:
        next(hub_rows(Hub("org/far"), "test", revision="", streaming=False))
    except DatasetError as error:
        print(error)
"""


@pytest.mark.slow  # importing datasets takes seconds
def test_a_hub_out_of_reach_is_asked_once_and_not_again_and_again(tmp_path: Path) -> None:
    """The client says on stderr that it tries once more, each time after a longer wait."""
    env = {k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE")}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "USE_TORCH": "0"}  # where nobody listens
    done = subprocess.run([sys.executable, "-c", FAR], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("org/far: the Hub is out of reach and nothing is cached") == 2, done.stderr
    assert "Retry" not in done.stderr


def fake_hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_repository_configuration_split_and_revision_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Table(list[Any]):
        features = None
        info = types.SimpleNamespace(download_checksums={f"hf://datasets/org/sums@{'a1' * 20}/all/test.parquet": {}})

    def load(*args: Any, **keywords: Any) -> Table:
        asked.append((args, keywords))
        return Table(rows(4))

    fake_hub(monkeypatch, load)
    data = Sums(SourceOptions(test_size=4))
    assert len(ids(data, "test")) == 4 and data.notes()["commits"] == {"org/sums": "a1" * 20}
    assert len(ids(Sums(SourceOptions(revision="abc", streaming=True)), "dev")) == 2
    assert asked == [
        (("org/sums", "all"), {"split": "test", "revision": "r1", "streaming": False}),
        (("org/sums", "all"), {"split": "validation", "revision": "abc", "streaming": True}),
    ]

    class Spread(Sums):
        hub = (Hub("org/old", revision="c3" * 20), Hub("org/new"))
        repeated_ids = "drop"

    asked.clear()
    assert len(ids(Spread(SourceOptions(test_size=0)), "test")) == 4
    assert [(args[0], keywords["revision"]) for args, keywords in asked] == [("org/old", "c3" * 20), ("org/new", "r1")]


def test_a_streamed_source_is_recorded_at_the_commit_that_the_hub_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Api:
        def dataset_info(self, repo: str, *, revision: str | None, timeout: float) -> Any:
            asked.append((repo, revision))
            if repo == "org/none":
                raise ConnectionError("offline")
            return types.SimpleNamespace(sha="b2" * 20)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)

    class Stream(list[Any]):
        features = info = None

    fake_hub(monkeypatch, lambda *args, **keywords: Stream(rows(4)))
    data = Sums(SourceOptions(test_size=4, streaming=True))
    assert len(ids(data, "test")) == len(ids(data, "test")) == 4
    assert data.notes()["commits"] == {"org/sums": "b2" * 20} and asked == [("org/sums", "r1")]

    class Lost(Sums):
        hub = (Hub("org/none", "all"),)

    data = Lost(SourceOptions(test_size=4, streaming=True))
    assert len(ids(data, "test")) == 4 and data.notes()["commits"] == {} and data.notes()["revision"] == "r1"


def test_a_short_commit_is_completed_from_the_cache_or_the_list_of_commits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed, asked = [], []

    class Api:
        def list_repo_commits(self, repo: str, *, repo_type: str) -> list[Any]:
            listed.append((repo, repo_type))
            if repo == "org/far":
                raise ConnectionError("offline")
            return [types.SimpleNamespace(commit_id=c * 20) for c in ("ab", "cd", "ce")]

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "datasets--org--kept" / "snapshots" / ("ef" * 20)).mkdir(parents=True)

    class Table(list[Any]):
        features = None
        info = types.SimpleNamespace(download_checksums={f"hf://datasets/org/sums@{'cd' * 20}/all/test.parquet": {}})

    def load(*args: Any, **keywords: Any) -> Table:
        asked.append(keywords["revision"])
        return Table(rows(4))

    fake_hub(monkeypatch, load)
    data = Sums(SourceOptions(test_size=4, revision="cdcdcdc"))
    assert len(ids(data, "test")) == 4 and data.notes()["commits"] == {"org/sums": "cd" * 20}
    assert len(ids(data, "test")) == 4 and len(listed) == 1  # what is known needs no list
    # a branch or a tag that looks like a hash, a whole hash, and what is known without the Hub
    assert full_commit("org/sums", "deadbee") == "deadbee" and full_commit("org/sums", "ab" * 20) == "ab" * 20
    assert full_commit("org/kept", "efefefe") == "ef" * 20 and full_commit("org/sums", "main") == "main"
    assert asked == ["cd" * 20] * 2 and [repo for repo, _ in listed] == ["org/sums", "org/sums"]

    class Far(Sums):
        hub = (Hub("org/far", "all"),)

    with pytest.raises(DatasetError, match="org/far: the Hub is out of reach"):
        ids(Far(SourceOptions(revision="abababa")), "test")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "GatedRepoError",
            "403",
            "org/sums is gated: accept its terms at https://huggingface.co/datasets/org/sums, then run",
        ),
        (
            "DatasetNotFoundError",
            "no\nsuch",
            "org/sums: no such dataset at revision r1, or it is private; see https://hug",
        ),
        ("OfflineModeIsEnabled", "off", "the Hub is out of reach and nothing is cached"),
        (
            "ValueError",
            "Unknown split 'test'\nmore",
            "org/sums/all, test: cannot be loaded: ValueError: Unknown split 'test'; see",
        ),
    ],
)
def test_sources_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str) -> None:
    def load(*args: Any, **keywords: Any) -> None:
        raise type(name, (Exception,), {})(text)

    fake_hub(monkeypatch, load)
    with pytest.raises(DatasetError) as caught:
        ids(Sums(SourceOptions()), "test")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_source_that_breaks_off_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaking:
        features = None

        def __iter__(self) -> Iterator[Any]:
            yield from rows(2)
            raise OSError("connection reset")

    fake_hub(monkeypatch, lambda *a, **k: Breaking())
    with pytest.raises(DatasetError, match="org/sums/all, test, row 3: OSError: connection reset"):
        ids(Sums(SourceOptions(test_size=0)), "test")


def test_without_the_datasets_library_the_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match="needs: pip install datasets"):
        ids(Sums(SourceOptions()), "test")
