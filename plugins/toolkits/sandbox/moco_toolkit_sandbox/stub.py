"""The first code that runs inside the sandbox: it limits itself, then becomes the program.

It is handed to the interpreter as text (``python -c``), reads one JSON job from standard input and uses the standard
library only. It reports on standard output, each report on a line of its own behind a random token: ``{"start": true}``
before the program runs, then ``{"passed": true}`` if the end of the tests was reached, or the error that ended it. An
exit code proves nothing, since any program can choose its own.

Tests run in names of their own, with the builtins and the imported modules as they were before the program.
"""

import builtins
import contextlib
import errno
import functools
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

NAME = "program.py"
PLAIN = (int, float, complex, str, bytes, bool, type(None))


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    for name, value in job["rlimits"].items():
        number = getattr(resource, name, None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
    if job["uid"]:  # privileges that were needed to get here are given up for good
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
    confine(bytes.fromhex(job["filter"]), job["keyctl"], job["strict"])
    os.umask(0o077)
    sys.argv = [NAME]
    for tool in ("settrace", "setprofile", "_getframe", "_current_frames", "call_tracing", "monitoring"):
        if job["tests"] and hasattr(sys, tool):  # with these a program would jump over the lines of its tests
            delattr(sys, tool)
    # what reports lies on the stack alone, in no variable of a frame that the program can look at
    reporter(job.pop("token"), os.dup(1))(run(job))


def confine(code: bytes, keyctl: int, strict: bool) -> None:
    """Join a new session keyring and forbid the system calls of the filter, for good."""
    if not code:
        return
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(keyctl, 1, None)
        held = ctypes.create_string_buffer(code)
        program = type("Program", (ctypes.Structure,), {"_fields_": [("n", ctypes.c_ushort), ("at", ctypes.c_void_p)]})
        given = program(len(code) // 8, ctypes.cast(held, ctypes.c_void_p))
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(given), 0, 0):
            raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")
    except (ImportError, OSError):
        if strict:
            raise


def reporter(token: str, out: int) -> Callable[[object], None]:
    write, leave, dump = os.write, os._exit, json.dumps

    def report(data: object) -> None:
        write(out, ("\n" + token + dump(data) + "\n").encode())

    def last(data: object) -> None:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        report(data)
        leave(0 if data == {"passed": True} else 1)

    report({"start": True})
    return last


def run(job: dict[str, Any]) -> dict[str, Any]:
    setup, program, tests, entry = (job.pop(part) for part in ("setup", "program", "tests", "entry"))
    scope: dict[str, Any] = {"__name__": "__main__", "__file__": NAME, "__builtins__": builtins, "__doc__": None}
    try:
        exec(compile(setup, NAME, "exec", dont_inherit=True), scope)
        original, given = dict(vars(builtins)), frozenset(scope)
        modules = {m: dict(vars(m)) for m in (sys.modules.get(n) for n in imported(tests)) if m is not None}
        modules |= {m: dict(vars(m)) for m in scope.values() if isinstance(m, type(sys)) and m is not builtins}
        lines = "\n" * setup.count("\n")
        exec(compile(lines + program, NAME, "exec", dont_inherit=True), scope)
        if tests:
            for module, names in modules.items():
                vars(module).update(names)
            seen = {k: v for k, v in scope.items() if k not in original or k == entry or k in given}
            if callable(seen.get(entry)) and not isinstance(seen[entry], type):
                seen[entry] = honest(seen[entry])
            lines += "\n" * program.count("\n")
            exec(compile(lines + tests, NAME, "exec", dont_inherit=True), seen | {"__builtins__": original})
    except BaseException as error:
        kind, text = type(error).__name__, ""
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            kind = "MemoryError"
        try:
            frame, line = error.__traceback__, 0
            while frame is not None:
                if frame.tb_frame.f_code.co_filename == NAME:
                    line = frame.tb_lineno
                frame = frame.tb_next
            text = str(error)[:400] + (f" (line {line})" if line else "")
        except BaseException:
            pass
        return {"error": kind, "detail": text}
    return {"passed": True}


def imported(tests: str) -> list[str]:
    """Return the modules that tests import, after importing them: before the program can change them."""
    import ast

    names = []
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.walk(ast.parse(tests)):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
    for name in names:
        with contextlib.suppress(Exception):
            __import__(name)
    return names


def honest(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function under test, whose results may not claim to equal whatever they are compared with."""

    @functools.wraps(function)
    def called(*args: Any, **named: Any) -> Any:
        result = function(*args, **named)
        if lies(result, 0):
            raise AssertionError("the result says that it equals everything")
        return result

    for name in dir(function):  # what a decorator added, such as cache_clear
        if not name.startswith("_") and not hasattr(called, name):
            setattr(called, name, getattr(function, name))
    return called


def lies(value: Any, depth: int) -> bool:
    """Whether a value, or one inside it, equals two things that differ from each other."""
    kind = type(value)
    if kind in PLAIN or depth > 20:
        return False
    if kind in (list, tuple, set, frozenset):
        return any(lies(v, depth + 1) for v in value)
    if kind is dict:
        return any(lies(v, depth + 1) for pair in value.items() for v in pair)
    for one, other in (
        (0, 1),
        (0.5, 1.5),
        ("", "a"),
        ([], [0]),
        ((), (0,)),
        ({}, {0: 0}),
        (None, object()),
        (False, True),
    ):
        try:
            if bool(value == one) and bool(value == other):
                return True
        except Exception:
            return False
    return False


main()
