"""Keys: every way in which one could reach a message, a log, a record or another server, and does not."""

from __future__ import annotations

import base64
import json
import logging
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from openai_asking import SURROUNDINGS, answered, ask, pool, says

from moco_core import Secret, cli
from moco_core.catalogue import installed
from moco_core.errors import ConfigError, ModelCallError
from moco_core.options import build, plain
from moco_core.types import Generation, canonical
from moco_pool_openai.pool import OpenAIPool, Options
from moco_pool_openai.testing import Fault, StubServer

KEY = "sk-proj-SECRET123+/x'7\\8"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("BLANK_KEY", "  ")


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(key=KEY) as stub:
        yield stub


def refused(**options: Any) -> str:
    """Return the line with which a pool refuses its options, before any server is asked."""
    with pytest.raises(ConfigError) as caught:
        OpenAIPool(build(Options, {"models": ["alpha"], "base_url": "http://127.0.0.1:1/v1", **options})).models()
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    for word in ("SECRET123", "SECRET123"[::-1], "hunter2"):
        assert word not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("around", ["{}\r", "{}\n", " {}\t", "{}\r\n"])
def test_white_space_around_a_key_is_left_out_and_told(
    server: StubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, around: str
) -> None:
    monkeypatch.setenv("MY_KEY", around.format(KEY))
    (reply,) = ask(pool(server, api_key_env="MY_KEY"), "a")
    assert isinstance(reply, Generation), reply
    assert "white space around the key in MY_KEY is left out" in caplog.text and "SECRET123" not in caplog.text


@pytest.mark.parametrize("key", ["sk-SECRET123\rsk-SECRET123", "sk-SECRET123\u2026", "sk SECRET123", "SECRET123\x00"])
def test_a_key_that_no_header_can_hold_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    if "\0" not in key:  # no variable can hold it either
        monkeypatch.setenv("MY_KEY", key)
        assert refused(api_key_env="MY_KEY").startswith("MY_KEY: the key holds a character that no header may")
    assert refused(api_key=key).startswith("api_key: the key holds a character that no header may")


