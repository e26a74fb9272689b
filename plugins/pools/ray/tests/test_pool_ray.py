"""Another pool's models on a cluster of this machine: what they say, where they sit, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import ray
from ray_helpers import calls_in

from moco_core import Message, Needs, Question, cli
from moco_core.catalogue import installed
from moco_core.errors import CapabilityError, ConfigError, PoolError
from moco_core.models import Pool
from moco_core.runtime.cache import Cache
from moco_core.types import Sampling
from moco_toolkit_authoring import open_state, run_checks

QUESTIONS = [
    Question(id=f"q{i}", prompt=text) for i, text in enumerate(("What is 3 plus 4?", "State the town that Quin has."))
]
GREEDY = Sampling(max_new_tokens=6)
HOT = Sampling(temperature=0.8, max_new_tokens=6)


def rows(cache: Cache) -> list[tuple[Any, ...]]:
    return sorted(cache.execute("SELECT key, model, kind, input, params, seed, value FROM calls"))


async def everything(models: Any, cache: Cache) -> list[Any]:
    """Ask models for all that needs no inside: sampled and greedy text, scores, embeddings."""
    async with open_state(cache=cache, sampling=HOT, seed=3) as state:
        calls: list[Any] = []
        for model in models:
            for question in QUESTIONS:
                context = state.context("respond", question)
                calls += [context.generate(model, question), context.generate(model, question)]
                calls += [context.generate(model, question, Sampling(max_new_tokens=6))]
                calls += [context.score(model, question, ["7", "the number eleven"])]
            calls.append(state.context("fit").embed(model, ["one", "something longer"]))
        return list(await asyncio.gather(*calls))


def test_replies_scores_embeddings_and_keys_are_those_of_the_inner_pool_bit_for_bit(cluster, source) -> None:
    pytest.importorskip("moco_pool_tiny", reason="the pool tiny is not installed")
    inner = {"name": "tiny", "models": ["arithmetic", "letters"]}
    here, there = Cache(None), Cache(None)
    placed = source(inner, placement="together", address=cluster.address, memory=1.0)
    plain = asyncio.run(everything(placed.options.pool.make().models(), here))
    far = asyncio.run(everything(placed.models(), there))
    assert plain == far and any(reply.token_logprobs for reply in plain if hasattr(reply, "token_logprobs"))
    assert rows(here) == rows(there) and len(rows(here)) == 18
    assert {m.info["actor"] for m in placed.models()} == {0}


def test_conformance(cluster, scripted) -> None:
    settings = [{"pool": {"name": scripted, "names": ["a"]}, "address": cluster.address, "memory": 0.25}]
    results = run_checks("pool", "ray", settings=settings, catalogue=installed(), variants=2)
    failed = [(r.name, r.message) for r in results if not r.ok]
    assert not failed, failed


def test_rewards_and_submitted_calls_are_answered_and_replies_are_read_along(cluster, source, scripted) -> None:
    models = source({"name": scripted, "server": True}, address=cluster.address).models()
    inner = source({"name": scripted}, address=cluster.address).options.pool.instance.models()
    turns = (Message("user", "What is 2 + 3?"), Message("assistant", "5"))

    async def work(models: Any) -> list[Any]:
        async with open_state(sampling=HOT) as state:
            context = state.context("fit")
            values: list[Any] = [await context.reward(m, turns) for m in models]
            told: list[str] = []
            listening = attrs.evolve(state, on_reply=told.append).context("respond", Question(id="q", prompt="q"))
            reply = await listening.generate(models[0], "read along", tell=listening.tell)
            assert told and all(reply.text.startswith(beginning) for beginning in told)
            values.append(reply)
            return [*values, *(await context.gather(context.generate(m, "turn me") for m in models))]

    assert asyncio.run(work(models)) == asyncio.run(work(inner))


def test_a_model_is_trained_on_its_actor_and_the_trained_one_answers(cluster, source, scripted) -> None:
    pytest.importorskip("moco_toolkit_training", reason="needs the training toolkit")
    from moco_toolkit_training import Demonstration, Grpo, Sft, Task

    model, _ = source({"name": scripted}, address=cluster.address).models()
    rows = [Demonstration(messages=(Message("user", "What?"), Message("assistant", "That.")))]

    async def judge(completions: Any) -> list[float]:
        return [0.25] * len(completions)

    async def work() -> tuple[str, str, Any]:
        async with open_state(sampling=GREEDY) as state:
            notes: list[Any] = []
            context = attrs.evolve(state, on_note=lambda phase, data: notes.append(data)).context("fit")
            tuned = await context.train(model, Sft(rows=rows))
            await context.train(
                model, Grpo(rows=[Task(prompt=(Message("user", "Go"),))], judge=judge, judged_by="half")
            )
            said = [(await context.generate(m, "What?")).text for m in (model, tuned)]
            return said[0], said[1], notes

    before, after, notes = asyncio.run(work())
    assert (before, after) == ("?tahW", "That.")
    assert [n["reward"] for n in notes if "reward" in n] == [0.25]


def test_what_does_not_fit_is_asked_again_by_fewer(cluster, source, scripted, tmp_path) -> None:
    log = tmp_path / "log"
    models = source({"name": scripted, "names": ["a"], "most": 3, "log": str(log)}, address=cluster.address).models()

    async def work() -> list[Any]:
        async with open_state(sampling=GREEDY) as state:
            context = state.context("fit")
            return await context.gather(context.generate(models[0], f"prompt {i}") for i in range(16))

    assert [r.text for r in asyncio.run(work())] == [f"prompt {i}"[::-1] for i in range(16)]
    assert sorted(said for _, _, said in calls_in(log)) == sorted({said for _, _, said in calls_in(log)})


def test_models_of_several_actors_are_not_combined(cluster, source) -> None:
    pytest.importorskip("moco_pool_tiny", reason="the pool tiny is not installed")
    models = source({"name": "tiny", "models": ["arithmetic", "letters"]}, address=cluster.address).models()
    with pytest.raises(CapabilityError, match=r"\(arithmetic, letters\) live on 2 engines; put them on one engine"):
        Pool(models).derive("merged", None, models)  # type: ignore[arg-type]
    (problem,) = Needs(same_engine=True).problems(models)
    assert "do not share an engine" in problem


def test_a_plan_shows_actors_nodes_and_memory_and_loads_nothing(
    cluster, scripted, tmp_path, monkeypatch, capsys
) -> None:
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installed(), "_registered", {})
    section = {"name": scripted, "memory": 1 << 30, "log": "log"}
    given = ["-d", "skills", "--plugin", str(Path(__file__).parent / "ray_models.py"), "-p", "ray"]
    given += ["-o", f"pool.pool={json.dumps(section)}", "-o", f"pool.address={cluster.address}"]
    assert cli._run(["plan", "majority_vote", *given, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(e["engine"], e["actor"], e["node"], e["models"]) for e in plan["engines"]] == [
        ("ray", 0, "127.0.0.1", "a"),
        ("ray", 1, "127.0.0.1", "b"),
    ]
    assert all(e["needs"] == {"cpus": 1.0, "memory_gib": 2.0} for e in plan["engines"])
    # a gibibyte of weights, half as much and what a process takes; what no node has is one line for each actor
    assert cli._run(["run", "majority_vote", *given, "-o", "pool.gpus=8"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and not Path("log").exists() and err.count("\n") == 2, err
    assert "placement: the actor of a needs 1 cpus, 8 gpus, 2 GiB of memory; no node has that (" in err
    ray.shutdown()
    assert cli._run(["run", "majority_vote", *given[:-1], "pool.address=127.0.0.1:9"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "no Ray cluster at 127.0.0.1:9 (Connection refused); start one with" in err, err


def test_a_pool_that_differs_on_its_node_is_refused_before_a_call(cluster, source, scripted, tmp_path) -> None:
    placed = source({"name": scripted, "names": ["a"]}, address=cluster.address)
    fleet = placed.models()[0].engine.fleet
    fleet.specs = tuple(attrs.evolve(s, models=dict.fromkeys(s.models, "another")) for s in fleet.specs)

    async def work() -> None:
        async with open_state() as state:
            await state.context("fit").generate(placed.models()[0], "hello")

    with pytest.raises(PoolError, match="model 'a' is another one here than where the run is"):
        asyncio.run(work())


def test_keys_are_not_sent_and_nothing_that_was_asked_enters_a_log(cluster, source, scripted) -> None:
    with pytest.raises(
        ConfigError, match="api_key is not sent to other machines; give its key by an environment variable"
    ):
        source({"name": scripted, "api_key": "sk-very-secret"}).models()
    # nor is what looks like one
    given = {"name": scripted, "names": ["a"], "access_token": "sk-very-secret"}
    models = source(given, address=cluster.address).models()
    assert models[0].engine.fleet.specs[0].section["access_token"] == "***"

    async def work() -> None:
        async with open_state(sampling=GREEDY) as state:
            await state.context("fit").generate(models[0], "marmalade")

    asyncio.run(work())
    logs = [p for p in cluster.folder.rglob("*") if p.is_file() and "logs" in p.parts]
    assert len(logs) > 5
    for log in logs:
        said = log.read_bytes()
        assert b"sk-very-secret" not in said and b"marmalade" not in said and b"edalamram" not in said, log


@pytest.mark.slow  # loads tiny models three times
def test_steps_and_weights_are_those_of_the_inner_pool_where_an_actor_has_all_models(cluster, source) -> None:
    """Fused logits and merged weights, made on the actor; step sessions, led by the run."""
    decoding = pytest.importorskip("moco_toolkit_decoding", reason="needs the decoding toolkit")
    merging = pytest.importorskip("moco_toolkit_merging", reason="needs the merging toolkit")
    inner = {"name": "tiny", "models": ["arithmetic", "letters"]}
    placed = source(inner, placement="together", address=cluster.address, memory=1.0)

    async def work(models: Any) -> list[Any]:
        pool = Pool(models)
        async with open_state(sampling=GREEDY) as state:
            context = state.context("respond", QUESTIONS[0])
            merge = merging.Merge.weights(merging.Linear(coefficients=(0.5, 0.5)), models)
            fused = pool.derive("fused", decoding.JointRecipe.of(decoding.Mix(weights=(0.5, 0.5)), models), models)
            said: list[Any] = [await context.generate(m, QUESTIONS[0]) for m in (merge.model(pool, "merged"), fused)]
            session_ = await decoding.open_step_session(context, models[0], QUESTIONS[0])
            for _ in range(3):
                seen = await session_.peek(k=3)
                said.append((seen.ids, seen.logprobs))
                session_.append_tokens(seen.ids[:1])
            return [*said, session_.text]

    assert asyncio.run(work(placed.models())) == asyncio.run(work(placed.options.pool.make().models()))
