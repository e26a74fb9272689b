"""{{summary}}

Reads JSON lines with the keys ``id``, ``question`` and ``answer``; the first rows are dev, the rest test. Replace the
reading below with yours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import attrs

from moco_core import Dataset, DatasetError, DatasetFacts, Example, Question, Split, hookimpl, option

__all__ = ["{{Class}}", "Options", "moco_dataset"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of {{name}}."""

    path: str | None = option(None, help="JSON lines file to read instead of the bundled sample")
    dev: int = option(4, ge=0, help="how many rows, from the first on, are dev")


class {{Class}}(Dataset[Options]):
    """{{summary}}"""

    Options = Options
    facts = DatasetFacts(
        title="{{title}}",
        metric="exact_match",
        licence="CC0-1.0",
        source="bundled sample",
    )

    def examples(self, split: Split) -> Iterator[Example]:
        for number, line in enumerate(self._lines(), start=1):
            if (number <= self.options.dev) == (split == "dev"):
                yield self._example(line, number)

    def _lines(self) -> Iterator[str]:
        bundled = resources.files(__name__) / "sample.jsonl"
        source = Path(self.options.path) if self.options.path else bundled
        try:
            with source.open(encoding="utf-8") as file:
                yield from (line for line in file if line.strip())
        except OSError as error:
            raise DatasetError(f"{{name}}: cannot read {source}: {error.strerror}") from None

    def _example(self, line: str, number: int) -> Example:
        where = f"{{name}}: {self.options.path or 'sample.jsonl'}, row {number}"
        try:
            row = json.loads(line)
            question = Question(
                id=str(row["id"]),
                prompt=str(row["question"]),
                answer_kind="integer",
                answer_format="End with: The answer is X.",
            )
            return Example(question=question, references=[str(row["answer"])])
        except KeyError as error:
            raise DatasetError(f"{where}: the field {error} is missing") from None
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{where}: {error}") from None


@hookimpl
def moco_dataset() -> type[{{Class}}]:
    return {{Class}}
