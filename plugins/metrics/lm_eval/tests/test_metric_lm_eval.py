"""lm-eval's scores and ours, item by item, of the same replies to ten tasks of different kinds."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from moco_core import Question, Reply
from moco_core.catalogue import installed
from moco_core.config import plugin_of
from moco_core.data import Scored

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and datasets deprecate at their own pace

DATA = """
def rows(kind, **kwargs):
    import datasets
    import pyarrow

    made = [
        {
            "question": f"What is {i} and {i + 2}?",
            "passage": f"The {i}th colour is green{i}.",
            "answer": str(2 * i + 2),
            "answers": [str(2 * i + 2), f"it is {2 * i + 2}"],
            "options": [f"alpha {i}", f"beta beta {i}", f"g{i}"],
            "gold": i % 3,
            "truth": i % 2 == 0,
            "sentence": f"The cat {i} sat on the mat .",
        }
        for i in range(14)
    ]
    parts = {"train": made[:4], "test": made[4:]}
    return {name: datasets.Dataset(pyarrow.Table.from_pylist(part), fingerprint=name) for name, part in parts.items()}


def exact_or_close(doc, results):
    said = results[0].strip()
    return {"close": float(said[:1] == doc["answer"][:1]), "length": float(len(said))}


def beginnings(doc):
    return [f"{o} is what" for o in doc["options"]]
"""

COMMON = """
custom_dataset: !function data.rows
dataset_kwargs: {kind: mine}
training_split: train
test_split: test
fewshot_split: train
metadata: {version: 3}
"""
GENERATED = 'output_type: generate_until\ndoc_to_text: "Q: {{question}}\\nA:"\ndoc_to_target: "{{answer}}"\n'
CHOSEN = "output_type: multiple_choice\ndoc_to_target: gold\n"
BOTH = "metric_list:\n  - metric: acc\n  - metric: acc_norm\n"
TASKS: Mapping[str, str] = {
    # choices that the prompt lists, by their letters, as mmlu has them
    "mine_letters": CHOSEN
    + 'doc_to_text: "{{question}}\\nA. {{options[0]}}\\nB. {{options[1]}}\\nC. {{options[2]}}\\nAnswer:"\n'
    + 'doc_to_choice: ["A", "B", "C"]\nmetric_list:\n  - metric: acc\n',
    # choices that it does not list, as arc_easy has them, with few-shot examples
    "mine_texts": CHOSEN + 'doc_to_text: "{{question}}"\ndoc_to_choice: "{{options}}"\nnum_fewshot: 2\n' + BOTH,
    # yes and no, and a measure of the whole run
    "mine_boolean": 'output_type: multiple_choice\ndoc_to_text: "{{passage}} True?"\ndoc_to_choice: ["no", "yes"]\n'
    + 'doc_to_target: "{{truth|int}}"\nmetric_list:\n  - metric: acc\n  - metric: f1\n    aggregation: f1\n',
    # several beginnings of one ending, as winogrande has them
    "mine_beginnings": "output_type: multiple_choice\ndoc_to_text: gold\ndoc_to_choice: !function data.beginnings\n"
    + 'doc_to_target: "it says ."\nmetric_list:\n  - metric: acc\n',
    # mutual information needs the choices without the question, too
    "mine_mutual": CHOSEN
    + 'doc_to_text: "{{question}}"\ndoc_to_choice: "{{options}}"\n'
    + "metric_list:\n  - metric: acc\n  - metric: acc_mutual_info\n",
    # a number behind a phrase, by two filters, as gsm8k has them
    "mine_numbers": GENERATED
    + textwrap.dedent("""\
        num_fewshot: 1
        generation_kwargs: {until: ["Q:", "</s>"], do_sample: false}
        filter_list:
          - name: strict
            filter:
              - {function: regex, regex_pattern: "The answer is (-?[0-9]+)"}
              - {function: take_first}
          - name: flexible
            filter:
              - {function: regex, group_select: -1, regex_pattern: "(-?[0-9]+)"}
              - {function: take_first}
        metric_list:
          - {metric: exact_match}
        """),
    # texts compared without case and punctuation
    "mine_texts_alike": GENERATED
    + "metric_list:\n  - {metric: exact_match, ignore_case: true, ignore_punctuation: true}\n",
    # any of several accepted answers
    "mine_several": 'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answers}}"\n'
    + "metric_list:\n  - {metric: exact_match}\n",
    # measures of the whole run alone
    "mine_bleu": 'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{sentence}}"\n'
    + "metric_list:\n  - {metric: bleu}\n  - {metric: chrf}\n",
    # a task's own function
    "mine_own": GENERATED
    + "process_results: !function data.exact_or_close\n"
    + "metric_list:\n  - {metric: close, aggregation: mean, higher_is_better: true}\n"
    + "  - {metric: length, aggregation: mean, higher_is_better: false}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    (made / "data.py").write_text(DATA)
    for name, text in TASKS.items():
        (made / f"{name}.yaml").write_text(f"task: {name}{COMMON}{text}")
    return made


def said(index: int, target: str) -> str:
    """Replies right and wrong, with what filters look for and without."""
    forms = (
        "The answer is {}.",
        " {}",
        "{}",
        "It is {} Q: And?",
        "no idea",
        "",
        "IT IS {}!",
        "9{} the cat sat on the mat .",
    )
    return forms[index % len(forms)].format(target)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, Any]:
    """What lm-eval itself makes of the replies of a model that knows some answers."""
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Scripted(LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Any]) -> list[str]:
            out = []
            for request in requests:
                text = said(request.doc_id, request.doc["answer"])
                for stop in request.args[1].get("until", ()):
                    text = text.partition(stop)[0]
                out.append(text)
            return out

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            rng = random.Random(7)
            chosen: dict[tuple[str, int], int] = {}
            out = []
            for request in requests:
                if request.args[0] == "":  # a choice without the question
                    out.append((-1.0, False))
                    continue
                best = chosen.setdefault((request.task_name, request.doc_id), rng.randrange(2))
                out.append((0.0, True) if request.idx == best else (-1e9, False))
            self.chosen = chosen
            return out

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise AssertionError

    model = Scripted()
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, log_samples=True)
    return {"results": found["results"], "samples": found["samples"], "chosen": model.chosen}


class Told:
    """The part of a context that scoring uses."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def reply(text: str) -> Reply:
    return Reply(text=text)


