"""Run configurations: what YAML means, what is refused with which line, overrides in lists, paths, running again."""

import json
import os
import time
from pathlib import Path

import attrs
import pytest

from moco_core import PoolSource
from moco_core.catalogue import Catalogue
from moco_core.cli.overrides import apply_overrides
from moco_core.cli.reading import load_yaml, read_value
from moco_core.config import default_pool, parse_settings
from moco_core.errors import ConfigError
from moco_core.fields import Lines
from moco_core.options import build, option
from moco_core.runs.records import read_run
from moco_core.types import Sampling

RUN = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool")


def write(moco, text, name="c.yaml"):
    path = moco.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


# YAML ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1), ("1E5", 1e5), ("1.0e-1", 0.1), ("+.5", 0.5), ("-3", -3), ("1.", 1.0), ("0x1F", 31), ("0o17", 15),
        ("010", 10), ("1:30", "1:30"), ("2024-01-31", "2024-01-31"), ("1_000", "1_000"), ("0b1", "0b1"), ("'1'", "1"),
        ("yes", True), ("Off", False), ("~", None), ("", None), ("null", None), ("nUll", "nUll"), (".inf", float("inf")),
        ("[1, 1e3, a b]", [1, 1000.0, "a b"]), ("{yes: no}", {"yes": False}), ("a: b: c", "a: b: c"),
        ("{x} and {y}", "{x} and {y}"),
    ],
)  # fmt: skip
def test_values_are_those_of_yaml_1_2_with_yes_and_no(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)


def test_merge_keys_give_defaults_and_every_value_knows_its_line(tmp_path):
    (tmp_path / "c.yaml").write_text("base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\nlist:\n  - a\n  - [b]\n")
    data, lines = load_yaml(tmp_path / "c.yaml")
    assert data == {"base": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, "list": ["a", ["b"]]}
    assert (lines["c.y"], lines["c.x"], lines["list[1]"], lines["list[1][0]"]) == (4, 1, 7, 7)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("test: 100\nmethod: x\ntest: 3\n", "line 3: the key 'test' stands there twice, first in line 1"),
        ("pool:\n  name: p\n  models: 2\n  name: q\n", "line 4: the key 'name' stands there twice, first in line 2"),
        ("pool: &p\n  models: *p\n", "line 2: the alias *p holds itself"),
        ("pool: &p [*p]\n", "line 1: the alias *p holds itself"),
        ("pool: " + "[" * 3000 + "]" * 3000 + "\n", "line 1: nested more than 100 deep"),
        ("pool: " + "{a: " * 3000 + "}" * 3000 + "\n", "line 1: nested more than 100 deep"),
        (LAUGHS, "line 6: more than 100,000 values, aliases counted as what they stand for"),
        ("seed: " + "9" * 5000 + "\n", "line 1: a number of 5,000 digits"),
        ("pool: !!python/object/apply:os.system [ls]\n", "line 1: the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("seed: !!str 12\n", "line 1: the tag"),
        ("? [a, b]\n: 1\n", "line 1: a key is a single text"),
        ("pool: *nobody\n", "line 1, column 7: not valid YAML: found undefined alias 'nobody'"),
    ],
)  # fmt: skip
def test_what_could_be_meant_two_ways_or_would_never_end_is_one_line(moco, text, told):
    write(moco, text)
    started = time.monotonic()
    got = moco("plan", "c.yaml")
    assert got.code == 2 and len(got.errors) == 1 and got.errors[0].startswith(f"error: c.yaml: {told}"), got.err
    assert time.monotonic() - started < 20  # billion laughs took 39 s once; aliases are not expanded to be counted


def test_overrides_refuse_the_same(moco):
    got = moco(*RUN, "-o", "method={name: toy_vote, rounds: 1, rounds: 2}")
    assert got.code == 2 and "the key 'rounds' stands there twice" in got.err
    assert moco(*RUN, "-o", "method.rounds=" + "[" * 3000).code == 2


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_infinite_numbers_are_refused(moco, value):
    for key in ("sampling.temperature", "pool.delay"):
        got = moco(*RUN, "-o", f"{key}={value}")
        assert got.code == 2 and f"{key}: expected a finite number, got" in got.err
    assert "test: expected int" in moco(*RUN, "-o", f"test={value}").err
    with pytest.raises(ConfigError, match="temperature: expected a finite number"):
        Sampling(temperature=float(value.replace(".", "")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method:\ndataset: toys\n", "line 1: method: empty; name at least one"),
        ("dataset: toys\nmethods: []\n", "line 2: methods: empty; name at least one"),
        ("method: toy_vote\ndatasets: []\n", "line 2: datasets: empty"),
        ("method: toy_vote\ndataset:\n", "line 2: dataset: empty"),
    ],
)
def test_an_empty_list_of_methods_or_datasets_is_refused(moco, text, told):
    got = moco("bench", write(moco, "pool: toy_pool\n" + text).replace("line 1", ""), "--test", "4")
    told = told.replace("line 2", "line 3").replace("line 1", "line 2")
    assert got.code == 2 and got.errors == [e for e in got.errors if e.startswith(f"error: c.yaml: {told}")] != []


