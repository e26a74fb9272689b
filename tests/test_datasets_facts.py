"""What every dataset states about itself: complete, the same on its page and in its README, and true of its loading code."""

import re
from pathlib import Path

import pytest

from moco_core import cli
from moco_core.catalogue import installed
from moco_core.options import build
from moco_toolkit_data import source as data_source

ROOT = Path(__file__).parents[1]
COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{7}")
# dev and test of the reference study; three sources cannot give exactly these, which their READMEs explain
SIZES = {
    "agieval": (1156, 1156),
    "alpacaeval": (2000, 1000),
    "arc_challenge": (299, 1172),
    "bbh": (1000, 1000),
    "blend": (1000, 1000),
    "coconot": (1000, 1000),
    "culturebench": (2454, 2454),
    "gpqa": (99, 99),
    "gsm8k": (200, 1000),
    "human_interest": (400, 400),
    "humaneval": (50, 114),
    "math": (956, 956),
    "mbpp": (487, 487),
    "medmcqa": (2091, 2092),
    "medqa": (636, 637),
    "mmlu_redux": (1000, 1000),
    "popqa": (1000, 1000),
    "pubmedqa": (500, 500),
    "sciencemeter": (1000, 1000),
    "sciriff": (114, 139),
    "tablemwp": (375, 376),
    "theoremqa": (400, 400),
    "truthfulqa": (200, 617),
    "wikidyk": (1000, 765),
    "wildchat": (1000, 1000),
}
VARIANTS = [
    ("gpqa", {"config": "main"}, (224, 224)),
    ("gpqa", {"config": "extended"}, (273, 273)),
    ("tablemwp", {"variant": "multiple_choice"}, (124, 125)),
]
NAMES = sorted(SIZES)
# options under which further fields are read
MORE = {"mmlu_redux": {"repair": True}, "tablemwp": {"variant": "multiple_choice"}}


def plugin(name):
    return installed().load("dataset", name)


def readme(name):
    text = (ROOT / "plugins" / "datasets" / name / "README.md").read_text(encoding="utf-8")
    return text, dict(re.findall(r"^\| ([A-Z][^|]*?) \| (.*?) \|$", text, flags=re.M))


def test_all_25_are_there():
    # other tests of this process may have registered datasets of their own, which no distribution brings
    found = {n for n, info in installed().plugins("dataset").items() if info.distribution and "contrib" not in info.keywords}
    assert set(NAMES) | {"custom", "lm_eval", "skills"} == found


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_are_complete_and_the_readme_says_the_same(name):
    facts = plugin(name).facts
    _, rows = readme(name)
    assert all([facts.title, facts.metric, facts.paper, facts.licence, facts.source, facts.fields])
    assert facts.sizes == SIZES[name] and facts.prompt_version >= 1
    assert rows["Default metric"] == f"`{facts.metric}`"
    assert rows["Paper"] == facts.paper and rows["Licence"] == facts.licence and rows["Fields"] == facts.fields
    assert rows["Gated"] == ("yes" if facts.gated else "no")
    assert rows["Prompt version"] == str(facts.prompt_version)
    assert re.match(r"\d+ dev.*\d+ test", rows["Default sizes"])
    assert facts.source.split(" ")[0] in rows["Source"].replace("`", "")


@pytest.mark.parametrize(("name", "options", "sizes"), VARIANTS)
def test_a_variant_has_the_sizes_of_its_own(name, options, sizes):
    cls = plugin(name)
    assert cls(build(cls.Options, options)).sizes() == sizes


@pytest.mark.parametrize("name", NAMES)
def test_the_fields_stated_are_those_that_reading_looks_at(name, monkeypatch):
    seen = set()

    class Watched(dict):
        def __getitem__(self, field):
            seen.add(field)
            return super().__getitem__(field)

        def get(self, field, default=None):
            seen.add(field)
            return super().get(field, default)

    def watched(*args, **keywords):
        for row in read(*args, **keywords):
            row._data = Watched(row._data)
            yield row

    read = data_source.read_rows
    monkeypatch.setattr(data_source, "read_rows", watched)
    cls = plugin(name)
    for options in ({}, MORE.get(name, {})):
        data = cls(build(cls.Options, {**cls.sample(), "dev_size": 0, "test_size": 0, **options}))
        assert all(list(data.examples(split)) for split in ("dev", "test"))
    assert seen == set(re.split(", (?:or )?", cls.facts.fields))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_pinned_is_said_on_the_page_and_in_the_readme(name, capsys):
    cls = plugin(name)
    text, rows = readme(name)
    loose = [h.repo for h in cls.hub if not COMMIT.fullmatch(h.revision or cls.facts.revision)]
    assert cli._run(["show", "dataset", name]) == 0
    page = capsys.readouterr().out
    assert "  revision: str" in page  # the option that pins it
    if not cls.hub:
        assert rows["Revision"] == "none: local files only"
    elif loose:
        assert "main" in rows["Revision"] and "not pinned" in text
        assert "main (not pinned; a run records the commit it read, the option revision takes a fixed one)" in page
    else:
        assert rows["Revision"].strip("`") == cls.facts.revision and cls.facts.revision in page


def test_only_these_are_not_pinned():
    """A new dataset is pinned; this list may only get shorter."""
    loose = {
        (name, hub.repo)
        for name in NAMES
        for hub in plugin(name).hub
        if not COMMIT.fullmatch(hub.revision or plugin(name).facts.revision)
    }
    assert loose == {("wikidyk", "YWZBrandon/wikidyk")}
