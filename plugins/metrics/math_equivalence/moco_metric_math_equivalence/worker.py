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
        except (Exception, RecursionError) as error:
            problem = f"{type(error).__name__} while comparing"
        signal.setitimer(signal.ITIMER_PROF, 0)
        send({"equal": bool(equal), "problem": problem})


if __name__ == "__main__":
    main()
