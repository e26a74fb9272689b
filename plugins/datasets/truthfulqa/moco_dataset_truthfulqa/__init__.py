"""TruthfulQA: questions that people answer wrongly out of habit, as single-true choice (Lin et al., 2022, 2109.07958)."""

from __future__ import annotations

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import LETTER, Hub, Row, SourceDataset, SourceOptions

__all__ = ["TruthfulQA"]


class TruthfulQA(SourceDataset[SourceOptions]):
    """The MC1 task, one true option among 2 to 13, shown in an order seeded per item; 817 questions cut in two by seed."""

    name = "truthfulqa"
    facts = DatasetFacts(
        title="TruthfulQA (MC1)",
        metric="multiple_choice",
        paper="arXiv 2109.07958",
        licence="Apache-2.0",
        source="truthfulqa/truthful_qa",
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        sizes=(200, 617),
        fields="question, mc1_targets",
        notes="Chance differs per item. The newer binary form, one true against one false answer, is another task.",
    )
    hub = (Hub("truthfulqa/truthful_qa", "multiple_choice"),)
    dev_from = test_from = ("validation",)
    answer_format = LETTER

    def record(self, row: Row) -> Example:
        """Read a row of the source (``mc1_targets``, the true option first) or of the study (already shuffled)."""
        if not row.either("mc1_targets", "choices"):
            return self.choice(*row.lettered())
        targets = row.inner("mc1_targets")
        choices, labels = targets.texts("choices"), targets["labels"]
        if not isinstance(labels, list) or len(labels) != len(choices) or labels.count(1) != 1:
            row.fail("mc1_targets.labels", f"expected {len(choices)} labels of which one is 1, got {labels!r}")
        return self.choice("", row.text("question"), choices, labels.index(1), shuffle=True)


@hookimpl
def moco_dataset() -> type[TruthfulQA]:
    return TruthfulQA
