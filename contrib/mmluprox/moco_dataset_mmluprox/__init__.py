"""MMLU-ProX: the same hard questions with up to ten options in 29 languages (Xuan et al., 2025, arXiv 2503.10497)."""

from __future__ import annotations

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_toolkit_data import LETTER, Hub, Row, SourceDataset, SourceOptions

__all__ = ["LANGUAGES", "MMLUProX", "Options"]

_REPO = "li-lab/MMLU-ProX"
LANGUAGES = (
    "af", "ar", "bn", "cs", "de", "en", "es", "fr", "hi", "hu", "id", "it", "ja", "ko", "mr", "ne", "pt", "ru", "sr", "sw",
    "te", "th", "uk", "ur", "vi", "wo", "yo", "zh", "zu",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    lite: bool = option(False, help="the authors' lite version: 658 questions per language instead of 11,829")


_Options = Options  # inside the class the name means the attribute


class MMLUProX(SourceDataset[Options]):
    """Subsets are languages; every question exists in all of them. Dev and test hold different questions in every language.

    One source split is cut by question: its versions in all languages fall on one side, so that nothing fitted in one is
    tested in another.
    """

    Options = Options
    name = "mmluprox"
    facts = DatasetFacts(
        title="MMLU-ProX",
        metric="multiple_choice",
        paper="arXiv 2503.10497",
        licence="MIT",
        source=_REPO,
        sizes=(500, 500),
        fields="question_id, question, option_0 to option_9, answer, answer_index, category",
        notes="The sample is drawn over all languages; subset=de keeps one. Published numbers are per language.",
    )
    subsets = LANGUAGES
    hub = tuple(Hub(_REPO, language, subset=language) for language in LANGUAGES)
    dev_from = test_from = ("test",)
    fixture = "fixture"
    answer_format = LETTER

    def __init__(self, options: _Options) -> None:
        if options.lite:
            self.hub = tuple(attrs.evolve(hub, repo=f"{_REPO}-Lite") for hub in self.hub)
        super().__init__(options)

    def record(self, row: Row) -> Example:
        """Read a row of the source (``option_0``, ``answer_index``) or of the study (``choices``, ``language``)."""
        if "choices" in row:
            id, asked, texts, answer = row.lettered()
            return self.choice(id, asked.strip(), texts, answer, subset=row.text("language"))
        found = [row.optional(f"option_{i}") for i in range(10)]
        options = found[: max((i + 1 for i, text in enumerate(found) if text), default=0)]
        if len(options) < 2 or not all(options):
            row.fail(f"option_{found.index('')}", "missing; expected two to ten options, one after the other")
        question, answer = row.key("question_id"), row.within("answer_index", len(options))
        id = f"{row.subset}-{question}" if row.subset else question
        meta = {"category": row.optional("category")}
        return self.choice(id, row.text("question").strip(), options, answer, subset=row.subset, group=question, meta=meta)


@hookimpl
def moco_dataset() -> type[MMLUProX]:
    return MMLUProX
