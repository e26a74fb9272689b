"""Systems as members of systems: what they say, what they cost, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import ConfigError, Needs, Question, cli
from moco_core.api import fitted
from moco_core.catalogue import installed
from moco_core.options import build
from moco_core.runs.records import read_records
from moco_pool_systems.options import Options
from moco_pool_systems.pool import SystemsPool
from moco_toolkit_authoring import open_state, run_checks
from moco_toolkit_authoring.scripted import SCRIPTED_CAPABILITIES

VOTE: dict[str, Any] = {"name": "majority_vote", "tie": "order"}
DEBATE: dict[str, Any] = {"name": "multiagent_refine", "rounds": 1, "summarizer": "vote"}


def over(*models: str) -> dict[str, Any]:
    return {"name": "said", "models": list(models)}


def systems(*entries: Any) -> dict[str, Any]:
    return {"name": "systems", "systems": list(entries)}


def mixed(*pools: Any, **options: Any) -> dict[str, Any]:
    return {"name": "mixed", "pools": list(pools), **options}


def pool_of(*entries: Any) -> SystemsPool:
    return SystemsPool(build(Options, {"systems": list(entries)}, plugins=installed()))


def replies(run: Any) -> list[str]:
    return [row["reply"]["text"] for row in read_records(run.folder)]


def tokens(run: Any) -> tuple[int, int]:
    return run.usage.prompt_tokens, run.usage.completion_tokens


def test_conformance(said: Any) -> None:
    vote = {"method": VOTE, "pool": over("a", "b", "c")}
    refine = {"method": DEBATE, "pool": over("a", "b"), "name": "debate"}
    results = run_checks("pool", "systems", settings=[{"systems": [vote, refine, vote]}], catalogue=installed())
    assert not [(r.name, r.message) for r in results if not r.ok]


# ---------------------------------------------------------------- what they say


def test_a_saved_system_says_as_a_member_what_it_says_alone(run: Any) -> None:
    vote = run(over("a", "b", "c"), VOTE)["majority_vote"]
    member = run(systems(str(vote.folder)))["majority_vote"]
    assert replies(member) == replies(vote) and member.folder != vote.folder


def test_a_vote_over_systems_of_one_model_is_the_vote_over_the_models(run: Any, said: Any) -> None:
    """Greedily and sampled: each such system is its model, down to the seeds of its calls."""
    for sampling in ({"temperature": 0.0}, {"temperature": 1.0}):
        flat = run(over("a", "b", "c"), VOTE, sampling=sampling, out=f"flat{sampling['temperature']}")
        singles = [str(flat[name].folder) for name in "abc"]
        asked = len(said)
        nested = run(systems(*singles), VOTE, sampling=sampling, baselines=False, out="nested")["majority_vote"]
        assert replies(nested) == replies(flat["majority_vote"]) and tokens(nested) == tokens(flat["majority_vote"])
        assert len(said) == asked  # every call of the nested vote is one that was made before


def test_votes_of_one_are_transparent_in_a_vote(run: Any) -> None:
    """A vote over one model is that model's reply, so a vote over three such votes is the vote over the three models."""
    flat = run(over("a", "b", "c"), VOTE, baselines=False)["majority_vote"]
    ones = [{"method": VOTE, "pool": over(name), "name": f"only {name}"} for name in "abc"]
    nested = run(systems(*ones), VOTE, baselines=False, out="nested")["majority_vote"]
    assert replies(nested) == replies(flat) and tokens(nested) == tokens(flat)