def choosing(question: Question, index: int) -> str:
    """A reply that names the choice of an index, as models write it."""
    return f"The answer is {question.letters[index] if question.choices else question.labels[index]}."


@pytest.mark.parametrize("name", TASKS)
def test_every_item_has_the_scores_that_lm_eval_gives_it(name: str, folder: Path, theirs: Mapping[str, Any]) -> None:
    section = {"name": "lm_eval", "task": name, "include_path": str(folder)}
    dataset = plugin_of(installed(), "dataset", section, "dataset").make()
    metric, told, rows = plugin_of(installed(), "metric", "lm_eval", "metric").make(), Told(), []
    samples: dict[int, dict[str, float]] = {}
    prompts: dict[int, Any] = {}
    for sample in theirs["samples"][name]:
        for key in sample["metrics"]:
            samples.setdefault(sample["doc_id"], {})[f"{key},{sample['filter']}"] = sample[key]
        prompts[sample["doc_id"]] = sample["arguments"][0][0]
    for index, example in enumerate(dataset.examples("test")):
        if not name.startswith("mine_beginnings"):
            assert example.question.prompt == prompts[index]  # its own prompt, few-shot examples included
        if example.question.choices or example.question.labels:
            text = choosing(example.question, theirs["chosen"][name, index])
        else:
            text = said(index, str(2 * (index + 4) + 2))
        score = metric.score(example, reply(text), told)
        ours = score.meta["measures"]
        assert set(ours) == set(samples[index])
        for measure, value in samples[index].items():
            assert ours[measure] == pytest.approx(plain(value)), (index, measure)
        rows.append(Scored(example=example, reply=reply(text), score=score))
    assert len(rows) == 10
    extra = metric.extra_metrics(rows)
    for measure, value in theirs["results"][name].items():
        if isinstance(value, float) and "stderr" not in measure:
            assert extra[measure] == pytest.approx(value), measure
    if name == "mine_bleu":
        assert "no measure" in told.warnings[0] and all(r.score.value is None for r in rows)
    else:
        assert told.warnings == []
        first = next(m for m, v in samples[0].items() if isinstance(v, (int, float)))
        assert sum(r.score.value or 0.0 for r in rows) / 10 == pytest.approx(theirs["results"][name][first])


def plain(value: Any) -> Any:
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_a_measure_and_a_filter_can_be_named(folder: Path) -> None:
    section = {"name": "lm_eval", "task": "mine_numbers", "include_path": str(folder)}
    example = next(iter(plugin_of(installed(), "dataset", section, "dataset").make().examples("test")))
    scores = {}
    for measure in ("", "exact_match,flexible", "exact_match", "bleu"):
        metric = plugin_of(installed(), "metric", {"name": "lm_eval", "measure": measure}, "metric").make()
        scores[measure] = metric.score(example, reply("So 10"), Told()).value
    assert scores == {"": 0.0, "exact_match,flexible": 1.0, "exact_match": 0.0, "bleu": None}


def test_a_reply_without_a_choice_scores_nothing(folder: Path) -> None:
    section = {"name": "lm_eval", "task": "mine_texts", "include_path": str(folder)}
    example = next(iter(plugin_of(installed(), "dataset", section, "dataset").make().examples("test")))
    metric = plugin_of(installed(), "metric", "lm_eval", "metric").make()
    score = metric.score(example, reply("I would rather not say."), Told())
    assert (
        score.value == 0.0
        and score.answer.key is None
        and score.meta["measures"] == {"acc,none": 0.0, "acc_norm,none": 0.0}
    )


def test_other_questions_are_not_scored() -> None:
    from moco_core import Example

    told, metric = Told(), plugin_of(installed(), "metric", "lm_eval", "metric").make()
    example = Example(question=Question(id="q", prompt="?"), references=("1",))
    assert metric.score(example, reply("1"), told).value is None
    assert told.warnings == ["question 'q' is not scored: the metric lm_eval needs one of the dataset lm_eval"]
