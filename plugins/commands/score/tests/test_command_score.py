"""Stored replies scored again: by hand-computed scores, with no model asked but the metric's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import moco_core as moco
from moco_core import (
    Answer,
    Context,
    Dataset,
    DatasetFacts,
    Example,
    Metric,
    Model,
    NoOptions,
    Plugin,
    PoolSource,
    Question,
    Reply,
    RunResult,
    Score,
    Split,
    cli,
    make_reports,
    plugin_option,
    read_records,
)
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedCall, ScriptedPool

RIGHT = {"a": range(4), "b": range(1, 7)}
"""Which of eight questions each model gets right."""
ASKED: list[str] = []
"""Every call that was made, by the model's name."""


class Said(PoolSource[NoOptions]):
    """Scripted models that know some of the answers."""

    def models(self) -> Sequence[Model]:
        def says(call: ScriptedCall) -> str:
            ASKED.append(call.model)
            return f"The answer is {int(int(call.prompt.split()[-1][:-1]) in RIGHT[call.model])}."

        return ScriptedPool(dict.fromkeys(RIGHT, says)).models()


class Judges(PoolSource[NoOptions]):
    """A judge that likes what says 1, and is never sure."""

    def models(self) -> Sequence[Model]:
        def says(call: ScriptedCall) -> str:
            ASKED.append(call.model)
            return "0.75" if "1" in call.prompt else "0.25"

        return ScriptedPool({"judge": says}).models()


class Eight(Dataset[NoOptions]):
    """Eight test questions and four dev questions, for all of which 1 is right; the metric may see a hint."""

    facts = DatasetFacts(title="Eight", metric="exact_match")
    hint = "yes"

    def examples(self, split: Split) -> Iterator[Example]:
        for i in range(8 if split == "test" else 4):
            question = Question(id=f"{split}{i}", prompt=f"What is {i + 4 * (split == 'dev')}?", answer_kind="integer")
            yield Example(question=question, references=("1",), meta={"hint": self.hint})


class Hinted(Metric[NoOptions]):
    """Half a point for a reply to a question whose example has the hint, and a quarter more where it says 1."""

    binary = False

    def read(self, question: Question, text: str) -> Answer:
        return Answer(key=text, text=text, status="parsed")

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        value = 0.5 * (example.meta["hint"] == "yes") + 0.25 * ("1" in reply.text)
        return Score(value=value, answer=self.read(example.question, reply.text))


@attrs.frozen(kw_only=True)
class JudgedOptions:
    """Who judges."""

    pool: Plugin | None = plugin_option("pool", None)


