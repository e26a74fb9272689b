"""Every dataset from every kind of file, and through the ``datasets`` library: always the same records."""

import gzip
import json
import re

import pytest

from moco_core import DatasetError
from moco_core.catalogue import installed
from moco_core.options import build
from moco_toolkit_data import Drop, read_rows

NAMES = [n for n in installed().plugins("dataset") if n not in ("custom", "lm_eval", "skills")]
SPLITS = ("dev", "test")


def plugin(name):
    return installed().load("dataset", name)


def files(name):
    path = plugin(name).fixture_path()
    return sorted(path.iterdir()) if path.is_dir() else [path]


def shape(value):
    """What a column of a table must have in common; null fits everywhere."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    return [shape(v) for v in value[:1]] if isinstance(value, list) else value and type(value).__name__


def alike(one, other):
    if not one or not other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return all(alike(one[k], other[k]) for k in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list):
        return alike(one[0], other[0])
    return one == other


def tabular(file):
    """Return a fixture's rows as plain data, those that fit into one table with the first."""
    rows = [{**({"split": r.split} if r.split else {}), **dict(r)} for r in read_rows(file)]
    return [r for r in rows if r.keys() == rows[0].keys() and alike(shape(rows[0]), shape(r))]


def read(name, **options):
    cls = plugin(name)
    data = cls(build(cls.Options, {"dev_size": 0, "test_size": 0, **options}))
    found = {}
    for split in SPLITS:
        try:
            found[split] = list(data.examples(split))
        except DatasetError as error:  # so few rows can all fall on one side
            if "is empty" not in str(error):
                raise
            found[split] = []
    return found


def as_lines(rows, path):
    path.with_name(path.name + ".jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def as_list(rows, path):
    path.with_name(path.name + ".json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))


def as_gzip(rows, path):
    text = "".join(json.dumps(r) + "\n" for r in rows)
    path.with_name(path.name + ".jsonl.gz").write_bytes(gzip.compress(text.encode()))


def as_parquet(rows, path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{k: None if v == {} else v for k, v in row.items()} for row in rows]  # parquet knows no empty object
    parquet.write_table(pyarrow.Table.from_pylist(rows), path.with_name(path.name + ".parquet"))


def as_arrow(rows, path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    with (
        pyarrow.OSFile(str(path.with_name(path.name + ".arrow")), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_file_gives_the_same_examples(name, tmp_path):
    found = {}
    for write in (as_lines, as_list, as_gzip, as_parquet, as_arrow):
        folder = tmp_path / write.__name__
        folder.mkdir()
        for file in files(name):
            write(tabular(file), folder / file.name.split(".")[0])
        found[write.__name__] = read(name, path=str(folder))
    assert any(found["as_lines"].values())
    for form, examples in found.items():
        assert examples == found["as_lines"], form
    single = sorted((tmp_path / "as_gzip").iterdir())
    if len(single) == 1:  # a file alone, not in a folder
        assert read(name, path=str(single[0])) == found["as_lines"]


# through the library -------------------------------------------------------------------------------------------------


def repositories(cls, name, root):
    """Write a dataset's hand-written rows as local repositories of the same names, configurations and splits."""
    whole = cls(build(cls.Options, cls.sample()))
    by_hub = {h: [] for h in whole.hub}
    for file in files(name):
        stem = file.name.split(".")[0]
        for row, data in zip(read_rows(file, subset=stem), tabular(file), strict=False):
            subset = stem if len(by_hub) > 1 else ""
            if subset and subset not in whole.subsets:  # the rows tell
                made = next((m for m in whole.records(row) if not isinstance(m, Drop)), None)
                subset = made.question.subset if made else ""
            hub = next((h for h in by_hub if h.subset == subset), None)
            if hub is not None:
                by_hub[hub].append(data)
    used = {h: rows for h, rows in by_hub.items() if rows}
    for hub, rows in used.items():
        folder = root / hub.repo
        folder.mkdir(parents=True, exist_ok=True)
        if hub.file:
            (folder / hub.file).write_text(json.dumps(rows))
            continue
        names = list(dict.fromkeys((*whole.dev_from, *whole.test_from)))
        lines = [f"- config_name: '{hub.config or 'default'}'", "  data_files:"]
        for i, split in enumerate(names):
            place = f"{hub.config or 'default'}/{split}"
            (folder / place).parent.mkdir(exist_ok=True)
            as_parquet(rows[i :: len(names)] or rows, folder / place)
            lines += [f"  - split: {split}", f"    path: {place}.parquet"]
        card = folder / "README.md"
        head = card.read_text().removesuffix("---\n") if card.is_file() else "---\nconfigs:\n"
        card.write_text(head + "".join(f"{line}\n" for line in lines) + "---\n")
    return used


@pytest.mark.parametrize("name", [n for n in NAMES if plugin(n).hub])
def test_the_source_is_loaded_through_the_datasets_library(name, tmp_path, monkeypatch):
    monkeypatch.setenv("USE_TORCH", "0")
    datasets = pytest.importorskip("datasets")
    cls = plugin(name)
    used = repositories(cls, name, tmp_path / "hub")
    options = {"subset": [h.subset for h in used if h.subset]}
    asked = []
    load = datasets.load_dataset

    def local(where, *args, **keywords):
        if address := keywords.get("data_files"):
            repo, _, rest = address.removeprefix("hf://datasets/").partition("@")
            revision, _, file = rest.partition("/")
            keywords["data_files"] = str(tmp_path / "hub" / repo / file)
        else:
            repo, revision, where = where, keywords.pop("revision"), str(tmp_path / "hub" / where)
        asked.append((repo, revision))
        return load(where, *args, **keywords, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    # short hashes are completed from what the Hub's cache holds
    stated = {h.repo: (h.revision or cls.facts.revision) for h in used}
    stated = {repo: r.ljust(40, "0") if re.fullmatch("[0-9a-f]{7}", r) else r for repo, r in stated.items()}
    for repo, revision in stated.items():
        (tmp_path / "kept" / f"datasets--{repo.replace('/', '--')}" / "snapshots" / revision).mkdir(parents=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "kept"))
    found = [read(name, streaming=streaming, **options) for streaming in (False, True)]
    assert found[0] == found[1]
    # the same rows out of files; which split of the source a row is in was chosen here, so the splits are compared as one
    folder = tmp_path / "files"
    folder.mkdir()
    for hub, rows in used.items():
        as_lines(rows, folder / (hub.subset or "rows"))
    wanted = read(name, path=str(folder), **options)
    for examples in (found[0], wanted):
        assert any(examples.values())
    both = [{repr(e) for split in SPLITS for e in examples[split]} for examples in (found[0], wanted)]
    assert both[0] == both[1]
    # a copy of the repository, with its card, reads as the library does
    if len({h.repo for h in used}) == 1:
        assert read(name, path=str(tmp_path / "hub" / next(iter(used)).repo), **options) == found[0]
    # every repository is asked for at the revision that the facts state, if they do
    assert set(asked) == {(repo, revision or None) for repo, revision in stated.items()}
