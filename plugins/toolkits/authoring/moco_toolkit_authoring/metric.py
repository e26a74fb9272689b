"""Checks of metrics: what reading and scoring promise for any text, odd ones above all."""

from __future__ import annotations

import asyncio
import inspect
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from moco_core.cli.describing import describe
from moco_core.data import Metric, Scored
from moco_core.errors import MocoError
from moco_core.models import Pool
from moco_core.runtime.contexts import RunState
from moco_core.types import Answer, Example, Question, Reply, Score
from moco_toolkit_authoring.harness import as_plugin, open_state
from moco_toolkit_authoring.suite import Case, Check, NotApplicable, as_text, check, require
from moco_toolkit_authoring.traces import Trace, process_as_it_was, unseen_folder

__all__ = ["CHECKS", "ODD_TEXTS", "MetricCase", "MetricPlan", "metric_examples", "score_of"]

ODD_TEXTS = (
    "",
    " ",
    "\n\t\r",
    "\u0000",
    "\ud800",
    "\ufeff\u202e\u200b",
    "🙂" * 50,
    "((((((((((",
    "[[[{{{",
    "\\boxed{",
    "\\frac{1}{0}",
    "$$",
    "1e999",
    "-0",
    "nan",
    "1/0",
    "9" * 5000,
    "9**9**9**9",
    "The answer is",
    "The answer is A or B or C.",
    "A B C D",
    "**(b)**",
    "<think>never closed",
    "```python\nwhile True",
    "answer: " * 500,
    "a" * 20000,
    "x^2 + " * 300,
    "The answer is 42.",
    "The answer is B.",
)
"""Texts on which reading and scoring must not raise."""

_SHORT = 100  # characters of a text that is read again in another process


def metric_examples() -> list[Example]:
    """Return one or two small examples for every common kind of answer."""

    def free(kind: str, prompt: str, *references: str, **fields: Any) -> Example:
        return Example(
            question=Question(id=f"{kind}-{prompt}", prompt=prompt, answer_kind=kind, **fields), references=references
        )

    def choice(name: str, prompt: str, choices: Sequence[str], answer: int, **fields: Any) -> Example:
        question = Question(id=name, prompt=prompt, choices=choices, answer_kind="choice", **fields)
        return Example(question=question, references=(choices[answer],), answer=answer)

    return [
        choice("c1", "Which is a colour?", ("seven", "red", "dog", "up"), 1),
        choice("c2", "Which is a number?", ("A", "B"), 0, labels=("1", "2")),
        free("integer", "What is 40 + 2?", "42"),
        free("decimal", "What is 1 / 8?", "0.125"),
        free("math", "Simplify.", "\\frac{1}{2}"),
        free("text", "Capital of France?", "Paris", "paris"),
        free("short", "Who wrote it?", "Jane Austen"),
        free("boolean", "Is water wet?", "yes"),
        free("label", "Which topic?", "sport", labels=("sport", "politics")),
        free("open", "Tell me a story.", "Once upon a time."),
    ]


def score_of(metric: Metric[Any], example: Example, text: str) -> Score:
    """Score one reply outside a run. Raises what the metric raises."""

    async def work() -> Score:
        async with open_state(metric=metric) as state:
            context = state.context("metric", example.question)
            score = metric.score(example, Reply(text=text), context)
            return await score if inspect.isawaitable(score) else score

    return asyncio.run(work())


def hindrance(metric: Metric[Any]) -> str:
    """Return what keeps a metric from scoring; empty if nothing does."""
    try:
        return "; ".join(metric.check())
    except MocoError as error:
        return str(error)


@attrs.frozen(kw_only=True)
class MetricPlan:
    """What metric checks work with. ``examples`` are scored, ``texts`` are the replies, beside the odd ones.

    ``pool`` makes the pool that a metric scores with, for its option ``pool``; without it such a metric is not scored with.
    """

    examples: Sequence[Example] = attrs.field(factory=metric_examples)
    texts: Sequence[str] = ("The answer is B.", "The answer is 42", "Paris", "yes", "2", "red")
    pool: Callable[[], Pool] | None = None
    held: tuple[str, ...] = attrs.field(init=False)
    """What the examples hold before any of them is scored, as texts."""

    @held.default
    def _held(self) -> tuple[str, ...]:
        return tuple(as_text(example) for example in self.examples)


