"""BLEnD: everyday knowledge of 16 countries and regions, as multiple choice (Myung et al., 2024, arXiv 2406.09948)."""

from __future__ import annotations

import re

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import LETTER, Hub, Row, SourceDataset, SourceOptions

__all__ = ["BLEnD"]

# the prompt of the source also gives an instruction and lists the options; both stand in fields of their own here
_REST = re.compile(r"\s*(?:Without any explanation, choose only one .*|\nA\. .*)\Z", re.DOTALL)


class BLEnD(SourceDataset[SourceOptions]):
    """The right answer of one country among answers of others; subsets are countries; questions never cross splits."""

    name = "blend"
    facts = DatasetFacts(
        title="BLEnD (multiple choice)",
        metric="multiple_choice",
        paper="arXiv 2406.09948",
        licence="CC BY-SA 4.0",
        source="nayeon212/BLEnD",
        revision="b8c1f8d",
        sizes=(1000, 1000),
        fields="MCQID, ID, country, prompt, choices, answer_idx",
        notes="500 short-answer questions give very many items: examples of one question are not independent.",
    )
    hub = (Hub("nayeon212/BLEnD", "multiple-choice-questions"),)
    dev_from = test_from = ("test",)
    split_by_hash = True
    answer_format = LETTER

    def record(self, row: Row) -> Example:
        """Read a row of the source (``prompt``, ``choices`` as JSON text) or of the study (the same prompt)."""
        if not row.either("prompt", "question"):
            # the study's id is the question's and repeats, so the item is named by its content
            source, asked, texts, answer = row.lettered()
            return self.choice("", question(asked), texts, answer, meta={"ID": source})
        choices = row.parsed("choices")
        if not isinstance(choices, dict) or not all(isinstance(t, str) for t in choices.values()):
            row.fail("choices", "expected an object from letters to texts, written as JSON")
        answer = row.index("answer_idx", list(choices))
        return self.choice(
            row.key("MCQID"),
            question(row.text("prompt")),
            list(choices.values()),
            answer,
            subset=row.text("country"),
            meta={"ID": row.text("ID")},
        )

    def unit(self, example: Example) -> str:
        return str(example.meta["ID"])


def question(prompt: str) -> str:
    """Return the question of a prompt, with its hint on the form of the answer, without instruction and options."""
    return _REST.sub("", prompt).strip()


@hookimpl
def moco_dataset() -> type[BLEnD]:
    return BLEnD
