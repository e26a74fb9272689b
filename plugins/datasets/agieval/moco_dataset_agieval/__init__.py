"""AGIEval: questions of admission and qualification exams, the English multiple-choice ones (Zhong et al., 2304.06364)."""

from __future__ import annotations

import re

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import LETTER, Hub, Row, SourceDataset, SourceOptions

__all__ = ["AGIEval"]

_SUBSETS = ("aqua-rat", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "sat-en", "sat-math")
# every exam is a repository of its own; the Hub's pages show one commit by its first digits only
_PINS = {
    "aqua-rat": "6a0ee29",
    "logiqa-en": "a77343d25d90e19379da72b6fba5c30fae023d9d",
    "lsat-ar": "052cc636b612f5563329dd182fb6c2cad56681c8",
    "lsat-lr": "d876c675a8d47aa4d8a6d682ca8400b7d2ffe1c4",
    "lsat-rc": "432868ea4fa7b50db66d14524d42472dd052b53c",
    "sat-en": "848ee12cf003124f5a1e33446fa3cc6d2ec028e4",
    "sat-math": "9d7770b8f559afe512ade1603181e226aa99c134",
}
_LETTER = re.compile(r"^\(?([A-E])\)\s*")
_TAIL = re.compile(r"\s*Answer Choices:\s*\(A\).*\Z", re.DOTALL)


class AGIEval(SourceDataset[SourceOptions]):
    """Seven English multiple-choice exams with 4 or 5 options, cut in two by seed; scores are per exam and overall."""

    name = "agieval"
    facts = DatasetFacts(
        title="AGIEval (English multiple choice)",
        metric="multiple_choice",
        paper="arXiv 2304.06364",
        licence="MIT (authors' repository; the exams vary)",
        source="hails/agieval-<subset>",
        revision="one commit per exam",
        sizes=(1156, 1156),
        fields="query, choices, gold, or passage, question, options, label",
        notes="Every exam is pinned on its own. The authors' version 1.1 corrected labels of version 1.",
    )
    subsets = _SUBSETS
    hub = tuple(Hub(f"hails/agieval-{name}", subset=name, revision=_PINS[name]) for name in _SUBSETS)
    dev_from = test_from = ("test",)
    fixture = "fixture"
    answer_format = LETTER

    def record(self, row: Row) -> Example:
        """Read a row of the Hub (``query``, ``gold``), of the authors' files (``passage``, ``label``) or of the study."""
        if "domain" in row:
            id, prompt, found, answer = row.lettered()
            return self.choice(id, prompt, [t.strip() for t in found], answer, subset=row.text("domain"))
        if "query" in row or "gold" in row:
            prompt, texts = asked(row.text("query")), row.texts("choices")
            gold = row["gold"]
            if not isinstance(gold, list) or len(gold) != 1 or gold[0] not in range(len(texts)):
                row.fail("gold", f"expected a list of one index below {len(texts)}, got {gold!r}")
            answer = int(gold[0])
        else:
            prompt = " ".join(t for t in (row.optional("passage"), row.text("question")) if t)
            texts = row.texts("options")
            answer = row.index("label", list("ABCDE"[: len(texts)]))
        return self.choice("", prompt, [_LETTER.sub("", t).strip() for t in texts], answer, subset=row.subset)


def asked(query: str) -> str:
    """Return passage and question of a Hub row, whose query also lists the options and opens the answer."""
    passage, mark, question = _TAIL.sub("", query).rpartition("Q: ")
    return " ".join(t for t in (passage.strip(), question.strip()) if t) if mark else question.strip()


@hookimpl
def moco_dataset() -> type[AGIEval]:
    return AGIEval
