"""WikiDYK: questions about facts that entered Wikipedia's "Did you know" from 2022 on (arXiv 2505.12306)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import attrs

from moco_core import DatasetFacts, Example, hookimpl, option
from moco_toolkit_data import SHORT, Drop, Hub, Row, SourceDataset, SourceOptions

__all__ = ["Options", "WikiDYK"]

_YEAR = re.compile(r"\b(20\d\d)\b")

Form = Literal["reliability", "generality", "paraphrase", "portability", "counterfactual", "factual", "locality"]


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    """The common options, and which of the source's questions about a fact is asked."""

    form: Form = option("reliability", help="which question about a fact is asked; a fact without one is left out")


class WikiDYK(SourceDataset[Options]):
    """Short answers, one subset per year, cut in two by seed."""

    Options = Options
    name = "wikidyk"
    facts = DatasetFacts(
        title="WikiDYK",
        metric="token_f1",
        paper="arXiv 2505.12306",
        licence="Apache-2.0 for the code; not stated for the data",
        source="YWZBrandon/wikidyk",
        revision="main",
        sizes=(1000, 765),
        fields="year, fact, eval",
        notes="The fact holds the answer: never shown. The Hub copy has later years than the study's 2022 and 2023.",
    )
    hub = (Hub("YWZBrandon/wikidyk"),)
    dev_from = test_from = ("test",)
    answer_format = SHORT
    access_hint = "or read the reference study's published JSON with the option path"

    def record(self, row: Row) -> Example | Drop:
        """Read a row of the source (``eval`` holds its questions by form) or of the study (``input``, ``output``)."""
        if "input" in row:
            id, prompt, year = row.key("id"), row.text("input"), row.text("year")
            golds = [row.text("output", empty=False)]
        else:
            if not isinstance(row["eval"], Mapping):  # some tables keep it as JSON text
                row = Row({**row, "eval": row.parsed("eval")}, row.source, row.number, split=row.split)
            forms = row.inner("eval")
            form = self.options.form
            if form not in forms or forms[form] is None:
                return Drop(f"no question of the form {form}")
            asked = forms.inner(form)
            if len(asked) and all(value is None for value in asked.values()):  # a table gives every fact every form
                return Drop(f"no question of the form {form}")
            id, prompt = "", asked.text("prompt", empty=False)
            golds = asked.texts("answer") if isinstance(asked["answer"], list) else [asked.text("answer", empty=False)]
            if not any(g.strip() for g in golds):
                asked.fail("answer", "no answer")
            found = _YEAR.search(row.key("year") if "year" in row else row.text("date"))
            year = found[1] if found else ""
        golds = [" ".join(g.split()) for g in golds]  # some titles were scraped with line breaks inside
        return self.text(id, prompt, golds, "short", subset=year, meta={"fact": row.optional("fact")})


@hookimpl
def moco_dataset() -> type[WikiDYK]:
    return WikiDYK
