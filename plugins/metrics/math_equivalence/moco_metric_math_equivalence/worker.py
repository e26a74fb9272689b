"""The process that runs math-verify: ``python -m moco_metric_math_equivalence.worker``.

Only LaTeX is parsed (by a grammar); the plain-expression parser of SymPy evaluates code and is never given a reply.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from fractions import Fraction
from typing import Any

_DIGITS = 50
_SAME = 10.0**-40
_POINTS = (Fraction(37, 29), Fraction(101, 53))


def told_apart(gold: Any, answer: Any) -> bool:
    """Whether two exact expressions differ although their values are close.

    math-verify calls every difference below about 1e-16 zero, and so all tiny numbers equal. What shows decimals is left
    to its rounding; symbols are given two values each.
    """
    from sympy import Basic, Expr, Float, Integer, N, Rational

    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.has(Float) or answer.has(Float):
        return False
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    for point in _POINTS if symbols else _POINTS[:1]:
        values: dict[Basic, Basic] = {
            s: Rational(point.numerator, point.denominator) + Integer(i) / 7 for i, s in enumerate(symbols)
        }
        left, right = (side.subs(values).doit() for side in (gold, answer))
        gap = left - right
        if gap.is_Rational:
            if gap != 0:
                return True
            continue
        sizes = [abs(N(x, _DIGITS)) for x in (gap, left, right)]
        if not all(size.is_Number and size.is_finite for size in sizes):
            return False
        if sizes[0] > _SAME * max(sizes[1:]):
            return True
    return False


def main() -> None:
    """Answer one JSON request per line: ``{"gold", "answer", "digits", "seconds"}`` to ``{"equal", "problem"}``."""
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    # libraries may print: the protocol has its own descriptor
    out = os.dup(1)
    os.dup2(2, 1)

    from math_verify import LatexExtractionConfig, parse, verify  # type: ignore[import-untyped]

    config = (LatexExtractionConfig(),)

    def send(data: object) -> None:
        os.write(out, (json.dumps(data) + "\n").encode())

    send("ready")
    for line in sys.stdin:
        request = json.loads(line)
        equal, problem = False, ""
        # processor time, so that a busy machine changes no verdict; the signal's default action ends the process
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        try:
            # timers inside would need the main thread's signals; the parent keeps the time
            gold = parse(f"${request['gold']}$", config, parsing_timeout=None, raise_on_error=False)
            answer = parse(f"${request['answer']}$", config, parsing_timeout=None, raise_on_error=False)
            if not gold or not answer:
                problem = f"could not parse the {'answer' if gold else 'reference'}"
            else:
                equal = verify(gold, answer, float_rounding=request["digits"], timeout_seconds=None)
                equal = equal and not told_apart(gold[0], answer[0])
        except (Exception, RecursionError) as error:
            problem = f"{type(error).__name__} while comparing"
        signal.setitimer(signal.ITIMER_PROF, 0)
        send({"equal": bool(equal), "problem": problem})


if __name__ == "__main__":
    main()
