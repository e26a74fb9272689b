"""Data of the sample tasks, generated."""

from __future__ import annotations

from typing import Any


def sums(**kwargs: Any) -> dict[str, Any]:
    """Rows of additions, in three splits."""
    rows = [{"question": f"What is {i} plus {i + 1}?", "answer": str(2 * i + 1)} for i in range(24)]
    return _split(rows)


def letters(**kwargs: Any) -> dict[str, Any]:
    """Rows of letters to choose, in three splits."""
    rows = [
        {"question": f"Which of these follows {chr(97 + i)}?", "choices": [chr(97 + i), chr(98 + i), "z"], "label": 1}
        for i in range(20)
    ]
    return _split(rows)


def _split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import datasets  # here: what a task's functions refer to is pickled
    import pyarrow  # type: ignore[import-untyped]

    parts = {"train": rows[:6], "validation": rows[6:12], "test": rows[12:]}
    # a fingerprint of its own: made of the rows it would be pickled, which not every pair of versions can
    return {name: datasets.Dataset(pyarrow.Table.from_pylist(part), fingerprint=name) for name, part in parts.items()}
