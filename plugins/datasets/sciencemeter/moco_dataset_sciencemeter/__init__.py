"""ScienceMeter: does an abstract support or refute a claim about the paper (arXiv 2505.24302)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_toolkit_data import LETTER, Drop, Row, SourceDataset, SourceOptions

__all__ = ["Options", "ScienceMeter"]

_PAPERS = ("prior_paper", "new_paper", "future_paper")
_CLAIMS = (("synthetic_support_claim", 0), ("synthetic_refute_claim", 1))
_DOMAINS = (
    "agricultural_and_food_science",
    "biology",
    "business",
    "computer_science",
    "education",
    "environmental_science",
    "materials_science",
    "medicine",
    "political_science",
    "psychology",
)
_PROMPT = (
    "You are given a claim about a scientific paper. Please determine whether the claim is supported or refuted by the "
    "paper. Paper: {abstract}\nClaim: {claim}\n\nIs the claim supported or refuted by the paper?"
)


def _papers(value: tuple[str, ...]) -> str | None:
    wrong = [v for v in value if v not in _PAPERS]
    return f"expected some of {', '.join(_PAPERS)}, got {', '.join(wrong)}" if wrong or not value else None


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    papers: tuple[str, ...] = option(
        _PAPERS, check=_papers, help="papers of a row to use: before, at, after the cut-off"
    )


class ScienceMeter(SourceDataset[Options]):
    """Two choices, ten domains; a paper gives one supported and one refuted claim, and stays in one split."""

    Options = Options
    name = "sciencemeter"
    facts = DatasetFacts(
        title="ScienceMeter",
        metric="multiple_choice",
        paper="arXiv 2505.24302",
        licence="none stated by the authors",
        source="https://github.com/yikee/ScienceMeter (dataset/filtered_with_claims)",
        sizes=(1000, 1000),
        fields="prior_paper, new_paper, future_paper",
        notes="Generating claims and the answer unknown, which the paper scores too, are outside this task.",
    )
    subsets = _DOMAINS
    fixture = "fixture"
    dev_from = test_from = ("train",)
    answer_format = LETTER
    repeated_ids = "drop"  # the authors' files for different models repeat the same papers
    access_hint = "git clone https://github.com/yikee/ScienceMeter and give its dataset/filtered_with_claims/<model> as path"

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the study (``question``, ``choices``)."""
        return self.choice(*row.lettered(), subset=row.text("domain"))

    def records(self, row: Row) -> Iterator[Example | Drop]:
        """Read a row of the authors' files: up to three papers with two claims each."""
        if "choices" in row:
            yield self.record(row)
            return
        for name in self.options.papers:
            paper = row.inner(name)
            paper_id = paper.key("paperId")
            if not paper.optional("abstract").strip():
                yield Drop("no abstract")
                continue
            for field, answer in _CLAIMS:
                prompt = _PROMPT.format_map(
                    {"abstract": paper.text("abstract"), "claim": paper.text(field, empty=False)}
                )
                choices = ("support", "refute")
                meta = {"paper": paper_id}
                id = f"{paper_id}/{choices[answer]}"
                yield self.choice(id, prompt, choices, answer, subset=row.subset, meta=meta)

    def unit(self, example: Example) -> str:
        return str(example.meta.get("paper", "")) or super().unit(example)


@hookimpl
def moco_dataset() -> type[ScienceMeter]:
    return ScienceMeter
