"""Damaged sources of every dataset: one line that names file, row and field, exit code 2, and no question asked."""

import copy
import gzip
import json
import shutil
from pathlib import Path

import pytest

from moco_core import DatasetError, cli
from moco_core.catalogue import installed
from moco_core.options import build

JUDGES = Path(__file__).parent / "helpers" / "scripted_judges.py"
NAMES = [n for n in installed().plugins("dataset") if n not in ("custom", "lm_eval", "skills")]


def fixture(name):
    """Return the hand-written file of a dataset in its source's own form, the first one if it is a folder."""
    path = installed().load("dataset", name).fixture_path()
    return sorted(path.iterdir())[0] if path.is_dir() else path


def parsed(path):
    """Return a fixture's document (a list of rows, or what the source's JSON is) and its first row."""
    text = path.read_text()
    lines = path.suffix == ".jsonl"
    document = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    first = document
    while not (isinstance(first, dict) and any(isinstance(v, str) for v in first.values())):
        first = next(iter(first.values())) if isinstance(first, dict) else first[0]
    return document, first


def written(document, path):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in document))
    else:
        path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", NAMES)
def test_a_field_that_is_missing_or_of_another_type_is_named(name, tmp_path):
    """Whatever field of the first row is taken away or replaced: it was not needed, or the line is about it."""
    cls = installed().load("dataset", name)
    source = cls.fixture_path()
    fields = list(parsed(fixture(name))[1])
    needed = set()
    for field in fields:
        for number, change in enumerate((lambda r, f: r.pop(f), lambda r, f: r.update({f: {"odd": [1.5]}}))):
            folder = tmp_path / f"{fields.index(field)}-{number}"
            place = shutil.copytree(source, folder) if source.is_dir() else folder
            folder.mkdir(exist_ok=True)
            path = Path(place) / fixture(name).name
            document, _ = parsed(fixture(name))
            document = copy.deepcopy(document)
            first = document
            while not (isinstance(first, dict) and field in first):
                first = next(iter(first.values())) if isinstance(first, dict) else first[0]
            change(first, field)
            written(document, path)
            data = cls(build(cls.Options, {"path": str(place), "dev_size": 0, "test_size": 0}))
            try:
                for split in ("dev", "test"):
                    for _ in data.examples(split):
                        pass
            except DatasetError as error:
                if "is empty" in str(error):  # the row was left out and no other one is there
                    continue
                needed.add(field)
                told = str(error)
                assert "\n" not in told and path.name in told and ", row 1" in told
                assert field in told.partition("field '")[2].partition("'")[0], told  # some rows nest
    assert needed


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    """Run a damaged source through the command line; return the one line that it ends with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setenv("JUDGE_LOG", str(tmp_path / "served.log"))

    def run(name, path, *options):
        pairs = [part for option in (f"path={path}", *options) for part in ("-o", f"dataset.{option}")]
        arguments = ["-d", name, "-m", "none", "-p", "parrots", *pairs]
        code = cli._run(["run", "majority_vote", *arguments, "--plugin", str(JUDGES)])
        err = capsys.readouterr().err.strip()
        assert code == 2, err
        assert err.startswith("error: ") and "\n" not in err
        assert not (tmp_path / "served.log").exists() and not (tmp_path / "runs").exists()
        return err.removeprefix("error: ")

    return run


SEVERAL = ["arc_challenge", "gsm8k", "medmcqa", "popqa", "theoremqa"]


@pytest.mark.parametrize("name", SEVERAL)
def test_damaged_files(name, moco, tmp_path):
    text = fixture(name).read_bytes()
    lines = text.splitlines(keepends=True)

    path = tmp_path / "latin.jsonl"
    path.write_bytes(lines[0] + lines[1].replace(b'": "', b'": "caf\xe9 ', 1) + b"".join(lines[2:]))
    assert moco(name, path).startswith("latin.jsonl, row 2: not UTF-8 (byte 0xe9 at ")

    path = tmp_path / "broken.jsonl"
    path.write_bytes(lines[0] + b'{"a": \n' + lines[1])
    assert moco(name, path).startswith("broken.jsonl, row 2: not JSON: ")

    path = tmp_path / "cut.jsonl.gz"
    whole = gzip.compress(text)
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut.jsonl.gz, row " in moco(name, path) and "ends early" in moco(name, path)

    path = tmp_path / "empty.jsonl"
    path.write_text("")
    assert moco(name, path) == f"{path}: split dev of {name} is empty"

    told = moco(name, fixture(name), "sha256=" + "ab" * 32)
    assert told.startswith(f"{fixture(name)}: wrong checksum: sha256 is ") and "expected " + "ab" * 32 in told
    assert "subset" in moco(name, fixture(name), "subset=nosuch")
    assert moco(name, tmp_path / "nowhere.jsonl").startswith(f"{tmp_path}/nowhere.jsonl: no such file or folder")


@pytest.mark.parametrize(
    ("name", "field", "value", "told"),
    [
        ("arc_challenge", "answerKey", None, "row 2, field 'answerKey': missing"),
        ("arc_challenge", "answerKey", "F", "row 2, field 'answerKey': expected one of A, B, C"),
        ("gsm8k", "question", None, "row 2, field 'question': missing"),
        ("gsm8k", "answer", "no mark", "row 2, field 'answer': expected a rationale that ends in"),
        ("medmcqa", "cop", "1", "row 2, field 'cop': expected an integer, got str '1'"),
        ("medmcqa", "opa", 3, "row 2, field 'opa': expected text, got int 3"),
        ("popqa", "possible_answers", ["Northland"], "row 2, field 'possible_answers': expected text, got list"),
        ("popqa", "possible_answers", "[", "row 2, field 'possible_answers': expected JSON written as text"),
        ("theoremqa", "Answer_type", "complex", "row 2, field 'Answer_type': expected one of"),
    ],
)
def test_missing_fields_and_wrong_values(name, field, value, told, moco, tmp_path):
    document, _ = parsed(fixture(name))
    if value is None:
        del document[1][field]
    else:
        document[1][field] = value
    path = tmp_path / "rows.jsonl"
    written(document, path)
    assert moco(name, path, "dev_size=0", "test_size=0").startswith(f"rows.jsonl, {told}")


@pytest.mark.parametrize("name", ["arc_challenge", "medmcqa", "popqa"])
def test_duplicate_ids_within_and_across_splits(name, moco, tmp_path):
    document, _ = parsed(fixture(name))
    path = tmp_path / "twice.jsonl"
    written([*document, {**document[1], "id": document[0]["id"]}], path)
    told = moco(name, path, "dev_size=0", "test_size=0")
    assert told.startswith("twice.jsonl, row ") and f"field 'id': duplicate id '{document[0]['id']}'" in told


CSV = "id,question,a,b,key\n"
CHOICES = ("choices=[a, b]", "answer=key")


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        (CSV + "1,q,x,y,A\n2,r,x\n", CHOICES, "x.csv, row 2: 3 cells, the header has 5"),
        (CSV + "1,q,x,y,A\n2,r,x,y,A,z\n", CHOICES, "x.csv, row 2: 6 cells, the header has 5"),
        (CSV + "1,q,x,y,A\n2,r,x,y,Q\n", CHOICES, "x.csv, row 2, field 'key': expected a label (A, B), a choice or"),
        (CSV + "1,q,x,y,A\n1,r,x,y,B\n", CHOICES, "field 'id': duplicate id '1'"),
        (
            CSV.replace(",key", "") + "1,q,x,y\n",
            CHOICES,
            "x.csv, row 1, field 'key': missing; the row has id, question",
        ),
        ("question,answer\nq,1\ncaf\xe9,2\n", (), "x.csv, row 2: not UTF-8 (byte 0xe9 at 4)"),
        ("question,question\nq,1\n", (), "x.csv, header: column 'question' occurs twice"),
        ("question,answer\nq,1\n", (), "split dev of custom is empty"),
        (
            "question,answer\nq,1\nr,one\n",
            ("kind=integer",),
            "field 'answer': expected a whole number, for kind integer",
        ),
        (
            "question,answer\nq,1\nr,1.5\n",
            ("kind=integer",),
            "field 'answer': expected a whole number, for kind integer",
        ),
        (
            "question,answer\nq,1\nr,one\n",
            ("kind=decimal",),
            "row 2, field 'answer': expected a number, for kind decimal",
        ),
        (
            "question,answer\nq,true\nr,1\n",
            ("kind=boolean",),
            "row 2, field 'answer': expected one of true, false, yes",
        ),
        ("question,answer\nq,1\nr,2\n", ("subset=u", "subset_field=answer"), "has no row of subset u; it has 1, 2"),
    ],
)
def test_damaged_tables_of_ones_own(text, options, told, moco, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode("latin-1"))
    assert told in moco("custom", path, *options)


def test_other_kinds_of_files(moco, tmp_path):
    (tmp_path / "x.json").write_text("3")
    assert moco("custom", tmp_path / "x.json") == "x.json, row 1: expected an object, got int"
    (tmp_path / "x.jsonl").write_text('{"question": "q", "answer": "1"}\n[3]\n')
    assert moco("custom", tmp_path / "x.jsonl") == "x.jsonl, row 2: expected an object, got list"
    (tmp_path / "x.xlsx").write_text("x")
    assert "unknown kind of file; expected one of .jsonl" in moco("custom", tmp_path / "x.xlsx")
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"question": ["q", "r"], "number": [1, 2]}), path)
    assert moco("custom", path) == "x.parquet, row 1, field 'answer': missing; the row has question, number"
    parquet.write_table(pyarrow.table({"question": [1.5, 2.5], "answer": ["1", "2"]}), path)
    assert moco("custom", path) == "x.parquet, row 1, field 'question': expected text, got float 1.5"
    path.write_bytes(path.read_bytes()[:200])
    assert moco("custom", path).startswith("x.parquet, row 1: not parquet: ")
