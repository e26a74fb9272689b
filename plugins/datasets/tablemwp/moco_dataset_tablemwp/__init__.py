"""TabMWP: mathematical word problems over a small table, free text or multiple choice (Lu et al., 2023, arXiv 2209.14610)."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_toolkit_data import LETTER, NUMBER, Drop, Row, SourceDataset, SourceOptions

__all__ = ["Options", "TableMWP"]

_SIZES = {"free_text": (375, 376), "multiple_choice": (124, 125)}
_WHOLE = re.compile(r"-?[\d,]+")
# the study writes a missing title as "None" and closes a free-text problem with "Answer:"
_NO_TITLE = "Table:\n[TITLE]: None\n"


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    variant: Literal["free_text", "multiple_choice"] = option(
        "free_text", help="problems with a number or with options"
    )


_Options = Options  # inside the class the name means the attribute


class TableMWP(SourceDataset[Options]):
    """Dev and test are the authors' small official cuts dev1k and test1k."""

    Options = Options
    name = "tablemwp"
    facts = DatasetFacts(
        title="TabMWP",
        metric="exact_match",
        paper="arXiv 2209.14610",
        licence="data CC BY-NC-SA 4.0 (not confirmed at the source), code MIT",
        source="https://github.com/lupantech/PromptPG (data/tabmwp)",
        sizes=_SIZES["free_text"],
        fields="id, question, choices, answer, unit, table_title, table, ques_type, grade",
        notes="Free-text answers are whole numbers, decimals, amounts of money and fractions.",
    )
    dev_from = ("dev",)
    fixture = "fixture"
    access_hint = "git clone https://github.com/lupantech/PromptPG and give its data/tabmwp as path"

    def __init__(self, options: _Options) -> None:
        if options.variant == "multiple_choice":
            self.facts = attrs.evolve(self.facts, metric="multiple_choice", sizes=_SIZES["multiple_choice"])
        self.answer_format = LETTER if options.variant == "multiple_choice" else NUMBER
        super().__init__(options)

    def file_names(self) -> tuple[str, ...]:
        # the authors' folder also holds the full splits, of which these are part
        return (f"tablemwp_{self.options.variant}", "problems_dev1k", "problems_test1k")

    def peer_key(self, example: Example) -> str:
        return example.id

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the source (``table``, ``ques_type``) or of the study (the whole prompt)."""
        choice = self.options.variant == "multiple_choice"
        if "table" not in row and "ques_type" not in row:
            if choice:
                # the fourth option's label is "id" where "D" is meant: the place is what counts
                id, prompt, texts, right = row.lettered()
                return self.choice(id, prompt.replace(_NO_TITLE, "Table:\n"), texts, right)
            prompt, gold = row.text("input").replace(_NO_TITLE, "Table:\n"), row.text("output", empty=False)
            return self.text(row.key("id"), prompt.removesuffix("\nAnswer:"), [gold], _kind(gold))
        if (row.text("ques_type") == "multi_choice") != choice:
            return Drop(f"not {self.options.variant}")
        title, unit = row.optional("table_title"), row.optional("unit")
        lines = [
            "Table:",
            *([f"[TITLE]: {title}"] if title else []),
            row.text("table"),
            f"Question: {row.text('question')}",
        ]
        prompt = "\n".join(lines) + (f" (Unit: {unit})" if unit else "")
        answer, grade = row.text("answer", empty=False), f"grade {row.key('grade')}" if "grade" in row else ""
        if choice:
            texts = tuple(row.texts("choices"))
            return self.choice(row.key("id"), prompt, texts, row.index("answer", texts), subset=grade)
        return self.text(row.key("id"), prompt, [answer], _kind(answer), subset=grade)


def _kind(answer: str) -> str:
    return "integer" if _WHOLE.fullmatch(answer) else "decimal"


@hookimpl
def moco_dataset() -> type[TableMWP]:
    return TableMWP
