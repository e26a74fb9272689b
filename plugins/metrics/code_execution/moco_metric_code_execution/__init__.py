"""Code execution: pass@1 and pass@k of programs run against their tests in a sandbox."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import Any

import attrs

from moco_core import Answer, Context, DatasetError, Example, Metric, Question, Reply, Score, Scored, hookimpl, option
from moco_metric_code_execution.program import candidate
from moco_toolkit_answers import called_name, read_code
from moco_toolkit_sandbox import Isolation, Limits, Outcome, Sandbox

__all__ = ["CodeExecution", "Options", "moco_metric", "pass_at_k"]


@attrs.frozen(kw_only=True)
class Options:
    """How programs are isolated and bounded, and which pass@k is reported."""

    isolation: Isolation = option("bubblewrap", help="what keeps programs in; 'limits' is weak and must be asked for")
    seconds: float = option(10.0, gt=0, help="wall clock of one program")
    memory_mib: int = option(1024, ge=64, help="memory of one process")
    processes: int = option(32, ge=1, help="processes and threads of one program")
    k: int = option(1, ge=1, help="k of pass@k; needs at least k samples per reply", paper="1, 10, 100 (HumanEval)")
    samples: bool = option(False, help="run all texts of reply.meta['samples'], not the reply alone; k > 1 does so too")
    parallel: int | None = option(None, ge=1, help="programs at once; default: one per core")
    image: str = option("python:3.11-slim", help="container image (docker, podman)")
    packages: tuple[str, ...] = option(
        (), holds="path", help="folders that programs may import from, read-only (bubblewrap)"
    )


_Options = Options  # inside the class the name means the attribute


class CodeExecution(Metric[Options]):
    """Runs setup, candidate and tests once in a fresh process; 1 if the end of the tests is reached.

    The example's ``meta`` holds ``setup``, ``test`` and ``entry_point``; the question's ``meta`` may hold ``prefix``,
    the code that a reply may continue. With ``samples`` or ``k`` > 1 all texts of ``reply.meta["samples"]`` are run and
    the score is the unbiased pass@k of Chen et al. 2021 (arXiv 2107.03374). Raises SandboxUnavailable where programs
    cannot be isolated and SandboxError where the sandbox failed: neither says anything about the program.
    """

    Options = Options

    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self._sampled = options.samples or options.k > 1
        self.binary = not self._sampled  # type: ignore[misc]
        self._sandbox = Sandbox(
            options.isolation, parallel=options.parallel, image=options.image, packages=options.packages
        )
        self._limits = Limits(seconds=options.seconds, memory=options.memory_mib << 20, processes=options.processes)

    def check(self) -> Sequence[str]:
        """Return why no program can be isolated on this machine, if none can."""
        problem = self._sandbox.problem()
        return (problem,) if problem else ()

    def read(self, question: Question, text: str) -> Answer:
        """Return the program a reply holds; ``text`` is the code."""
        return read_code(question, text)

    async def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply; an example without tests is not scored."""
        test = example.meta.get("test") or example.meta.get("tests") or ""
        test = test if isinstance(test, str) else "\n".join(test)
        name = str(example.meta.get("entry_point") or example.question.meta.get("entry_point") or called_name(test))
        question = attrs.evolve(example.question, meta={**example.question.meta, "entry_point": name})
        answer = read_code(question, reply.text)
        if not test.strip():
            context.warn(
                f"question {example.id!r} is not scored: the metric code_execution needs tests in meta['test']"
            )
            return Score(value=None, answer=answer)
        samples = reply.meta.get("samples") if self._sampled else None
        texts = [str(s) for s in samples] if isinstance(samples, (list, tuple)) and samples else [reply.text]
        if len(texts) < self.options.k:
            raise DatasetError(
                f"question {example.id!r}: pass@{self.options.k} needs at least {self.options.k} samples per reply, got "
                f"{len(texts)}; lower metric.k or sample more"
            )
        outcomes = await context.gather(self._outcome(example, question, test, t, context) for t in texts)
        right = sum(o["status"] == "passed" for o in outcomes)
        value = pass_at_k(len(texts), right, self.options.k) if len(texts) > 1 else float(right)
        meta: dict[str, Any] = {"outcome": outcomes[0]["status"]}
        if outcomes[0]["detail"]:
            meta["detail"] = outcomes[0]["detail"]
        if len(texts) > 1:
            meta |= {"samples": len(texts), "passed": right}
        return Score(value=value, answer=answer, meta=meta)

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """The share of replies (of each reply's first sample) that ended in every way there was, but by passing."""
        ends = Counter(str(r.score.meta["outcome"]) for r in rows if "outcome" in r.score.meta)
        total = sum(ends.values())
        return {name: count / total for name, count in sorted(ends.items()) if name != "passed"}

    async def _outcome(
        self, example: Example, question: Question, test: str, text: str, context: Context
    ) -> dict[str, Any]:
        answer = read_code(question, text)
        if answer.key is None:
            return {"status": answer.status, "detail": "no code in the reply"}
        name, prefix = str(question.meta["entry_point"]), str(question.meta.get("prefix", ""))
        program = candidate(code=answer.text, name=name, prefix=prefix)
        rest = {"setup": str(example.meta.get("setup", "")).rstrip(), "tests": test, "entry_point": name}

        async def compute() -> dict[str, Any]:
            outcome: Outcome = await self._sandbox.run(program, self._limits, **rest)
            return outcome.to_json()

        what = {
            "metric": "code_execution",
            "version": 2,
            "program": program,
            **rest,
            "limits": self._limits.params(),
            "isolation": self.options.isolation,
            "image": self.options.image if self.options.isolation in ("docker", "podman") else "",
            "packages": list(self.options.packages),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }
        result: dict[str, Any] = await context.once(what, compute)
        return result


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return 1 - C(n-c, k) / C(n, k): the chance that one of k programs drawn from n, of which c are right, is right."""
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)


@hookimpl
def moco_metric() -> type[CodeExecution]:
    return CodeExecution
