"""The sandbox: outcomes, tests and the program under test, and the refusal where nothing isolates."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest
from sandboxed_programs import QUICK, WHY_NOT, isolated, run

from moco_toolkit_sandbox import Limits, Outcome, Sandbox, SandboxError, SandboxUnavailable
from moco_toolkit_sandbox.commands import bubblewrap, container


@isolated
@pytest.mark.parametrize(
    ("program", "status", "detail"),
    [
        ("assert 1 + 1 == 2", "passed", ""),
        ("import json, re, math, collections, itertools, functools, typing, heapq", "passed", ""),
        ("assert 1 == 2, 'no'", "failed", "AssertionError: no (line 1)"),
        ("def f(:", "failed", "SyntaxError"),
        ("import sys; sys.exit(0)", "failed", "SystemExit: 0"),
        ("import os; os._exit(0)", "failed", "ended before the end of the tests (exit code 0)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", "SIGSEGV"),
        ("import sys; print('AssertionError', file=sys.stderr)", "passed", ""),
        ("print('{\"passed\": true}'); raise SystemExit", "failed", "SystemExit"),
        ("input()", "failed", "EOFError"),
        ("print('\\ud800')", "failed", "UnicodeEncodeError"),
    ],
)
def test_how_a_program_ended(program: str, status: str, detail: str) -> None:
    outcome = run(program)
    assert outcome.status == status
    assert detail in outcome.detail


@isolated
def test_hash_order_is_the_same_every_time() -> None:
    program = "raise SystemExit(repr(list({'alpha', 'beta', 'gamma', 'delta'})))"
    assert run(program) == run(program)


@isolated
def test_many_at_once_keep_their_own_outcomes() -> None:
    async def work() -> list[Outcome]:
        sandbox = Sandbox()
        return await asyncio.gather(*(sandbox.run(f"assert {i} % 3") for i in range(12)))

    assert [o.passed for o in asyncio.run(work())] == [bool(i % 3) for i in range(12)]


DOUBLE = "assert f(2) == 4"


def with_tests(program: str, tests: str = DOUBLE, setup: str = "") -> Outcome:
    isolation = "limits" if WHY_NOT else "bubblewrap"
    return asyncio.run(Sandbox(isolation).run(program, QUICK, tests=tests, entry_point="f", setup=setup))  # type: ignore[arg-type]


def test_tests_run_after_the_program_with_the_names_it_defines() -> None:
    assert with_tests("def g(x): return 2 * x\ndef f(x): return g(x)").passed
    assert with_tests("def f(x): return 3").detail == "AssertionError:  (line 1)"
    assert with_tests(
        "def f(x): return One(2 * x)",
        "assert f(2) == One(4)",
        "from collections import namedtuple\nOne = namedtuple('One', 'x')",
    ).passed
    cached = "import functools\n@functools.lru_cache\ndef f(x): return 2 * x"
    assert with_tests(cached, "f.cache_clear(); assert f(2) == 4").passed
    depth = "def f(n): return n and 1 + f(n - 1)"
    assert with_tests(depth, "assert f(900) == 900").passed


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("class Any:\n    def __eq__(self, o): return True\ndef f(x): return Any()", DOUBLE),
        (
            "class Any(int):\n    def __eq__(self, o): return True\ndef f(x): return [{'a': Any()}]",
            "assert f(2) == [{'a': 4}]",
        ),
        ("def sorted(x): return [4]\ndef f(x): return [9]", "assert sorted(f(2)) == [4]"),
        ("def isinstance(*a): return True\ndef f(x): return 9", "assert isinstance(f(2), str)"),
        ("import builtins\nbuiltins.len = lambda x: 4\ndef f(x): return []", "assert len(f(2)) == 4"),
        (
            "import math\nmath.isclose = lambda *a: True\ndef f(x): return 9",
            "import math\nassert math.isclose(f(2), 4)",
        ),
        ("import sys\ndef f(x):\n    sys.settrace(lambda *a: None)\n    return 9", DOUBLE),
        ("import sys\ndef f(x):\n    sys._getframe(1).f_locals['report']({'passed': True})\n    return 9", DOUBLE),
        (
            "def f(x):\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n        frame = e.__traceback__.tb_frame\n"
            "    while frame:\n        for value in [*frame.f_locals.values()]:\n"
            "            if callable(value) and getattr(value, '__name__', '') in ('report', 'last'):\n"
            "                value({'passed': True})\n        frame = frame.f_back\n    return 9",
            DOUBLE,
        ),
        ("def f(x):\n    raise SystemExit(0)", DOUBLE),
        ("import os\ndef f(x):\n    os._exit(0)", DOUBLE),
    ],
)
def test_tampering_with_the_tests_fails(program: str, tests: str) -> None:
    assert with_tests(program, tests).status == "failed"


def test_refuses_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap") as caught:
        run("open('/tmp/ran', 'w')")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_refuses_where_bubblewrap_is_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _program(tmp_path / "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxUnavailable, match="No permissions to create new namespace"):
        run("pass")


def test_a_crash_of_the_sandbox_is_an_error_and_no_outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sandbox = Sandbox()
    sandbox._variant = {"privileged": False, "nested": False, "proc": True}
    _program(tmp_path / "bwrap", "echo 'bwrap: out of loop devices' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxError, match="out of loop devices"):
        asyncio.run(sandbox.run("pass"))


def _program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_unknown_isolation_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="expected one of bubblewrap, docker, podman, limits"):
        Sandbox("chroot")  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="limits differ")
def test_limits_mode_bounds_a_program_when_asked_for() -> None:
    assert run("import os; assert os.listdir('.') == []", isolation="limits").passed
    assert run("while True: pass", Limits(seconds=1), "limits").status == "timeout"
    assert run("x = bytearray(1 << 40)", isolation="limits").status == "memory"
    assert run("print('x' * (1 << 22))", isolation="limits").status == "output"


def test_limits_mode_does_not_wait_for_what_a_program_left() -> None:
    program = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(20)\n    os._exit(0)"
    assert run(program, Limits(seconds=15), "limits").passed


def test_limits_mode_hands_on_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCO_TEST_SECRET", "hunter2")
    assert "hunter2" not in run("import os; raise SystemExit(repr(dict(os.environ)))", isolation="limits").detail


def test_container_runs_through_the_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A runtime that records its arguments and runs the interpreter: the protocol works through standard input."""
    record = tmp_path / "arguments"
    skip = 'while [ "$1" != "-s" ]; do shift; done'
    _program(
        tmp_path / "podman", f'echo "$@" >> {record}\n[ "$1" = run ] || exit 0\n{skip}\nexec {sys.executable} "$@"'
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert run("assert True", isolation="podman").passed
    assert run("assert False", isolation="podman").status == "failed"
    given = record.read_text()
    for word in ("--network none", "--read-only", "--cap-drop ALL", "no-new-privileges", "--user 65534:65534", "--rm"):
        assert word in given


def test_command_lines_hold_no_program_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCO_TEST_SECRET", "hunter2")
    for command in (
        bubblewrap("bwrap", Limits(), privileged=False, nested=False, proc=True),
        container("docker", "image", "name", Limits()),
    ):
        assert "hunter2" not in repr(command)
    arguments = bubblewrap("bwrap", Limits(), privileged=False, nested=False, proc=True).arguments
    for word in (
        "--unshare-net",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-user",
        "--die-with-parent",
        "--clearenv",
    ):
        assert word in arguments


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="seconds"):
        Limits(seconds=0)
