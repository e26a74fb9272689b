"""A mixed pool of two kinds of engine, over a small server and over scripted models."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from moco_core import cli
from moco_core.catalogue import Catalogue, installed
from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Model, Needs, Pool, PoolSource
from moco_core.options import build
from moco_core.types import Sampling
from moco_pool_mixed import MixedPool, Options
from moco_toolkit_authoring import open_state, run_checks, scripted_model

pytest.importorskip("moco_pool_openai", reason="the pool openai is not installed")
from moco_pool_openai.testing import StubServer


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[StubServer, StubServer]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with StubServer(["alpha", "beta"]) as one, StubServer(["alpha", "gamma"]) as two:
        yield one, two


def section(server: StubServer, *models: Any, **options: Any) -> dict[str, Any]:
    return {"name": "openai", "base_url": server.url, "models": list(models), "logprobs": "no", **options}


def mixed(*sections: dict[str, Any], **options: Any) -> MixedPool:
    return MixedPool(build(Options, {"pools": list(sections), **options}, plugins=installed()))


def test_conformance(servers: tuple[StubServer, StubServer]) -> None:
    one, two = servers
    sections = [section(one, "alpha", "beta"), section(two, "alpha", logprobs="yes", prefix="far-")]
    results = run_checks("pool", "mixed", settings=[{"pools": sections, "order": ["far-alpha", "beta", "alpha"]}])
    assert not [(r.name, r.message) for r in results if not r.ok]


def test_names_capabilities_and_order(servers: tuple[StubServer, StubServer]) -> None:
    one, two = servers
    both = (section(one, "alpha", "beta"), section(two, "alpha", "gamma", logprobs="yes"))
    models = mixed(*both).models()
    assert [m.name for m in models] == ["openai0-alpha", "beta", "openai1-alpha", "gamma"]
    assert [m.can("logprobs") for m in models] == [False, False, True, True]
    assert len({id(m.engine) for m in models}) == 2 and len({m.fingerprint for m in models}) == 4
    order = ["gamma", "openai0-alpha", "openai1-alpha", "beta"]
    assert [m.name for m in mixed(*both, order=order).models()] == order
    # what a method needs is checked model by model
    needs = Needs(roles={0: frozenset({"logprobs"})})
    assert needs.problems(mixed(*both, order=order).models()) == []
    (problem,) = needs.problems(models)
    assert "openai0-alpha" in problem and "logprobs" in problem


class Planned(PoolSource[Any]):
    """A pool that puts its one model on the emptier of two accelerators, as engines with memory of their own do."""

    @attrs.frozen(kw_only=True)
    class Options:
        model: str
        size: int

    def models(self) -> tuple[Model, ...]:
        device = min((0, 1), key=lambda i: self.beside.get(f"cuda:{i}", 0))
        return (
            scripted_model(self.options.model, "yes", memory=self.options.size, device_group=f"cuda:{device}, 90 %"),
        )


def test_pools_on_the_same_accelerators_are_planned_around_each_other() -> None:
    catalogue = Catalogue(os.environ)
    catalogue.register(Planned, "planned")
    sections = [{"name": "planned", "model": name, "size": size} for name, size in (("a", 10), ("b", 30), ("c", 5))]
    models = MixedPool(build(Options, {"pools": sections}, plugins=catalogue)).models()
    # each alone would take the first device; a leaves it to the other two, b then takes it, c joins the lighter one
    assert [(m.name, m.device_group) for m in models] == [
        ("a", "cuda:1, 90 %"),
        ("b", "cuda:0, 90 %"),
        ("c", "cuda:1, 90 %"),
    ]


def test_one_model_in_two_sections_is_two_copies(servers: tuple[StubServer, StubServer]) -> None:
    one, _ = servers
    models = mixed(section(one, "alpha"), section(one, "alpha")).models()
    assert models[0].fingerprint == models[1].fingerprint and [m.copy for m in models] == [0, 1]

    async def work() -> list[str]:
        async with open_state(sampling=Sampling(temperature=1.0, max_new_tokens=32)) as state:
            context = state.context("respond")
            return [(await context.generate(m, "hello")).text for m in models]

    texts = asyncio.run(work())
    assert texts[0] != texts[1]


def test_every_model_is_asked_where_it_lives(servers: tuple[StubServer, StubServer]) -> None:
    one, two = servers
    models = mixed(section(one, "beta"), section(two, "gamma")).models()

    async def work() -> None:
        async with open_state() as state:
            context = state.context("respond")
            await context.gather(context.generate(m, "hello") for m in models)

    asyncio.run(work())
    assert [r.body["model"] for r in one.requests] == ["beta"]
    assert [r.body["model"] for r in two.requests] == ["gamma"]
    with pytest.raises(CapabilityError, match="live on 2 engines"):
        Pool(models).derive("merged", None, models)  # type: ignore[arg-type]


def test_bad_input_names_the_section(servers: tuple[StubServer, StubServer]) -> None:
    one, _ = servers

    def line(*sections: dict[str, Any], **options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            mixed(*sections, **options).models()
        return str(caught.value)

    assert "pools: empty" in line()
    assert "pools[1].rpmm: unknown key, did you mean 'rpm'?" in line(
        section(one, "alpha"), section(one, "beta", rpmm=1)
    )
    assert "pools[0] (openai): models: empty" in line(section(one))
    assert "pools[0]: expected the name of a pool" in line({"models": ["a"]})
    inner = {"name": "mixed", "pools": [section(one, "alpha")]}
    assert "pools: number 0 is a mixed pool inside of a mixed pool" in line(inner)
    assert "pools[0].prefx: unknown key, did you mean 'prefix'?" in line(section(one, "alpha", prefx="far-"))
    assert "order: no model 'alpa'" in line(section(one, "alpha"), order=["alpa"])
    assert "order: 'beta' is missing" in line(section(one, "alpha", "beta"), order=["alpha"])
    same = (section(one, "alpha", prefix="openai1-"), section(one, "alpha"), section(one, "alpha"))
    assert "two models are called" in line(*same)


def test_what_is_wrong_with_one_section_is_known_before_another_is_asked(
    servers: tuple[StubServer, StubServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    one, _ = servers
    monkeypatch.chdir(tmp_path)
    near, far = section(one, "alpha"), {**section(one, "beta"), "base_url": "http://127.0.0.1:9/v1"}
    given = ["-p", "mixed", "-o", f"pool.pools={json.dumps([near, far])}", "--cache", str(tmp_path / "calls.sqlite")]
    code = cli._run(["run", "majority_vote", "-d", "skills", "--dev", "2", "--test", "4", *given])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1 and "no server at http://127.0.0.1:9/v1" in err, err
    assert not one.requests


PLUGIN = """
from moco_core import NoOptions
from moco_toolkit_authoring import ScriptedPool
from moco_core import PoolSource

