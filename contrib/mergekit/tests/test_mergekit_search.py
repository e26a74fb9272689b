"""Numbers of a configuration that are found on dev: by grid and by swarm, killed and gone on with, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import math
import re

import pytest
import torch
from mergekit_models import GREEDY, QUESTION, config, fit, pool_of, theirs
from safetensors.torch import load_file

from moco_core import ConfigError, Example, NoOptions, Question, Score
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_mergekit import method as method_module
from moco_method_mergekit.method import Mergekit
from moco_method_mergekit.options import Options
from moco_method_mergekit.searching import maximise
from moco_toolkit_authoring import open_state, run_method
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_checkpoints.local import local_engine


class Killed(Exception):
    """Stands for the end of a process."""


def begun(text, reference):
    """Return how much of the reference a text begins with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, reference, strict=False))
    return len(list(same)) / len(reference)


class Alike(LastWord):
    """How much of the reference a reply begins with."""

    def score(self, example, reply, context):
        return Score(value=begun(reply.text, example.references[0]))


def weighing(ann, bob):
    """A linear merge of two models, each with its own weight."""
    listed = [{"model": n, "parameters": {"weight": w}} for n, w in (("ann", ann), ("bob", bob))]
    return {"merge_method": "linear", "models": listed, "dtype": "float32"}


PATHS = ("models.0.parameters.weight", "models.1.parameters.weight")


def searched(folder, dev, cache=None, run_seed=0, given=None, after_fit=None, **options):
    options = {"config": given or weighing(1, 0.25), "search": list(PATHS), **options}
    method = Mergekit(build(Options, options))
    keywords = {"metric": Alike(NoOptions()), "sampling": GREEDY, "seed": run_seed, "questions": [QUESTION]}
    pool = pool_of(folder, "base", "ann", "bob").pool
    outcome = run_method(method, pool, dev=dev, cache=cache, reload_with=method, after_fit=after_fit, **keywords)
    assert outcome.calls["fit"] <= method.cost(3, len(dev)).fit
    return outcome


def test_a_grid_finds_what_separate_configurations_score_and_goes_on_where_it_was_killed(folder, tmp_path, monkeypatch):
    """References are what the merge of 1/2 and 1 writes, which is then the best; weights of 0 and 0 have no mean."""
    prompts = ["abc", "hello", "12 + 7"]
    questions = [Question(id=f"d{i}", prompt=p) for i, p in enumerate(prompts)]

    def written(ann, bob):
        method = Mergekit(build(Options, {"config": weighing(ann, bob)}))
        pool = pool_of(folder, "base", "ann", "bob").pool
        return run_method(method, pool, questions=questions, sampling=GREEDY)

    best = written(0.5, 1).texts
    dev = [Example(question=q, references=(best[q.id],)) for q in questions]
    merged, there, deaths = [], method_module.apart, [2]

    async def counted(task, out):
        if deaths == [len(merged)]:
            deaths.clear()
            raise Killed
        merged.append(task["data"])
        await there(task, out)

    monkeypatch.setattr(method_module, "apart", counted)
    theirs(weighing(0.5, 1), folder, tmp_path / "theirs")
    cache, systems = Cache(tmp_path / "calls.sqlite"), []
    grid = [{"path": p, "values": [0, v]} for p, v in zip(PATHS, (0.5, 1), strict=True)]

    def keep(system):
        systems.append(system)
        local_engine(system.model).export(system.model, tmp_path / "exported")

    with pytest.raises(Killed):
        searched(folder, dev, cache, search=grid)
    first = searched(folder, dev, cache, search=grid, after_fit=keep)
    assert merged == [weighing(a, b) for a in (0, 0.5) for b in (0, 1)]  # each once, the death in between
    tensors, expected = (load_file(p / "model.safetensors") for p in (tmp_path / "exported", tmp_path / "theirs"))
    assert expected.keys() == tensors.keys() and all(torch.equal(tensors[k], expected[k]) for k in expected)
    found = first.state["found"]
    assert found["numbers"] == dict(zip(PATHS, (0.5, 1), strict=True)) and found["score"] == 1.0
    assert found["config"] == weighing(0.5, 1)
    (failed,) = found["failed"]
    assert failed["numbers"] == dict.fromkeys(PATHS, 0) and failed["failed"] == first.noted("failed")
    assert [list(t["numbers"].values()) for t in found["trace"]] == [[0, 1], [0.5, 0], [0.5, 1]]
    for told in found["trace"]:
        texts = written(*told["numbers"].values()).texts
        assert told["score"] == pytest.approx(sum(begun(texts[k], best[k]) for k in best) / len(best))
    assert {t["score"] < 1 for t in found["trace"][:2]} == {True}
    alone = []
    fit(weighing(0.5, 1), pool_of(folder, "base", "ann", "bob").pool, alone.append)
    assert systems[0].model.fingerprint == alone[0].model.fingerprint and systems[0].state() == first.state
    stored, done = cache.count, len(merged)
    again = searched(folder, dev, cache, search=grid)
    # nothing is asked or merged again but what could not answer, which leaves nothing to keep
    assert again.state == first.state and cache.count == stored and len(merged) == done


