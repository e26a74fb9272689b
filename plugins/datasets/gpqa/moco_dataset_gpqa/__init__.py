"""GPQA: graduate-level science questions that a search engine does not answer (Rein et al., 2023, arXiv 2311.12022)."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_toolkit_data import LETTER, Hub, Row, SourceDataset, SourceOptions

__all__ = ["GPQA", "Options"]

_REPO = "Idavidrein/gpqa"
_SIZES = {"diamond": (99, 99), "extended": (273, 273), "main": (224, 224)}
_FIELDS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    config: Literal["diamond", "extended", "main"] = option(
        "diamond", help="diamond is part of main and main of extended: never tune on one and test on another"
    )


_Options = Options  # inside the class the name means the attribute


class GPQA(SourceDataset[Options]):
    """Four options shown in an order seeded per item, one of three nested collections, cut in two halves by seed."""

    Options = Options
    name = "gpqa"
    facts = DatasetFacts(
        title="GPQA",
        metric="multiple_choice",
        paper="arXiv 2311.12022",
        licence="CC BY 4.0; the authors ask not to republish the questions in plain text",
        source=_REPO,
        revision="633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        gated=True,
        sizes=_SIZES["diamond"],
        fields="Record ID, Question, Correct Answer, Incorrect Answer 1, Incorrect Answer 2, Incorrect Answer 3, "
        "High-level domain",
        notes="Some items have two options with the same text: grade by text, so that either letter is right.",
    )
    hub = (Hub(_REPO, "gpqa_diamond"),)
    dev_from = test_from = ("train",)
    answer_format = LETTER
    access_hint = f"accept the terms at https://huggingface.co/datasets/{_REPO}, then run: hf auth login"

    def __init__(self, options: _Options) -> None:
        self.hub = (Hub(_REPO, f"gpqa_{options.config}"),)
        super().__init__(options)

    def sizes(self) -> tuple[int, int]:
        return _SIZES[self.options.config]

    def file_names(self) -> tuple[str, ...]:
        return (f"gpqa_{self.options.config}",)

    def record(self, row: Row) -> Example:
        """Read a row of the source (``Correct Answer`` and three incorrect ones) or of the study (already shuffled)."""
        if not row.either("Correct Answer", "choices"):
            return self.choice(*row.lettered())
        choices = [row.text(field, empty=False).strip() for field in _FIELDS]
        subset = row.optional("High-level domain")
        return self.choice(row.key("Record ID"), row.text("Question").strip(), choices, 0, shuffle=True, subset=subset)


@hookimpl
def moco_dataset() -> type[GPQA]:
    return GPQA
