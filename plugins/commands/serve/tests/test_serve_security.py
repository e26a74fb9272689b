"""Who is let in, what is survived, and how a server starts and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from moco_command_serve import app
from moco_command_serve.card import check_members
from moco_command_serve.limits import Limits
from moco_command_serve.server import is_loopback
from moco_core import ConfigError, Pool, cli
from moco_toolkit_authoring.scripted import ScriptedPool

from .conftest import say

VOTE = {"name": "majority_vote", "tie": "order"}
ASK = {"model": "system", "messages": [{"role": "user", "content": "hello"}]}


def raw(port: int, data: bytes, *, wait: float = 5.0) -> bytes:
    """Send bytes and return what comes back until the server closes, or nothing comes for a while."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as sock:
        sock.sendall(data)
        out = b""
        try:
            while piece := sock.recv(65536):
                out += piece
        except TimeoutError:
            out += b"<silence>"
        except ConnectionError:
            pass
        return out


def head(body: bytes, *lines: str) -> bytes:
    start = ["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*start, f"Content-Length: {len(body)}", "Connection: close", *lines, "", ""]).encode() + body


# ---------------------------------------------------------------- keys


def test_with_a_key_everybody_has_to_show_it(serve: Any) -> None:
    with serve(VOTE, key="sk-right-key") as server:
        for shown in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "sk-right-key"},
            {"x-api-key": "sk-right-key"},
        ):
            for path in ("models", "chat/completions", "decide", "replays/x", "nothing"):
                got = (
                    server.post(path, ASK, headers=shown)
                    if path != "models"
                    else httpx.get(f"{server.url}/models", headers=shown)
                )
                assert got.status_code == 401 and got.headers["www-authenticate"] == "Bearer"
                assert got.json()["error"]["code"] == "invalid_api_key" and "sk-right" not in got.text
        assert server.post("chat/completions", ASK, headers={"authorization": "Bearer sk-right-key"}).status_code == 200
        assert httpx.get(server.url.replace("/v1", "/metrics")).status_code == 401
        assert httpx.get(server.url.replace("/v1", "/health")).json() == {"status": "ok", "model": "system"}


