"""Guess from a table's first rows which field is what and how its answers are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from moco_core import DatasetError
from moco_dataset_custom.fields import TRUTHS, reference_texts
from moco_dataset_custom.options import Kind, Options
from moco_toolkit_answers import parse_number
from moco_toolkit_data import Row, data_files, read_rows

__all__ = ["guessed", "head"]

_ROWS = 200
# field names in use, the most telling first
_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "prompt", "query", "problem", "instruction", "request", "task", "input", "text", "sentence"),
    "choices": ("choices", "options", "candidates", "alternatives", "endings"),
    "answer": (
        "answer", "answers", "gold", "reference", "references", "correct_answer", "ground_truth", "target", "label",
        "solution", "output", "response", "expected", "correct", "result", "completion",
    ),
    "id_field": ("id", "qid", "uid", "question_id", "item_id"),
}  # fmt: skip
_COLUMN = re.compile(r"(?:option|choice|op|answer)?_?([a-z])", re.IGNORECASE)


def head(path: str) -> list[Row]:
    """Return the first rows of a file, or of the first file of a folder. Raises DatasetError."""
    place = Path(path).expanduser()
    files = data_files(place) if place.is_dir() else [place]
    if not place.exists() or not files:
        raise DatasetError(f"{path}: no such file or folder" if not place.exists() else f"{path}: no data file here")
    return list(islice(read_rows(files[0]), _ROWS))


def guessed(options: Options, rows: Sequence[Row]) -> tuple[Options, dict[str, Any]]:
    """Return the options with everything that was left at its default guessed, and what was guessed by option.

    Raises DatasetError naming the fields there are where question or answer cannot be told.
    """
    if not rows:
        return options, {}
    names = list(dict.fromkeys(name for row in rows for name in row))
    default = {f.name: f.default for f in attrs.fields(Options)}
    given = {n for n in default if getattr(options, n) != default[n]}
    taken = {str(getattr(options, n)) for n in given}
    found: dict[str, Any] = {}
    for what in ("question", "choices", "answer", "id_field"):
        if what in given:
            continue
        free = [n for n in names if n not in taken]
        name = next(_called(what, free), "")
        if what == "choices" and not name and not (options.kind and options.kind != "choice"):
            if columns := _columns(free):
                found[what] = columns
                taken.update(columns)
            continue
        if what == "choices" and not (name and all(name in r and _listed(r[name]) for r in rows)):
            name = ""
        if name:
            found[what] = name
            taken.add(name)
        elif what == "question" or (what == "answer" and options.kind not in ("open", "code")):
            hint = ", or --field kind=open if there are none" if what == "answer" else ""
            raise DatasetError(
                f"{rows[0].source}: no field looks like the {what}; it has {', '.join(names)}; "
                f"say which with --field {what}=NAME{hint}"
            )
    made = attrs.evolve(options, **found)
    if options.kind is None:
        kind: Kind = "choice" if made.choices else _kind(rows, made.answer)
        found["kind"] = kind
        made = attrs.evolve(made, kind=kind)
    if made.kind == "choice" and "first_index" not in given and _from_one(rows, made):
        found["first_index"] = 1
        made = attrs.evolve(made, first_index=1)
    return made, {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}


def _called(what: str, names: Sequence[str]) -> Iterator[str]:
    """Yield the fields whose name is one in use for ``what``, or holds one as a word."""
    for known in _NAMES[what]:
        yield from (n for n in names if _plain(n) == known)
    if what != "id_field":  # a video_id is no id of the row
        for known in _NAMES[what]:
            yield from (
                n for n in names if known in (w := _plain(n).split("_")) and w[-1] not in ("id", "type", "source")
            )


def _listed(value: Any) -> bool:
    """Whether a value can be a row's choices: several texts, or JSON of them."""
    return isinstance(value, (list, tuple, Mapping)) or (isinstance(value, str) and value.lstrip()[:1] in ("[", "{"))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")


def _columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return fields that hold one choice each: A, B, C or option_a, option_b, ..."""
    by_letter = {m[1].lower(): n for n in names if (m := _COLUMN.fullmatch(n))}
    letters = "abcdefghijklmnopqrstuvwxyz"
    count = next((i for i, letter in enumerate(letters) if letter not in by_letter), len(letters))
    return tuple(by_letter[letter] for letter in letters[:count]) if count > 1 else ()


def _kind(rows: Sequence[Row], field: str) -> Kind:
    """Return how answers are read: as whole numbers, numbers, truth values or texts."""
    texts = [t.strip() for r in rows if field in r for t in reference_texts(r, field)]
    numbers = [parse_number(t) for t in texts]
    if texts and all(n is not None for n in numbers):
        return "integer" if all(n is not None and n.denominator == 1 for n in numbers) else "decimal"
    return "boolean" if texts and all(t.lower() in TRUTHS for t in texts) else "text"


def _from_one(rows: Sequence[Row], options: Options) -> bool:
    """Whether indexes of choices must start from 1: one is as large as their number, and none is 0."""
    counts: list[tuple[int, int]] = []
    for row in rows:
        if options.answer not in row:
            return False
        answer = row[options.answer]
        if isinstance(answer, bool) or not str(answer).isdecimal():
            return False
        fields = options.choices
        count = (
            len(fields) if not isinstance(fields, str) else len(row[fields]) if not isinstance(row[fields], str) else 0
        )
        counts.append((int(str(answer)), count))
    return all(a > 0 for a, _ in counts) and any(a == n for a, n in counts)
