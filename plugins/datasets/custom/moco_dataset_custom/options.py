"""The options of the custom dataset: where the table is and which field is what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from moco_core import option
from moco_toolkit_data import SourceOptions

__all__ = ["METRICS", "Options"]

METRICS = {
    "boolean": "exact_match",
    "choice": "multiple_choice",
    "code": "code_execution",
    "decimal": "exact_match",
    "integer": "exact_match",
    "label": "exact_match",
    "math": "math_equivalence",
    "open": "reward_model",
    "short": "token_f1",
    "text": "exact_match",
    "tokens": "exact_match",
}
"""The metric of each kind of answer, where none is asked for."""

Kind = Literal["boolean", "choice", "code", "decimal", "integer", "label", "math", "open", "short", "text", "tokens"]


@attrs.frozen(kw_only=True)
class Options(SourceOptions):
    guess: bool = option(
        False, help="guess from the first rows of path what is not given: fields, kind; the notes of the run say what"
    )
    hub: str = option("", help="Hub id to read, in place of path")
    config: str = option("", help="configuration of the Hub id")
    dev_split: str = option("validation", help="the source's split that dev comes from; the same as test_split: cut it")
    test_split: str = option("test", help="the source's split that test comes from")
    question: str = option(
        "question", help='field of the question, or a text with fields in it: "{context}\\n\\n{question}"'
    )
    choices: str | tuple[str, ...] = option(
        "",
        help="field of the choices (a list, an object from label to text, or either as JSON text), or one field each",
    )
    answer: str = option(
        "answer", help="field of the answer or the list of accepted ones; for choices its label, text or index"
    )
    first_index: int = option(0, ge=0, le=1, help="the index of the first choice, where answers are indexes")
    kind: Kind | None = option(
        None, help="how an answer is read and compared; unset: choice if there are choices, else text"
    )
    labels: tuple[str, ...] = option((), help="the closed set of answers of kind label")
    metric: str = option("", help="the default metric; unset: the usual one of the kind")
    id_field: str = option("id", help="field of a unique id; ids are made of the content if it is missing")
    subset_field: str = option("", help="field of the subset, for scores per subset")
    group_field: str = option("", help="field that ties examples which score only together and stay in one split")
    asked: Mapping[str, str] = option(
        factory=dict, help="what methods and metrics may know of a question, by field: {entry_point: function}"
    )
    meta: Mapping[str, str] = option(factory=dict, help="what only the metric may know, by field: {test: unit_tests}")
