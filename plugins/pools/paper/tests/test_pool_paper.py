"""The presets: nothing guessed, and the engine's own pool behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moco_core.errors import ConfigError
from moco_core.options import build
from moco_pool_paper import Options, PaperPool, preset
from moco_toolkit_authoring import run_checks

pytest.importorskip("moco_pool_openai", reason="the pool openai is not installed")
from moco_pool_openai.testing import StubServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with StubServer() as stub:
        yield stub


def pool(**options: Any) -> PaperPool:
    return PaperPool(build(Options, options))


def test_conformance(server: StubServer) -> None:
    given = {
        "models": ["alpha", "beta"],
        "engine": "openai",
        "engine_options": {"base_url": server.url, "logprobs": "no"},
    }
    results = run_checks("pool", "paper", settings=[given])
    assert not [(r.name, r.message) for r in results if not r.ok]


@pytest.mark.parametrize("number", [1, 2])
def test_a_preset_without_models_says_so(number: int) -> None:
    """The day somebody records the models, this test is to be replaced by one of their number and order."""
    assert preset(number)["models"] is None
    with pytest.raises(ConfigError, match=f"the models of pool {number} are not recorded"):
        pool(preset=number).models()


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        (
            "evolution-1",
            ["bunsenfeng/yuru_qw_wizardlm", "bunsenfeng/yuru_qw_sharegpt", "bunsenfeng/yuru_qw_oasst1"],
        ),
        (
            "evolution-2",
            [
                "Qwen/Qwen2.5-7B-Instruct",
                "meta-llama/Llama-3.1-8B-Instruct",
                "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
            ],
        ),
    ],
)
def test_recorded_presets_are_those_of_the_authors_readme(name: str, ids: list[str], server: StubServer) -> None:
    source = pool(preset=name, engine="openai", engine_options={"base_url": server.url})
    assert [e.model for e in source.entries] == ids and all(e.description and e.license for e in source.entries)
    models = source.models()
    assert [m.name for m in models] == [i.rpartition("/")[2] for i in ids]
    assert [m.description for m in models] == [e.description for e in source.entries]


def test_models_and_options_reach_the_engine(server: StubServer) -> None:
    entries = [{"model": "beta", "description": "writes", "license": "Apache-2.0"}, "alpha"]
    source = pool(models=entries, engine="openai", engine_options={"base_url": server.url, "rpm": 60.0})
    models = source.models()
    assert [m.name for m in models] == ["beta", "alpha"] and models[0].description == "writes"
    assert source.source.options.rpm == 60.0


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"engine_options.rpmm: unknown key"):
        pool(models=["a"], engine="openai", engine_options={"rpmm": 1}).models()
    with pytest.raises(ConfigError, match="preset: expected one of 1, 2, evolution-1, evolution-2"):
        pool(preset=3)
    with pytest.raises(ConfigError, match="the pool vllm is not installed; pip install moco-pool-vllm"):
        pool(models=["a"], engine="vllm")._engine({"openai"})
    with pytest.raises(ConfigError, match="no engine is installed"):
        pool(models=["a"])._engine(set())
    assert pool(models=["a"])._engine({"openai", "tiny"}) == "openai"
