"""Every dataset against the reference study's own items: count, question, choices and reference, item by item.

The items are no part of this repository. They are looked for beside the checkout, in ``../shared/datasets/data`` (another
folder: ``MOCO_REFERENCE_DATA``), and the tests are skipped where they are absent. Where our record is not the study's on
purpose, the difference stands below with its reason, as a rule over the study's raw row that the record must follow.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from moco_core import Dataset, Example
from moco_core.catalogue import installed
from moco_core.options import build

DATA = Path(os.environ.get("MOCO_REFERENCE_DATA") or Path(__file__).parents[2] / "shared" / "datasets" / "data")
SPLITS = ("dev", "test")
Raw = dict[str, Any]


def asked(raw: Raw) -> str:
    return str(raw["question" if "question" in raw else "input"])


def texts(raw: Raw) -> tuple[str, ...]:
    return tuple(raw.get("choices", {}).values())


def gold(raw: Raw) -> tuple[str, ...]:
    if "choices" in raw:
        return (texts(raw)[list(raw["choices"]).index(raw["answer"])],)
    return (raw["output"],) if "output" in raw else ()


def kept(raw: Raw) -> bool:
    return True


@attrs.frozen(kw_only=True)
class Case:
    """What our records must be, as rules over the study's raw rows, and in words why they are not the raw rows."""

    name: str
    counts: tuple[int, int]
    file: str = ""
    options: dict[str, Any] = attrs.field(factory=dict)
    prompt: Callable[[Raw], str] = asked
    choices: Callable[[Raw], tuple[str, ...]] = texts
    references: Callable[[Raw], tuple[str, ...]] = gold
    kept: Callable[[Raw], bool] = kept
    dropped: tuple[int, int] = (0, 0)
    across: int = 0
    differences: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return DATA / f"{self.file or self.name}.jsonl.gz"


# rules ---------------------------------------------------------------------------------------------------------------

BBH_PLAIN = re.compile(
    "boolean_expressions|causal_judgement|dyck_languages|formal_fallacies|multistep_arithmetic_two|navigate|"
    "object_counting|sports_understanding|web_of_lies|word_sorting"
)
BBH_MALFORMED = {"rita, sue and bob poo": ("(C)", "(D)")}


def bbh_gold(raw: Raw) -> tuple[str, ...]:
    if BBH_PLAIN.fullmatch(raw["domain"]):
        return (raw["output"],)
    return BBH_MALFORMED.get(raw["output"], (f"({raw['output']})",))


def blend_question(raw: Raw) -> str:
    return str(raw["question"]).partition(" Without any explanation, choose only one")[0]


def without_answer(raw: Raw) -> tuple[str, ...]:
    return ()


def no_title(raw: Raw) -> str:
    return asked(raw).replace("[TITLE]: None\n", "").removesuffix("\nAnswer:")


INSTRUCTION = "the study keeps a model's reply as output: it is no reference and stands in Example.meta"