def test_the_swarm_starts_from_what_is_given_and_stays_in_range_and_the_seed_moves_it(folder):
    questions = [Question(id="d0", prompt="abc")]
    dev = [Example(question=q, references=("x",)) for q in questions]
    swarm = {"optimizer": "swarm", "population": 2, "max_iterations": 1, "search": [PATHS[0], {"path": PATHS[1], "low": 0.1}]}
    runs = [searched(folder, dev, run_seed=s, **swarm).state["found"] for s in (0, 0, 1)]
    numbers = [[tuple(t["numbers"].values()) for t in found["trace"]] for found in runs]
    assert numbers[0] == numbers[1] != numbers[2] and [n[0] for n in numbers] == [(1.0, 0.25)] * 3
    assert len(numbers[0]) == 4 and all(0 <= a <= 1 and 0.1 <= b <= 1 for n in numbers for a, b in n)


@pytest.mark.parametrize("optimizer", ["grid", "swarm"])
def test_a_known_optimum_is_found(optimizer):
    """A bowl with its top at (0.3, 2): the grid's nearest point, and by the swarm a point nearer than any it started from."""
    options = build(Options, {"search": [{"path": "a", "steps": 11}, {"path": "b", "low": 1, "high": 3}],
                              "optimizer": optimizer, "population": 8, "max_iterations": 12})  # fmt: skip
    tried = []

    async def score(numbers, label):
        tried.append(-((numbers[0] - 0.3) ** 2) - (numbers[1] - 2) ** 2 if numbers[0] < 0.9 else -math.inf)
        return tried[-1]

    async def search():
        async with open_state() as state:
            return await maximise(options, (0.95, 1.0), score, state.context("fit"))

    found = asyncio.run(search())
    assert len(tried) == options.candidates == (55 if optimizer == "grid" else 104)
    if optimizer == "grid":
        assert found == (0.3, 2.0)
    else:
        assert max(tried) > max(tried[:8]) and found == pytest.approx((0.3, 2.0), abs=0.1)


def test_a_search_where_nothing_can_be_merged_ends_with_mergekits_own_line(folder):
    given = config("slerp", "ann", t=0.5) | {"models": [{"model": "ann"}, {"model": "bob"}, {"model": "base"}]}
    dev = [Example(question=QUESTION, references=("x",))]
    with pytest.raises(ConfigError, match=r"^option config: merge_method: mergekit: Merge method requires exactly 2 inputs"):
        searched(folder, dev, given=given, search=[{"path": "parameters.t", "values": [0.25]}])
    with pytest.raises(ConfigError, match="dev split is empty"):
        searched(folder, [])


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("models.2.parameters.weight", "'2' is not there (option config: models; it has 2 entries, counted from 0)"),
        ("models.1.parameters.wieght", "'wieght' is not there, did you mean 'weight'? (option config: "
         "models[1].parameters)"),
        ("parameters.t", "'parameters' is not there (option config)"),
        ("models.0.model", "no number, but 'ann' (option config: models[0].model)"),
        ("models.one.model", "'one' is not there (option config: models; it has 2 entries, counted from 0)"),
        ("models.0.parameters.weight.0", "'0' is not there (option config: models[0].parameters.weight)"),
    ],
)  # fmt: skip
def test_a_path_to_no_number_is_refused_with_its_place_before_any_work(folder, path, line):
    method = Mergekit(build(Options, {"config": weighing(1, 1), "search": [path]}))
    assert method.needs().problems(list(pool_of(folder).pool)) == [f"option search: {path}: {line}"]


def test_a_path_into_a_file_is_told_with_its_line(folder, tmp_path):
    (tmp_path / "merge.yml").write_text("merge_method: linear\nmodels:\n- model: ann\n- model: bob\n")
    method = Mergekit(build(Options, {"config": str(tmp_path / "merge.yml"), "search": ["models.1.model"]}))
    assert method.needs().problems(list(pool_of(folder).pool)) == [
        f"option search: models.1.model: no number, but 'bob' ({tmp_path / 'merge.yml'}, line 4: models[1].model)"
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"search": ["a.b", {"path": "a.b"}]}, "search: a.b is named twice"),
        ({"search": [{"path": "a", "values": [1]}], "optimizer": "swarm"}, "search: a: a swarm moves between low and high"),
        ({"search": [{"path": "a", "low": 1}]}, "a: low must be below high, got 1 and 1"),
        ({"search": [{"path": "a", "steps": 1}]}, "search[0].steps: expected int >= 2, got 1"),
        ({"search": [{"low": 1}]}, "path"),
    ],
)
def test_searches_that_cannot_be_are_refused(options, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        build(Options, options)