@attrs.define(eq=False)
class MetricCase(Case):
    """A metric with one setting."""

    plan: MetricPlan

    def metric(self) -> Metric[Any]:
        options = self.options()
        if self.plan.pool is not None:
            (name, *_) = [o.name for o in describe(self.cls.Options) if o.plugin == "pool"]
            options = attrs.evolve(options, **{name: as_plugin(self.plan.pool())})
        made: Metric[Any] = self.cls(options)
        return made

    def require_judge(self) -> None:
        """Raise NotApplicable if something keeps the metric from scoring."""
        if why := hindrance(self.metric()):
            raise NotApplicable(f"it cannot score here: {why}" + ("" if self.plan.pool else "; pool= gives it models"))

    def table(self) -> list[tuple[Example, str, Score]]:
        """Score every ordinary text against every example, once for all checks; NotApplicable if that takes models."""
        return self.traced()[0]

    def traced(self) -> tuple[list[tuple[Example, str, Score]], Trace]:
        """Return also what was left behind; by then odd texts were scored, so that libraries are imported."""
        self.require_judge()
        return self.once("table", self._traced)  # type: ignore[no-any-return]

    def _traced(self) -> tuple[list[tuple[Example, str, Score]], Trace]:
        instead = "use context.rng(...), Score.meta, or context.warn"
        with unseen_folder(self.given) as written, process_as_it_was(instead) as trace:
            metric = self.metric()  # held meanwhile, so that a file of its own does not close with it
            for text in self.plan.texts:
                metric.read(self.plan.examples[0].question, text)
            rows = self.scored(metric, self.pairs(self.plan.texts))
            files = written()
        if files:
            trace.problems.append(f"{', '.join(files[:3])} was written into the working directory; use Score.meta")
        return rows, trace

    def pairs(self, texts: Sequence[str]) -> list[tuple[Example, str]]:
        """Return every example with every text."""
        return [(example, text) for example in self.plan.examples for text in texts]

    def scored(
        self, metric: Metric[Any], pairs: Sequence[tuple[Example, str]], at_once: int = 1
    ) -> list[tuple[Example, str, Score]]:
        """Score pairs in their order, some of them at once."""

        async def one(state: RunState, example: Example, text: str) -> tuple[Example, str, Score]:
            try:
                score = metric.score(example, Reply(text=text), state.context("metric", example.question))
                return example, text, await score if inspect.isawaitable(score) else score
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                shown = text if len(text) <= 40 else text[:40] + "..."
                raise AssertionError(f"scoring {shown!r} against {example.id!r} raises {what}") from error

        async def work() -> list[tuple[Example, str, Score]]:
            rows: list[tuple[Example, str, Score]] = []
            async with open_state(metric=metric) as state:
                for start in range(0, len(pairs), at_once):
                    rows += await asyncio.gather(*(one(state, *pair) for pair in pairs[start : start + at_once]))
            return rows

        return asyncio.run(work())

    def tell(self) -> str:
        usual = MetricCase(self.catalogue, self.kind, self.name, self.given, MetricPlan())  # as another process makes it
        metric, plan = usual.metric(), usual.plan
        texts = [t for t in (*ODD_TEXTS, *plan.texts) if len(t) < _SHORT]
        read = [attrs.asdict(metric.read(e.question, t)) for e, t in usual.pairs(texts)]
        scored = [] if hindrance(metric) else usual.scored(metric, usual.pairs(plan.texts[:3]))
        return as_text([read, [as_text(score) for _, _, score in scored]])


@check(after=["reading_takes_no_time"])  # else the long ones of these texts would take for ever, and no limit ends them
def reading_never_raises(case: MetricCase) -> None:
    """Any text can be read, for any kind of question."""
    metric = case.metric()
    for example in case.plan.examples:
        for text in (*ODD_TEXTS, *case.plan.texts):
            shown = text if len(text) <= 40 else text[:40] + "..."
            try:
                answer = metric.read(example.question, text)
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise AssertionError(f"reading {shown!r} for {example.id!r} raises {what}") from error
            require(isinstance(answer, Answer), f"read() returned {type(answer).__name__}, not an Answer")


@check(after=["reading_never_raises"])
def reading_states_its_status(case: MetricCase) -> None:
    """An answer has a key exactly if its status is "parsed"."""
    metric = case.metric()
    for example in case.plan.examples:
        for text in (*ODD_TEXTS, *case.plan.texts):
            answer = metric.read(example.question, text)
            agrees = (answer.status == "parsed") == (answer.key is not None)
            require(agrees, f"reading {text[:40]!r} for {example.id!r}: status {answer.status!r}, key {answer.key!r}")


@check(after=["reading_never_raises"])
def reading_is_deterministic(case: MetricCase) -> None:
    """One text read twice, by one instance or two, gives one answer."""
    metric, other = case.metric(), case.metric()
    for example in case.plan.examples:
        for text in case.plan.texts:
            first = metric.read(example.question, text)
            again = metric.read(example.question, text) == first == other.read(example.question, text)
            require(again, f"reading {text!r} for {example.id!r} twice gives different answers")


@check(after=["reading_never_raises"])
def scoring_never_raises(case: MetricCase) -> None:
    """Any text can be scored against any example."""
    case.require_judge()
    case.scored(case.metric(), case.pairs(ODD_TEXTS))