CASES = [
    Case(
        name="agieval",
        counts=(1156, 1156),
        choices=lambda raw: tuple(t.strip() for t in texts(raw)),
        references=lambda raw: (gold(raw)[0].strip(),),
        differences=("options of three aqua-rat items begin with a space, which is removed",),
    ),
    Case(name="alpacaeval", counts=(2000, 1000), references=without_answer, differences=(INSTRUCTION,)),
    Case(name="arc_challenge", counts=(299, 1172)),
    Case(
        name="bbh",
        counts=(998, 1000),
        references=bbh_gold,
        dropped=(2, 0),
        differences=(
            "letters keep the brackets of the source, which the study strips",
            "one row of ruin_names states the option's text: it gets the letters of the pieces the option was cut into",
            "one question of causal_judgement stands there twice with opposite answers and is left out",
        ),
    ),
    Case(
        name="blend",
        counts=(1000, 1000),
        prompt=blend_question,
        differences=("the instruction and the options inside the question are removed; the study prints them twice",),
    ),
    Case(name="chembench", counts=(498, 500)),
    Case(name="coconot", counts=(1000, 1000), references=without_answer),
    Case(name="culturebench", counts=(2454, 2454), across=4),
    Case(name="gpqa", counts=(99, 99), file="gpqa_diamond"),
    Case(name="gpqa", counts=(224, 224), file="gpqa_main", options={"config": "main"}),
    Case(name="gpqa", counts=(273, 273), file="gpqa_extended", options={"config": "extended"}),
    Case(name="gsm8k", counts=(200, 1000)),
    Case(name="human_interest", counts=(400, 400), references=without_answer, differences=(INSTRUCTION,)),
    Case(name="humaneval", counts=(50, 114), references=without_answer),
    Case(name="ifeval", counts=(250, 250)),
    Case(name="lab_bench", counts=(578, 578), across=2),
    Case(
        name="math",
        counts=(949, 951),
        kept=lambda raw: raw["output"] is not None,
        dropped=(7, 5),
        references=lambda raw: (raw["output"],),
        differences=("twelve items lost their answer in the study and are left out",),
    ),
    Case(
        name="mbpp",
        counts=(487, 485),
        kept=lambda raw: raw["test"] != "",
        dropped=(0, 2),
        references=without_answer,
        differences=("tasks 769 and 927 have no test in the study, nothing can pass them: they are left out",),
    ),
    Case(name="medmcqa", counts=(2091, 2092), across=5),
    Case(name="medqa", counts=(636, 637)),
    Case(name="mmlu_redux", counts=(1000, 1000), across=4),
    Case(name="mmluprox", counts=(500, 500)),
    Case(
        name="popqa",
        counts=(1000, 1000),
        references=lambda raw: tuple(json.loads(raw["output"])),
        across=20,
        differences=("output is a list written as text, read with a JSON parser; the study splits it at commas",),
    ),
    Case(name="pubmedqa", counts=(500, 500)),
    Case(name="sciencemeter", counts=(1000, 1000), across=2),
    Case(name="sciriff", counts=(114, 139), across=7),
    Case(
        name="tablemwp",
        file="tablemwp_free_text",
        counts=(375, 376),
        prompt=no_title,
        differences=('a missing title is left out, the study prints "None"; the closing "Answer:" is left out',),
    ),
    Case(
        name="tablemwp",
        file="tablemwp_multiple_choice",
        counts=(124, 125),
        options={"variant": "multiple_choice"},
        prompt=no_title,
        differences=(
            'the fourth option has the key "id" where "D" is meant: options are taken by place',
            'a missing title is left out, the study prints "None"',
        ),
    ),
    Case(name="theoremqa", counts=(400, 400), across=1),
    Case(name="truthfulqa", counts=(200, 617)),
    Case(
        name="wikidyk",
        counts=(1000, 765),
        references=lambda raw: (" ".join(raw["output"].split()),),
        differences=("a few answers were scraped with line breaks inside, which become single spaces",),
    ),
    Case(
        name="wildchat",
        counts=(998, 994),
        kept=lambda raw: raw["input"].strip() != "",
        dropped=(2, 6),
        references=without_answer,
        across=9,
        differences=("eight first messages are empty and are left out", INSTRUCTION),
    ),
]

IDS = [case.file or case.name for case in CASES]


# tests ---------------------------------------------------------------------------------------------------------------


