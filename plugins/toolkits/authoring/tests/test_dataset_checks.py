"""Every dataset check fails on a dataset with exactly that fault, and on no other."""

from __future__ import annotations

import itertools
import locale
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
from conforming import GoodDataset, GoodMetric

from moco_core import DatasetError, DatasetFacts, Example, Question, Split
from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import checks_of, run_checks, traces
from moco_toolkit_authoring import dataset as dataset_module
from moco_toolkit_authoring.suite import perform

Failures = Callable[..., list[str]]


class NoLicence(GoodDataset):
    """States no licence."""

    facts = DatasetFacts(title="bad", metric="good_metric", source="made up")


class Unreadable(GoodDataset):
    """Its bundled sample cannot be read."""

    @classmethod
    def sample(cls) -> Mapping[str, Any]:
        return {"size": 3}

    def examples(self, split: Split) -> Iterator[Example]:
        raise DatasetError("sample.jsonl, row 1: the field 'answer' is missing")


class RepeatsIds(GoodDataset):
    """Uses one id in both splits."""

    def question(self, number: int) -> Question:
        return attrs.evolve(super().question(number), id=f"n{number % 100}")


class SharesQuestions(GoodDataset):
    """Asks a dev question again in test."""

    def question(self, number: int) -> Question:
        return attrs.evolve(super().question(number), prompt=f"What is twice {number % 100}?")


_reads = itertools.count(1)


class ChangesOrder(GoodDataset):
    """Gives the rows in another order every time."""

    def rows(self, split: Split) -> list[int]:
        rows = super().rows(split)
        shift = next(_reads) % len(rows)
        return rows[shift:] + rows[:shift]


class CarriesObjects(GoodDataset):
    """Puts an object that is not JSON into meta."""

    def question(self, number: int) -> Question:
        return attrs.evolve(super().question(number), meta={"seen": {1, 2}})


class TellsTheAnswer(GoodDataset):
    """Puts the answer into Question.meta, under another name."""

    def question(self, number: int) -> Question:
        return attrs.evolve(super().question(number), meta={"row": {"note": number * 2}})


class WrongGold(GoodDataset):
    """Its references are no answers: nothing that can be said scores."""

    def example(self, number: int) -> Example:
        return attrs.evolve(super().example(number), references=["two words"])


class EmptyGold(GoodDataset):
    """Accepts silence: an empty reply scores like a right one."""

    facts = attrs.evolve(GoodDataset.facts, metric="generous")


class Generous(GoodMetric):
    """Scores 1 for everything."""

    def score(self, example: Example, reply: Any, context: Any) -> Any:
        return attrs.evolve(super().score(example, reply, context), value=1.0)


class NotesObjects(GoodDataset):
    """Its notes are not JSON."""

    def notes(self) -> Mapping[str, Any]:
        return {"dropped": {3}}


class NamesNoMetric(GoodDataset):
    """Names a metric that nobody has."""

    facts = attrs.evolve(GoodDataset.facts, metric="goodmetric")


class HasNoReferences(GoodDataset):
    """Leaves the references out."""

    def example(self, number: int) -> Example:
        return attrs.evolve(super().example(number), references=[])


class MisspellsTheKind(GoodDataset):
    """Asks for answers of a kind that is not known."""

    def question(self, number: int) -> Question:
        return attrs.evolve(super().question(number), answer_kind="intger")


class DrawsFromEverybodys(GoodDataset):
    """Seeds the generator that the whole process shares."""

    def examples(self, split: Split) -> Iterator[Example]:
        random.seed(0)
        yield from super().examples(split)


class SharesItsMeta(GoodDataset):
    """Gives all examples one list, and writes the latest row into it."""

    row: list[int]

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.row = [0]

    def example(self, number: int) -> Example:
        self.row[0] = number
        return attrs.evolve(super().example(number), meta={"row": self.row})


class ReadsASet(GoodDataset):
    """Goes through a set of texts."""

    def question(self, number: int) -> Question:
        return attrs.evolve(super().question(number), id=f"word {number}")

    def examples(self, split: Split) -> Iterator[Example]:
        rows = {f"word {number}": number for number in self.rows(split)}
        return (self.example(rows[word]) for word in set(rows))


class NeverEnds(GoodDataset):
    """Its sample goes on for ever."""

    def rows(self, split: Split) -> Any:
        return itertools.count(0 if split == "dev" else 10**9)


