"""What is sent while a reply is written: its beginning, whoever writes it, and never anything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from moco_command_serve.growing import Growing
from moco_core import ModelCallError, Pool, Sampling
from moco_toolkit_authoring.scripted import ScriptedPool

from .conftest import Telling, events, grown, say


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was told of replies before they were whole."""
    heard: list[str] = []
    tell = Growing.tell

    def listen(growing: Growing, index: int, text: str) -> None:
        heard.append(text)
        tell(growing, index, text)

    monkeypatch.setattr(Growing, "tell", listen)
    yield heard


def stream_and_whole(server: Any, text: str, model: str = "", **more: Any) -> tuple[str, str, list[Any]]:
    """Return the text of a stream, that of the same question asked at once, and the events of the stream."""
    got = events(server.chat(text, model=model, stream=True, **more).text)
    whole = server.chat(text, model=model, **more).json()["choices"][0]["message"]["content"]
    return "".join(grown(got)), whole, got


def route(call: Any) -> str:
    """Route to the second candidate, and answer like everybody else."""
    return "2" if "2" in call.prompt and "describe" not in call.prompt and call.prompt.count("\n") > 2 else say(call)


ROUTER = {"name": "prompt_routing", "router": 0, "decode": "generate", "model_descriptions": ["one", "two", "three"]}
CASCADE = {"name": "cascade", "select": "fixed", "confidence": "chow_sum"}


@pytest.mark.parametrize("method", [ROUTER, {**CASCADE, "thresholds": 9.0}], ids=lambda method: method["name"])
def test_a_method_whose_last_step_is_one_model_streams_what_that_model_writes(
    method: Any, serve: Any, told: list[str]
) -> None:
    source = ScriptedPool(dict.fromkeys("abc", route), engine=Telling())
    with serve(method, source) as server:
        text, whole, got = stream_and_whole(server, "hi")
    assert text == whole and len(grown(got)) > 1 and len(told) > 3
    assert all(whole.startswith(beginning) for beginning in told)


def test_levels_of_a_cascade_that_may_be_refused_are_not_told(serve: Any, told: list[str]) -> None:
    method = {**CASCADE, "thresholds": -1e9}
    source = ScriptedPool(dict.fromkeys("abc", say), engine=Telling())
    with serve(method, source) as server:
        text, whole, _ = stream_and_whole(server, "hi")
    assert text == whole and not told


def test_a_router_whose_choice_breaks_off_ends_the_stream_and_passes_nothing_else_off(serve: Any) -> None:
    class Breaking(Telling):
        def answer(self, call: Any) -> Any:
            result = super().answer(call)
            if call.tell is not None and call.model.name == "b":
                raise ModelCallError("b: the connection was lost")
            return result

    with serve(ROUTER, ScriptedPool(dict.fromkeys("abc", route), engine=Breaking())) as server:
        got = events(server.chat("hi", stream=True).text)
    assert got[-2]["error"]["code"] == "changed" and got[-1] == "DONE"


def test_a_system_within_the_pool_streams_what_its_own_method_tells(serve: Any, told: list[str]) -> None:
    from moco_core import Plugin
    from moco_core.catalogue import installed
    from moco_core.config import plugin_of
    from moco_pool_systems.pool import SystemsPool
    from moco_toolkit_authoring.harness import as_plugin

    source = ScriptedPool(dict.fromkeys("abc", route), engine=Telling())
    catalogue = installed()
    entry = {"name": "inner", "method": ROUTER, "pool": {"name": "tiny"}, "metric": {"name": "exact_match"}}
    section: Plugin = plugin_of(catalogue, "pool", {"name": "systems", "systems": [entry]}, "pool")
    options: Any = section.options
    (inner,) = options.systems
    nested = SystemsPool(attrs.evolve(options, systems=(attrs.evolve(inner, pool=as_plugin(source)),)))
    with serve({"name": "majority_vote", "tie": "order"}, Pool(nested.models())) as server:
        text, whole, got = stream_and_whole(server, "hi", model="inner")
    assert text == whole and len(grown(got)) > 1 and len(told) > 3


TOKENWISE: dict[str, dict[str, Any]] = {
    "logit_fusion": {},
    "logit_fusion of two vocabularies": {},
    "logit_contrastive": {"roles": "explicit", "experts": [0], "anti_experts": [1], "mode": "cd"},
    "nudging": {"nudge_tokens": 6, "base_chunk": 4},
    "nudging of two vocabularies": {"nudge_tokens": 6, "base_chunk": 4},
    "mentor_collab": {"decision_proportion": 50, "patch_size": 4},
    "mentor_collab of two vocabularies": {"decision_proportion": 50, "patch_size": 4},
    "switch_generation": {"choice": "random", "patch_size": 5},
    "switch_generation of two vocabularies": {"choice": "random", "patch_size": 5},
}


@pytest.fixture(scope="module")
def pools() -> dict[bool, Pool]:
    """Two small random models with one vocabulary, and with two."""
    from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, spaced_tokenizer, tiny_llama

    one, other = bpe_tokenizer(), spaced_tokenizer()
    found = {}
    for mixed in (False, True):
        engine, second = LocalEngine(), other if mixed else one
        found[mixed] = Pool([engine.add("a", tiny_llama(one, 1), one), engine.add("b", tiny_llama(second, 4), second)])
    return found


@pytest.mark.parametrize("case", TOKENWISE)
def test_a_method_that_works_token_by_token_streams_what_is_chosen(
    case: str, serve: Any, told: list[str], pools: dict[bool, Pool]
) -> None:
    name, _, mixed = case.partition(" of ")
    grew = set()
    with serve({"name": name, **TOKENWISE[case]}, pools[bool(mixed)], sampling=Sampling(max_new_tokens=24)) as server:
        for prompt, stops in (("the quick brown fox", []), ("rivers", ["e"]), ("and", ["th", "\n\n"])):
            more: dict[str, Any] = {"stop": stops} if stops else {}
            text, whole, _ = stream_and_whole(server, prompt, **more)
            assert text == whole and all(whole.startswith(beginning) for beginning in told)
            grew |= set(told)
            told.clear()
    assert len(grew) > 2


def test_members_behind_a_server_are_streamed_as_it_sends_them(serve: Any, told: list[str], tmp_path: Any) -> None:
    from moco_core.options import build
    from moco_pool_openai.pool import OpenAIPool, Options
    from moco_pool_openai.testing import StubServer

    with StubServer(pace=0.01) as stub:
        given = {"models": ["alpha", "beta"], "base_url": stub.url, "cache": str(tmp_path / "known"), "api_key": "none"}
        source = OpenAIPool(build(Options, given))
        with serve({"name": "majority_vote", "tie": "order"}, Pool(source.models())) as server:
            text, whole, got = stream_and_whole(server, "hi", model="alpha")
            assert text == whole and len(grown(got)) > 1 and len(told) > 3
            more = {"temperature": 0.8, "n": 2, "seed": 3}
            got = events(server.chat("hi", model="alpha", stream=True, **more).text)
            plain = server.chat("hi", model="alpha", **more).json()
    assert ["".join(grown(got, i)) for i in (0, 1)] == [c["message"]["content"] for c in plain["choices"]]
    assert got[-2]["moco"]["usage"] == plain["moco"]["usage"]