class Mine(PoolSource):
    "Models of my own."
    def models(self):
        return list(ScriptedPool({"one": "1", "two": "2"}).pool)
"""


def test_a_pool_of_a_plugin_file_works_inside_a_mixed_pool(
    servers: tuple[StubServer, StubServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installed(), "_registered", {})
    Path("mine.py").write_text(PLUGIN)
    pools = json.dumps([section(servers[0], "alpha"), {"name": "mine", "prefix": "my-"}])
    given = ["-p", "mixed", "-d", "skills", "-o", f"pool.pools={pools}", "--plugin", "mine.py", "--json"]
    code = cli._run(["plan", "majority_vote", *given])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert [m["model"] for m in json.loads(out)["models"]] == ["alpha", "my-one", "my-two"]


def test_a_typo_in_a_nested_section_is_found_by_plan_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("week.yaml").write_text(
        "dataset: skills\nmethod: majority_vote\npool:\n  name: mixed\n  pools:\n    - name: openai\n"
        "      modles: [alpha]\n      api_key: sk-very-secret\n    - name: opnai\n"
    )
    assert cli._run(["plan", "week.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "sk-very-secret" not in err
    first, second = err.splitlines()[0], err.splitlines()[-1]
    assert first == "error: week.yaml: line 7: pool.pools[0].modles: unknown key, did you mean 'models'?"
    assert second.startswith(
        "error: week.yaml: line 9: pool.pools[1]: no pool 'opnai' is installed, did you mean 'openai'"
    )


def test_sections_of_local_models_load_at_the_same_time() -> None:
    """Each section is an engine with a thread of its own; what they load must not get into each other's way."""
    pytest.importorskip("moco_pool_tiny", reason="the pool tiny is not installed")
    names = ("arithmetic", "letters", "facts", "outsider")
    prompt, sampling = "State the town that Quin has.", Sampling(max_new_tokens=4)

    async def say(models: Any) -> list[str]:
        async with open_state(sampling=sampling) as state:
            context = state.context("respond")
            replies = await context.gather(context.generate(m, prompt) for m in models)
            return [r.text for r in replies]

    apart = mixed(*({"name": "tiny", "models": [name]} for name in names)).models()
    together = mixed({"name": "tiny", "models": list(names)}).models()
    assert asyncio.run(say(apart)) == asyncio.run(say(together))
