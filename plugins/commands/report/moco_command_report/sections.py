"""What the page has at once: the comparison of every section, its questions, and how each system did on each of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from moco_command_report.records import Records, asked_of
from moco_core import Report, RunResult, compare
from moco_toolkit_comparison import Comparison, over_subsets, pairwise, resampled
from moco_toolkit_comparison.words import findings

__all__ = ["Section", "Table", "reply_of", "transcript_of"]

_BEGINS = 120
"""Characters of a question that lists show."""
_ANSWER = 40
_FACTS = (
    "id",
    "config",
    "given",
    "rule",
    "models",
    "dataset",
    "environment",
    "started",
    "updated",
    "timings",
)


@attrs.frozen(slots=False, eq=False)
class Section:
    """One comparison on the page. ``heads`` are the raw facts of its runs, ``open`` closes their files."""

    report: Report
    heads: Mapping[Path, Mapping[str, Any]]
    open: ExitStack
    comparison: Comparison = attrs.field(
        init=False, default=attrs.Factory(lambda s: Comparison(s.report), takes_self=True)
    )

    @cached_property
    def runs(self) -> list[tuple[int, RunResult]]:
        """The runs with the places of their systems."""
        return [(place, run) for place, row in enumerate(self.report.rows) for run in row.runs]

    @cached_property
    def records(self) -> list[Records]:
        return [self.open.enter_context(Records(run.folder)) for _, run in self.runs]

    @cached_property
    def ids(self) -> list[str]:
        """The questions that any run has recorded, in the order of the run that has most."""
        longest = sorted(self.records, key=lambda r: -len(r.ids()))
        return list(dict.fromkeys(id for records in longest for id in records.ids()))

    def order(self) -> list[int]:
        """Return the places of the questions, those first on which systems disagree: they are what a reader opens."""
        scores: dict[str, set[float]] = {}
        for row in self.report.rows:
            for unit in row.units:
                scores.setdefault(unit.id, set()).add(unit.score)
        return sorted(range(len(self.ids)), key=lambda i: len(scores.get(self.ids[i], ())) < 2)

    # ---------------------------------------------------------------- as data

    def data(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return all of it as JSON data; ``table`` is what :class:`Table` counted."""
        body = self.comparison.data()
        names = _unlike([row.label for row in self.report.rows])
        for name, row, system in zip(names, body["rows"], self.report.rows, strict=True):
            macro = over_subsets(system)
            row |= {"name": name, "macro": macro and {"mean": macro.mean, "low": macro.low, "high": macro.high}}
        body["pairs"] = self._pairs(names)
        body |= {"findings": findings(self.comparison), "questions": table, "units": self._units(table["ids"])}
        body["pool"] = list(self.report.rows[0].runs[0].models)
        body["binary"] = all(r.binary for _, r in self.runs)
        body["runs"] = [self._run(place, run) for place, run in self.runs]
        return body

    def _run(self, place: int, run: RunResult) -> dict[str, Any]:
        head = self.heads[run.folder]
        return {
            "system": place, "seed": run.seed, "folder": str(run.folder), "status": run.status, "error": run.first_error,
            "warnings": list(run.warnings), "questions": run.questions, "failed": run.failed,
            "facts": {name: head[name] for name in _FACTS if name in head} | {"extra_metrics": run.extra_metrics},
        }  # fmt: skip

    def _pairs(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the comparison of every two systems that have scores: of the first minus the second."""
        rows, level = self.comparison.scored, self.comparison.rule.level
        places = [next(i for i, row in enumerate(self.report.rows) if row is scored) for scored in rows]
        scores, raw, corrected = self.comparison.scores, pairwise(self.comparison.scores), self.comparison.p_values
        binary = bool(np.all(np.isnan(scores) | (scores == 0) | (scores == 1)))
        drawn = None if binary or not scores.size else resampled(scores)
        out = []
        for i in range(len(rows)):
            for j in range(i):
                difference = (scores[i] - scores[j])[~np.isnan(scores[i] - scores[j])]
                if not len(difference):
                    continue
                if drawn is None:
                    versus = compare(rows[i].units, rows[j].units, level=level)
                    low, high = (versus.low, versus.high) if versus else (math.nan, math.nan)
                else:
                    tail = (1 - level) / 2
                    low, high = np.quantile(drawn[:, i] - drawn[:, j], [tail, 1 - tail])
                out.append([
                    places[i], places[j], float(difference.mean()), float(low), float(high), len(difference),
                    float(raw[i, j]), float(corrected[i, j]),
                ])  # fmt: skip
        return {
            "rows": out,
            "test": "exact McNemar" if binary else "sign flips",
            "scored": places,
            "names": list(names),
        }

    def _units(self, ids: Sequence[str]) -> dict[str, Any] | None:
        """Return what statistics count, where that is not the questions but groups of them."""
        found = dict.fromkeys(unit.id for row in self.report.rows for unit in row.units)
        if not found.keys() - {*ids}:
            return None
        scores = [{u.id: u.score for u in row.units} for row in self.report.rows]
        return {"ids": list(found), "scores": [[_rounded(mine.get(id)) for id in found] for mine in scores]}


class Table:
    """How each system did on each question, as the records are read one question after the other."""

    def __init__(self, section: Section) -> None:
        self._section = section
        size, systems = len(section.ids), len(section.report.rows)
        self._begins, self._subsets = [""] * size, [""] * size
        self._scores: list[list[float | None]] = [[None] * size for _ in range(systems)]
        self._marks = [bytearray(b"-" * size) for _ in range(systems)]
        self._answers = [[""] * size for _ in range(systems)]

    def add(self, place: int, records: Sequence[Mapping[str, Any] | None]) -> None:
        """Take what all runs have of a question."""
        found: dict[int, list[Mapping[str, Any]]] = {}
        for (system, _), record in zip(self._section.runs, records, strict=True):
            if record is not None:
                found.setdefault(system, []).append(record)
        for system, mine in found.items():
            scores = [s for r in mine if (s := _finite(r.get("score"))) is not None]
            self._scores[system][place] = _rounded(sum(scores) / len(scores)) if scores else None
            self._marks[system][place] = min(map(_mark, mine), key=b"fuc.".index)[0]
            self._answers[system][place] = _short(str(_mapping(mine[0].get("answer")).get("text") or ""), _ANSWER)
            self._begins[place] = self._begins[place] or _short(asked_of(mine[0]), _BEGINS)
            self._subsets[place] = self._subsets[place] or str(mine[0].get("subset") or "")

    def data(self) -> dict[str, Any]:
        """Return the table as JSON data.

        ``marks`` have a letter per question: f failed, u unread, c cut, ``-`` not there, ``.`` nothing of these.
        """
        names = sorted({*self._subsets})
        return {
            "ids": self._section.ids, "begins": self._begins, "scores": self._scores, "answers": self._answers,
            "subsets": names, "subset": [names.index(s) for s in self._subsets],
            "marks": [m.decode() for m in self._marks],
        }  # fmt: skip


def reply_of(records: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return what was asked and what every run replied, as the page shows it."""
    found = list(records)
    first = next((r for r in found if r is not None), {})
    asked = {
        "asked": asked_of(first), "system": first.get("system", ""), "history": first.get("history", []),
        "references": first.get("references", []), "choice": first.get("choice"),
    }  # fmt: skip
    return asked | {"replies": [None if r is None else _reply(r) for r in found]}


def _reply(record: Mapping[str, Any]) -> dict[str, Any]:
    reply, answer = _mapping(record.get("reply")), _mapping(record.get("answer"))
    return {
        "text": str(reply.get("text", "")), "finish": reply.get("finish", ""), "spans": reply.get("spans", []),
        "abstained": bool(reply.get("abstained")), "meta": reply.get("meta", {}), "noted": record.get("score_meta", {}),
        "answer": answer.get("text", ""), "read": answer.get("status", ""), "score": _finite(record.get("score")),
        "error": str(record.get("error") or ""), "seconds": record.get("seconds"),
    }  # fmt: skip


def transcript_of(records: Iterable[Mapping[str, Any] | None]) -> list[Any]:
    """Return every run's calls for a question; those of a single model are its reply and told with it."""
    return [[_call(call) for call in (r or {}).get("calls", ()) if isinstance(call, Mapping)] for r in records]


def _call(call: Mapping[str, Any]) -> list[Any]:
    names = ("model", "kind", "cached", "prompt_tokens", "completion_tokens", "seen", "said")
    return [call.get(name) for name in names]


def _mark(record: Mapping[str, Any]) -> bytes:
    if record.get("error"):
        return b"f"
    if _mapping(record.get("answer")).get("status") != "parsed":
        return b"u"
    return b"c" if _mapping(record.get("reply")).get("finish") == "length" else b"."


def _unlike(labels: Sequence[str]) -> list[str]:
    """Return the labels, numbered where several systems have the same."""
    seen: Counter[str] = Counter()
    out = []
    for label in labels:
        seen[label] += 1
        out.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return out


def _short(text: str, width: int) -> str:
    line = " ".join(text[: 4 * width].split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _rounded(value: float | None) -> float | None:
    """Return a score as the page counts with it: equal sums stay equal."""
    return None if value is None else round(value, 12)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
