"""The ways of well-known services, one fixture each in ``services/``: what they list, take, refuse, answer and complain of.

The fixtures are written in words and numbers of our own from what is publicly known of the services; no service was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from openai_asking import KEY, SURROUNDINGS, ask, pool, says

from moco_core.errors import ModelCallError, PromptTooLong
from moco_core.types import Generation
from moco_pool_openai.listing import listing_of
from moco_pool_openai.pool import OpenAIPool
from moco_pool_openai.testing import Fault, Request, StubServer

SERVICES = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted(Path(__file__).with_name("services").glob("*.yaml"))
}
SAMPLED = {"temperature": 0.7, "top_p": 0.9, "stop": ("END",)}


@attrs.define
class Service:
    """A stub server that behaves as one service does. ``error`` is what it complains of, if it does."""

    facts: Mapping[str, Any]
    stub: StubServer
    error: Mapping[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        status = self.facts.get("listing_status", 200)
        self.stub.models = [self.facts["model"]]
        self.stub.list_fault = lambda number: says(self.facts["listing"], status)
        self.stub.fault = self._answer

    def _answer(self, request: Request) -> Fault:
        if self.error is not None:
            text = self.error["body"] if isinstance(self.error["body"], str) else json.dumps(self.error["body"])
            return Fault(
                status=self.error["status"], headers=self.error.get("headers", {}), body=text.replace("{key}", KEY)
            )
        refused = [f for f in request.body if not self.facts.get("ignores") and f not in self.facts["takes"]]
        if "conflict" in self.facts and set(self.facts["conflict"]) <= set(request.body):
            refused.append("")
        if refused:
            body = self.facts.get("refusals", {}).get(refused[0], self.facts["refusal"]["body"])
            return says(json.dumps(body).replace("{field}", refused[0]), self.facts["refusal"]["status"])
        return says(self.facts["reply"])

    def pool(self, **options: Any) -> OpenAIPool:
        """Return a pool of the service's model, set up as the service needs it."""
        entry = {"model": self.facts["model"], "prices": [1e6, 2e6], "cached_price": 1e5, **options.pop("entry", {})}
        root = self.stub.url.removesuffix("/v1")
        given = {
            "base_url": root + self.facts.get("path", "/v1"),
            "headers": self.facts.get("headers", {}),
            "retries": 2,
        }
        return pool(self.stub, [entry], **{**given, **self.facts["options"], **options})


@pytest.fixture(params=SERVICES.values(), ids=list(SERVICES))
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERVICE_KEY", KEY)
    if "headers" not in request.param:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with StubServer() as stub:
        yield Service(request.param, stub)


def test_a_question_is_answered_within_what_the_service_takes(service: Service) -> None:
    (reply,) = ask(service.pool(), "What is 2 + 2?", **SAMPLED)
    assert isinstance(reply, Generation), reply
    want = service.facts["read"]
    assert (reply.text, reply.reasoning, reply.finish_reason) == (
        want["text"],
        want.get("reasoning", ""),
        want["finish"],
    )
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (want["prompt"], want["completion"])
    assert reply.token_logprobs == tuple(want.get("logprobs", ()))
    assert "ids" not in want or reply.token_ids == tuple(want["ids"])
    assert reply.meta["served_model"] == want["served"] and reply.meta["cost"] == pytest.approx(want["cost"])
    assert ("warning" in reply.meta) == bool(want.get("warned"))
    if not service.facts.get("ignores"):
        assert set(service.stub.requests[-1].body) <= set(service.facts["takes"])


def test_the_key_is_sent_as_the_service_wants_it(service: Service) -> None:
    ask(service.pool(), "a")
    sent, headers = service.stub.requests[-1].headers, service.facts.get("headers")
    if headers:
        assert sent["api-key"] == KEY and "authorization" not in sent
        assert service.stub.requests[-1].query == service.facts["path"].partition("?")[2]
    else:
        assert sent["authorization"] == f"Bearer {KEY}"


def test_what_a_service_says_of_its_own_bill_counts_where_no_price_is_given(service: Service) -> None:
    (reply,) = ask(service.pool(entry={"prices": None}), "a")
    assert reply.meta.get("cost") == service.facts["read"].get("own_cost")


def test_a_field_that_is_refused_is_named_with_the_option_that_changes_it(service: Service) -> None:
    if service.facts.get("ignores"):
        return
    plain = {"omit": [], "seeds": True, "max_tokens_field": "max_tokens"}
    if service.facts["options"].get("dialect") == "mistral":
        plain["dialect"] = "openai"
    (found,) = ask(service.pool(**plain), "a", **SAMPLED)
    sent = service.stub.requests[-1].body
    refused = [f for f in sent if f not in service.facts["takes"]] or [
        f for f in service.facts.get("conflict", ()) if f in sent
    ]
    if not refused:
        assert isinstance(found, Generation)
        return
    assert isinstance(found, ModelCallError) and "the server refuses the request" in str(found)
    assert "\n" not in str(found) and len(service.stub.requests) <= 2
    if refused[0] == "max_tokens":
        assert "set the pool option max_tokens_field: max_completion_tokens" in str(found)
    elif "conflict" in service.facts:
        assert "omit: [temperature, top_p] (or one of them)" in str(found)
    else:
        assert f"the pool option omit leaves fields out: omit: [{refused[0]}]" in str(found)


def test_names_that_mean_a_listed_model_pass_and_others_do_not(service: Service) -> None:
    listing = listing_of(service.facts["listing"])
    if service.facts.get("listing_status"):
        assert listing is None
        return
    assert listing is not None
    if listing.complete:
        assert all(listing.has(name) for name in (service.facts["model"], *service.facts.get("listed_as", ())))
        for name in ("nobody/nothing", *service.facts.get("lacks", ())):
            (found,) = ask(service.pool(entry={"model": name}), "a")
            assert f"does not list the model {name!r}" in str(found), found
    assert not service.stub.requests


def test_what_a_service_complains_of_is_told_in_its_words_and_repeated_where_that_helps(service: Service) -> None:
    for error in service.facts["errors"]:
        service.error = error
        service.stub.requests.clear()
        (found,) = ask(service.pool(logprobs="no"), "a")
        assert isinstance(found, ModelCallError) and error["says"] in str(found), found
        assert isinstance(found, PromptTooLong) == bool(error.get("too_long")), found
        assert "\n" not in str(found) and KEY not in str(found)
        assert len(service.stub.requests) == (3 if error["repeated"] else 1), found


def test_arguments_of_the_template_reach_the_servers_that_take_them(service: Service) -> None:
    if "template" in service.facts:
        entry = {"template": service.facts["template"]}
        ask(service.pool(entry=entry), "a")
        assert service.stub.requests[-1].body["chat_template_kwargs"] == service.facts["template"]
        with_template, without = service.pool(entry=entry).models()[0], service.pool().models()[0]
        assert with_template.fingerprint != without.fingerprint
    elif service.facts["model"] != "/models/smol.gguf":
        (found,) = ask(service.pool(entry={"template": {"enable_thinking": False}}), "a")
        assert "takes no arguments of chat templates" in str(found) and not service.stub.requests
