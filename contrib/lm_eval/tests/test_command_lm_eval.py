"""Fitted systems under lm-eval's own command."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import Model, NoOptions, PoolSource, cli
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool
from moco_toolkit_harness import SAMPLE

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and datasets deprecate at their own pace


def says(knows: bool) -> Any:
    """A model that adds the last two numbers of what it is asked, or one more; and follows a letter with the next."""

    def say(call: Any) -> str:
        numbers = [int(word) for word in call.prompt.replace("?", " ").split() if word.isdigit()]
        if len(numbers) < 2:
            return " b"
        return f"The answer is {numbers[-2] + numbers[-1] + (not knows)}. Question: and then?"

    return say


POOL = ScriptedPool({"a": says(True), "b": says(True), "c": says(False)})


class Said(PoolSource[NoOptions]):
    """Scripted models."""

    def models(self) -> Sequence[Model]:
        return POOL.models()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The run folders of a vote and of its single models. lm-eval's own 14,000 tasks are left out: reading them takes long."""
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        patch.setenv("MOCO_CACHE", str(Path("calls.sqlite").resolve()))
        patch.setattr(installed(), "_registered", {})
        patch.setattr(TaskManager, "__init__", functools.partialmethod(TaskManager.__init__, include_defaults=False))
        moco.register(Said, "said")
        found = moco.run(pool="said", method="majority_vote", dataset="skills", dev=2, test=2).runs
        yield {run.label: str(run.folder) for run in found}


def run(system: str, task: str, *more: str) -> int:
    given = ["--model", "moco", "--model_args", f"system={system}", "--tasks", task, "--include_path", str(SAMPLE)]
    return cli._run(["lm_eval", "run", *given, "--output_path", "out", "--log_samples", *more])


def samples() -> list[dict[str, Any]]:
    """What lm-eval wrote last about single documents."""
    newest = max(Path("out").rglob("samples_*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
    rows = [json.loads(line) for line in newest.read_text().splitlines()]
    return sorted(rows, key=lambda row: row["doc_id"])


def results(task: str) -> dict[str, Any]:
    newest = max(Path("out").rglob("results_*.json"), key=lambda file: file.stat().st_mtime_ns)
    found: dict[str, Any] = json.loads(newest.read_text())["results"][task]
    return found


def test_a_vote_answers_as_it_answers_in_moco(runs: dict[str, str]) -> None:
    assert run(runs["majority_vote"], "moco_sample_sums") == 0
    found = results("moco_sample_sums")
    assert (found["exact_match,strict"], found["exact_match,flexible"]) == (1.0, 1.0)
    rows = [row for row in samples() if row["filter"] == "strict"]
    with moco.load(runs["majority_vote"]) as system:
        for row in rows:
            said = row["resps"][0][0]
            assert said == system.ask(row["arguments"]["gen_args_0"]["arg_0"]).text.partition("Question:")[0]
    assert run(runs["c"], "moco_sample_sums") == 0
    assert results("moco_sample_sums")["exact_match,strict"] == 0.0


def test_a_system_that_is_one_model_has_likelihoods(runs: dict[str, str]) -> None:
    from lm_eval.api.instance import Instance

    from moco_command_lm_eval.model import MocoLM

    assert run(runs["a"], "moco_sample_letters") == 0
    for row in samples():
        likely = [float(pair[0][0]) for pair in row["resps"]]
        assert row["acc"] == float(likely.index(max(likely)) == row["doc"]["label"])
    model = MocoLM(system=runs["a"])
    asked = [
        Instance("loglikelihood", {}, ("Which of these follows a?", text), 0) for text in (" b", " c", " b", " b c")
    ]
    found = model.loglikelihood(asked)
    assert [greedy for _, greedy in found] == [True, False, True, False]
    assert found[0] == found[2] and all(value < 0 for value, _ in found)
    assert found[3][0] < -0.05 * 2  # a word costs at least that


def test_conversations_keep_their_turns(runs: dict[str, str]) -> None:
    POOL.history.clear()
    assert (
        run(
            runs["a"],
            "moco_sample_sums",
            "--apply_chat_template",
            "--fewshot_as_multiturn",
            "true",
            "--num_fewshot",
            "1",
        )
        == 0
    )
    seen = [call for call in POOL.history if call.kind == "generate"]
    assert seen and all(call.transcript.count("plus") == 2 for call in seen)
    assert all(call.prompt.count("plus") == 1 for call in seen)  # the example is a turn of its own


@pytest.mark.parametrize(
    ("system", "task", "code", "line"),
    [
        ("majority_vote", "moco_sample_letters", 2, "is no single model: it has not the likelihoods of given texts"),
        ("nowhere", "moco_sample_sums", 1, "nowhere: no saved system here"),
    ],
)
def test_what_a_system_cannot_do_is_one_line(
    system: str, task: str, code: int, line: str, runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(runs.get(system, system), task) == code
    told = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(told) == 1 and line in told[0]


def test_settings_of_a_task_that_no_system_honours_are_named(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(runs["a"], "moco_sample_sums", "--gen_kwargs", "num_beams=4") == 2
    assert "error: moco: a system cannot honour the generation settings num_beams" in capsys.readouterr().err
    assert run(runs["a"], "moco_sample_sums", "--gen_kwargs", "max_gen_toks=1,temperature=0") == 0
    assert {row["resps"][0][0] for row in samples()} == {"The"}
