"""The clients that people use, each against a server: what they get is what the system says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from moco_core import Question, Sampling, cli
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool

from .conftest import answers, events, open_system, say

VOTE = {"name": "majority_vote", "tie": "order"}
PROMPTS = [f"Question {i}: what is {i} times {i + 3}? ünïcode 🙂" for i in range(100)]
SAMPLING = Sampling(max_new_tokens=64)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: Any) -> list[Any]:
    """What the system says to every prompt when it is asked directly."""
    source = ScriptedPool(dict.fromkeys("abc", say))
    opened = open_system(VOTE, source, tmp_path_factory.mktemp("alone"), sampling=SAMPLING)
    return answers(opened, [Question(id="ask-0", prompt=p) for p in PROMPTS])


def used(asked: Any) -> tuple[int, int]:
    return sum(c.usage.prompt_tokens for c in asked.calls), sum(c.usage.completion_tokens for c in asked.calls)


def test_a_hundred_questions_through_the_openai_client(serve: Any, alone: list[Any]) -> None:
    openai = pytest.importorskip("openai")
    with serve(VOTE) as server:

        async def work() -> list[Any]:
            async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
                return await asyncio.gather(
                    *(
                        client.chat.completions.create(model="system", messages=[{"role": "user", "content": p}])
                        for p in PROMPTS
                    )
                )

        got = asyncio.run(work())
    assert [g.choices[0].message.content.encode() for g in got] == [a.text.encode() for a in alone]
    assert [(g.usage.prompt_tokens, g.usage.completion_tokens) for g in got] == [used(a) for a in alone]
    assert {g.model for g in got} == {"system"}


def test_the_openai_client_in_step_and_in_streams(serve: Any, alone: list[Any]) -> None:
    openai = pytest.importorskip("openai")
    with serve(VOTE, key="sk-served") as server:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=server.url, api_key="wrong", max_retries=0).models.list()
        with openai.OpenAI(base_url=server.url, api_key="sk-served", max_retries=0) as client:
            assert [m.id for m in client.models.list()] == ["system", "a", "b", "c"]
            assert client.models.retrieve("system").moco["method"] == "Majority vote"
            for prompt, asked in zip(PROMPTS[:5], alone, strict=False):
                ask: dict[str, Any] = {"model": "system", "messages": [{"role": "user", "content": prompt}]}
                whole = client.chat.completions.create(**ask, extra_body={"moco": {"trace": True}})
                assert whole.choices[0].message.content == asked.text and len(whole.moco["trace"]) == 3
                pieces = list(
                    client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
                )
                text = "".join(c.delta.content or "" for p in pieces for c in p.choices)
                assert text == asked.text
                assert (pieces[-1].usage.prompt_tokens, pieces[-1].usage.completion_tokens) == used(asked)
            with pytest.raises(openai.BadRequestError, match="tools"):
                client.chat.completions.create(**ask, tools=[{"type": "function", "function": {"name": "f"}}])
            with pytest.raises(openai.NotFoundError, match="did you mean 'system'"):
                client.chat.completions.create(**{**ask, "model": "systm"})

        async def streamed() -> str:
            async with openai.AsyncOpenAI(base_url=server.url, api_key="sk-served", max_retries=0) as client:
                stream = await client.chat.completions.create(**ask, stream=True)
                return "".join([p.choices[0].delta.content or "" async for p in stream if p.choices])

        assert asyncio.run(streamed()) == alone[4].text


@pytest.mark.slow  # importing it takes its time
@pytest.mark.filterwarnings("ignore")
def test_litellm(serve: Any, alone: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    with serve(VOTE) as server:
        ask: dict[str, Any] = {
            "model": "openai/system",
            "api_base": server.url,
            "api_key": "none",
            "messages": [{"role": "user", "content": PROMPTS[0]}],
            "max_tokens": 64,
            "num_retries": 0,
        }
        got = litellm.completion(**ask)
        assert got.choices[0].message.content == alone[0].text
        assert (got.usage.prompt_tokens, got.usage.completion_tokens) == used(alone[0])
        pieces = list(litellm.completion(**ask, stream=True))
        assert "".join(p.choices[0].delta.content or "" for p in pieces) == alone[0].text


def test_our_own_pool_asks_a_served_system_like_any_model(serve: Any, alone: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("moco_pool_openai")
    from moco_core.config import plugin_of

    with serve(VOTE) as server:
        section = {"name": "openai", "models": ["system"], "base_url": server.url, "logprobs": "no"}
        (model,) = plugin_of(installed(), "pool", {**section, "cache": str(tmp_path)}, "pool").make().models()
        opened = open_system(VOTE, [model], tmp_path, sampling=SAMPLING)
        nested = answers(opened, [Question(id="ask-0", prompt=p) for p in PROMPTS[:20]])
    assert [n.text for n in nested] == [a.text for a in alone[:20]]
    assert [used(n) for n in nested] == [used(a) for a in alone[:20]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lm_eval_scores_a_served_system(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its chat client over a task of our own, without the network: the scores are those of the replies."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    rows = [{"question": f"Say {word}.", "answer": word} for word in ("one", "two", "three", "four")]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    task = {
        "task": "saying",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "data.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }

    def reply(call: Any) -> str:
        word = call.prompt.split()[1].rstrip(".")
        return f"{word}\nand more" if word != "three" else "drei"

    with serve(VOTE, dict.fromkeys("abc", reply)) as server:
        args = f"model=system,base_url={server.url}/chat/completions,num_concurrent=2,tokenized_requests=False,max_retries=1"
        found = evaluator.simple_evaluate(
            model="local-chat-completions",
            model_args=args,
            tasks=[task],
            apply_chat_template=True,
            task_manager=TaskManager(include_defaults=False) if hasattr(TaskManager, "include_defaults") else None,
            log_samples=True,
            bootstrap_iters=0,
        )
    assert found["results"]["saying"]["exact_match,none"] == 0.75
    said = [sample["resps"][0][0] for sample in found["samples"]["saying"]]
    assert said == ["one", "two", "drei", "four"]  # the stop string was honoured


def test_the_requests_of_open_webui(serve: Any, alone: list[Any]) -> None:
    """Their documented shape: the list of models with the key, a streamed chat, and the naming of the chat after it."""
    headers = {"authorization": "Bearer sk-webui", "content-type": "application/json"}
    with serve(VOTE, key="sk-webui") as server:
        listed = httpx.get(f"{server.url}/models", headers=headers).json()
        assert listed["object"] == "list" and all(
            {"id", "object", "created", "owned_by"} <= m.keys() for m in listed["data"]
        )
        chat = {
            "stream": True,
            "model": "system",
            "messages": [{"role": "user", "content": PROMPTS[3]}],
            "stream_options": {"include_usage": True},
        }
        got = httpx.post(f"{server.url}/chat/completions", json=chat, headers=headers)
        found = events(got.text)
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in found[:-1] if e["choices"])
        assert (
            text == alone[3].text and found[-1] == "DONE" and found[-2]["usage"]["prompt_tokens"] == used(alone[3])[0]
        )
        history = [
            *chat["messages"],
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Name this chat."},
        ]
        title = {"model": "system", "messages": history, "stream": False, "max_completion_tokens": 50}
        named = httpx.post(f"{server.url}/chat/completions", json=title, headers=headers)
        assert named.status_code == 200 and named.json()["choices"][0]["message"]["role"] == "assistant"


def test_a_run_folder_is_served_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What the command opens of a folder: the system under the run's name, scores with intervals, and the best single model."""
    import moco_core as moco
    from moco_command_serve.card import facts_of
    from moco_command_serve.command import _opened
    from moco_core import NoOptions, PoolSource

    class Said(PoolSource[NoOptions]):
        def models(self) -> Any:
            return ScriptedPool(dict.fromkeys("ab", say)).models()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    results = moco.run(pool="said", method="majority_vote", dataset="skills", dev=4, test=8)
    folder = results["majority_vote"].folder
    opened, facts, name = _opened(str(folder), {"pool": None, "dataset": None}, 50, 0, (), (), None)
    assert name == "majority_vote" and opened.parts.pool.names == ("a", "b")
    assert facts == facts_of(folder) and facts["test"]["n"] == 8 and facts["test"]["low"] <= facts["test"]["mean"]
    assert facts["best_single_on_dev"]["model"] in "ab" and facts["cost"]["calls"] == 2
    assert facts["best_single_on_dev"]["cost"]["calls"] == 1 and str(tmp_path) not in json.dumps(facts)
    assert cli._run(["serve", str(folder), "-p", "tiny"]) == 2
    assert "a saved system has its pool and options already" in capsys.readouterr().err
