"""MMLU-Redux 2.0: MMLU re-annotated, with every faulty question marked (Gema et al., 2024, arXiv 2406.04127)."""

from __future__ import annotations

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_dataset_mmlu_redux.subjects import SUBJECTS
from moco_toolkit_data import LETTER, Drop, Hub, Row, SourceDataset, SourceOptions

__all__ = ["MMLURedux", "Options"]

_REPO = "edinburgh-dawg/mmlu-redux-2.0"


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    repair: bool = option(False, help="also keep questions marked wrong_groundtruth, with the corrected answer")


class MMLURedux(SourceDataset[Options]):
    """57 subjects of 100 questions; those marked faulty are left out, and the rest is cut in two by seed."""

    Options = Options
    name = "mmlu_redux"
    facts = DatasetFacts(
        title="MMLU-Redux 2.0",
        metric="multiple_choice",
        paper="arXiv 2406.04127",
        licence="CC BY 4.0",
        source=_REPO,
        revision="372ea425445d51e1ba1188c56e5e893f8138621f",
        sizes=(1000, 1000),
        fields="question, choices, answer, error_type, correct_answer",
        notes="Questions with several right answers are left out too: an example has one right choice.",
    )
    subsets = SUBJECTS
    hub = tuple(Hub(_REPO, subject, subset=subject) for subject in SUBJECTS)
    dev_from = test_from = ("test",)
    fixture = "fixture"
    answer_format = LETTER

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the source (``error_type``, ``answer`` as an index) or of the study (letters)."""
        if not isinstance(row["choices"], list):
            return self.choice(*row.lettered())
        choices = row.texts("choices")
        kind = row.text("error_type")
        if kind == "ok":
            answer = row.within("answer", len(choices))
        elif kind == "wrong_groundtruth" and self.options.repair:
            found = corrected(row.optional("correct_answer"), choices)
            if found is None:
                return Drop("wrong_groundtruth, correction unreadable")
            answer = found
        else:
            return Drop(kind)
        return self.choice("", row.text("question"), choices, answer, subset=row.subset)


def corrected(text: str, choices: list[str]) -> int | None:
    """Return the index that an annotator's correction means: an index, a letter, or the text of an option."""
    text = text.strip()
    same = [i for i, choice in enumerate(choices) if choice.strip() == text]
    if len(same) == 1:
        return same[0]  # before the index: options of arithmetic questions are digits themselves
    if text.isdecimal() and int(text) < len(choices):
        return int(text)
    letter = text.strip("().").upper()
    return "ABCD".index(letter) if len(letter) == 1 and letter in "ABCD"[: len(choices)] else None


@hookimpl
def moco_dataset() -> type[MMLURedux]:
    return MMLURedux