def raws(case: Case) -> Iterator[Raw]:
    if not case.path.is_file():
        missing = (
            f"the reference study's items are not in {DATA}" if not DATA.is_dir() else f"{case.path.name} is withheld"
        )
        pytest.skip(missing)
    with gzip.open(case.path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def opened(case: Case, **options: Any) -> Dataset[Any]:
    cls = installed().load("dataset", case.name)
    made: Dataset[Any] = cls(build(cls.Options, {"path": str(DATA), **case.options, **options}))
    return made


def expected(case: Case, given: list[Raw]) -> dict[str, list[Raw]]:
    rows = [raw for raw in given if case.kept(raw)]
    if case.name == "bbh":
        answers: dict[str, set[str]] = {}
        for raw in rows:
            answers.setdefault(raw["input"], set()).add(raw["output"])
        rows = [raw for raw in rows if len(answers[raw["input"]]) == 1]
    return {split: [raw for raw in rows if raw["split"] == split] for split in SPLITS}


def shown_raw(case: Case, raw: Raw) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return case.prompt(raw), case.choices(raw), case.references(raw)


def shown(example: Example) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return example.question.prompt, example.question.choices, example.references


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_records_are_the_items_of_the_reference_study(case: Case) -> None:
    rows = list(raws(case))
    wanted = expected(case, rows)
    data = opened(case)
    for split, count, dropped in zip(SPLITS, case.counts, case.dropped, strict=True):
        found = list(data.examples(split))  # type: ignore[arg-type]
        assert len(found) == len(wanted[split]) == count
        for raw, example in zip(wanted[split], found, strict=True):
            assert shown(example) == shown_raw(case, raw), raw["id"]
            if "choices" in raw:
                assert example.answer == list(raw["choices"]).index(raw["answer"])
        assert len({e.id for e in found}) == count
        assert sum(data.notes()["dropped"][split].values()) == dropped
    assert data.notes()["duplicates"]["across"]["count"] == case.across
    # a difference is explained exactly where there is one
    kept = [raw for split in SPLITS for raw in wanted[split]]
    plain = all(shown_raw(case, raw) == (asked(raw), texts(raw), gold(raw)) for raw in kept)
    assert (plain and len(kept) == len(rows)) == (not case.differences)


# sizes that differ: whole questions are kept together (blend, culturebench), the official items are others (alpacaeval), or
# rows are left out, and the rest keeps the proportion
CUT = {
    "alpacaeval": (205, 600),
    "bbh": (999, 999),
    "blend": (1000, 946),
    "culturebench": (2456, 2452),
    "math": (950, 950),
    "mbpp": (486, 486),
    "wildchat": (996, 996),
}


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_an_undivided_source_is_cut_into_the_papers_sizes_disjointly(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "split"}) + "\n" for r in raws(case)))
    cls = installed().load("dataset", case.name)
    cuts = []
    for seed in (0, 0, 1):
        data = cls(build(cls.Options, {"path": str(path), "seed": seed, **case.options}))
        cuts.append([[e.id for e in data.examples(split)] for split in SPLITS])
        assert data.notes()["duplicates"]["across"]["count"] == 0
        if case.name != "blend" or not seed:  # the sizes of blend follow from hashes of few, large questions
            assert tuple(map(len, cuts[-1])) == CUT.get(case.name, data.sizes())
    # pubmedqa's halves are published
    assert cuts[0] == cuts[1] and (cuts[0] != cuts[2] or case.name == "pubmedqa")


def test_culturebench_ties_the_four_judgements_of_a_question() -> None:
    case = next(c for c in CASES if c.name == "culturebench")
    wanted = Counter(raw["question_id"] for raw in raws(case))
    found = Counter(e.group for split in SPLITS for e in opened(case).examples(split))  # type: ignore[arg-type]
    assert found == wanted and set(wanted.values()) == {4}


def test_code_tests_call_the_function_of_the_record() -> None:
    for name in ("humaneval", "mbpp"):
        case = next(c for c in CASES if c.name == name)
        list(raws(case))
        for split in SPLITS:
            for example in opened(case).examples(split):  # type: ignore[arg-type]
                entry = example.meta["entry_point"]
                assert example.meta["test"].endswith(f"\ncheck({entry})\n") and f"{entry}" in example.question.prompt
                compile(example.meta["test"], example.id, "exec")


def test_every_instruction_of_ifeval_can_be_checked() -> None:
    from moco_metric_instructions import followed

    case = next(c for c in CASES if c.name == "ifeval")
    list(raws(case))
    for split in SPLITS:
        for example in opened(case).examples(split):  # type: ignore[arg-type]
            instructions = example.meta["instructions"]
            assert len(followed("Some reply.", instructions, loose=True)) == len(instructions) > 0