def test_a_plugin_that_is_not_there_is_told_with_its_line_beside_the_other_problems(moco):
    write(moco, "pool: toy_pool\nmethod: toy_vot\ndataset: toys\n")
    assert (
        moco("plan", "c.yaml").errors[0].startswith("error: c.yaml: line 2: no method 'toy_vot' is installed, did you")
    )
    write(moco, "pool: toy_pool\nmethods:\n  - toy_vot\n  - {name: toy_vote, rouds: 1}\ndataset: toys\ntset: 3\n")
    first, second, third = moco("plan", "c.yaml").errors
    assert first.startswith("error: c.yaml: line 6: tset: unknown key") and "line 3: no method 'toy_vot'" in second
    assert third.startswith("error: c.yaml: line 4: methods[1].rouds: unknown key")


# overrides -----------------------------------------------------------------------------------------------------------

GRID = {"methods": ["vote", {"name": "cascade", "label": "fast"}, {"name": "cascade", "confidence": "a"}], "seed": 1}


@pytest.mark.parametrize(
    ("override", "index", "member"),
    [
        ("methods.vote.samples=3", 0, {"name": "vote", "samples": 3}),
        ("methods.0.samples=3", 0, {"name": "vote", "samples": 3}),
        ("methods.2.confidence=b", 2, {"name": "cascade", "confidence": "b"}),
        ("methods.fast.confidence=b", 1, {"name": "cascade", "label": "fast", "confidence": "b"}),
        ("methods.0=other", 0, "other"),
    ],
)
def test_a_member_of_a_list_is_meant_by_place_label_or_name(override, index, member):
    made = apply_overrides(GRID, [override])
    assert made["methods"][index] == member
    assert [m for i, m in enumerate(made["methods"]) if i != index] == [
        m for i, m in enumerate(GRID["methods"]) if i != index
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "methods.cascade.confidence=b",
            "methods has cascade 2 times; say which: methods.1 or methods.2, or give them labels",
        ),
        (
            "methods.casc.confidence=b",
            "methods has no 'casc', did you mean 'cascade'? (there are: vote, fast, cascade)",
        ),
        ("methods.3.confidence=b", "methods has 3 members, from 0: vote, fast, cascade"),
        ("method.confidence=b", "the configuration has methods, a list; say which: methods.vote..."),
        ("seed.x=1", "seed is a int, it has no keys"),
    ],
)
def test_an_override_that_means_no_single_member_says_which_there_are(override, told):
    with pytest.raises(ConfigError) as caught:
        apply_overrides(GRID, [override])
    assert str(caught.value) == f"-o {override}: {told}"


def test_options_of_one_method_in_a_list_are_changed_from_the_command_line(moco):
    write(
        moco, "pool: toy_pool\nmethods:\n  - toy_vote\n  - {name: toy_vote, label: twice, rounds: 2}\ndataset: toys\n"
    )
    got = moco("bench", "c.yaml", "--test", "4", "-o", "methods.twice.rounds=3", "-o", "methods.0.rounds=5", "--json")
    rows = {r["label"]: read_run(Path(r["folder"])) for r in json.loads(got.out)[0]["rows"] if r["role"] == "method"}
    assert {n: r["config"]["method"] for n, r in rows.items()} == {
        "toy_vote": {"name": "toy_vote", "rounds": 5, "raises": False},
        "twice": {"name": "toy_vote", "rounds": 3, "raises": False},
    }


def test_a_wrong_override_is_not_said_to_stand_in_the_file(moco):
    write(moco, "pool: toy_pool\nmethod:\n  name: toy_vote\n  rounds: 1\ndataset: toys\n")
    assert moco("plan", "c.yaml", "-o", "method.rounds=0").errors == [
        "error: c.yaml: method.rounds: expected int >= 1, got 0"
    ]


def test_two_members_of_one_label_are_refused(moco):
    write(moco, "pool: toy_pool\nmethods: [{name: toy_vote, label: a}, {name: toy_vote, label: a}]\ndataset: toys\n")
    assert moco("plan", "c.yaml").errors == ["error: c.yaml: line 2: methods: the label 'a' stands there twice"]
    write(moco, "pool: toy_pool\nmethod: {name: toy_vote, label: 3}\ndataset: toys\n")
    assert "method.label: expected a text, got 3" in moco("plan", "c.yaml").err


