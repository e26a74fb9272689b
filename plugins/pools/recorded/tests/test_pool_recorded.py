"""Recordings as pools: every form that is read, runs replayed to the byte, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

import moco_core as moco
from moco_core import (
    ConfigError,
    Dataset,
    DatasetFacts,
    Example,
    Model,
    PoolSource,
    Question,
    cli,
    option,
    read_records,
)
from moco_core.catalogue import installed
from moco_core.options import build
from moco_core.types import digest
from moco_pool_recorded.__main__ import main
from moco_pool_recorded.pool import Options, RecordedPool
from moco_toolkit_authoring import run_checks
from moco_toolkit_authoring.scripted import ScriptedCall, ScriptedEngine, scripted_model

VOTE = {"name": "majority_vote", "tie": "order"}
ROWS = [
    {"id": f"q{i}", "prompt": f"What is {i} plus {i}?", "model": m, "reply": f"The answer is {2 * i + (m == 'b')}."}
    for i in range(4)
    for m in "abc"
]


@attrs.frozen(kw_only=True)
class SaidOptions:
    models: tuple[str, ...] = option(("a", "b", "c"), help="names")


class Said(PoolSource[SaidOptions]):
    """Scripted models."""

    Options = SaidOptions

    def models(self) -> Sequence[Model]:
        def say(call: ScriptedCall) -> str:
            number = int(digest(call.model, call.transcript, call.seed)[:4], 16) % 3
            return f"I am {call.model} ünïcode\u2028 \U0001f642. The answer is {number}."

        engine = ScriptedEngine()
        return [scripted_model(name, say, engine=engine) for name in self.options.models]


@attrs.frozen(kw_only=True)
class AskedOptions:
    path: str = option(help="file")


class Asked(Dataset[AskedOptions]):
    """The questions of a file, all of them in either split."""

    Options = AskedOptions
    facts = DatasetFacts(title="Asked", metric="exact_match", licence="CC0-1.0", source="written here", sizes=(4, 4))

    def examples(self, split: str) -> Iterator[Example]:
        for row in map(json.loads, Path(self.options.path).read_text("utf-8").splitlines()):
            question = Question(id=row["id"], prompt=row["question"], answer_kind="integer")
            yield Example(question=question, references=(row["answer"],))


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    moco.register(Asked, "asked")
    return tmp_path


def pool(*tables: Any, **options: Any) -> RecordedPool:
    return RecordedPool(build(Options, {"tables": [str(t) for t in tables], **options}))


def lines(path: Path, rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def section(*tables: Any, **options: Any) -> dict[str, Any]:
    return {"name": "recorded", "tables": [str(t) for t in tables], **options}


def run(given: Any, *methods: Any, dataset: Any = "skills", **config: Any) -> dict[str, Any]:
    named: dict[str, Any] = {"methods": list(methods)} if methods else {}
    results = moco.run(pool=given, dataset=dataset, **named, **{"dev": 4, "test": 6, **config})
    return {r.label: r for r in results.runs}


def told(result: Any) -> list[Any]:
    return [
        (r["id"], r["reply"]["text"].encode(), r["reply"]["finish"], r["score"]) for r in read_records(result.folder)
    ]


def questions(path: Path) -> dict[str, Any]:
    return {"name": "asked", "path": str(path)}


# ---------------------------------------------------------------- replay


def test_a_run_is_replayed_to_the_byte_without_a_call(folder: Path) -> None:
    """A vote, a debate and a router, fitted on dev and asked again from what their runs and the single models' left."""
    methods = [
        "majority_vote",
        {"name": "multiagent_refine", "rounds": 1, "summarizer": "vote", "temperature": 0.0},
        {"name": "prompt_routing", "router": "a", "decode": "generate"},
    ]
    made = run("said", *methods)
    told_apart = {name: f"scripted model {name}" for name in "abc"}  # what the router read about them
    given = section("runs", fingerprints="recorded", descriptions=told_apart)
    again = run(given, *methods, out="replayed", cache=folder / "fresh.sqlite")
    assert made.keys() == again.keys()
    for label, first in made.items():
        assert again[label].status == "finished", again[label].first_error
        assert told(again[label]) == told(first), label
        assert again[label].usage == first.usage and again[label].dev_mean == first.dev_mean


