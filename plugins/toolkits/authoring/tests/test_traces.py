"""What is done to the process that others share is seen, named, and put back."""

from __future__ import annotations

import decimal
import gc
import locale
import logging
import os
import random
import socket
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moco_toolkit_authoring import traces
from moco_toolkit_authoring.shared import settings_as_they_were
from moco_toolkit_authoring.traces import process_as_it_was, unseen_folder

MOVES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "the working directory": (lambda: os.chdir("/"), os.getcwd),
    "the locale": (lambda: locale.setlocale(locale.LC_TIME, "C.UTF-8"), lambda: locale.setlocale(locale.LC_ALL)),
    "the filters of warnings": (lambda: warnings.simplefilter("ignore"), lambda: [*warnings.filters]),
    "the root logger": (lambda: logging.root.addHandler(logging.NullHandler()), lambda: [*logging.root.handlers]),
    "the time limit of all sockets": (lambda: socket.setdefaulttimeout(7), socket.getdefaulttimeout),
    "the recursion limit": (lambda: sys.setrecursionlimit(12345), sys.getrecursionlimit),
    "the longest int that is read": (lambda: sys.set_int_max_str_digits(0), sys.get_int_max_str_digits),
    "the context of decimals": (lambda: setattr(decimal.getcontext(), "prec", 50), lambda: decimal.getcontext().prec),
    "the collection of garbage": (gc.disable, gc.isenabled),
}


@pytest.mark.parametrize("what", MOVES)
def test_a_setting_that_is_moved_is_named_and_put_back(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    move, read = MOVES[what]
    before = read()
    with process_as_it_was("") as trace:
        move()
    assert len(trace.problems) == 1 and trace.problems[0].startswith(f"{what} is another one afterwards")
    assert read() == before
    with settings_as_they_were():
        move()
        assert read() != before
    assert read() == before


def test_what_is_left_alone_is_no_problem() -> None:
    with process_as_it_was("") as trace:
        random.Random(3).random()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
        with open(__file__, encoding="utf-8") as file:
            file.read(1)
        logging.getLogger("mine").addHandler(logging.NullHandler())
    assert trace.problems == []


class Torch(types.SimpleNamespace):
    """As much of torch as has settings."""

    float32, dtype = "float32", "float32"

    def get_default_dtype(self) -> str:
        return self.dtype

    def set_default_dtype(self, dtype: str) -> None:
        self.dtype = dtype


def test_settings_of_a_library_that_is_imported_meanwhile_are_those_it_comes_with(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Torch()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with settings_as_they_were():
        monkeypatch.setitem(sys.modules, "torch", torch)
        torch.set_default_dtype("float64")
    assert torch.dtype == "float32"
    with process_as_it_was("") as trace:
        torch.set_default_dtype("float64")
    assert trace.problems[0].startswith("torch's default dtype is another one") and torch.dtype == "float32"


def test_a_generator_that_is_always_seeded_alike_is_seen() -> None:
    for _ in range(2):
        with process_as_it_was("draw elsewhere") as trace:
            random.seed(0)
        assert trace.problems == ["random, the module, is seeded or drawn from: it is everybody's; draw elsewhere"]


def test_a_variable_stays_where_it_is_how_an_imported_library_is_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastlib", types.ModuleType("fastlib"))
    monkeypatch.delenv("FASTLIB_THREADS", raising=False)
    with settings_as_they_were():
        os.environ["FASTLIB_THREADS"] = os.environ["NOBODYS_THREADS"] = "1"
    assert os.environ.pop("FASTLIB_THREADS") == "1" and "NOBODYS_THREADS" not in os.environ


def test_the_libraries_that_are_imported_meanwhile_may_move_what_is_shared() -> None:
    with process_as_it_was("say it elsewhere", shared=False) as trace:
        random.seed(0)
        print("hello")
    assert trace.problems == ["'hello\\n' is printed, which breaks --json; use logging; say it elsewhere"]


def test_paths_from_here_keep_the_work_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with unseen_folder({"models": ["org/name", "models"]}) as written:
        assert Path.cwd() == tmp_path and written() == []
    with unseen_folder({"models": ["org/name", str(tmp_path / "models")]}) as written:
        assert Path.cwd() != tmp_path
        Path("x.txt").write_text("x")
        assert written() == ["x.txt"]


def test_a_file_that_is_kept_open_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_PATIENCE", 0.1)
    if not traces._open_files():
        pytest.skip("this system does not tell which files are open")
    with process_as_it_was("") as trace:
        file = open(__file__, encoding="utf-8")  # noqa: SIM115
    file.close()
    (told,) = trace.problems
    assert told.startswith(f"1 files are still open ({os.path.realpath(__file__)}); use `with open(...)`")
