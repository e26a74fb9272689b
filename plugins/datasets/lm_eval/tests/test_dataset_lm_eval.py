"""Tasks of lm-eval as datasets: the checks, what is recorded, and names and data that are not there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import DatasetError, Model, NoOptions, PoolSource, cli
from moco_core.catalogue import installed
from moco_core.config import plugin_of
from moco_toolkit_authoring import dataset_checks
from moco_toolkit_authoring.scripted import ScriptedPool
from moco_toolkit_harness import SAMPLE

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and datasets deprecate at their own pace

PLACE = str(SAMPLE)
test_conformance = dataset_checks(
    "lm_eval",
    settings=[{"task": name, "include_path": PLACE} for name in ("moco_sample_sums", "moco_sample_letters")],
)


def dataset(**options: Any) -> Any:
    return plugin_of(installed(), "dataset", {"name": "lm_eval", **options}, "dataset").make()


def test_the_versions_of_library_and_tasks_are_recorded() -> None:
    notes = dataset(task="moco_sample_sums", include_path=PLACE).notes()
    assert notes["task_versions"] == {"moco_sample_sums": "2.0"} and notes["lm_eval"].startswith("0.4.")


def test_few_shot_examples_stand_in_the_prompt_as_many_as_are_asked_for() -> None:
    for shots, count in ((None, 3), (0, 1), (4, 5)):
        first = next(iter(dataset(task="moco_sample_sums", include_path=PLACE, num_fewshot=shots).examples("test")))
        assert first.question.prompt.count("Question:") == count and first.question.prompt.endswith("Answer:")
    assert first.references == ("25",) and first.question.meta["until"] == ["\n\n", "Question:"]


def test_no_reference_stands_in_a_question() -> None:
    for task in ("moco_sample_sums", "moco_sample_letters"):
        for example in dataset(task=task, include_path=PLACE, num_fewshot=0).examples("test"):
            assert set(example.question.meta) <= {"task", "until"}


def test_a_group_is_several_subsets(tmp_path: Path) -> None:
    for file in SAMPLE.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "group.yaml").write_text("group: both\ntask: [moco_sample_sums, moco_sample_letters]\n")
    found = list(dataset(task="both", include_path=str(tmp_path)).examples("test"))
    assert {e.question.subset for e in found} == {"moco_sample_sums", "moco_sample_letters"} and len(found) == 20


TASK = (
    "task: odd\ncustom_dataset: !function made.sums\ntest_split: test\ndoc_to_text: question\ndoc_to_target: answer\n"
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "output_type: loglikelihood\nmetric_list:\n  - metric: acc\n",
            "task 'odd' measures loglikelihood of given texts",
        ),
        (
            "output_type: generate_until\nunsafe_code: true\nmetric_list:\n  - metric: exact_match\n",
            "task 'odd' runs code that a model wrote, outside of a sandbox",
        ),
    ],
)
def test_tasks_that_cannot_be_answered_here_are_refused_by_name(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text((SAMPLE / "made.py").read_text())
    (tmp_path / "odd.yaml").write_text(TASK + text)
    with pytest.raises(DatasetError, match=line):
        list(dataset(task="odd", include_path=str(tmp_path)).examples("test"))


def test_data_that_need_the_network_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = "task: far\ndataset_path: nobody/has-this-one\noutput_type: generate_until\ntest_split: test\n"
    (tmp_path / "far.yaml").write_text(
        text + "doc_to_text: q\ndoc_to_target: a\nmetric_list:\n  - metric: exact_match\n"
    )
    with pytest.raises(DatasetError) as caught:
        list(dataset(task="far", include_path=str(tmp_path)).examples("test"))
    assert str(caught.value).startswith("task 'far' cannot be loaded: ") and "\n" not in str(caught.value)
    assert "without a network" in str(caught.value)


def test_a_folder_that_is_none_is_one_line() -> None:
    with pytest.raises(DatasetError, match="include_path: nowhere is no folder"):
        list(dataset(task="x", include_path="nowhere").examples("test"))


@pytest.mark.slow
def test_a_task_that_there_is_not_is_one_line_with_the_nearest() -> None:
    """Slow: it looks through all of the library's own tasks."""
    with pytest.raises(DatasetError, match=r"lm-eval has no task 'gsm8kk', did you mean 'gsm8k'\?"):
        list(dataset(task="gsm8kk").examples("test"))


class Said(PoolSource[NoOptions]):
    """Scripted models, one of which can add."""

    def models(self) -> Sequence[Model]:
        def add(call: Any) -> str:
            *_, one, other = (int(word.strip("?")) for word in call.prompt.split() if word.strip("?").isdigit())
            return f"The answer is {one + other}.\n\nQuestion: 7"

        return ScriptedPool({"adds": add, "guesses": lambda call: "Perhaps 25"}).models()


def test_a_run_on_a_task_has_its_score_all_its_measures_and_the_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    (tmp_path / "run.yaml").write_text(
        f"pool: said\ndataset: {{name: lm_eval, task: moco_sample_sums, include_path: {PLACE}}}\n"
    )
    assert cli._run(["bench", "run.yaml", "--json"]) == 0
    rows = {row["label"]: row for row in json.loads(capsys.readouterr().out)[0]["rows"]}
    assert {name: row["score"]["mean"] for name, row in rows.items()} == {"adds": 1.0, "guesses": 0.0}
    assert rows["adds"]["extra_metrics"] == {"exact_match,strict": 1.0, "exact_match,flexible": 1.0}
    assert rows["guesses"]["extra_metrics"] == {
        "exact_match,strict": 0.0,
        "exact_match,flexible": pytest.approx(1 / 12),
    }
    head = json.loads((Path(rows["adds"]["folder"]) / "run.json").read_text())
    assert head["dataset"]["notes"]["task_versions"] == {"moco_sample_sums": "2.0"}
