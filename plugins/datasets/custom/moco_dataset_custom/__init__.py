"""Bring your own data: JSON lines, CSV, parquet or a Hub id, with the fields named in the configuration."""

from __future__ import annotations

from typing import Any

import attrs

from moco_core import ConfigError, DatasetFacts, Example, hookimpl
from moco_dataset_custom.fields import absent, check_kind, choice_index, choice_texts, filled, reference_texts
from moco_dataset_custom.guess import guessed, head
from moco_dataset_custom.options import METRICS, Options
from moco_toolkit_data import BOXED, CODE, LETTER, NUMBER, SHORT, Drop, Hub, Row, SourceDataset

__all__ = ["Custom", "Options"]

_FORMATS = {
    "boolean": 'End with "The answer is" followed by True or False.',
    "choice": LETTER,
    "code": CODE,
    "decimal": NUMBER,
    "integer": NUMBER,
    "label": 'End with "The answer is" followed by one of: {labels}.',
    "math": BOXED,
    "open": "",
    "short": SHORT,
    "text": 'End with "The answer is" followed by the answer.',
    "tokens": 'End with "The answer is" followed by the sequence, its parts separated by spaces.',
}


_Options = Options  # inside the class the name means the attribute


class Custom(SourceDataset[Options]):
    """Any table of questions; the options say which field is what and how an answer is read."""

    Options = Options
    name = "custom"
    facts = DatasetFacts(
        title="Your own data",
        metric="exact_match",
        licence="that of your data",
        source="the file or folder at path, or the Hub id hub",
    )

    def __init__(self, options: _Options) -> None:
        if bool(options.path) == bool(options.hub):
            raise ConfigError("path, hub: state one of the two, the file or folder to read or the Hub id")
        if options.guess and not options.path:
            raise ConfigError("guess: it looks at the file at path; name the fields of a Hub id")
        given, self._guessed = options, dict[str, Any]()
        if options.guess:
            options, self._guessed = guessed(options, head(options.path))
        self._read = options
        kind = options.kind or ("choice" if options.choices else "text")
        if (kind == "choice") != bool(options.choices):
            raise ConfigError(f"choices: {'missing for' if kind == 'choice' else 'not used with'} kind {kind}")
        if (kind == "label") != bool(options.labels):
            raise ConfigError(f"labels: {'missing for' if kind == 'label' else 'not used with'} kind {kind}")
        self._kind = kind
        self._answered = False
        self.hub = (Hub(options.hub, options.config),) if options.hub else ()
        self.dev_from, self.test_from = (options.dev_split,), (options.test_split,)
        self.answer_format = _FORMATS[kind].replace("{labels}", ", ".join(options.labels))
        source = options.path or options.hub
        self.facts = attrs.evolve(  # of this table, not of the plugin
            self.facts, metric=options.metric or METRICS[kind], source=source, revision=options.revision
        )
        super().__init__(given)

    @classmethod
    def sample(cls) -> dict[str, Any]:
        """Return options that read the bundled rows."""
        return {"path": str(cls.fixture_path()), "choices": "options", "subset_field": "topic"}

    def record(self, row: Row) -> Example | Drop:
        """Turn a row into an example, as the options say."""
        options = self._read
        prompt = filled(row, options.question)
        if not prompt.strip():
            return Drop("empty question")
        id = row.key(options.id_field) if options.id_field in row and row[options.id_field] is not None else ""
        named: dict[str, Any] = {
            "subset": row.key(options.subset_field) if options.subset_field else row.subset,
            "group": row.key(options.group_field) if options.group_field else "",
            "asked": {name: row[field] for name, field in options.asked.items()},
            "meta": {name: row[field] for name, field in options.meta.items()},
        }
        if self._kind == "choice":
            labels, texts = choice_texts(row, options.choices)
            if self._unanswered(row):
                return Drop("no answer")
            answer = choice_index(row, options.answer, labels, texts, options.first_index)
            return self.choice(id, prompt, texts, answer, **named)
        if self._kind in ("open", "code") and options.answer not in row:
            return self.text(id, prompt, [], self._kind, **named)
        references = [] if self._unanswered(row) else reference_texts(row, options.answer)
        if not references:
            return Drop("no answer")
        if self._kind == "label":
            wrong = [r for r in references if r not in options.labels]
            if wrong:
                row.fail(options.answer, f"expected one of {', '.join(options.labels)}, got {wrong[0]!r}")
        check_kind(row, options.answer, references, self._kind)
        return self.text(id, prompt, references, self._kind, labels=options.labels, **named)

    def notes(self) -> dict[str, Any]:
        """Return what reading found, and what was guessed."""
        return {**super().notes(), **({"guessed": self._guessed} if self._guessed else {})}

    def _unanswered(self, row: Row) -> bool:
        """Whether a row has no answer. The field must be in the first row: elsewhere its absence says the same as null."""
        field = self._read.answer
        self._answered = self._answered or field in row
        return absent(row[field]) if field in row or not self._answered else True


@hookimpl
def moco_dataset() -> type[Custom]:
    return Custom