def test_keys_are_compared_in_constant_time(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared are digests of one length, by the function that takes as long for every difference."""
    seen: list[tuple[bytes, bytes]] = []
    real = app.hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        seen.append((a, b))
        return real(a, b)

    monkeypatch.setattr(app.hmac, "compare_digest", compare)
    with serve(VOTE, key="sk-right-key") as server:
        for shown in (b"Bearer x", b"Bearer sk-right-kez", b"Bearer " + b"y" * 5000, "Bearer ü".encode("latin-1")):
            got = httpx.get(f"{server.url}/models", headers={b"authorization": shown})
            assert got.status_code == 401
    assert len(seen) == 4 and all(len(a) == len(b) == 32 for a, b in seen)


def test_without_a_key_only_this_machine_is_answered(serve: Any) -> None:
    """A page in a browser reaches a port of its machine, too: under the page's own name, or with a body that is no JSON."""
    with serve(VOTE) as server:
        assert server.post("chat/completions", ASK, headers={"host": "evil.example:80"}).status_code == 403
        assert server.post("chat/completions", ASK, headers={"host": f"localhost:{server.port}"}).status_code == 200
        got = httpx.post(
            f"{server.url}/chat/completions", content=json.dumps(ASK), headers={"content-type": "text/plain"}
        )
        assert got.status_code == 415
        preflight = httpx.options(f"{server.url}/chat/completions", headers={"origin": "http://evil.example"})
        assert preflight.status_code == 405 and "access-control-allow-origin" not in preflight.headers


def test_other_addresses_need_a_key(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOCO_SERVE_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        assert cli._run(["serve", "majority_vote", "--host", host]) == 2
        assert f"--host {host}: whoever can reach it needs a key; set" in capsys.readouterr().err
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.8.8")))


# ---------------------------------------------------------------- bodies and heads


def test_bodies_that_are_too_large_or_no_json_are_refused(serve: Any) -> None:
    with serve(VOTE, body=1000) as server:
        long = json.dumps({**ASK, "user": "x" * 2000}).encode()
        for data in (
            head(long),
            head(long).replace(f"Content-Length: {len(long)}".encode(), b"Transfer-Encoding: chunked"),
        ):
            if b"chunked" in data:
                top, _, body = data.partition(b"\r\n\r\n")
                data = top + b"\r\n\r\n" + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            got = raw(server.port, data)
            assert got.startswith(b"HTTP/1.1 413") and b"larger than 1000 bytes" in got
        for body in (b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 900, b"nul"):
            got = raw(server.port, head(body))
            assert got.startswith(b"HTTP/1.1 400") and b"invalid_json" in got, (body, got)
        assert server.post("chat/completions", ASK).status_code == 200


def test_text_that_unicode_cannot_hold_comes_back_as_it_was(serve: Any) -> None:
    with serve(VOTE, {"a": lambda call: f"said \ud83d of {len(call.prompt)}"}) as server:
        body = b'{"model": "system", "messages": [{"role": "user", "content": "half \\ud83d pair\\u0000"}]}'
        got = httpx.post(f"{server.url}/chat/completions", content=body, headers={"content-type": "application/json"})
        assert (
            got.status_code == 200
            and json.loads(got.content)["choices"][0]["message"]["content"] == "said \ud83d of 12"
        )


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(5000)) + b"\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: a\r\n b: folded\x00\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1/replays/%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
def test_abuse_of_heads_and_paths_is_answered_and_survived(serve: Any, data: bytes) -> None:
    with serve(VOTE, patience=1.0) as server:
        got = raw(server.port, data)
        assert got == b"" or got.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 431", b"HTTP/1.1 501")), got
        assert b"Traceback" not in got and str(Path.cwd()).encode() not in got and b"site-packages" not in got
        assert server.post("chat/completions", ASK).status_code == 200


def test_headers_from_outside_change_nothing(serve: Any) -> None:
    with serve(VOTE, calls=2) as server:
        forged = {"x-moco-calls": "0", "x-forwarded-for": "127.0.0.1", "x-moco-depth": "-9", "x-moco-replay-id": "x"}
        assert server.post("chat/completions", ASK, headers=forged).status_code == 422


def test_slow_clients_are_cut_off_and_hold_up_nobody(serve: Any) -> None:
    with serve(VOTE, patience=0.4) as server:
        port, ended = server.port, list[tuple[str, float, bytes]]()

        def drip(name: str, start: bytes) -> None:
            began, out = time.monotonic(), b""
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                sock.sendall(start)
                try:
                    while time.monotonic() - began < 8:
                        sock.settimeout(0.1)
                        try:
                            piece = sock.recv(4096)
                            if not piece:
                                break
                            out += piece
                        except TimeoutError:
                            sock.sendall(b"x")
                except OSError:
                    pass
            ended.append((name, time.monotonic() - began, out))

        slow = {
            "nothing": b"",
            "head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
            "body": head(b"{" * 5000)[:-4900],
            "second head": b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal",
        }
        threads = [threading.Thread(target=drip, args=item) for item in slow.items()]
        for thread in threads:
            thread.start()
        assert server.post("chat/completions", ASK).status_code == 200
        for thread in threads:
            thread.join(15)
    assert len(ended) == 4 and all(seconds < 6 for _, seconds, _ in ended)
    said = {name: out for name, _, out in ended}
    assert said["body"].startswith(b"HTTP/1.1 408") and said["head"] == b""


def test_unknown_paths_and_methods_are_json(serve: Any) -> None:
    with serve(VOTE) as server:
        for got, status in (
            (httpx.get(f"{server.url}/nothing"), 404),
            (httpx.get(f"{server.url}/chat/completions"), 405),
            (httpx.get(server.url.replace("/v1", "/docs")), 404),
        ):
            assert got.status_code == status and got.json()["error"]["message"] and "server" not in got.headers


# ---------------------------------------------------------------- itself as a member


def test_a_server_that_would_call_itself_does_not_start(serve: Any) -> None:
    source = ScriptedPool({"far": say, "a": say}, fields={"far": {"device_group": "http://localhost:8123/v1"}})
    with serve(VOTE, source) as server:
        check_members(server.service, "127.0.0.1", 8124, Limits())
        with pytest.raises(ConfigError, match=r"'far' lives at http://localhost:8123/v1, which is this server"):
            check_members(server.service, "127.0.0.1", 8123, Limits())


def test_nesting_is_bounded(serve: Any) -> None:
    model = ScriptedPool({"a": say}).pool[0]
    import attrs

    for depth in range(4):
        model = attrs.evolve(ScriptedPool({f"level{depth}": say}).pool[0], sources=(model,))
    with serve(VOTE, Pool([model])) as server:
        check_members(server.service, "127.0.0.1", 1, Limits(depth=5))
        with pytest.raises(ConfigError, match="nested more than 4 deep; --max-depth"):
            check_members(server.service, "127.0.0.1", 1, Limits(depth=4))


# ---------------------------------------------------------------- the command

SLOW = """
import time
from moco_core import NoOptions, PoolSource
from moco_toolkit_authoring.scripted import ScriptedPool

def say(call):
    time.sleep(float(call.prompt.split()[0]) if call.prompt[0].isdigit() else 0)
    return "The answer is 4."

class Slow(PoolSource):
    "Models that take their time."
    def models(self):
        return ScriptedPool({"a": say}).models()
"""
START = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with the process that started it, however that ends
if os.getppid() == 1:
    sys.exit(1)
from moco_core.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Start ``moco serve`` in a process that ends with this one; return it and its address."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs a signal at a parent's death")
    begun = []

    def run(*args: str) -> tuple[subprocess.Popen[str], str]:
        (tmp_path / "slow.py").write_text(SLOW)
        full = [
            "serve",
            "majority_vote",
            "-p",
            "slow",
            "--plugin",
            "slow.py",
            "--cache",
            "c.sqlite",
            "--port",
            "0",
            *args,
        ]
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", START, *full], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=env
        )
        begun.append(process)
        assert process.stderr is not None
        for line in process.stderr:  # ends when the process does
            if " is served at http://" in line:
                return process, line.split(" is served at ")[1].split()[0]
        raise AssertionError("the server did not start")

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def test_sigterm_finishes_what_runs(start: Any) -> None:
    process, url = start()
    got: list[httpx.Response] = []
    ask = {"model": "majority_vote", "messages": [{"role": "user", "content": "2.5 seconds"}]}
    thread = threading.Thread(target=lambda: got.append(httpx.post(f"{url}/chat/completions", json=ask, timeout=30)))
    thread.start()
    while thread.is_alive() and "in_progress 1.0" not in httpx.get(url.replace("/v1", "/metrics")).text:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    thread.join(30)
    assert got[0].status_code == 200 and got[0].json()["choices"][0]["message"]["content"] == "The answer is 4."
    assert process.wait(30) == 0
    assert process.stderr.read().endswith("stopped; everything that ran is finished\n")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")