FORMS = {
    "as it is": KEY,
    "repr of the header": repr(f"Bearer {KEY}\r".encode()),
    "percent-encoded": quote(KEY, safe=""),
    "basic authorization": "Basic " + base64.b64encode(f"user:{KEY}".encode()).decode(),
    "wrapped": "\n".join(textwrap.wrap(KEY, 8)),
    "half of it": KEY[:14] + "...",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message_or_a_log(
    server: StubServer, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    caplog.set_level(logging.DEBUG)
    source = pool(server, api_key=KEY, logprobs="no", retries=0)
    said = [
        answered(source, server, {"error": {"message": f"the key {form} cannot do this"}}, 400),
        answered(source, server, f"the key {form} cannot do this", 500),
        answered(source, server, {"error": f"the key {form} cannot do this"}),
        answered(source, server, {"choices": [{"message": {"content": {f"the key {form}": 1}}}]}),
        answered(source, server, f"the key {form} is no JSON"),
    ]
    server.fault = lambda request: Fault(status=404, headers={"x-seen": json.dumps(form)})
    said += ask(source, "a")
    server.list_fault = lambda number: says({"error": {"message": f"the key {form} may not list"}}, 403)
    said += ask(source, "a")
    assert all(isinstance(e, (ModelCallError, ConfigError)) for e in said)
    texts = [*map(str, said), *map(repr, said), caplog.text]
    assert "HTTP Request" in caplog.text  # the client's libraries do log
    pieces = [KEY[:12], KEY[8:20], *([form[14:26]] if len(form) > 26 else [])]
    assert not [(piece, text) for piece in pieces for text in texts if piece in text]


def test_a_reply_that_repeats_the_key_is_kept_without_it(server: StubServer) -> None:
    message = {"content": f"You are\n  {KEY}.", "reasoning": f"Bearer {KEY}"}
    server.fault = lambda request: says(
        {"model": f"of {KEY}", "choices": [{"message": message, "finish_reason": "stop"}]}
    )
    (found,) = ask(pool(server, api_key=KEY), "a")
    assert (found.text, found.reasoning) == ("You are\n  ***.", "Bearer ***")
    assert found.meta["served_model"] == "of ***" and KEY not in str(found)


def test_what_stands_around_a_key_shows_nothing_of_it(server: StubServer) -> None:
    source = pool(server, api_key=KEY)
    ask(source, "a")
    shown = [repr(source.options), canonical(plain(source.options)), repr(source.models()), repr(vars(source.engine))]
    assert not [text for text in shown if "SECRET123" in text]
    assert plain(source.options)["api_key"] == "***"


@pytest.mark.parametrize(
    "address",
    [
        f"http://127.0.0.1:1/v1?api_key={quote(KEY)}",
        "http://127.0.0.1:1/v1?key=hunter2",
        f"http://127.0.0.1:1/v1?x={quote(KEY)}",
        f"http://127.0.0.1:1/v1#{quote(KEY)}",
        f"http://127.0.0.1:1/{quote(KEY, safe='')}/v1",
        "http://me:hunter2@127.0.0.1:1/v1",
        "https://hunter2@127.0.0.1:1/v1",
        f"127.0.0.1:1/v1?token={quote(KEY)}",
        KEY,
    ],
)
def test_an_address_with_a_key_in_it_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert refused(base_url=address).startswith("base_url: expected an address")
    assert refused(models=[{"model": "a", "base_url": address}]).startswith("models[0].base_url: expected an address")
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert refused(base_url="").startswith("OPENAI_BASE_URL: expected an address")


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Api-Key": "hunter2"},
        {"auth": "hunter2"},
        {"bearer": "hunter2"},
        {"deep": [{"accessToken": "hunter2"}]},
        {"metadata": {"note": KEY[:18]}},
        {"user": f"Bearer {KEY[:18]}"},
    ],
)
def test_a_key_among_the_fields_of_requests_is_refused(fields: dict[str, Any]) -> None:
    for line in (
        refused(extra_body=fields),
        refused(models=[{"model": "a", "extra_body": fields}]),
        refused(models=[{"model": "a", "template": fields}]),
    ):
        assert "looks like a key" in line and "headers: {NAME: $VARIABLE}" in line


def test_fields_that_are_no_keys_pass() -> None:
    fields = {
        "stop_token_ids": [1],
        "prompt_cache_key": "run-1",
        "guided_json": {"properties": {"key": {"type": "string"}}},
    }
    options = build(
        Options, {"models": ["a"], "base_url": "http://127.0.0.1:1/v1", "extra_body": {**fields, "user": "me"}}
    )
    assert OpenAIPool(options).models()


def test_headers_name_their_keys_and_records_hold_the_names(server: StubServer) -> None:
    server.key = ""
    source = pool(server, headers={"X-Gateway-Key": "$MY_KEY", "X-Title": "Trial 7"}, logprobs="no")
    assert isinstance(ask(source, "a")[0], Generation)
    sent = server.requests[-1].headers
    assert (sent["x-gateway-key"], sent["x-title"], sent.get("authorization")) == (KEY, "Trial 7", None)
    assert plain(source.options)["headers"] == {"X-Gateway-Key": "$MY_KEY", "X-Title": "Trial 7"}
    found = answered(source, server, {"error": {"message": f"no such {KEY}"}}, 400)
    assert "SECRET123" not in str(found) and "no such ***" in str(found)


def test_the_default_key_is_not_sent_to_a_service_that_has_one_of_its_own(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = ""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service-1")
    ask(pool(server, headers={"api-key": "$MY_KEY"}, logprobs="no"), "a")
    assert "authorization" not in server.requests[-1].headers
    ask(pool(server, headers={"X-Title": "Trial"}, logprobs="no"), "a")
    assert server.requests[-1].headers["authorization"] == "Bearer sk-of-another-service-1"


def test_headers_with_a_key_do_not_follow_a_server_that_sends_them_elsewhere(server: StubServer) -> None:
    with StubServer() as other:
        server.key = ""
        server.fault = lambda request: Fault(status=307, headers={"location": f"{other.url}/chat/completions"})
        (found,) = ask(pool(server, headers={"api-key": "$MY_KEY"}, logprobs="no", retries=0), "a")
        assert "answers 307" in str(found) and not other.requests


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": "hunter2"},
        {"X-Title": KEY[:18]},
        {"Authorization": f"Bearer {KEY}"},
        {"a b": "x"},
        {"X-A": "x\ny"},
    ],
)
def test_headers_that_hold_keys_or_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    assert refused(headers=headers).startswith("headers: header ")