# paths ---------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Files:
    path: str = option("", holds="path")
    models: tuple[str, ...] = option((), holds="path or id")
    word: str = option("")


def placed(data, folder, lines):
    marks = Lines(lines)
    marks.folder = folder
    return build(Files, data, "pool", marks)


def test_a_relative_path_in_a_file_starts_from_the_files_folder(tmp_path):
    (tmp_path / "here").mkdir()
    lines = {"pool.path": 1, "pool.models[0]": 2, "pool.models[1]": 3, "pool.word": 4}
    made = placed({"path": "data.jsonl", "models": ["here", "org/model"], "word": "here"}, tmp_path, lines)
    assert made.path == str(tmp_path / "data.jsonl") and made.word == "here"
    # an id stays one unless a folder of that name lies beside the file
    assert made.models == (str(tmp_path / "here"), "org/model")
    absolute = placed({"path": "/data.jsonl", "models": ["https://x/here"]}, tmp_path, lines)
    assert absolute.path == "/data.jsonl" and absolute.models == ("https://x/here",)
    # what the command line gives, and what Python gives, starts from the working directory
    assert placed({"path": "data.jsonl"}, tmp_path, {"pool.path": 0}).path == "data.jsonl"
    assert build(Files, {"path": "data.jsonl"}).path == "data.jsonl"


def test_runs_of_a_file_elsewhere_go_beside_it_and_those_of_the_command_line_here(moco):
    write(moco, "pool: toy_pool\nmethod: toy_vote\ndataset: toys\ntest: 4\nout: results\n", "study/week.yaml")
    assert moco("run", "study/week.yaml").code == 0
    assert (moco.folder / "study" / "results").is_dir() and not (moco.folder / "results").exists()
    assert moco("run", "study/week.yaml", "--out", "other").code == 0 and (moco.folder / "other").is_dir()
    assert moco("run", "study/week.yaml", "-o", "out=third").code == 0 and (moco.folder / "third").is_dir()


# again ---------------------------------------------------------------------------------------------------------------


def test_a_run_folder_is_run_again_with_the_same_configuration_in_the_same_folder(moco, served):
    write(moco, "pool: {name: toy_pool, models: 2}\nmethod: {name: toy_vote, label: mine, rounds: 3}\ndataset: toys\ntest: 8\n"
          "seed: 7\nsampling: {temperature: 0.5, stop: [x]}\n")  # fmt: skip
    assert moco("run", "c.yaml").code == 0
    (folder,) = (moco.folder / "runs").glob("*mine*")
    before, calls = read_run(folder), len(served())
    for given in (str(folder), str(folder / "run.json"), os.path.relpath(folder, moco.folder)):
        for command in ("run", "bench", "plan"):
            got = moco(command, given)
            assert got.code == 0, got.err
    after = read_run(folder)
    assert after["config"] == before["config"] and after["id"] == before["id"] and after["label"] == "mine"
    assert after["started"] > before["started"] and len(served()) == calls
    assert len(list((moco.folder / "runs").iterdir())) == 3  # the two single models and the method, as before


def test_what_is_no_run_folder_is_one_line(moco):
    (moco.folder / "empty").mkdir()
    for given in ("./empty", "empty/run.json"):
        got = moco("bench", given)
        assert got.code == 2 and got.errors == ["error: empty: not a run folder (no run.json)"]


# python --------------------------------------------------------------------------------------------------------------


def test_python_may_give_built_plugins_and_no_lines():
    class Pool(PoolSource):
        def models(self):
            return []

    known = Catalogue({}, [])
    known.register(Pool, "mine")
    with pytest.raises(ConfigError, match=r"^dataset: missing; name one"):
        parse_settings({"pool": "mine"}, known)


def test_plan_takes_every_flag_of_run(moco):
    from moco_core.cli.planning import plan_command
    from moco_core.cli.running import bench_command, run_command

    flags = {opt for p in run_command.params for opt in p.opts if opt.startswith("-")}
    assert flags <= {opt for p in plan_command.params for opt in p.opts} & {
        opt for p in bench_command.params for opt in p.opts
    }
    got = moco(
        "plan", *RUN[1:], "-m", "toy_match", "--seed", "3", "--dev", "5", "--test", "6", "--no-baselines", "--json"
    )
    body = json.loads(got.out)
    assert [(r["dev"], r["test"], r["seed"]) for r in body["runs"]] == [(5, 6, 3)] and body["baselines"] == 0


