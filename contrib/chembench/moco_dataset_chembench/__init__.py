"""ChemBench: questions of chemists, with one or several right options or a number (Mirza et al., 2024, arXiv 2404.01475)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import LETTER, NUMBER, Drop, Hub, Row, SourceDataset, SourceOptions

__all__ = ["SUBFIELDS", "ChemBench"]

_REPO = "jablonkagroup/ChemBench"
SUBFIELDS = (
    "analytical_chemistry",
    "chemical_preference",
    "general_chemistry",
    "inorganic_chemistry",
    "materials_science",
    "organic_chemistry",
    "physical_chemistry",
    "technical_chemistry",
    "toxicity_and_safety",
)
_LETTERS = 'End with "The answer is" followed by the letters of all correct options.'


class ChemBench(SourceDataset[SourceOptions]):
    """Nine subfields, cut in two by seed; most questions have one right option, some have several, some ask for a number."""

    name = "chembench"
    facts = DatasetFacts(
        title="ChemBench",
        metric="all_correct",
        paper="arXiv 2404.01475",
        licence="MIT",
        source=_REPO,
        sizes=(498, 500),
        fields="uuid, examples (input, target_scores or target)",
        notes="Molecules stand in the text, between marks such as [START_SMILES] and [END_SMILES].",
    )
    subsets = SUBFIELDS
    hub = tuple(Hub(_REPO, subfield, subset=subfield) for subfield in SUBFIELDS)
    dev_from = test_from = ("train",)
    fixture = "fixture"
    answer_format = LETTER

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the source (``examples``) or of the study (``choices``: those with one right option)."""
        if "choices" in row:
            return self.choice(*row.lettered(), subset=row.text("subfield"))
        id, (asked, scores, target) = row.key("uuid"), _task(row)
        if scores is None:
            if target is None:
                return Drop("neither options nor a number")
            return self.text(id, asked, [target], "decimal", subset=row.subset, answer_format=NUMBER)
        options = list(scores)
        right = [i for i, option in enumerate(options) if float(scores[option]) > 0]
        if len(options) < 2 or not right:
            return Drop("no right option among several")
        if len(right) == 1:
            return self.choice(id, asked, options, right[0], subset=row.subset)
        return self._several(id, asked, options, right, row.subset)

    def _several(self, id: str, asked: str, options: list[str], right: list[int], subset: str) -> Example:
        made = self.choice(id, asked, options, right[0], subset=subset, asked={"several": True})
        # the choices may be in an order of their own by now: the right ones are found again by their texts
        places = sorted(made.question.choices.index(options[i]) for i in right)
        wanted = _LETTERS if self.options.answer_format is None else self.options.answer_format
        return attrs.evolve(
            made,
            question=attrs.evolve(made.question, answer_format=wanted),
            references=tuple(options[i] for i in right),
            answer=None,
            meta={**made.meta, "right": places},
        )


def _task(row: Row) -> tuple[str, Mapping[str, Any] | None, str | None]:
    """Return what a row asks, the scores of its options and its target; either of the two is None."""
    found = row["examples"]
    if isinstance(found, Mapping):  # a list of records, as a table keeps it: a list per column
        found = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], Mapping) or "input" not in found[0]:
        row.fail("examples", "expected one record with input and target_scores or target")
    task = found[0]
    scores, target = task.get("target_scores"), task.get("target")
    if isinstance(scores, str):
        try:
            scores = json.loads(scores)
        except ValueError:
            row.fail("examples", f"target_scores: expected JSON, got {scores[:40]!r}")
    return str(task["input"]), scores or None, None if target is None else str(target)


@hookimpl
def moco_dataset() -> type[ChemBench]:
    return ChemBench
