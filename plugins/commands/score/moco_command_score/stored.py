"""A run as it lies in its folder, read back as a system that says again what it said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import (
    ConfigError,
    Context,
    Example,
    Method,
    ModelCallError,
    Pool,
    Question,
    Reply,
    Span,
    StoreError,
    System,
    read_records,
)
from moco_core.runs.folder import RunFolder
from moco_core.runs.records import read_run

__all__ = ["Again", "ScoredFolder", "Stored", "read_stored"]

_FACTS = ("role", "label", "position", "config", "given", "rule", "models", "dataset", "environment")
"""What a scored run takes over from its source."""


@attrs.frozen(kw_only=True, eq=False)
class Stored:
    """A run: its ``run.json``, its records by question, what it said on dev, and what fitting noted.

    ``dev_scores`` is filled as the replies on dev are scored.
    """

    folder: Path
    head: Mapping[str, Any]
    records: Mapping[str, dict[str, Any]]
    dev: Sequence[dict[str, Any]]
    fit: Sequence[Mapping[str, Any]]
    dev_scores: dict[str, float | None] = attrs.field(factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        return {name: self.head[name] for name in _FACTS if name in self.head}


def read_stored(folder: Path) -> Stored:
    """Read a run folder. Raises ConfigError if it is none, StoreError if it has no record or is damaged."""
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{folder}: not a run folder (no run.json); moco runs lists those below a folder")
    head = read_run(folder)
    if head["status"] == "running":
        raise StoreError(f"{folder}: is being written; score it when it has ended")
    records = {str(row.get("id")): row for row in read_records(folder)}
    if not records:
        raise StoreError(f"{folder}: no replies to score, the run is {head['status']}")
    return Stored(
        folder=folder,
        head=head,
        records=records,
        dev=[*_lines(folder / "dev.jsonl")],
        fit=[*_lines(folder / "fit.jsonl")],
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    try:
        for line in path.read_text("utf-8").splitlines():
            yield dict(json.loads(line))
    except (ValueError, TypeError):
        raise StoreError(f"{path}: damaged; run it again") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from None


class AgainSystem(System):
    """Says again what is recorded."""

    async def respond(self, question: Question, context: Context) -> Reply:
        row = self.options.records.get(question.id)
        if row is None:
            raise ModelCallError("its source has no record of this question")
        if row.get("error") or not isinstance(row.get("reply"), dict):
            raise ModelCallError(row.get("error") or "its source has no reply to this question")
        reply = row["reply"]
        return Reply(
            text=reply["text"],
            finish_reason=reply["finish"],
            spans=[Span(*span) for span in reply.get("spans", ())],
            abstained=reply.get("abstained", False),
            meta=reply.get("meta", {}),
        )


class Again(Method[Stored]):
    """Fits nothing: the dev split is for the replies of a single model on it, which are scored again."""

    Options = Stored
    system = AgainSystem

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> System:
        said = {row["id"]: row for row in self.options.dev}

        async def grade(example: Example, scope: Context) -> None:
            found = said[example.id]["said"]
            reply = Reply(text=found["text"], finish_reason=found["finish"])
            self.options.dev_scores[example.id] = (await scope.grade(example, reply)).value

        await context.each([e for e in dev if e.id in said], grade, label="dev")
        return AgainSystem(pool, self.options)


class ScoredFolder(RunFolder):
    """The folder of a scored run: what was asked and said, and what it cost, is as in the source."""

    def __init__(self, path: Path, head: Mapping[str, Any], source: Stored) -> None:
        super().__init__(path, head)
        self._source = source

    def record(self, row: Mapping[str, Any]) -> None:
        known = self._source.records.get(row["id"], {})
        super().record({**row, "calls": known.get("calls", []), "seconds": known.get("seconds", row["seconds"])})

    def save_system(self, body: Mapping[str, Any]) -> Path:
        """Keep no system: that of the source is not copied."""
        return self.path

    def close(self, units: Any, **data: Any) -> None:
        source, head = self._source, self._source.head
        for row in source.fit:
            self.note(str(row.get("phase", "fit")), {k: v for k, v in row.items() if k != "phase"})
        scores = source.dev_scores
        if source.dev:
            self.save_dev({**row, "score": scores.get(row["id"])} for row in source.dev)
        known = [s for s in scores.values() if s is not None]
        spent = {phase: row for phase, row in head.get("tokens", {}).items() if phase != "metric"}
        timings, took = head.get("timings", {}), data["timings"]["total"]
        data |= {
            "dev_mean": sum(known) / len(known) if known else None,
            "tokens": {**spent, **data["tokens"]},
            "timings": {**timings, "score": took, "total": timings.get("total", 0.0) + took},
            "warnings": list(dict.fromkeys([*head.get("warnings", ()), *data["warnings"]])),
        }
        super().close(units, **data)