def test_two_datasets_of_one_kind_are_told_apart_in_tables_plans_and_folders(moco):
    write(moco, "pool: toy_pool\nmethod: toy_vote\ntest: 4\ndatasets:\n  - {name: toys, label: small, size: 6}\n"
          "  - {name: toys, size: 8}\n  - {name: toys, size: 10}\n")  # fmt: skip
    plan = json.loads(moco("plan", "c.yaml", "--json").out)
    assert [r["dataset"] for r in plan["runs"]] == ["small", "toys#1", "toys#2"]
    reports = json.loads(moco("bench", "c.yaml", "--json").out)
    assert [r["dataset"] for r in reports] == ["small", "toys#1", "toys#2"]
    folders = [Path(r["folder"]) for r in reports[0]["rows"]]
    assert all(f.name.startswith("small-") for f in folders)
    # run again it keeps its name, and so its folder
    again = json.loads(moco("bench", str(folders[-1]), "--json").out)
    assert again[0]["dataset"] == "small" and {Path(r["folder"]) for r in again[0]["rows"]} == set(folders)


HELPED = """
import attrs
from moco_core import Method, Needs, Plugin, Reply, System, plugin_option

@attrs.frozen(kw_only=True)
class Options:
    helper: Plugin | None = plugin_option("pool", None, help="who is asked")

class Asking(System):
    async def respond(self, question, context):
        model = self.options.helper.instance.pool[0]
        return Reply.of(await context.generate(model, question))

class Helped(Method):
    "Asks a model of its own."
    Options = Options
    level = "api"
    system = Asking
    async def fit(self, pool, dev, context):
        return Asking(pool, self.options)
"""


def test_a_pool_in_the_options_of_a_method_is_opened_with_the_run_and_saved_with_its_system(moco, toys, served):
    write(moco, HELPED, "helped.py")
    given = ("-o", "method.helper={name: toy_pool, models: 1, api_key: sk-very-secret}", "--plugin", "helped.py")
    got = moco("run", "helped", "-p", "toy_pool", "-d", "toys", "--test", "4", "--dev", "2", "--no-baselines", *given)
    assert got.code == 0, got.err
    assert len(served()) == 4 and {line.split("\t")[0] for line in served()} == {"toy0"}
    (folder,) = (moco.folder / "runs").iterdir()
    assert "sk-very-secret" not in "".join(p.read_text() for p in folder.rglob("*") if p.is_file())
    assert read_run(folder)["config"]["method"]["helper"]["models"] == 1
    got = moco("ask", str(folder), "3 + 4", "--plugin", "helped.py")
    assert got.code == 0 and got.out.strip() == "It is 7", got.err


def test_every_key_of_a_run_configuration_is_shown(moco):
    from moco_core import Sampling
    from moco_core.config import KEYS, Settings

    page = moco("show", "run", toys=False).out
    own = [f.name for f in attrs.fields(Settings) if f.name != "sampling"]
    for key in (*KEYS, *own, *(f"sampling.{f.name}" for f in attrs.fields(Sampling))):
        assert f"  {key}" in page
    assert len(json.loads(moco("show", "run", "--json", toys=False).out)) == len(KEYS) + len(own) + 6


def test_python_runs_where_an_event_loop_is_running_already_as_in_a_notebook(tmp_path, toys, monkeypatch):
    import asyncio

    import moco_core as moco
    from moco_core.catalogue import installed

    monkeypatch.setattr(installed(), "_registered", {})
    installed().register_file(toys)

    async def cell():
        given = {"pool": "toy_pool", "method": "toy_vote", "dataset": "toys", "test": 4, "dev": 2}
        results = moco.run(cache=tmp_path / "c.sqlite", out=str(tmp_path / "runs"), **given)
        with moco.load(results["toy_vote"].folder, cache=tmp_path / "c.sqlite") as system:
            return (
                results["toy_vote"].status,
                system.ask("3 + 4").text,
                [a.text for a in system.ask_many(["1 + 1", "2 + 2"])],
            )

    assert asyncio.run(cell()) == ("finished", "It is 7", ["It is 2", "It is 4"])


def test_the_pool_that_stands_in_is_the_one_that_says_so():
    class Known:
        def __init__(self, *names):
            self.names = list(names)

        def able(self, kind, keyword):
            assert (kind, keyword) == ("pool", "default-pool")
            return self.names

    assert default_pool(Known("small")) == "small"
    with pytest.raises(ConfigError, match="no installed pool would stand in; name one"):
        default_pool(Known())
    with pytest.raises(ConfigError, match="large and small would stand in; name one"):
        default_pool(Known("large", "small"))
