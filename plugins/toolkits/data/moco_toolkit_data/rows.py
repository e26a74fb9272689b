"""One row of a source: its fields with checked types, and where it stands for the error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import attrs

from moco_core import DatasetError
from moco_core.errors import suggest

__all__ = ["Drop", "Row"]


@attrs.frozen
class Drop:
    """What a dataset returns for a row that it leaves out; rows are counted by ``reason``."""

    reason: str


class Row(Mapping[str, Any]):
    """A row as the source gives it, read-only.

    ``source`` is the file (or Hub id, configuration and split) and ``number`` the row's place in it, from 1; both open
    every error. ``split`` and ``subset`` are what the source said about the row, empty if nothing. ``study`` tells that
    the row comes in the reference study's published form. The typed getters raise DatasetError naming file, row and
    field if the field is missing or of another type.
    """

    __slots__ = ("_data", "number", "source", "split", "study", "subset")

    def __init__(
        self,
        data: Mapping[str, Any],
        source: str = "row",
        number: int = 1,
        *,
        split: str = "",
        subset: str = "",
        study: bool = False,
    ) -> None:
        self._data = data
        self.source, self.number, self.split, self.subset, self.study = source, number, split, subset, study

    def __getitem__(self, name: str) -> Any:
        try:
            return self._data[name]
        except KeyError:
            known = [str(k) for k in self._data]
            hint = suggest(name, known) or f"; the row has {', '.join(known) or 'no field'}"
            self.fail(name, f"missing{hint}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def where(self, field: str = "") -> str:
        """Return "file, row 3, field 'x'"."""
        return f"{self.source}, row {self.number}" + (f", field {field!r}" if field else "")

    def fail(self, field: str, problem: str) -> NoReturn:
        """Raise DatasetError about one field of this row."""
        raise DatasetError(f"{self.where(field)}: {problem}")

    def either(self, own: str, study: str) -> bool:
        """Tell by two fields whether a row has the source's own form (true) or the study's (false).

        Raises DatasetError about the source's field if it has neither.
        """
        if own not in self._data and study not in self._data:
            self[own]
        return own in self._data

    def text(self, name: str, *, empty: bool = True) -> str:
        """Return a text exactly as it stands; ``empty=False`` refuses one of white space only."""
        value = self[name]
        if not isinstance(value, str):
            self._wrong(name, "text", value)
        if not empty and not value.strip():
            self.fail(name, "empty text")
        return value

    def optional(self, name: str) -> str:
        """Return a text, or the empty string if the field is missing or null."""
        return "" if self._data.get(name) is None else self.text(name)

    def key(self, name: str) -> str:
        """Return an identifier (text or integer) as text."""
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            self._wrong(name, "text or an integer", value)
        if value == "":
            self.fail(name, "empty identifier")
        return str(value)

    def integer(self, name: str) -> int:
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong(name, "an integer", value)
        return value

    def boolean(self, name: str) -> bool:
        """Return a truth value; the texts "True" and "False" of exported tables count as such."""
        value = self[name]
        if isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        if not isinstance(value, bool):
            self._wrong(name, "true or false", value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        value = self[name]
        if not isinstance(value, (list, tuple)):
            self._wrong(name, "a list of texts", value)
        for i, member in enumerate(value):
            if not isinstance(member, str):
                self._wrong(f"{name}[{i}]", "text", member)
        return list(value)

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self[name]
        if not isinstance(value, Mapping):
            self._wrong(name, "an object", value)
        return value

    def inner(self, name: str) -> Row:
        """Return an object inside this row, with the same typed getters; its fields are reported as ``name.field``."""
        return _Inner(self, name, self.mapping(name))

    def parsed(self, name: str) -> Any:
        """Return the value of a field that holds JSON written as text."""
        text = self.text(name)
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            self.fail(name, f"expected JSON written as text, {error.msg} at character {error.pos}")

    def labelled(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return labels and texts of choices given as an object from label to text, in their own order."""
        choices = self.mapping(name)
        for label, text in choices.items():
            if not isinstance(text, str):
                self._wrong(f"{name}.{label}", "text", text)
        return tuple(map(str, choices)), tuple(choices.values())

    def index(self, name: str, labels: tuple[str, ...] | list[str]) -> int:
        """Return the place of a label (the right answer) among ``labels``."""
        value = self.text(name)
        if value not in labels:
            self.fail(name, f"expected one of {', '.join(labels)}, got {value!r}")
        return list(labels).index(value)

    def lettered(self) -> tuple[str, str, tuple[str, ...], int]:
        """Return id, question, choices and the right one's index of a row in the study's form: choices and answer by letter."""
        labels, texts = self.labelled("choices")
        return self.key("id"), self.text("question"), texts, self.index("answer", labels)

    def within(self, name: str, count: int) -> int:
        """Return an integer that is an index into ``count`` choices, counted from 0."""
        value = self.integer(name)
        if not 0 <= value < count:
            self.fail(name, f"expected an index from 0 to {count - 1}, got {value}")
        return value

    def _wrong(self, name: str, expected: str, value: Any) -> NoReturn:
        text = repr(value)
        shown = "null" if value is None else f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
        self.fail(name, f"expected {expected}, got {shown}")


class _Inner(Row):
    __slots__ = ("_name", "_outer")

    def __init__(self, outer: Row, name: str, data: Mapping[str, Any]) -> None:
        super().__init__(data, outer.source, outer.number, split=outer.split, subset=outer.subset, study=outer.study)
        self._outer, self._name = outer, name

    def fail(self, field: str, problem: str) -> NoReturn:
        self._outer.fail(f"{self._name}.{field}", problem)
