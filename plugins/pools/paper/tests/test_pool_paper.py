"""The presets, what is unconfirmed about them, and the engine's own pool behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from moco_core import PoolSource, option
from moco_core.catalogue import Catalogue, installed
from moco_core.errors import ConfigError
from moco_core.options import build
from moco_pool_paper import Options, PaperPool
from moco_toolkit_authoring import run_checks

pytest.importorskip("moco_pool_openai", reason="the pool openai is not installed")
from moco_pool_openai.testing import StubServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with StubServer() as stub:
        yield stub


def pool(**options: Any) -> PaperPool:
    return PaperPool(build(Options, options, plugins=installed()))


def engine(server: StubServer, **options: Any) -> dict[str, Any]:
    return {"name": "openai", "base_url": server.url, "logprobs": "no", **options}


def test_conformance(server: StubServer) -> None:
    results = run_checks("pool", "paper", settings=[{"models": ["alpha", "beta"], "engine": engine(server)}])
    assert not [(r.name, r.message) for r in results if not r.ok]


# the study's appendix B and the README of its follow-up, re-typed
POOLS = {
    1: "bunsenfeng/yuru_qw_wizardlm bunsenfeng/yuru_qw_sharegpt bunsenfeng/yuru_qw_oasst1",
    2: "Qwen/Qwen2.5-7B-Instruct meta-llama/Llama-3.1-8B-Instruct allenai/Olmo-3-7B-Instruct",
    "scaling": """
        chtmp223/Qwen2.5-7B-CLIPPER chengq9/ToolRL-Qwen2.5-3B AgentFlow/agentflow-planner-7b
        Nanami/Ladder-last16L-llama3.1-8binstruct-sft4k-stage2v03-bsize32-rkl8b viswavi/qwen2.5_rlcf
        milli19/promptmii-llama-3.1-8b-instruct Zhengping/conditional-probability-regression
        yale-nlp/MDCure-Qwen2-7B-Instruct GritLM/GritLM-7B lime-nlp/Qwen2.5-7B-Instruct-SUM10
        geyang627/care-chinese-gemma2-9b bespokelabs/Bespoke-Stratos-7B
        kangdawei/Llama-3.1-8B-Instruct-GenderNeutral-Finetuned DeepRetrieval/DeepRetrieval-PubMed-3B-Llama
        yale-nlp/MDCure-Qwen2-1.5B-Instruct Zhaoxuan/PUGC-Mistral-DPO""",
    "evolution-1": "bunsenfeng/yuru_qw_wizardlm bunsenfeng/yuru_qw_sharegpt bunsenfeng/yuru_qw_oasst1",
    "evolution-2": """
        Qwen/Qwen2.5-7B-Instruct meta-llama/Llama-3.1-8B-Instruct deepseek-ai/DeepSeek-R1-Distill-Qwen-7B""",
}


@pytest.mark.parametrize("name", POOLS)
def test_presets_are_the_studys_models_in_the_studys_order(name: int | str, server: StubServer) -> None:
    ids = POOLS[name].split()
    source = pool(preset=name, engine=engine(server))
    assert [e.model for e in source.entries] == ids and all(e.license for e in source.entries)
    models = source.models()
    assert [m.name for m in models] == [i.rpartition("/")[2] for i in ids]
    assert [m.description for m in models] == [e.description for e in source.entries]


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_the_scaling_study_takes_the_first_n(count: int, server: StubServer) -> None:
    source = pool(preset="scaling", first=count, engine=engine(server))
    assert [e.model for e in source.entries] == POOLS["scaling"].split()[:count]


def test_what_is_unconfirmed_is_recorded_and_told_where_the_id_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    doubtful = {e.model for name in POOLS for e in pool(preset=name, engine="openai").entries if e.unconfirmed}
    assert doubtful == {
        "allenai/Olmo-3-7B-Instruct",
        "Nanami/Ladder-last16L-llama3.1-8binstruct-sft4k-stage2v03-bsize32-rkl8b",
        "lime-nlp/Qwen2.5-7B-Instruct-SUM10",
        "kangdawei/Llama-3.1-8B-Instruct-GenderNeutral-Finetuned",
    }

    class Refusing(PoolSource[Any]):
        @attrs.frozen(kw_only=True)
        class Options:
            models: tuple[Any, ...] = option()

        def models(self) -> list[Any]:
            raise ConfigError([f"models[{i}]: the Hub has no {m['model']}" for i, m in enumerate(self.options.models)])

    known = Catalogue({}, [])
    known.register(Refusing, "refusing")
    source = PaperPool(build(Options, {"preset": 2, "engine": "refusing"}, plugins=known))
    with pytest.raises(ConfigError) as caught:
        source.models()
    first, _, last = caught.value.problems
    assert first == "models[0]: the Hub has no Qwen/Qwen2.5-7B-Instruct"
    assert (
        "the Hub has no allenai/Olmo-3-7B-Instruct (preset 2 of pool paper has allenai/Olmo-3-7B-Instruct, unc" in last
    )
    assert "letter case and separators" in last and "name the right id with models" in last


def test_models_and_options_reach_the_engine(server: StubServer) -> None:
    entries = [{"model": "beta", "description": "writes", "license": "Apache-2.0"}, "alpha"]
    source = pool(models=entries, engine=engine(server, rpm=60.0))
    models = source.models()
    assert [m.name for m in models] == ["beta", "alpha"] and models[0].description == "writes"
    assert source.source.options.rpm == 60.0


def test_bad_input() -> None:
    def lines(**options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            pool(**options).models()
        return str(caught.value)

    assert "engine.rpmm: unknown key, did you mean 'rpm'?" in lines(models=["a"], engine={"name": "openai", "rpmm": 1})
    assert "engine.models: is set by the options around it" in lines(engine={"name": "openai", "models": ["a"]})
    assert "preset: expected one of 1, 2, scaling, evolution-1, evolution-2" in lines(preset=3)
    assert "engine: no pool 'vlm' is installed" in lines(engine="vlm")
    assert "first: the preset 2 has 3 models, got 4" in lines(preset=2, first=4)
    assert "first: not used with models" in lines(models=["a"], first=1)


def test_without_an_engine_it_takes_what_is_installed_and_usable() -> None:
    with pytest.raises(ConfigError, match="engine: no engine is installed; pip install moco-pool-transformers"):
        build(Options, {}, plugins=Catalogue({}, []))
    with pytest.raises(ConfigError, match="engine: missing; name the pool that runs the models"):
        PaperPool(Options()).models()

    @attrs.frozen(kw_only=True)
    class Openai(PoolSource[Any]):
        def models(self) -> list[Any]:
            return []

    known = Catalogue({}, [])
    for name in ("openai", "tiny"):
        known.register(Openai, name)
    pytest.importorskip("openai", reason="the package openai is not installed")
    assert (chosen := build(Options, {}, plugins=known).engine) is not None and chosen.name == "openai"
