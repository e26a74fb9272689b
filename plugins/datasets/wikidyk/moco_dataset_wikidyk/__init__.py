"""WikiDYK: questions about facts that entered Wikipedia's "Did you know" in 2022 and 2023 (arXiv 2505.12306)."""

from __future__ import annotations

import re

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import SHORT, Hub, Row, SourceDataset, SourceOptions

__all__ = ["WikiDYK"]

_YEAR = re.compile(r"\b(20\d\d)\b")


class WikiDYK(SourceDataset[SourceOptions]):
    """Short answers, one subset per year, cut in two by seed."""

    name = "wikidyk"
    facts = DatasetFacts(
        title="WikiDYK",
        metric="token_f1",
        paper="arXiv 2505.12306",
        licence="Apache-2.0 for the code; not stated for the data",
        source="YWZBrandon/wikidyk",
        revision="main",
        sizes=(1000, 765),
        notes="The fields and splits of the Hub copy could not be confirmed. The fact holds the answer: never shown.",
    )
    hub = (Hub("YWZBrandon/wikidyk"),)
    dev_from = test_from = ("train",)
    answer_format = SHORT
    unlock = "or read the reference study's published JSON with the option path"

    def record(self, row: Row) -> Example:
        """Read a row of the source (``question``, ``answer``, ``fact``, ``date``) or of the study (``input`` ...)."""
        if "input" in row:
            id, prompt, gold, year = row.key("id"), row.text("input"), row.text("output", empty=False), row.text("year")
        else:
            found = _YEAR.search(row.optional("date"))
            id, prompt, gold = "", row.text("question"), row.text("answer", empty=False)
            year = found[1] if found else ""
        gold = " ".join(gold.split())  # some titles were scraped with line breaks inside
        return self.text(id, prompt, [gold], "short", subset=year, meta={"fact": row.optional("fact")})


@hookimpl
def moco_dataset() -> type[WikiDYK]:
    return WikiDYK