@check(after=["scoring_never_raises"])
def scores_are_in_range(case: MetricCase) -> None:
    """Scores are None or between 0 and 1; a binary metric gives nothing in between."""
    binary = case.metric().binary  # options may change it
    for example, text, score in case.table():
        require(isinstance(score, Score), f"score() returned {type(score).__name__}, not a Score")
        if score.value is None:
            continue
        where = f"{text!r} against {example.id!r} scores {score.value}"
        require(math.isfinite(score.value) and 0 <= score.value <= 1, f"{where}, outside [0, 1]")
        if binary:
            require(score.value in (0, 1), f"{where}, but the metric is declared binary")


@check(after=["scoring_is_deterministic"])
def nothing_earns_nothing(case: MetricCase) -> None:
    """An empty reply scores 0 wherever a full one is scored: it is neither rewarded nor left out of the mean."""
    if hindrance(case.make()):
        raise NotApplicable("what an empty reply is worth is the opinion of its model")
    metric = case.metric()
    scored = {example.id for example, _, score in case.table() if score.value is not None}
    for example in case.plan.examples:
        if example.id in scored:
            value = score_of(metric, example, "").value
            require(value == 0, f"an empty reply to {example.id!r} scores {value}, not 0")


@check(after=["scores_are_in_range", "reading_is_deterministic"])
def scoring_is_deterministic(case: MetricCase) -> None:
    """Scoring again, in another instance and in another order, some twice and some at once, gives equal scores."""
    wanted = {(e.id, t): s for e, t, s in case.table()}
    pairs = case.pairs((*case.plan.texts, *case.plan.texts[:2]))
    random.Random(0).shuffle(pairs)
    for example, text, score in case.scored(case.metric(), pairs, at_once=3):
        first = wanted[example.id, text]
        require(score == first, f"{text!r} against {example.id!r} scores {first.value}, then {score.value}")


@check(after=["scores_are_in_range", "reading_is_deterministic"])
def scoring_reads_as_read_does(case: MetricCase) -> None:
    """The answer that was scored is the one read() finds, whatever the
    references."""
    metric = case.metric()
    for example, text, score in case.table():
        if score.answer == Answer():
            continue  # the metric scores without reading
        read = metric.read(example.question, text)
        same = score.answer.key == read.key
        require(same, f"{text!r} for {example.id!r} is read as {read.key!r} but scored as {score.answer.key!r}")


@check(after=["scores_are_in_range"])
def units_ignore_order(case: MetricCase) -> None:
    """What statistics count does not depend on the order of the replies, and its mean is a score."""
    rows = [Scored(example=e, reply=Reply(text=t), score=s) for e, t, s in case.table()]
    one_each = list({r.example.id: r for r in rows}.values())
    metric = case.metric()
    wanted = sorted(metric.units(one_each), key=lambda u: u.id)
    for seed in range(3):
        shuffled = list(one_each)
        random.Random(seed).shuffle(shuffled)
        found = sorted(metric.units(shuffled), key=lambda u: u.id)
        require(found == wanted, "units() depends on the order of its rows")
    for unit in wanted:
        require(0 <= unit.score <= 1, f"units() gives {unit.id!r} the score {unit.score}")
    require(len({u.id for u in wanted}) == len(wanted), "units() gives one id twice")


@check(after=["units_ignore_order", "no_rows_give_no_units"])
def extra_metrics_are_finite_numbers(case: MetricCase) -> None:
    """Extra metrics are finite numbers by name, for all replies, a single one, and none."""
    rows = [Scored(example=e, reply=Reply(text=t), score=s) for e, t, s in case.table()]
    for some in (rows, rows[:1], []):
        for name, value in case.metric().extra_metrics(some).items():
            good = isinstance(name, str) and isinstance(value, (int, float)) and math.isfinite(value)
            require(good, f"extra_metrics() of {len(some)} replies gives {name!r} the value {value!r}")


@check(after=["entry_point_resolves", "options_have_defaults"])
def no_rows_give_no_units(case: MetricCase) -> None:
    """Without any reply there is nothing to count, and nothing fails."""
    units = list(case.metric().units([]))
    require(units == [], f"units([]) returned {units}")


@check(after=["reading_is_deterministic"])
def utility_is_a_similarity(case: MetricCase) -> None:
    """An answer fully supports itself; utilities lie between 0 and 1; unread answers support nothing."""
    metric = case.metric()
    for example in case.plan.examples:
        answers = [metric.read(example.question, t) for t in case.plan.texts]
        for a in answers:
            for b in answers:
                value = metric.utility(example.question, a, b)
                require(0 <= value <= 1, f"utility of {a.key!r} and {b.key!r} is {value}")
            own = metric.utility(example.question, a, a)
            wanted = 1.0 if a.parsed else 0.0
            require(own == wanted, f"utility of {a.key!r} with itself is {own}, expected {wanted}")


CHECKS: tuple[Check, ...] = (
    reading_never_raises,
    reading_states_its_status,
    reading_is_deterministic,
    scoring_never_raises,
    scores_are_in_range,
    scoring_is_deterministic,
    nothing_earns_nothing,
    scoring_reads_as_read_does,
    units_ignore_order,
    no_rows_give_no_units,
    extra_metrics_are_finite_numbers,
    utility_is_a_similarity,
)