def test_a_cascade_whose_strong_level_is_a_debate_of_three(run: Any, said: Any) -> None:
    debate = {"method": DEBATE, "pool": over("a", "b", "c"), "name": "debate"}
    pool = mixed(over("weak"), systems(debate), order=["weak", "debate"])
    defer = {"name": "cascade", "select": "fixed", "confidence": "agreement", "thresholds": 1.0}
    cascade = run(pool, defer, baselines=False)["cascade"]
    alone = run(over("a", "b", "c"), DEBATE, baselines=False, out="alone")
    strong = replies(alone["multiagent_refine"])
    deep = [row["reply"]["meta"]["model"] == "debate" for row in read_records(cascade.folder)]
    assert any(deep)
    assert [r for r, d in zip(replies(cascade), deep, strict=True) if d] == [
        r for r, d in zip(strong, deep, strict=True) if d
    ]


def test_a_vote_over_two_routers_and_a_plain_model(run: Any) -> None:
    routers = [
        {"method": "prompt_routing", "pool": over("a", "b"), "dataset": "skills", "dev": 4, "name": "router one"},
        {"method": "prompt_routing", "pool": over("b", "c"), "dataset": "skills", "dev": 4, "name": "router two"},
    ]
    pool = mixed(systems(*routers), over("plain"))
    results = run(pool, VOTE)
    for row in read_records(results["majority_vote"].folder):
        votes = {v["model"] for v in row["reply"]["meta"]["votes"]}
        assert votes == {"router one", "router two", "plain"}
        assert row["reply"]["text"].startswith("I am ")
    assert set(results) == {"majority_vote", "router one", "router two", "plain"}


def test_three_levels_deep_cost_what_their_models_cost(run: Any, said: Any) -> None:
    inner = {"method": VOTE, "pool": over("a", "b", "c"), "name": "inner"}
    middle = {"method": VOTE, "pool": mixed(systems(inner), over("d")), "name": "middle"}
    outer = run(mixed(systems(middle), over("e")), VOTE, baselines=False)["majority_vote"]
    every, say = said.history, said.say
    assert {c.model for c in every} == set("abcde")
    read = sum(len(c.transcript.split()) for c in every)
    assert outer.usage.prompt_tokens == read
    money = sum(row["money"] for row in outer.costs["respond"].values())
    expected = sum(len(c.transcript.split()) * 1.0 + len(say(c).split()) * 2.0 for c in every) / 1e6
    assert money == pytest.approx(expected, abs=1e-9)
    assert not any(row["unpriced"] or row["untimed"] for row in outer.costs["respond"].values())


def test_what_was_asked_before_costs_the_same_and_asks_nobody(run: Any, said: Any) -> None:
    pool = systems({"method": VOTE, "pool": over("a", "b", "c")}, {"method": VOTE, "pool": over("d")})
    first = run(pool, VOTE, baselines=False)["majority_vote"]
    asked = len(said)
    again = run(pool, VOTE, baselines=False, out="again")["majority_vote"]
    assert len(said) == asked and replies(again) == replies(first)
    assert again.costs["respond"].keys() == first.costs["respond"].keys()
    for model, row in first.costs["respond"].items():
        other = again.costs["respond"][model]
        assert [other[k] for k in ("prompt", "completion", "money")] == [
            row[k] for k in ("prompt", "completion", "money")
        ]
        assert other["seconds"] == pytest.approx(row["seconds"])


def test_calls_of_all_questions_reach_the_models_in_one_batch(run: Any, said: Any) -> None:
    pool = systems({"method": VOTE, "pool": over("a", "b", "c")})
    run(pool, test=6, dev=0)
    assert said.batches == [6, 6, 6]


def test_a_question_that_is_given_up_frees_the_calls_of_its_members(said: Any) -> None:
    """Only what an engine has begun goes on: the calls behind it, and the system's own, are withdrawn."""
    (model,) = pool_of({"method": VOTE, "pool": over("a", "b", "c")}).models()
    (engine,) = said.engines
    engine.faults.hang = True

    async def work() -> list[str]:
        async with open_state() as state:
            task = asyncio.create_task(state.context("respond").generate(model, "hello"))
            while not engine.hanging:
                await asyncio.sleep(0.001)
            assert len(state.scheduler._pending) == 4  # the system's call and those of its three models
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(0.05)
            return [call.model.name for call in state.scheduler._pending]

    (begun,) = asyncio.run(asyncio.wait_for(work(), 30))
    assert begun in "abc"