def test_sampled_replies_are_replayed_too(folder: Path) -> None:
    made = run("said", VOTE, sampling={"temperature": 1.0}, dev=0)
    again = run(section("runs"), VOTE, sampling={"temperature": 1.0}, dev=0, out="replayed", cache=folder / "f.sqlite")
    assert {k: told(r) for k, r in again.items()} == {k: told(r) for k, r in made.items()}


def test_samples_of_one_prompt_are_replayed_by_their_keys(folder: Path) -> None:
    """Five replies of a model to one prompt are five recorded calls: each is found where fingerprints are those recorded."""
    five = {"name": "majority_vote", "samples": 5, "temperature": 1.0, "tie": "order"}
    made = run("said", five, dev=0, baselines=False)["majority_vote"]
    given = section("runs", fingerprints="recorded")
    again = run(given, five, dev=0, baselines=False, out="replayed", cache=folder / "f.sqlite")["majority_vote"]
    assert told(again) == told(made) and len({t[1] for t in told(made)}) > 1
    assert "two replies" in refused("runs")


def test_what_was_not_recorded_is_refused_by_name_and_counted(folder: Path) -> None:
    made = run("said", VOTE, dev=0)
    source = section(*(made[name].folder for name in "abc"))
    more = run(source, VOTE, dev=0, test=8, out="more", cache=folder / "fresh.sqlite")["majority_vote"]
    assert more.status == "failed" and more.failed == 2
    assert "is not in the recording" in more.first_error and "a: question '" in more.first_error


# ---------------------------------------------------------------- tables


def _csv(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def _gz(path: Path) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode()))
    return path


