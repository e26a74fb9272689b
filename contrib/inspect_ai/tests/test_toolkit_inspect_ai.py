"""Fitted systems under inspect_ai's own command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import Model, NoOptions, PoolSource
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool

pytestmark = pytest.mark.filterwarnings("ignore")  # inspect_ai and what it is made of deprecate at their own pace

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message, use_tools
from inspect_ai.tool import tool


@tool
def clock():
    async def execute():
        "Tell the time."
        return "noon"
    return execute


@task
def sums(tools: bool = False, logprobs: bool = False):
    made = [Sample(input=f"What is {i} plus {i + 1}?", target=f"answer is {2 * i + 1}.") for i in range(6)]
    solver = [system_message("Be brief."), *([use_tools(clock())] if tools else []), generate()]
    config = GenerateConfig(temperature=0.0, logprobs=logprobs or None)
    return Task(dataset=made, solver=solver, scorer=includes(), config=config)
"""


def says(knows: bool) -> Any:
    def say(call: Any) -> str:
        numbers = [int(word) for word in call.prompt.replace("?", " ").split() if word.isdigit()]
        return f"The answer is {sum(numbers[-2:]) + (not knows)}."

    return say


POOL = ScriptedPool({"a": says(True), "b": says(True), "c": says(False)})


class Said(PoolSource[NoOptions]):
    """Scripted models."""

    def models(self) -> Sequence[Model]:
        return POOL.models()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        patch.setenv("MOCO_CACHE", str(Path("calls.sqlite").resolve()))
        patch.setattr(installed(), "_registered", {})
        moco.register(Said, "said")
        found = moco.run(pool="said", method="majority_vote", dataset="skills", dev=2, test=2).runs
        Path("task.py").write_text(TASK)
        yield {run.label: str(run.folder) for run in found}


def evaluate(model: str, *more: str) -> Any:
    """Run `inspect eval` and return its log."""
    from click.testing import CliRunner
    from inspect_ai._cli.main import inspect
    from inspect_ai.log import list_eval_logs, read_eval_log

    given = ["eval", "task.py", "--model", model, "--log-dir", "logs", "--display", "none", *more]
    said = CliRunner().invoke(inspect, given)
    logs = list_eval_logs("logs")
    return read_eval_log(logs[0]) if logs and said.exit_code == 0 else said


def test_a_vote_answers_as_it_answers_in_moco(runs: dict[str, str]) -> None:
    log = evaluate(f"moco/{runs['majority_vote']}")
    assert log.status == "success", log.error
    assert log.eval.model == f"moco/{runs['majority_vote']}"
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
    for sample in log.samples:
        assert sample.output.metadata["calls"] == 3
        usage = sample.output.usage
        assert (
            usage.output_tokens == 12 and usage.total_tokens == usage.input_tokens + 12
        )  # three replies of four words
    assert {call.messages[0].content for call in POOL.history[-3:]} == {"Be brief."}


def test_a_model_that_is_wrong_is_scored_so(runs: dict[str, str]) -> None:
    log = evaluate(f"moco/{runs['c']}")
    assert log.results.scores[0].metrics["accuracy"].value == 0.0


def test_settings_of_a_request_reach_the_models(runs: dict[str, str]) -> None:
    log = evaluate(f"moco/{runs['a']}", "--max-tokens", "2")
    assert {sample.output.completion for sample in log.samples} == {"The answer"}
    assert {sample.output.stop_reason for sample in log.samples} == {"max_tokens"}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("-T", "tools=true"), "a system calls no tools"),
        (("-T", "logprobs=true"), "moco: logprobs: a system cannot honour it"),
    ],
)
def test_what_a_system_cannot_do_is_named(more: tuple[str, ...], line: str, runs: dict[str, str]) -> None:
    log = evaluate(f"moco/{runs['majority_vote']}", *more)
    assert log.status == "error" and line in log.error.message, log.error.message


def test_a_folder_without_a_system_is_named(runs: dict[str, str]) -> None:
    said = evaluate("moco/nowhere")
    assert said.exit_code != 0 and "nowhere: no saved system here" in str(said.exception or said.output)
