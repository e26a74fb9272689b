"""CulturalBench-Hard: is an answer to a question about a culture true; four judgements each (Chiu et al., 2410.02677)."""

from __future__ import annotations

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import Hub, Row, SourceDataset, SourceOptions

__all__ = ["CultureBench"]

_PROMPT = (
    "Is this answer true or false for this question? Answer True or False only. Question: {question} Answer: {answer}"
)


class CultureBench(SourceDataset[SourceOptions]):
    """True or false; a question counts only if all four judgements are right; countries are the subsets."""

    name = "culturebench"
    facts = DatasetFacts(
        title="CulturalBench-Hard",
        metric="exact_match",
        paper="arXiv 2410.02677",
        licence="CC BY 4.0",
        source="kellycyy/CulturalBench",
        revision="main",
        sizes=(2454, 2454),
        notes="Several of the four answers of a question can be true; always-false and always-true must score 0.",
    )
    hub = (Hub("kellycyy/CulturalBench", "CulturalBench-Hard"),)
    dev_from = test_from = ("test",)

    def record(self, row: Row) -> Example:
        """Read a row of the source (``prompt_question``, ``prompt_option``, ``answer``) or of the study (the whole prompt)."""
        if "input" in row:
            id, group, prompt = row.key("id"), row.key("question_id"), row.text("input")
            answer = row.boolean("output")
        else:
            id, group, answer = row.key("data_idx"), row.key("question_idx"), row.boolean("answer")
            given = {"question": row.text("prompt_question"), "answer": row.text("prompt_option")}
            prompt = _PROMPT.format_map(given)
        country = row.text("country")
        # a group that lacks members (in a sample of single rows, say) must not be scored as if it were whole
        meta = {"group_size": 4}
        return self.text(id, prompt, [str(answer)], "boolean", group=group, subset=country, meta=meta)


@hookimpl
def moco_dataset() -> type[CultureBench]:
    return CultureBench
