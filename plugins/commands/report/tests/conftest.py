"""Run folders made by hand, and pages read without a browser."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from moco_core import cli

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Score = float | int | None
MODELS = ("a", "b")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a file: while it is open, an event loop runs here, and whoever needs his own has none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


def write_run(
    out: Path,
    label: str,
    scores: Sequence[Score],
    role: str = "method",
    *,
    seed: int = 0,
    position: int = 0,
    dev: float | None = None,
    ids: Sequence[str] = (),
    subsets: Sequence[str] = (),
    change: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda i, r: r,
    units: Mapping[str, float] | None = None,
    **head: Any,
) -> Path:
    """Write a finished run; None scores are failed questions. ``change`` changes records, ``head`` adds to ``run.json``."""
    names = ids or [f"q{i}" for i in range(len(scores))]
    kinds = subsets or [""] * len(scores)
    folder = out / f"d-{label}-s{seed}"
    folder.mkdir(parents=True)
    records = [
        change(i, _record(i, name, label, role, score, kind))
        for i, (name, score, kind) in enumerate(zip(names, scores, kinds, strict=True))
    ]
    found = {n: s for n, s in zip(names, scores, strict=True) if s is not None} if units is None else units
    cost = {
        "prompt": 10 * len(scores), "completion": 5 * len(scores), "calls": 0, "cached": len(scores), "seconds": 1.0,
        "untimed": 0, "parameters": 1_000_000, "saved": {"prompt": 10, "completion": 5, "seconds": 1.0},
    }  # fmt: skip
    body = {
        "format": 1, "id": folder.name, "role": role, "label": label, "position": position,
        "config": {
            "pool": {"name": "p"}, "method": {"name": label} if role != "baseline" else {"name": "single", "model": label},
            "dataset": {"name": "d"}, "metric": {"name": "exact_match"}, "seed": seed, "sampling": {"temperature": 0.0},
            "dev": 10, "test": len(scores),
        },
        "given": {"method": {"name": label}}, "rule": {"level": 0.95, "gain": 0.0},
        "models": [{"name": m, "fingerprint": m * 8, "capabilities": ["generate"]} for m in MODELS],
        "dataset": {"label": "d", "dev": 10, "test": len(scores), "test_fingerprint": "f", "chance": 0.25, "notes": {}},
        "environment": {"python": "3.11", "platform": "Linux", "cpus": 2, "versions": {"moco-core": "0.1.0"}, "engines": []},
        "started": 1_700_000_000.0, "updated": 1_700_000_100.0, "status": "finished", "score": {}, "dev_mean": dev,
        "failed": sum(s is None for s in scores), "unparsed": 0.0, "truncated": 0.0, "binary": True,
        "tokens": {"respond": {"a": cost}}, "timings": {"total": 2.0}, "warnings": [], "error": "", **head,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(body))
    of = dict(zip(names, kinds, strict=True))
    rows = [{"id": n, "score": s, "subset": of.get(n, "")} for n, s in found.items()]
    (folder / "units.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def _record(i: int, id: str, label: str, role: str, score: Score, subset: str) -> dict[str, Any]:
    asked, said = f"What is question {i}?", f"{label} says {score} to {i}"
    models = MODELS if role == "method" else MODELS[:1]
    calls = [
        {"model": m, "kind": "generate", "key": "k", "cached": m == "a", "prompt_tokens": 10, "completion_tokens": 5,
         "seen": {"messages": [["user", asked if m == "a" else f"{asked}\nAnother said:\n{said} by a"]]},
         "said": {"text": f"{said} by {m}", "finish": "eos"}}
        for m in models
    ]  # fmt: skip
    row = {"index": i, "id": id, "subset": subset, "question": asked, "references": [f"right {i}"], "choice": None}
    if score is None:
        return row | {"score": None, "error": "the model failed", "calls": calls, "seconds": 0.1}
    reply = {"text": said, "finish": "eos", "spans": [], "abstained": False, "meta": {"votes": {"a": 1, "b": 2}}}
    answer = {"text": f"{score}", "key": f"{score}", "status": "parsed"}
    return row | {
        "reply": reply,
        "answer": answer,
        "score": score,
        "score_meta": {},
        "error": "",
        "calls": calls,
        "seconds": 0.1,
    }


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two single models and two methods on eight questions, in two subsets."""
    out, subsets = tmp_path / "runs", ["even", "odd"] * 4
    for place, (label, role, scores) in enumerate(
        [
            ("a", "baseline", [1, 1, 1, 1, 0, 0, 0, 0]),
            ("b", "baseline", [0, 1, 0, 1, 0, 1, 0, 1]),
            ("vote", "method", [1, 1, 1, 0, 1, 1, 1, 0]),
            ("route", "method", [0, 1, 0, 1, 0, 1, 0, None]),
        ]
    ):
        write_run(out, label, scores, role, position=place, dev=0.5 - place / 10, subsets=subsets)
    return out


@pytest.fixture
def report(capsys: Any, tmp_path: Path) -> Callable[..., tuple[int, str, str, Path]]:
    """Run ``moco report`` and return exit code, output, errors and the file."""

    def told(*args: object) -> tuple[int, str, str, Path]:
        capsys.readouterr()
        out = tmp_path / "report.html"
        code = cli._run(["report", *map(str, args), "-o", str(out)])
        got = capsys.readouterr()
        return code, got.out, got.err, out

    return told


class Opened:
    """A page as its application reads it."""

    def __init__(self, file: Path) -> None:
        self.html = file.read_text(encoding="utf-8")
        self._parts = dict(re.findall(r'<script type="text/plain" id="(\w+)">([^<]*)</script>', self.html))
        self.summary = inflated(self._parts["summary"])

    @property
    def section(self) -> Any:
        (section,) = self.summary["sections"]
        return section

    def system(self, name: str) -> Any:
        return next(row for row in self.section["rows"] if row["name"] == name)

    def scores(self, name: str) -> Any:
        return self.section["questions"]["scores"][self.section["rows"].index(self.system(name))]

    def pair(self, first: str, second: str) -> dict[str, float]:
        """The comparison of the first minus the second."""
        names = [row["name"] for row in self.section["rows"]]
        for i, j, *rest in self.section["pairs"]["rows"]:
            if {names[i], names[j]} == {first, second}:
                found = dict(zip(("difference", "low", "high", "n", "p", "holm"), rest, strict=True))
                sign = 1 if names[i] == first else -1
                return found | {"difference": sign * found["difference"]}
        raise KeyError(first, second)

    def detail(self, kind: str, question: int, section: int = 0) -> Any:
        """The ``replies`` or ``transcripts`` of a question; None where they are left out."""
        place = self.summary["sections"][section][kind][question]
        if place < 0:
            return None
        block = inflated(self._parts[f"{kind}{place}"])
        replies = inflated(self._parts[f"replies{self.summary['sections'][section]['replies'][question]}"])
        return _unpacked(block["q"][f"{section}.{question}"], {"~": block["x"], "^": replies["x"]})


def inflated(text: str) -> Any:
    return json.loads(zlib.decompress(b64decode(text)))


def _unpacked(value: Any, texts: Mapping[str, list[str]]) -> Any:
    if isinstance(value, str):
        return texts[value[0]][int(value[1:])] if value[:1] in texts else value
    if isinstance(value, list):
        return [_unpacked(v, texts) for v in value]
    return {k: _unpacked(v, texts) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.fixture
def opened() -> Callable[[Path], Opened]:
    return Opened