class Judged(Metric[JudgedOptions]):
    """What the judge says."""

    Options = JudgedOptions
    binary = False

    def check(self) -> Sequence[str]:
        return () if self.options.pool else ("it has no judge; -o metric.pool=POOL",)

    def read(self, question: Question, text: str) -> Answer:
        return Answer(key=text, text=text, status="parsed")

    async def score(self, example: Example, reply: Reply, context: Context) -> Score:
        assert self.options.pool is not None
        said = await context.generate(self.options.pool.instance.pool[0], f"How good is: {reply.text}")
        return Score(value=float(said.text), answer=self.read(example.question, reply.text))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> moco.Results:
    """The runs of two single models and of a vote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    monkeypatch.setattr(Eight, "hint", "yes")
    for cls, name in ((Said, "said"), (Judges, "judges"), (Eight, "eight"), (Hinted, "hinted"), (Judged, "judged")):
        moco.register(cls, name)
    found = moco.run(pool="said", method="majority_vote", dataset="eight")
    ASKED.clear()
    return found


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def score(capsys: Any) -> Told:
    def told(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run(["score", *map(str, args)])
        got = capsys.readouterr()
        return code, got.out, got.err

    return told


def scored(out: str) -> RunResult:
    return RunResult.read(out.split(":")[0])


def test_replies_are_scored_as_by_hand_and_no_model_is_asked(runs: moco.Results, score: Told) -> None:
    code, out, _ = score(runs["a"].folder, "-m", "hinted")
    assert code == 0 and ASKED == []
    # a says 1 to four of eight: (8 * 0.5 + 4 * 0.25) / 8
    new = scored(out)
    assert sum(u.score for u in new.units) / 8 == 0.625 and "hinted 0.625" in out and "exact_match 0.500" in out
    assert new.folder.parent == runs["a"].folder.parent and new.metric == "hinted" and not new.binary


def test_the_result_is_a_run_of_its_own_that_names_its_source(runs: moco.Results, score: Told) -> None:
    source = runs["majority_vote"].folder
    new = scored(score(source, "-m", "hinted")[1])
    head, before = (json.loads((f / "run.json").read_text()) for f in (new.folder, source))
    assert head["source"] == {"folder": str(source), "id": before["id"], "metric": before["config"]["metric"]}
    assert head["id"] == new.folder.name != before["id"] and head["label"] == before["label"]
    assert {**head["config"], "metric": None} == {**before["config"], "metric": None}
    assert "moco-metric-exact-match" in head["environment"]["versions"]
    theirs = {r["id"]: r for r in read_records(source)}
    for row in read_records(new.folder):
        known = theirs[row["id"]]
        assert all(row[k] == known[k] for k in ("index", "question", "references", "reply", "calls", "seconds"))
        assert row["score"] == 0.5 + 0.25 * ("1" in row["reply"]["text"])
    assert new.costs == json.loads((source / "run.json").read_text())["tokens"]


def test_single_models_are_scored_on_dev_too_so_that_the_best_is_chosen_by_the_new_metric(
    runs: moco.Results, score: Told
) -> None:
    code, out, _ = score(*(runs[name].folder for name in ("a", "b", "majority_vote")), "-m", "hinted")
    assert code == 0 and ASKED == []
    found = [scored(line) for line in out.splitlines()]
    # on dev, a knows none of the questions 4 to 7, b three
    assert [r.dev_mean for r in found] == [0.5, (4 * 0.5 + 3 * 0.25) / 4, None]
    (report,) = make_reports(found)
    assert report.chosen_on == "dev" and report.best is not None and report.best.label == "b" and len(report.rows) == 3


def test_a_judge_is_asked_about_every_reply_and_paid_by_the_scored_run(runs: moco.Results, score: Told) -> None:
    source = runs["majority_vote"].folder
    code, out, err = score(source, "-m", "judged")
    assert (code, out) == (2, "") and err == "error: metric 'judged': it has no judge; -o metric.pool=POOL\n"
    code, out, _ = score(source, "-m", "judged", "-o", "metric.pool=judges")
    new = scored(out)
    says = ["1" in r["reply"]["text"] for r in read_records(source)]
    assert [u.score for u in new.units] == [0.75 if s else 0.25 for s in says]
    assert set(ASKED) == {"judge"} and len(ASKED) == 2  # of eight questions, two different ones
    assert new.costs["metric"]["judge"]["calls"] == 2 and new.costs["respond"] == runs["majority_vote"].costs["respond"]
    assert score(source, "-m", "judged", "-o", "metric.pool=judges")[0] == 0 and len(ASKED) == 2


def test_what_failed_stays_failed_and_what_is_not_recorded_too(runs: moco.Results, score: Told) -> None:
    folder = runs["a"].folder
    rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    rows[1] = {
        **{k: rows[1][k] for k in ("index", "id", "subset", "question", "calls", "seconds")},
        "score": None,
        "error": "no",
    }
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:-1]))
    code, out, err = score(folder, "-m", "hinted")
    new = scored(out)
    assert code == 1 and (new.status, new.failed, len(new.units)) == ("failed", 2, 6)
    assert "question test1: no" in err


def test_what_cannot_be_scored_is_one_line_and_leaves_nothing(
    runs: moco.Results, score: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = runs["a"].folder
    for args, code, line in (
        (("absent", "-m", "hinted"), 2, "error: absent: not a run folder (no run.json)"),
        ((folder, "-m", "hintet"), 2, "error: no metric 'hintet' is installed"),
        ((folder, "-m", "hinted", "-o", "test=3"), 2, "error: -o test: only the metric has options here"),
        ((folder, "-m", "hinted", "-o", "metric.more=1"), 2, "error: metric.more: unknown key"),
    ):
        got = score(*args)
        assert (got[0], got[1]) == (code, "") and got[2].startswith(line), got[2]
    before = sorted(folder.parent.iterdir())

    def changed(self: Eight, split: Split) -> Iterator[Example]:
        yield Example(question=Question(id="test0", prompt="Another?"), references=("1",))

    monkeypatch.setattr(Eight, "examples", changed)
    code, out, err = score(folder, "-m", "hinted")
    assert (code, out) == (2, "") and "the test split of 'eight' is no longer what was asked" in err
    assert len(err.splitlines()) == 1 and sorted(folder.parent.iterdir()) == before
    (folder / "records.jsonl").write_text("")
    assert "no replies to score, the run is finished" in score(folder, "-m", "hinted")[2]


def test_json_has_both_scores(runs: moco.Results, score: Told, tmp_path: Path) -> None:
    folder = runs["b"].folder
    (body,) = json.loads(score(folder, "-m", "hinted", "--json", "--out", tmp_path / "elsewhere")[1])
    assert body["score"]["mean"] == pytest.approx(0.5 + 0.25 * 6 / 8) and body["source_score"]["mean"] == 0.75
    assert body["source"] == str(folder) and Path(body["folder"]).parent == tmp_path / "elsewhere"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        "assert _run(['score', '--help']) == 0\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'rich', 'yaml', 'asyncio')"
        " or m.startswith(('moco_method_', 'moco_pool_', 'moco_core.runs', 'moco_core.runtime'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
