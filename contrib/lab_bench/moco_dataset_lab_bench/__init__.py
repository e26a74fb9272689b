"""LAB-Bench: practical tasks of biologists, with an option to decline (Laurent et al., 2024, arXiv 2407.10362)."""

from __future__ import annotations

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_toolkit_data import LETTER, Drop, Hub, Row, SourceDataset, SourceOptions

__all__ = ["DECLINE", "LabBench", "Options"]

_REPO = "futurehouse/lab-bench"
_SUBSETS = ("CloningScenarios", "DbQA", "LitQA2", "ProtocolQA", "SeqQA", "SuppQA")
DECLINE = "Insufficient information to answer the question"


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    decline: bool = option(True, help="offer an option that declines to answer, as the authors do")


class LabBench(SourceDataset[Options]):
    """The six tasks that need no figure, cut in two by seed; choices are shuffled, the source lists the right one first."""

    Options = Options
    name = "lab_bench"
    facts = DatasetFacts(
        title="LAB-Bench",
        metric="choice_or_decline",
        paper="arXiv 2407.10362",
        licence="CC BY-SA 4.0",
        source=_REPO,
        sizes=(578, 578),
        fields="id, question, ideal, distractors, protocol",
        notes="FigQA and TableQA show pictures and are left out. The public part is about four fifths of the benchmark.",
    )
    subsets = _SUBSETS
    hub = tuple(Hub(_REPO, name, subset=name) for name in _SUBSETS)
    dev_from = test_from = ("train",)
    fixture = "fixture"
    answer_format = LETTER

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the source (``ideal``, ``distractors``) or of the study (``choices``, without an option to decline)."""
        if "choices" in row:
            return self.choice(*row.lettered(), subset=row.text("subtask"))
        distractors = [text for text in row.texts("distractors") if text.strip()]
        if not distractors:
            return Drop("no distractor")
        protocol, asked = row.optional("protocol").strip(), row.text("question").strip()
        choices = [row.text("ideal", empty=False), *distractors, *([DECLINE] if self.options.decline else [])]
        prompt = f"Protocol:\n{protocol}\n\nQuestion: {asked}" if protocol else asked
        made = self.choice(row.key("id"), prompt, choices, 0, shuffle=True, subset=row.subset)
        if not self.options.decline:
            return made
        place = made.question.choices.index(DECLINE)
        return attrs.evolve(made, question=attrs.evolve(made.question, meta={"decline": place}))


@hookimpl
def moco_dataset() -> type[LabBench]:
    return LabBench