BROKEN = {
    "facts_are_stated": NoLicence,
    "default_metric_is_there": NamesNoMetric,
    "examples_can_be_scored": HasNoReferences,
    "sample_is_readable": Unreadable,
    "ids_are_unique": RepeatsIds,
    "splits_are_disjoint": SharesQuestions,
    "order_is_fixed": ChangesOrder,
    "questions_are_plain_data": CarriesObjects,
    "questions_show_no_reference": TellsTheAnswer,
    "gold_scores_highest": WrongGold,
    "empty_reply_scores_lowest": EmptyGold,
    "notes_are_plain_data": NotesObjects,
    "examples_stay_as_they_were": SharesItsMeta,
    "hash_order_changes_nothing": ReadsASet,
    "reading_leaves_nothing_behind": DrawsFromEverybodys,
}


@pytest.fixture
def metrics(catalogue: Catalogue) -> Catalogue:
    catalogue.register(GoodMetric)
    catalogue.register(Generous)
    return catalogue


def test_the_good_dataset_passes_everything(metrics: Catalogue) -> None:
    metrics.register(GoodDataset)
    results = run_checks("dataset", "good_dataset", catalogue=metrics)
    assert [r for r in results if r.status != "passed"] == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_alone(name: str, metrics: Catalogue, failures: Failures) -> None:
    metrics.register(BROKEN[name], "broken")
    assert failures("dataset", "broken", metrics, processes="hash" in name) == [name]


class KeepsItOpen(GoodDataset):
    """Opens a file and does not close it."""

    files: ClassVar[list[Any]] = []

    def examples(self, split: Split) -> Iterator[Example]:
        self.files.append(Path(__file__).open())  # noqa: SIM115
        return super().examples(split)


class WritesBesideUs(GoodDataset):
    """Writes what it read into the working directory."""

    def examples(self, split: Split) -> Iterator[Example]:
        Path("rows.json").write_text("[]")
        return super().examples(split)


class SpeaksGerman(GoodDataset):
    """Sets the process's way of writing times once and for all."""

    def examples(self, split: Split) -> Iterator[Example]:
        locale.setlocale(locale.LC_TIME, "C.UTF-8")
        return super().examples(split)


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (KeepsItOpen, "2 files are still open"),
        (WritesBesideUs, "rows.json was written"),
        (SpeaksGerman, "the locale is another one"),
    ],
)
def test_what_reading_leaves_behind_is_named(
    cls: type, told: str, metrics: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(traces, "_PATIENCE", 0.2)
    metrics.register(cls, "sample")
    case = dataset_module.DatasetCase(metrics, "dataset", "sample", {}, dataset_module.DatasetPlan())
    known = {c.name: c for c in checks_of("dataset")}
    with pytest.raises(AssertionError, match=told):
        perform(known["reading_leaves_nothing_behind"], case, known)
    while KeepsItOpen.files:
        KeepsItOpen.files.pop().close()


@pytest.mark.usefixtures("no_processes")
def test_a_misspelt_kind_of_answer_is_named(metrics: Catalogue) -> None:
    metrics.register(MisspellsTheKind, "sample")
    (wrong,) = [r for r in run_checks("dataset", "sample", catalogue=metrics) if not r.ok]
    assert wrong.name == "examples_can_be_scored" and "did you mean 'integer'?" in wrong.message


@pytest.mark.usefixtures("no_processes")
def test_a_sample_ends(metrics: Catalogue) -> None:
    metrics.register(NeverEnds, "sample")
    (wrong,) = [r for r in run_checks("dataset", "sample", catalogue=metrics) if not r.ok]
    assert wrong.name == "sample_is_readable" and "does not end within 100,000 examples" in wrong.message


def test_every_dataset_check_has_its_broken_dataset() -> None:
    assert set(BROKEN) == {c.name for c in dataset_module.CHECKS}


@pytest.mark.parametrize("key", ["answer", "label", "correct_choice"])
def test_a_telling_key_in_meta_is_refused(key: str, metrics: Catalogue, failures: Failures) -> None:
    class Telling(GoodDataset):
        def question(self, number: int) -> Question:
            return attrs.evolve(super().question(number), meta={key: "?"})

    metrics.register(Telling)
    assert failures("dataset", "telling", metrics) == ["questions_show_no_reference"]


def test_a_dataset_that_needs_the_network_is_skipped_not_failed(metrics: Catalogue) -> None:
    class Remote(GoodDataset):
        def examples(self, split: Split) -> Iterator[Example]:
            raise DatasetError("the Hub cannot be reached; give path=")

    metrics.register(Remote)
    results = {r.name: r for r in run_checks("dataset", "remote", catalogue=metrics)}
    assert results["sample_is_readable"].status == "skipped"
    assert "the Hub cannot be reached" in results["gold_scores_highest"].message
    assert all(r.ok for r in results.values())