def _parquet(path: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.csv", _csv),
        ("t.jsonl", lambda path: lines(path, ROWS)),
        ("t.jsonl.gz", _gz),
        ("t.json", lambda path: path.write_text(json.dumps(ROWS)) and path),
        ("t.parquet", _parquet),
    ],
)
def test_every_form_of_a_table_gives_the_same_pool(folder: Path, name: str, write: Any) -> None:
    source = pool(write(folder / name))
    assert [m.name for m in source.models()] == ["a", "b", "c"]
    same = pool(lines(folder / "same.jsonl", ROWS))
    assert [m.fingerprint for m in source.models()] == [m.fingerprint for m in same.models()]
    given = [{"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(4)]
    data = questions(lines(folder / "questions.jsonl", given))
    results = run(section(folder / name), VOTE, dataset=data, dev=0, test=4)
    assert [t[1].decode() for t in told(results["b"])] == [f"The answer is {2 * i + 1}." for i in range(4)]
    assert [t[1].decode() for t in told(results["majority_vote"])] == [f"The answer is {2 * i}." for i in range(4)]


def test_ids_alone_and_columns_of_ones_own(folder: Path) -> None:
    wide = lines(
        folder / "wide.jsonl", [{"nr": f"q{i}", "gpt": f"It is {i}", "llama": f"It is {i + 1}"} for i in range(3)]
    )
    given = [{"id": f"q{i}", "question": f"Say {i}.", "answer": str(i)} for i in range(3)]
    data = questions(lines(folder / "questions.jsonl", given))
    results = run(section(wide, columns=["gpt", "llama"], fields={"id": "nr"}), dataset=data, dev=0, test=3)
    assert [t[1].decode() for t in told(results["llama"])] == ["It is 1", "It is 2", "It is 3"]
    # an id does not answer for a question whose prompt was recorded otherwise, unless it is asked to
    rows = [{"id": f"q{i}", "prompt": "another", "model": "m", "reply": f"It is {i}"} for i in range(1)]
    table = lines(folder / "ids.jsonl", rows)
    assert run(section(table), dataset=data, dev=0, test=1, out="x")["m"].status == "failed"
    assert run(section(table, match="id"), dataset=data, dev=0, test=1, out="y")["m"].status == "finished"


def test_tokens_and_costs_are_those_of_the_table_and_unknown_where_it_says_none(folder: Path) -> None:
    rows = [
        {"prompt": "one", "model": "m", "reply": "1", "prompt_tokens": 5, "completion_tokens": 7, "cost": 0.25},
        {"prompt": "two", "model": "m", "reply": "2"},
        {"prompt": "one", "model": "free", "reply": "1", "prompt_tokens": 5, "completion_tokens": 7},
        {"prompt": "two", "model": "free", "reply": "2"},
    ]
    data = questions(lines(folder / "q.jsonl", [{"id": q, "question": q, "answer": "1"} for q in ("one", "two")]))
    results = run(section(lines(folder / "t.jsonl", rows)), dataset=data, dev=0, test=2)
    known, free = results["m"].costs["respond"]["m"], results["free"].costs["respond"]["free"]
    assert (known["prompt"], known["completion"], known["money"], known["unpriced"]) == (5, 7, 0.25, 1)
    assert "money" not in free


# ---------------------------------------------------------------- public recordings


def _llm_router_bench(folder: Path) -> Path:
    """Result files in the published form: results/bench/DATASET/SPLIT/MODEL/DATASET-SPLIT-MODEL-TIME.json."""
    for model, wrong in (("small", 1), ("large", 0)):
        for time, shift in (("20250101_000000", 9), ("20250202_000000", 0)):
            records = [
                {
                    "index": i,
                    "origin_query": f"{i}+{i}?",
                    "prompt": f"What is {i} plus {i}?\nEnd with: The answer is X.",
                    "prompt_tokens": 10 + i,
                    "completion_tokens": 5,
                    "cost": 0.001 * i,
                    "score": float(not wrong),
                    "prediction": str(2 * i + wrong + shift),
                    "ground_truth": str(2 * i),
                    "raw_output": f"Let me see. The answer is {2 * i + wrong + shift}.",
                    "extra_fields": {},
                }
                for i in range(1, 5)
            ]
            body = {
                "performance": 1.0 - wrong,
                "time_taken": 1.5,
                "counts": 4,
                "model_name": model,
                "dataset_name": "sums",
                "split": "test",
                "demo": False,
                "records": records,
            }
            place = folder / "bench" / "sums" / "test" / model
            place.mkdir(parents=True, exist_ok=True)
            (place / f"sums-test-{model}-{time}.json").write_text(json.dumps(body))
    (place / "sums-test-large-20250303_000000.json").write_text(json.dumps({**body, "demo": True, "records": []}))
    return folder / "bench"


def test_llm_router_bench_is_a_pool_and_a_dataset(folder: Path, capsys: Any) -> None:
    bench = _llm_router_bench(folder)
    assert main([str(bench), "--questions", "q.jsonl"]) == 0
    assert capsys.readouterr().err == "q.jsonl: 4 questions\n"
    results = run(section(bench), VOTE, dataset=questions(folder / "q.jsonl"), dev=0, test=4)
    assert {label: [t[3] for t in told(r)] for label, r in results.items() if label != "majority_vote"} == {
        "small": [0.0] * 4,
        "large": [1.0] * 4,
    }
    large = results["large"].costs["respond"]["large"]
    assert large["prompt"] == 11 + 12 + 13 + 14 and large["money"] == pytest.approx(0.01)


def _router_bench(folder: Path) -> Path:
    """A wide table in the published form: per model a score, a reply and a cost; prompts and replies are lists of one."""
    rows = []
    for i in range(1, 5):
        row: dict[str, Any] = {"sample_id": f"grade-school-math.{i}", "prompt": f"['What is {i} plus {i}?']"}
        row["eval_name"] = "grade-school-math"
        for model, wrong in (("gpt-4-1106-preview", 0), ("mistralai/mistral-7b-chat", 1)):
            row[model] = float(not wrong)
            row[f"{model}|model_response"] = f"['The answer is {2 * i + wrong}.']"
            row[f"{model}|total_cost"] = 0.01 / (1 + wrong)
        row["oracle_model_to_route_to"] = "gpt-4-1106-preview"
        rows.append(row)
    with (folder / "routerbench_0shot.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "routerbench_0shot.csv"


def test_every_router_cascade_and_vote_runs_on_router_bench(folder: Path) -> None:
    table = _router_bench(folder)
    assert main([str(table), "--questions", "q.jsonl"]) == 0
    given = [
        {**json.loads(line), "answer": str(2 * i)}
        for i, line in enumerate(Path("q.jsonl").read_text("utf-8").splitlines(), 1)
    ]
    data = questions(lines(folder / "q.jsonl", given))
    wanted = {"descriptions": {"gpt-4-1106-preview": "strong", "mistralai/mistral-7b-chat": "cheap"}}
    order = ["mistralai/mistral-7b-chat", "gpt-4-1106-preview"]
    cascade = {"name": "cascade", "select": "fixed", "confidence": "agreement", "thresholds": 1.0}
    results = run(section(table, models=order, **wanted), VOTE, cascade, dataset=data, dev=0, test=4)
    weak, strong = (results[name] for name in order)
    assert [t[3] for t in told(weak)] == [0.0] * 4 and [t[3] for t in told(strong)] == [1.0] * 4
    assert weak.costs["respond"][order[0]]["money"] == pytest.approx(0.02)
    assert [t[1] for t in told(results["majority_vote"])] == [t[1] for t in told(weak)]  # ties go to the first
    assert results["cascade"].status == "finished"


# ---------------------------------------------------------------- bad input


def refused(*tables: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        pool(*tables, **options).models()
    return str(caught.value)


def test_two_replies_to_one_question_are_one_clear_line(folder: Path) -> None:
    twice = lines(folder / "t.jsonl", [*ROWS, {**ROWS[0], "reply": "other"}])
    assert refused(twice) == "question 'q0', model 'a': two replies (t.jsonl, line 1 and t.jsonl, line 13); keep one"
    assert len(pool(lines(folder / "same.jsonl", [*ROWS, ROWS[0]])).models()) == 3  # the same twice is no contradiction


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("t.jsonl", "", "t.jsonl: empty"),
        ("t.jsonl", "{", "t.jsonl: line 1: not valid JSON"),
        ("t.jsonl", "[1]", "t.jsonl: line 1: expected an object"),
        ("t.jsonl", '{"id": 1, "model": "a"}', "no column for reply (there are: id, model)"),
        ("t.jsonl", '{"reply": "x", "model": "a"}', "neither a question's id nor its prompt"),
        ("t.jsonl", '{"id": 1, "reply": "x", "model": ""}', "t.jsonl: line 1: model is empty"),
        ("t.jsonl", '{"id": 1, "reply": "x", "model": "a", "cost": "much"}', "line 1: expected a number, got 'much'"),
        ("t.jsonl", '{"id": 1, "reply": "x", "model": "a", "finish": "?"}', "finish: expected stop or length"),
        ("t.parquet", "no parquet", "t.parquet: cannot be read"),
        ("t.pkl", "x", "a pickle may run any program when it is read"),
        ("t.csv", "\udcff", "t.csv: cannot be read"),
    ],
)
def test_damaged_tables_are_one_line(folder: Path, name: str, text: str, line: str) -> None:
    (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert line in refused(folder / name)


def test_wrong_options_are_one_line(folder: Path) -> None:
    table = lines(folder / "t.jsonl", ROWS)
    assert "no such file or folder" in refused("nowhere.csv")
    assert "models: no 'd' in the recording (there are: a, b, c)" in refused(table, models=["a", "d"])
    assert "fields.repl: unknown, did you mean 'reply'?" in refused(table, fields={"repl": "reply"})
    assert "no column 'replly', did you mean 'reply'? (there are: id" in refused(table, fields={"reply": "replly"})
    (folder / "empty").mkdir()
    assert "neither a run folder nor a folder of result files" in refused(folder / "empty")
    with pytest.raises(ConfigError, match="tables: empty"):
        pool()


def test_the_command_line_ends_before_anything_is_made(folder: Path, capsys: Any) -> None:
    lines(folder / "t.jsonl", [*ROWS, {**ROWS[0], "reply": "other"}])
    code = cli._run(["run", "majority_vote", "-d", "skills", "-p", "recorded", "-o", 'pool.tables=["t.jsonl"]'])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and "two replies" in err and not Path("runs").exists()


def test_conformance(folder: Path) -> None:
    prompts = ("What is 2 + 3?", "Say a word.")
    tokens = {"prompt_tokens": 5, "completion_tokens": 2}
    rows = [{"prompt": p, "model": m, "reply": f"{m} says", **tokens} for p in prompts for m in "ab"]
    table = lines(folder / "t.jsonl", rows)  # with tokens: what a table does not say is unknown
    results = run_checks(
        "pool",
        "recorded",
        settings=[{"tables": [str(table)]}],
        catalogue=installed(),
        prompts=prompts,
        max_new_tokens=64,
        expected_failures={
            "stop_strings_stop": "a reply is the one that was recorded, however it was decoded",
            "temperature_is_heeded": "there is one reply per question",
        },
    )
    assert not [(r.name, r.message) for r in results if not r.ok]
