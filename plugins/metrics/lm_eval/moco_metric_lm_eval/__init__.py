"""lm-evaluation-harness's own score of a reply: the task's filters, metric and aggregation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, Scored, hookimpl, option
from moco_toolkit_harness import aggregated, docs_of, harness_scores, load_tasks, read_reply

__all__ = ["LmEval", "Options", "moco_metric"]


@attrs.frozen(kw_only=True)
class Options:
    """Which of a task's measures is the score."""

    measure: str = option(
        "", help="METRIC or METRIC,FILTER, as lm-eval calls it; the first that is a number by default"
    )


class LmEval(Metric[Options]):
    """The value of a measure for one reply. All measures of the task, aggregated as it says, are extra metrics of the run."""

    Options = Options
    binary = False

    def read(self, question: Question, text: str) -> Answer:
        return read_reply(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply; a question that comes from no task of lm-eval is not scored."""
        answer = read_reply(example.question, reply.text)
        where = example.meta
        if not {"task", "include_path", "split", "index"} <= set(where):
            context.warn(f"question {example.id!r} is not scored: the metric lm_eval needs one of the dataset lm_eval")
            return Score(value=None, answer=answer)
        try:
            task = load_tasks(where["task"], where["include_path"])[where["task"]]
            found = harness_scores(task, docs_of(task, where["split"])[where["index"]], answer)
        except Exception as error:
            context.warn(f"task {where['task']!r} cannot score: {type(error).__name__}: {' '.join(str(error).split())}")
            return Score(value=None, answer=answer)
        value = self._value(found, task)
        if value is None:
            context.warn(
                f"task {where['task']!r}: no measure {self.options.measure!r} of single replies; it has {', '.join(found)}"
            )
        return Score(
            value=value,
            answer=answer,
            meta={"task": where["task"], "include_path": where["include_path"], "measures": found},
        )

    def _value(self, found: Mapping[str, Any], task: Any) -> float | None:
        """Return the measure that is asked for; by default the first that is a number, and better if higher."""
        wanted, better = self.options.measure, task.higher_is_better()
        for name, value in found.items():
            metric = name.rpartition(",")[0]
            named = wanted in (name, metric) if wanted else better.get(metric) is not False
            if named and isinstance(value, float):
                return value
        return None

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """Return every measure of every task over the run, as lm-eval aggregates it."""
        by_task: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for row in rows:
            if "measures" in row.score.meta:
                by_task.setdefault((row.score.meta["task"], row.score.meta["include_path"]), []).append(
                    row.score.meta["measures"]
                )
        out: dict[str, float] = {}
        for (name, include_path), measures in by_task.items():
            prefix = f"{name}/" if len(by_task) > 1 else ""
            found = aggregated(load_tasks(name, include_path)[name], measures)
            out |= {prefix + measure: value for measure, value in found.items()}
        return out


@hookimpl
def moco_metric() -> type[LmEval]:
    return LmEval
