"""Subsets of every dataset: the option keeps them, an unknown one is one line, and reports score each by itself."""

import json
from pathlib import Path

import pytest

from moco_core import ConfigError, DatasetError, cli
from moco_core.catalogue import installed
from moco_core.options import build

JUDGES = Path(__file__).parent / "helpers" / "scripted_judges.py"
NAMES = [n for n in installed().plugins("dataset") if n not in ("custom", "lm_eval", "skills")]
# these say of no row what it belongs to
WITHOUT = {"arc_challenge", "gsm8k", "humaneval", "ifeval", "mbpp", "medqa", "pubmedqa", "truthfulqa"}


def read(name, forgiven=("is empty",), **options):
    """Return the examples of both splits of a dataset's hand-written rows by id; a split may be empty."""
    cls = installed().load("dataset", name)
    data = cls(build(cls.Options, {**cls.sample(), "dev_size": 0, "test_size": 0, **options}))
    found = {}
    for split in ("dev", "test"):
        try:
            found |= {e.id: e for e in data.examples(split)}
        except DatasetError as error:
            if not any(reason in str(error) for reason in forgiven):
                raise
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_option_keeps_what_it_names(name):
    every = read(name)
    subsets = {e.question.subset for e in every.values()}
    assert (subsets == {""}) == (name in WITHOUT)
    for subset in subsets - {""}:
        # a subset may be in one of the source's splits only
        found = read(name, ("is empty", "has no row of subset"), subset=subset)
        assert found and {e.question.subset for e in found.values()} == {subset}
        wanted = {i: e for i, e in every.items() if e.question.subset == subset}
        # what a source lists in two subsets is kept in the first one, if it is read
        assert found == wanted or (
            installed().load("dataset", name).repeated_ids == "drop" and found.items() > wanted.items()
        )


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_subset_is_one_line_that_says_which_there_are(name):
    known = sorted({e.question.subset for e in read(name).values()} - {""})
    with pytest.raises((ConfigError, DatasetError)) as caught:
        read(name, subset="no such subset")
    told = str(caught.value)
    assert "no such subset" in told and "\n" not in told
    assert any(subset in told for subset in known) if known else told.endswith("it has none")


@pytest.mark.parametrize(("name", "size"), [("agieval", 2), ("bbh", 3), ("culturebench", 1), ("popqa", 2)])
def test_reports_score_every_subset_by_itself(name, size, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    cls = installed().load("dataset", name)
    given = {**cls.sample(), "dev_size": 0, "test_size": 0}
    pairs = [part for key, value in given.items() for part in ("-o", f"dataset.{key}={value}")]
    code = cli._run(["run", "majority_vote", "-d", name, "-p", "parrots", *pairs, "--plugin", str(JUDGES), "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    (report,) = json.loads(out)
    wanted = {e.question.subset for e in cls(build(cls.Options, given)).examples("test")}
    for row in report["rows"]:
        assert row["subsets"].keys() == wanted and len(wanted) >= size
