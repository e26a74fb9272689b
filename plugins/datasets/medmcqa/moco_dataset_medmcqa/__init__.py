"""MedMCQA: questions of Indian medical entrance exams over 21 subjects (Pal et al., 2022, arXiv 2203.14371)."""

from __future__ import annotations

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import LETTER, Drop, Hub, Row, SourceDataset, SourceOptions

__all__ = ["MedMCQA"]

_OPTIONS = ("opa", "opb", "opc", "opd")


class MedMCQA(SourceDataset[SourceOptions]):
    """Four options; dev is drawn from the training split and test from the validation split, the last with labels."""

    name = "medmcqa"
    facts = DatasetFacts(
        title="MedMCQA",
        metric="multiple_choice",
        paper="arXiv 2203.14371",
        licence="Apache-2.0 (not confirmed at the source)",
        source="openlifescienceai/medmcqa",
        revision="91c6572c454088bf71b679ad90aa8dffcd0d5868",
        sizes=(2091, 2092),
        fields="id, question, opa, opb, opc, opd, cop, subject_name",
        notes="Options may repeat. The field exp explains, and so gives away, the answer: it is never shown.",
    )
    hub = (Hub("openlifescienceai/medmcqa"),)
    test_from = ("validation",)
    answer_format = LETTER

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the source (``opa`` to ``opd``, ``cop`` counted from 0) or of the study."""
        if not row.either("opa", "choices"):
            return self.choice(*row.lettered())
        if row.integer("cop") == -1:
            return Drop("no label")
        if row.integer("cop") == len(_OPTIONS):
            row.fail(
                "cop", "expected an index from 0 to 3, got 4; this copy counts from 1, use openlifescienceai/medmcqa"
            )
        answer = row.within("cop", len(_OPTIONS))
        subject = row.optional("subject_name")
        return self.choice(row.key("id"), row.text("question"), [row.text(o) for o in _OPTIONS], answer, subset=subject)


@hookimpl
def moco_dataset() -> type[MedMCQA]:
    return MedMCQA
