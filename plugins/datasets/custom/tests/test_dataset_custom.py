"""Bring your own data: every form of choices and answers, every metric's example of the README, every mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from moco_core import ConfigError, DatasetError, Example, Split
from moco_core.options import build
from moco_dataset_custom import Custom, Options
from moco_dataset_custom.options import METRICS
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("custom")

SPLITS: tuple[Split, ...] = ("dev", "test")
README = Path(__file__).parents[1] / "README.md"


def opened(**options: Any) -> Custom:
    return Custom(build(Options, options))


def everything(data: Custom) -> list[Example]:
    return sorted((e for split in ("dev", "test") for e in data.examples(split)), key=lambda e: e.id)


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return str(path)


def test_choices_and_answers_of_every_form() -> None:
    found = everything(opened(**Custom.sample()))
    assert [(e.question.choices, e.answer, e.references) for e in found] == [
        (("yellow", "blue", "black"), 0, ("yellow",)),
        (("white", "black"), 1, ("black",)),
        (("cat", "dog"), 1, ("dog",)),
        (("hen", "cow", "pig"), 0, ("hen",)),
    ]
    assert [e.question.subset for e in found] == ["colours", "colours", "animals", "animals"]
    assert {e.question.answer_kind for e in found} == {"choice"}


def test_a_csv_with_one_column_per_choice_and_indexes_from_one(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("question,a,b,right\nBarks?,cat,dog,2\nMoos?,cow,hen,1\n")
    data = opened(path=str(tmp_path / "q.csv"), choices=["a", "b"], answer="right", first_index=1)
    assert {e.question.prompt: e.references[0] for e in everything(data)} == {"Barks?": "dog", "Moos?": "cow"}


def test_a_question_put_together_from_fields_keeps_their_braces(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl",
        {"p": "set {q}", "q": "How many?", "answer": [1, "one"]},
        {"p": "x", "q": "y", "answer": ""},
    )
    data = opened(path=path, question="{p}: {q}", kind="short", test_size=1, dev_size=0)
    rows = list(data.examples("test"))
    assert [(e.question.prompt, e.references) for e in rows] == [("set {q}: How many?", ("1", "one"))]
    assert data.notes()["dropped"] == {"test": {"no answer": 1}} and data.facts.metric == "token_f1"


def test_files_of_a_folder_are_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"question": "a", "answer": "1"})
    write(tmp_path / "test.jsonl", {"question": "b", "answer": "2"}, {"question": "c", "answer": "3"})
    data = opened(path=str(tmp_path), dev_split="train")
    assert [[e.question.prompt for e in data.examples(s)] for s in ("dev", "test")] == [["a"], ["b", "c"]]


def examples_of_the_readme() -> list[tuple[str, dict[str, Any], list[str]]]:
    found = []
    for part in re.split(r"^\*\*(?=\w+\*\* – )", README.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        metric = part.partition("**")[0]
        for block in re.findall(r"```yaml\n(.*?)```", part, flags=re.DOTALL):
            rows = [line[2:] for line in block.splitlines() if line.startswith("# ")]
            found.append((metric, yaml.safe_load(block), rows))
    return found


def test_the_readme_has_an_example_of_every_metric() -> None:
    shown = {metric for metric, _, _ in examples_of_the_readme()}
    assert shown == {*METRICS.values(), "answer_verifier", "generation_diversity", "none", "noncompliance"}


@pytest.mark.parametrize(("metric", "config", "rows"), examples_of_the_readme())
def test_every_example_of_the_readme_works(
    metric: str, config: dict[str, Any], rows: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = config["dataset"]
    assert dataset.pop("name") == "custom"
    Path(dataset["path"]).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    data = opened(**dataset)
    assert config.get("metric", {"name": data.facts.metric})["name"] == metric
    found = everything(data)
    assert len(found) == 2
    assert all(e.question.prompt and not re.search(r"\{[a-z]+\}", e.question.prompt) for e in found)


@pytest.mark.parametrize(
    ("row", "options", "text"),
    [
        (
            {"question": "q", "answer": "C", "o": ["x", "y"]},
            {"choices": "o"},
            "field 'answer': expected a label (A, B)",
        ),
        (
            {"question": "q", "answer": 2, "o": ["x", "y"]},
            {"choices": "o"},
            "field 'answer': no choice has this index; th",
        ),
        ({"question": "q", "answer": "A", "o": "x, y"}, {"choices": "o"}, "field 'o': expected JSON written as text"),
        (
            {"question": "q", "answer": "A", "o": [None]},
            {"choices": "o"},
            "field 'o[0]': expected text or a number, got null",
        ),
        ({"question": 3, "answer": "A"}, {}, "field 'question': expected text, got int 3"),
        ({"qestion": "q", "answer": "A"}, {}, "field 'question': missing, did you mean 'qestion'?"),
        ({"question": "q", "answer": "A"}, {"question": "{text}"}, "field 'text': missing"),
        ({"question": "q", "answer": {"a": 1}}, {}, "field 'answer': expected text or a number, got dict"),
        (
            {"question": "q", "answer": "x"},
            {"kind": "label", "labels": ["y"]},
            "field 'answer': expected one of y, got 'x'",
        ),
    ],
)
def test_rows_that_do_not_fit(tmp_path: Path, row: dict[str, Any], options: dict[str, Any], text: str) -> None:
    with pytest.raises(DatasetError) as caught:
        everything(opened(path=write(tmp_path / "q.jsonl", row), **options))
    assert f"q.jsonl, row 1, {text}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "state one of the two"),
        ({"path": "a", "hub": "b"}, "state one of the two"),
        ({"path": "a", "kind": "choice"}, "choices: missing for kind choice"),
        ({"path": "a", "kind": "math", "choices": "o"}, "choices: not used with kind math"),
        ({"path": "a", "kind": "label"}, "labels: missing for kind label"),
        ({"path": "a", "kind": "sum"}, "kind: expected"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        opened(**options)


def test_the_readmes_hub_id_is_read_through_the_datasets_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USE_TORCH", "0")
    datasets = pytest.importorskip("datasets")
    command = README.read_text().partition("# a Hub id")[2].partition("```")[0].replace("\\\n", " ")
    given = dict(part.partition("=")[::2] for part in re.findall(r"-o '?dataset\.([^'\n]*?)'?(?= -o|\s*\n)", command))
    options = {name: yaml.safe_load(value) for name, value in given.items()}
    assert options["choices"] == ["opa", "opb", "opc", "opd"] and len(options["revision"]) == 40
    for split, count in (("train", 3), ("validation", 2)):
        rows = [
            {"id": f"{split}{i}", "question": f"{split} {i}?", "cop": i, "subject_name": "Anatomy", "topic_name": None}
            | {name: f"{name} {i}" for name in options["choices"]}
            for i in range(count)
        ]
        write(tmp_path / f"{split}.jsonl", *rows)
    splits = "".join(f"  - {{split: {s}, path: {s}.jsonl}}\n" for s in ("train", "validation"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n")
    asked = []
    load = datasets.load_dataset

    def local(repo: str, *args: Any, revision: str, **keywords: Any) -> Any:
        asked.append((repo, revision))
        return load(str(tmp_path), *args, cache_dir=str(tmp_path / "cache"), **keywords)

    monkeypatch.setattr(datasets, "load_dataset", local)
    for streaming in (False, True):
        data = opened(**options, streaming=streaming)
        found = {split: sorted((e.id, e.answer, e.references) for e in data.examples(split)) for split in SPLITS}
        assert found["dev"] == [(f"train{i}", i, (f"{'op' + 'abcd'[i]} {i}",)) for i in range(3)]
        assert found["test"] == [(f"validation{i}", i, (f"{'op' + 'abcd'[i]} {i}",)) for i in range(2)]
        assert {e.question.subset for e in data.examples("test")} == {"Anatomy"}
    assert set(asked) == {("openlifescienceai/medmcqa", options["revision"])}
    assert data.notes()["revision"] == options["revision"] and data.facts.metric == "multiple_choice"