@pytest.mark.parametrize(
    "given", [KEY, "sk-proj-SECRET123", "gsk_aB3SECRET123xyz", "9f86d081884c7d659a2feaa0c55ad015", "my key"]
)
def test_a_key_given_as_the_name_of_a_variable_is_refused_unshown(given: str) -> None:
    for line in (refused(api_key_env=given), refused(models=[{"model": "a", "api_key_env": given}])):
        assert "looks like the key itself and is not shown" in line and given not in line
    assert given not in refused(headers={"api-key": f"${given}"})


def test_a_named_variable_that_is_not_set_is_an_error_before_any_work(server: StubServer) -> None:
    for name in ("NO_SUCH_KEY", "BLANK_KEY"):
        assert f"api_key_env: the environment variable {name} is not set" in refused(api_key_env=name)
        entries = [{"model": "a", "api_key_env": name}]
        assert refused(models=entries).startswith(f"models[0].api_key_env: the environment variable {name} is not set")
        assert refused(headers={"api-key": f"${name}"}).startswith(
            f"headers: the environment variable {name} is not set"
        )
    assert "that it names is not set" in refused(api_key_env="hunter2")  # it may be a password
    server.key = ""
    assert isinstance(ask(pool(server), "a")[0], Generation)  # nobody named the default one


def test_the_key_itself_in_any_other_option_is_found() -> None:
    for path, more in {
        "server": {"server": f"at {KEY}"},
        "models[0].description": {"models": [{"model": "a", "description": KEY}]},
        "models[0].extra_body.user": {"models": [{"model": "a", "extra_body": {"user": f"x{KEY}"}}]},
    }.items():
        assert refused(api_key_env="MY_KEY", **more).startswith(f"{path}: holds the key itself")


def test_a_key_that_is_given_beats_one_that_lies_about(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old-and-forgotten-1")
    assert isinstance(ask(pool(server, api_key=KEY), "a")[0], Generation)
    assert isinstance(ask(pool(server, api_key=Secret(KEY)), "a")[0], Generation)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert isinstance(ask(pool(server, api_key="***"), "a")[0], Generation)  # as a run folder holds it


def test_no_command_shows_or_writes_a_key(
    server: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tracing, with tracebacks, with a server that repeats the key; finished, failed and refused runs."""
    pytest.importorskip("moco_dataset_skills")
    pytest.importorskip("moco_method_majority_vote")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_TRACE", "1")
    installed.cache_clear()  # whether hooks are traced is decided when the catalogue is made
    base = ["run", "majority_vote", "-p", "openai", "-d", "skills", "--dev", "1", "--test", "2", "--cache", "c.sqlite"]
    base += ["-o", f"pool.base_url={server.url}", "-o", "pool.models=[alpha]", "-o", "pool.retries=0"]
    told = says({"error": {"message": f"not with {KEY} and {KEY!r}"}}, 400)
    for more in (
        ["-o", f"pool.api_key={json.dumps(KEY)}"],
        ["-o", "pool.api_key_env=MY_KEY", "--test", "3"],
        ["-o", f"pool.api_key_env={json.dumps(KEY)}"],
        ["-o", f"pool.extra_body={json.dumps({'auth': KEY})}"],
    ):
        for debug, fault in (([], told), (["--debug"], told), ([], None)):
            server.fault = lambda request, fault=fault: fault  # type: ignore[misc]
            try:
                cli._run([*debug, *base, *more])
            except Exception:  # with --debug they come through
                traceback.print_exc()
    installed.cache_clear()
    out, err = capsys.readouterr()
    assert "moco_run_started" in err and "not with ***" in out + err
    assert "SECRET123" not in out + err
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert files and not [p for p in files if b"SECRET123" in p.read_bytes()]