# ---------------------------------------------------------------- what they can


def test_a_system_that_is_one_model_keeps_all_that_the_model_can(run: Any) -> None:
    flat = run(over("a", "b"), dev=0)
    single, vote = pool_of(str(flat["a"].folder), {"method": VOTE, "pool": over("a", "b")}).models()
    assert single.capabilities == SCRIPTED_CAPABILITIES > {"score", "logprobs"}
    assert vote.capabilities == frozenset({"generate", "question"})
    assert Needs(capabilities={"score"}).problems([single]) == []
    (problem,) = Needs(capabilities={"score"}).problems([vote])
    assert "cannot score given continuations" in problem


@pytest.mark.slow
def test_a_merged_system_keeps_its_scores_steps_and_weights(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    pool = {"name": "tiny", "models": ["base", "arithmetic", "facts"]}
    merging = {"name": "dare_ties", "base": "base"}
    merged = moco.run(pool=pool, method=merging, dataset="skills", dev=0, test=2, baselines=False).runs[0]
    (member,) = pool_of(str(merged.folder)).models()
    assert {"score", "step", "weights", "logprobs"} <= member.capabilities and member.recipe is not None
    nested = moco.run(pool=systems(str(merged.folder)), dataset="skills", dev=0, test=2, out="nested").runs[0]
    assert replies(nested) == replies(merged)
    question = Question(id="q", prompt="What is 2 plus 3?")

    async def scores() -> Any:
        async with fitted(
            *_plugins("majority_vote", systems(str(merged.folder)), "exact_match"), cache=tmp_path / "c.sqlite"
        ) as opened:
            state = opened.runtime.state(opened.parts.metric)
            return await state.context("fit").score(opened.parts.pool[0], question, ["5", "6"])

    five, six = asyncio.run(scores())
    assert five.logprob < 0 and six.logprob < 0 and five.logprob != six.logprob


def _plugins(method: str, pool: Any, metric: str) -> list[Any]:
    from moco_core.config import plugin_of

    known = installed()
    return [plugin_of(known, k, v, k) for k, v in (("method", method), ("pool", pool), ("metric", metric))]


def test_conversations_reach_the_members(run: Any, said: Any) -> None:
    """A debate of systems shows each what the others said: as a conversation that ends with the user."""
    ones = [{"method": VOTE, "pool": over(name), "name": name.upper()} for name in "ab"]
    results = run(systems(*ones), DEBATE, test=2, dev=0, baselines=False)
    assert all("I am " in text for text in replies(results["multiagent_refine"]))
    assert any("I am b" in c.transcript for c in said.history if c.model == "a")


# ---------------------------------------------------------------- fingerprints


def test_fingerprints_tell_apart_what_decides_a_reply(run: Any) -> None:
    def marks(*entries: Any) -> list[str]:
        return [m.fingerprint for m in pool_of(*entries).models()]

    base = {"method": VOTE, "pool": over("a", "b")}
    one, two = pool_of(base, {**base, "name": "again"}).models()
    assert one.fingerprint == two.fingerprint and (one.copy, two.copy) == (0, 1)
    others = [
        {**base, "pool": over("b", "a")},
        {**base, "seed": 1},
        {**base, "method": {**VOTE, "samples": 2}},
        {**base, "dataset": "skills"},
        {**base, "dataset": "skills", "dev": 7},
        {**base, "metric": "exact_match", "dataset": {"name": "skills", "seed": 3}},
        {**base, "sampling": {"temperature": 0.5}},
    ]
    assert len({*marks(base, *others)}) == len(others) + 1
    assert marks({**base, "description": "good at sums"}) == marks(base)  # what others are told about it
    fits = run(over("a", "b"), {"name": "majority_vote", "label": "x"}, {"name": "majority_vote", "weights": "dev"})
    assert len({*marks(*(str(fits[label].folder) for label in ("x", "majority_vote")))}) == 2


# ---------------------------------------------------------------- bad input


def refused(*entries: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        pool_of(*entries).models()
    return str(caught.value)


def test_a_cycle_is_refused_by_name(run: Any) -> None:
    first = run(over("a", "b"), VOTE, baselines=False)["majority_vote"].folder
    second = run(systems(str(first)), VOTE, baselines=False, out="second")["majority_vote"].folder
    file = first / "system" / "system.json"
    body = json.loads(file.read_text())
    file.write_text(json.dumps({**body, "pool": systems(str(second))}))
    chain = f"{first.name} is made of {second.name} is made of {first.name}"
    assert f"a system cannot be made of itself: {chain}" in refused(str(first))
    file.write_text(json.dumps({**body, "pool": systems(str(first))}))
    assert f"made of itself: {first.name} is made of {first.name}" in refused(str(first))


def test_what_is_wrong_is_told_for_all_entries_at_once(run: Any, tmp_path: Path) -> None:
    vote = run(over("a", "b"), VOTE, baselines=False)["majority_vote"].folder
    file = vote / "system" / "system.json"
    body = json.loads(file.read_text())
    file.write_text(json.dumps({**body, "pool": {"name": "gone"}}))
    first, second = refused("no/such/run", str(vote)).splitlines()
    assert (
        first
        == "systems[0] (no/such/run): no/such/run: no saved system here (system/system.json); run the method first"
    )
    assert second.startswith(f"systems[1] ({vote}): no pool 'gone' is installed")
    debate = {"method": "cascade", "pool": over("a")}
    assert "systems[0] (cascade): method 'cascade': needs at least 2 models, the pool has 1" in refused(debate)
    same = {"method": VOTE, "pool": over("a"), "name": "x"}
    assert "two are called 'x'" in refused(same, same)


def test_wrong_options_are_one_line_each(said: Any) -> None:
    for entry, line in (
        ({}, "systems[0].run: give a run folder, or a method and its pool"),
        ({"run": "x", "method": "cascade"}, "systems[0].run: give a run folder, or a method and its pool"),
        ({"run": "x", "pool": "tiny"}, "systems[0].pool: a saved system has its own; leave it out"),
        ({"method": "cascade"}, "systems[0].pool: missing; name the models of the method"),
        ({"method": "cascad", "pool": "said"}, "systems[0].method: no method 'cascad' is installed, did you mean"),
        ({"method": "cascade", "poool": "said"}, "systems[0].poool: unknown key, did you mean 'pool'?"),
    ):
        with pytest.raises(ConfigError) as caught:
            pool_of(entry)
        assert line in str(caught.value)
    with pytest.raises(ConfigError, match="systems: empty"):
        pool_of()


def test_a_folder_that_is_no_run_ends_the_command_before_anybody_is_asked(said: Any, capsys: Any) -> None:
    code = cli._run(
        ["run", "majority_vote", "-d", "skills", "-p", "systems", "-o", 'pool.systems=["no/such/run"]', "--test", "2"]
    )
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and "no/such/run: no saved system here" in err
    assert not len(said)


def test_what_a_system_cannot_do_is_one_line(said: Any) -> None:
    (model,) = pool_of({"method": VOTE, "pool": over("a")}).models()

    async def ask(*prompt: Any, **how: Any) -> str:
        async with open_state() as state:
            try:
                await state.context("respond").generate(model, *prompt, **how)
            except moco.ModelCallError as error:
                return str(error)
            return ""

    assert "does not continue raw text" in asyncio.run(ask("once upon", raw=True))
    begun = [moco.Message("user", "Say it."), moco.Message("assistant", "It is")]
    assert "does not continue a begun reply" in asyncio.run(ask(begun))