def test_a_port_in_use_is_one_line(start: Any, capsys: Any) -> None:
    _, url = start()
    port = url.rsplit(":", 1)[1].split("/")[0]
    assert cli._run(["serve", "majority_vote", "--port", port]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"error: port {port} of 127.0.0.1 is in use; choose another with --port\n"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["no/such/run"], "error: no/such/run: no saved system here (system/system.json); run the method first"),
        (["cascad"], "error: no method 'cascad' is installed, did you mean 'cascade'?"),
        (["majority_vote", "-p", "tinny"], "error: no pool 'tinny' is installed, did you mean 'tiny'?"),
        (["majority_vote", "--kind", "integr"], "error: --kind integr: expected one of"),
        (["majority_vote", "-o", "method.smaples=2"], "error: method.smaples: unknown key, did you mean 'samples'?"),
        (
            ["majority_vote", "--host", "no.such.host.invalid"],
            "error: --host no.such.host.invalid: whoever can reach it",
        ),
    ],
)
def test_wrong_input_is_one_line(args: list[str], line: str, capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOCO_SERVE_KEY", raising=False)
    assert cli._run(["serve", *args, "--port", "0"]) == (1 if "no/such" in args[0] else 2)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and "Traceback" not in err


def test_curl_is_answered(start: Any) -> None:
    _, url = start()
    ask = json.dumps({"model": "majority_vote", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    done = subprocess.run(
        ["curl", "-sN", f"{url}/chat/completions", "-H", "content-type: application/json", "-d", ask],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.endswith("data: [DONE]\n\n") and "The answer is 4." in done.stdout
