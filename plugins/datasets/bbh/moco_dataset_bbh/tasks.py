"""The 27 tasks of BIG-Bench Hard and how their answers are read."""

from __future__ import annotations

from moco_toolkit_data import LETTER, NUMBER

__all__ = ["CHOICE", "FORMATS", "LABELS", "TASKS"]

CHOICE = frozenset(
    [
        "date_understanding",
        "disambiguation_qa",
        "geometric_shapes",
        "hyperbaton",
        "logical_deduction_five_objects",
        "logical_deduction_seven_objects",
        "logical_deduction_three_objects",
        "movie_recommendation",
        "penguins_in_a_table",
        "reasoning_about_colored_objects",
        "ruin_names",
        "salient_translation_error_detection",
        "snarks",
        "temporal_sequences",
        "tracking_shuffled_objects_five_objects",
        "tracking_shuffled_objects_seven_objects",
        "tracking_shuffled_objects_three_objects",
    ]
)
"""Tasks whose input lists lettered options."""

LABELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "boolean_expressions": ("label", ("True", "False")),
    "causal_judgement": ("label", ("Yes", "No")),
    "dyck_languages": ("tokens", ()),
    "formal_fallacies": ("label", ("valid", "invalid")),
    "multistep_arithmetic_two": ("integer", ()),
    "navigate": ("label", ("Yes", "No")),
    "object_counting": ("integer", ()),
    "sports_understanding": ("label", ("yes", "no")),
    "web_of_lies": ("label", ("Yes", "No")),
    "word_sorting": ("tokens", ()),
}
"""The kind of answer and the closed set of labels of the other tasks."""

TASKS = tuple(sorted({*CHOICE, *LABELS}))

FORMATS = {
    "letter": LETTER,
    "label": 'End with "The answer is" followed by the answer in one word.',
    "integer": NUMBER,
    "tokens": 'End with "The answer is" followed by the sequence, its parts separated by spaces.',
}
