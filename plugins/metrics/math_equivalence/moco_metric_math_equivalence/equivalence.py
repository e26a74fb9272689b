"""Whether two answers are the same mathematics: cheap rules first, math-verify in a worker process last."""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
import threading
import time
import weakref
from functools import lru_cache

from moco_core.errors import MocoError
from moco_toolkit_answers import (
    clean_latex,
    decimals_of,
    math_key,
    normalise_unicode,
    parse_number,
    round_to,
    split_items,
    strip_units,
    text_only,
)
from moco_toolkit_answers.latex import drop_assignment

__all__ = ["Checker"]

_LONGEST = 400
"""No answer worth a symbolic comparison is longer."""

_START = 300.0
_PATIENCE = 20.0
"""The worker counts processor time and ends itself; these wall-clock bounds are for one that hangs."""

_E_FORM = re.compile(r"(?<![A-Za-z\\])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d{1,3})(?!\w)")
_SUBSCRIPT = re.compile(r"\d_\{?\w")
_ASSIGNED = re.compile(r"^\s*([A-Za-z\\](?:[\w\\{}]*)(?:\([a-z]\))?)\s*=")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}(?:\{[clr|]*\})?")
_WORDS = re.compile(r"\\(?:text|mathrm|mbox|textrm|textbf)\s*\{[^{}]*\}|(?<![\\A-Za-z])[A-Za-z]{4,}(?![A-Za-z])")


@lru_cache(maxsize=8192)
def _cleaned(text: str) -> str:
    return clean_latex(text)


@lru_cache(maxsize=8192)
def _bare(text: str) -> str:
    """Return the cleaned right-hand side without units."""
    return strip_units(drop_assignment(_cleaned(text)))


class Checker:
    """Compares a reference and an answer. Safe to use from several threads; starts its worker when first needed."""

    def __init__(self, *, seconds: float = 5.0, digits: int = 6) -> None:
        self.seconds = seconds
        self.digits = digits
        self._worker: _Worker | None = None
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[bool, str]] = {}

    def equal(self, gold: str, answer: str) -> bool:
        """Whether ``answer`` equals ``gold``."""
        verdict = self.cheap(gold, answer)
        return self.compare(gold, answer)[0] if verdict is None else verdict

    def cheap(self, gold: str, answer: str) -> bool | None:
        """Decide without symbolic mathematics, or return None."""
        gold, answer = normalise_unicode(gold), normalise_unicode(answer)
        if not gold.strip() or not answer.strip():
            return False
        if math_key(gold) == math_key(answer) and _same_side(gold, answer):
            return True
        words = text_only(gold)
        if words is not None or text_only(answer) is not None:
            return words is not None and words == text_only(answer)
        left, right = _bare(gold), _bare(answer)
        first, second = parse_number(left), parse_number(right)
        if first is not None and second is not None:
            decimals = decimals_of(left)
            if decimals and round_to(second, decimals) == first:
                return True
            shown = decimals_of(right) or 0
            rounded = round_to(second, self.digits)  # to nothing, where both are smaller than that
            return shown >= self.digits and rounded != 0 and rounded == round_to(first, self.digits)
        if _SUBSCRIPT.search(left) or _SUBSCRIPT.search(right):  # a base: symbolic mathematics would ignore it
            return _plain(left) == _plain(right)
        if not _same_side(gold, answer) or len(left) > _LONGEST or len(right) > _LONGEST:
            return False
        return None

    def compare(self, gold: str, answer: str) -> tuple[bool, str]:
        """Decide with symbolic mathematics; the second value says why nothing could be decided, or is empty."""
        left, right = _bare(normalise_unicode(gold)), _bare(normalise_unicode(answer))
        gold_open, gold_items, gold_close = split_items(left)
        open_, items, close = split_items(right)
        if len(gold_items) == 1 and len(items) == 1:
            if (gold_open, gold_close) != (open_, close) and {"[", "]"} & {gold_open, gold_close, open_, close}:
                return False, ""
            return self._symbolic(left, right)
        if len(gold_items) != len(items):
            return False, ""
        unordered = gold_open in ("", "\\{")
        if unordered:
            if open_ not in ("", "\\{") or close not in ("", "\\}"):
                return False, ""
        elif (gold_open, gold_close) != (open_, close):
            return False, ""
        problem = ""
        if not unordered:
            for g, a in zip(gold_items, items, strict=True):
                same, why = self._item(g, a)
                problem = problem or why
                if not same:
                    return False, problem
            return True, problem
        rest = list(items)
        for g in gold_items:
            for index, a in enumerate(rest):
                same, why = self._item(g, a)
                problem = problem or why
                if same:
                    del rest[index]
                    break
            else:
                return False, problem
        return True, problem

    def _item(self, gold: str, answer: str) -> tuple[bool, str]:
        verdict = self.cheap(gold, answer)
        return self._symbolic(gold, answer) if verdict is None else (verdict, "")

    def _symbolic(self, gold: str, answer: str) -> tuple[bool, str]:
        # words would be read as products of symbols
        if any(_WORDS.search(_ENVIRONMENT.sub("", text)) for text in (gold, answer)):
            return _plain(gold) == _plain(answer), ""
        pair = (_e_form(gold), _e_form(answer))
        with self._lock:
            if pair in self._known:
                return self._known[pair]
            if self._worker is None or not self._worker.alive:
                self._worker = _Worker()
            result = self._worker.ask(*pair, digits=self.digits, seconds=self.seconds)
            if len(self._known) > 50_000:
                self._known.clear()
            self._known[pair] = result
            return result


def _plain(text: str) -> str:
    return re.sub(r"_\{(\w+)\}", r"_\1", "".join(text.split())).casefold()


def _e_form(text: str) -> str:
    return _E_FORM.sub(r"\1 \\cdot 10^{\2}", text)


def _same_side(gold: str, answer: str) -> bool:
    """Whether two answers may be compared by their right-hand sides: one is bare, or both name the same variable."""
    first, second = _ASSIGNED.match(_cleaned(gold)), _ASSIGNED.match(_cleaned(answer))
    return first is None or second is None or first[1] == second[1]


class _Worker:
    """A process that holds math-verify; one line of JSON in, one out. It is killed when an answer takes too long."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moco_metric_math_equivalence.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._stop = weakref.finalize(self, _stop, self._process)
        self._buffer = b""
        self._ready = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, gold: str, answer: str, *, digits: int, seconds: float) -> tuple[bool, str]:
        if not self._ready:  # importing takes a while, and is not the expression's fault
            self._ready = self._line(_START) is not None
            if not self._ready:
                self._stop()
                raise MocoError(
                    "the worker of math_equivalence did not start; check that math-verify is installed "
                    "(pip install 'math-verify[antlr4_13_2]')"
                )
        request = json.dumps({"gold": gold, "answer": answer, "digits": digits, "seconds": seconds}) + "\n"
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(request.encode())
            line = self._line(_PATIENCE * seconds)
        except OSError:
            line = None
        if line is None:
            self._stop()
            return False, "the comparison took too long or failed"
        data = json.loads(line)
        return bool(data["equal"]), str(data["problem"])

    def _line(self, seconds: float) -> bytes | None:
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            chunk = self._process.stdout.read(65536)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
