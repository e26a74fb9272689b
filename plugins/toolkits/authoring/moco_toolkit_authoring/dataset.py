"""Checks of datasets, on a bundled or given sample: no check needs a network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from moco_core.data import Dataset, Metric
from moco_core.errors import DatasetError, UnknownPlugin, suggest
from moco_core.options import build
from moco_core.types import ANSWER_KINDS, Example, canonical
from moco_toolkit_authoring.elsewhere import PATIENCE, require_no_hash_order
from moco_toolkit_authoring.metric import hindrance, score_of
from moco_toolkit_authoring.suite import Case, Check, NotApplicable, as_text, check, require
from moco_toolkit_authoring.traces import process_as_it_was, unseen_folder

__all__ = ["CHECKS", "DatasetCase", "DatasetPlan", "gold_reply"]

_LIMIT = 200  # examples looked at per split: a sample, whatever the size of the dataset
_ENDLESS = 100_000  # no sample that travels in a package is as long
_TELLING = re.compile(
    r"^(answers?|labels?|gold|targets?|references?|solutions?|correct\w*|answer_?key)$", re.IGNORECASE
)


def gold_reply(example: Example) -> str | None:
    """Return a reply that states the reference, or None if an example has none that can be said in one sentence."""
    question = example.question
    if example.answer is not None and question.choices:
        return f"The answer is {question.letters[example.answer]}."
    if example.references:
        return f"The answer is {example.references[0]}"
    return None


@attrs.frozen(kw_only=True)
class DatasetPlan:
    """What dataset checks work with. ``gold`` writes a perfect reply; ``metric`` replaces the dataset's default."""

    gold: Callable[[Example], str | None] = gold_reply
    metric: Metric[Any] | None = None


@attrs.define(eq=False)
class DatasetCase(Case):
    """A dataset with one setting; without a setting, with its bundled sample."""

    plan: DatasetPlan

    def options(self) -> Any:
        return build(self.cls.Options, {**self.cls.sample(), **self.given}, self.name, plugins=self.catalogue)

    def read(self, split: str, source: Dataset[Any] | None = None) -> list[Example]:
        """Return the first examples of a split."""
        dataset = source or self.make()
        return list(itertools.islice(dataset.examples(split), _LIMIT))  # type: ignore[arg-type]

    def split(self, split: str) -> list[Example]:
        """The same, read once for all checks."""
        return [row for row, _ in self.as_read(split)]

    def as_read(self, split: str) -> list[tuple[Example, str]]:
        """Return also what each example held as it was given, as a text."""
        rows: list[tuple[Example, str]] = self.once(
            ("split", split), lambda: [(r, as_text(r)) for r in itertools.islice(self.make().examples(split), _LIMIT)]
        )
        return rows

    def tell(self) -> str:
        return canonical([[shown for _, shown in self.as_read(split)] for split in ("dev", "test")])

    def metric(self) -> Metric[Any]:
        if self.plan.metric is not None:
            return self.plan.metric
        name = self.cls.facts.metric
        try:
            cls = self.catalogue.load("metric", name)
        except UnknownPlugin:
            raise NotApplicable(f"the default metric {name!r} is not installed") from None
        made: Metric[Any] = cls(build(cls.Options, {}, plugins=self.catalogue))
        if why := hindrance(made):
            raise NotApplicable(
                f"the metric {name!r} cannot score by itself ({why}): which reply is best or worst is no known maximum or "
                "minimum; give metric= to check with one that can"
            )
        return made

    def judged(self) -> bool:
        """Whether replies are scored by a model's opinion, or else by what this machine lacks."""
        if self.plan.metric is not None:
            return False
        cls = self.catalogue.load("metric", self.cls.facts.metric)
        return bool(hindrance(cls(build(cls.Options, {}, plugins=self.catalogue))))


@check(per_setting=False, after=["entry_point_resolves"])
def facts_are_stated(case: DatasetCase) -> None:
    """Title, default metric, licence and source are stated."""
    facts = getattr(case.cls, "facts", None)
    require(facts is not None, "the class has no facts")
    missing = [n for n in ("title", "metric", "licence", "source") if not str(getattr(facts, n)).strip()]
    require(not missing, f"facts lack {', '.join(missing)}")


@check(per_setting=False, after=["facts_are_stated"])
def default_metric_is_there(case: DatasetCase) -> None:
    """The default metric exists, and installing the dataset installs it."""
    case.catalogue.load("metric", case.cls.facts.metric)


@check(after=["entry_point_resolves", "options_have_defaults"])
def sample_is_readable(case: DatasetCase) -> None:
    """Both splits can be read offline, and hold examples."""
    for split in ("dev", "test"):
        try:
            rows = case.split(split)
        except DatasetError as error:
            if not case.given and not case.cls.sample():
                raise NotApplicable(f"no offline sample: {error}") from None
            raise AssertionError(f"{split}: {error}") from None
        require(rows, f"the split {split!r} is empty")
        if len(rows) == _LIMIT and not case.given:
            more = sum(1 for _ in itertools.islice(case.make().examples(split), _ENDLESS))
            require(more < _ENDLESS, f"the split {split!r} of the sample does not end within {_ENDLESS:,} examples")
        for row in rows:
            require(isinstance(row, Example), f"{split}: {type(row).__name__} is not an Example")
            require(row.question.prompt.strip(), f"{split}: example {row.id!r} has an empty prompt")


@check(after=["sample_is_readable"])
def ids_are_unique(case: DatasetCase) -> None:
    """No id occurs twice, in either split."""
    seen: dict[str, str] = {}
    for split in ("dev", "test"):
        for row in case.split(split):
            require(row.id, f"{split}: an example has an empty id")
            require(row.id not in seen, f"the id {row.id!r} occurs twice ({seen.get(row.id)} and {split})")
            seen[row.id] = split


@check(after=["sample_is_readable"])
def splits_are_disjoint(case: DatasetCase) -> None:
    """No test question is also a dev question."""
    dev = {(r.question.prompt, r.question.choices): r.id for r in case.split("dev")}
    for row in case.split("test"):
        twin = dev.get((row.question.prompt, row.question.choices))
        require(twin is None, f"test example {row.id!r} asks what dev example {twin!r} asks")


@check(after=["sample_is_readable"])
def order_is_fixed(case: DatasetCase) -> None:
    """Reading twice, from one instance or from two, gives equal examples in one order."""
    dataset = case.make()
    for split in ("dev", "test"):
        wanted = case.split(split)
        for source, who in ((dataset, "a second instance"), (dataset, "the same instance, read again")):
            found = case.read(split, source)
            require([r.id for r in found] == [r.id for r in wanted], f"{split}: {who} gives other ids or another order")
            differing = next((r.id for r, w in zip(found, wanted, strict=True) if r != w), None)
            require(differing is None, f"{split}: {who} gives another example {differing!r}")


@check(after=["sample_is_readable"])
def questions_are_plain_data(case: DatasetCase) -> None:
    """What a question and an example carry is JSON; choices and answers fit together."""
    for split in ("dev", "test"):
        for row in case.split(split):
            try:
                canonical([row.question.meta, row.meta])
            except (TypeError, ValueError) as error:
                raise AssertionError(f"{split}: meta of {row.id!r} is not JSON: {error}") from None
            choices = row.question.choices
            if row.answer is not None and choices:
                require(0 <= row.answer < len(choices), f"{split}: example {row.id!r} has no choice {row.answer}")
            if row.question.labels and choices:
                require(len(row.question.labels) == len(choices), f"{split}: {row.id!r} has more labels than choices")


@check(after=["questions_are_plain_data"])
def questions_show_no_reference(case: DatasetCase) -> None:
    """Question.meta neither holds a reference nor tells the right choice."""
    rows = case.split("dev") + case.split("test")
    for row in rows:
        references = {r.strip() for r in row.references if len(r.strip()) >= 12}
        for path, leaf in _leaves(row.question.meta):
            require(not _TELLING.match(path.rpartition(".")[2]), f"Question.meta of {row.id!r} has the key {path!r}")
            if isinstance(leaf, str):
                shown = next((r for r in references if r in leaf), None)
                require(shown is None, f"Question.meta[{path!r}] of {row.id!r} contains the reference {shown!r}")
    _require_independent(rows)


def _require_independent(rows: list[Example]) -> None:
    """Fail if some field of Question.meta is the answer in every example, under whatever name."""
    always: dict[str, int] = {}
    for row in rows:
        truths = {str(row.answer), *(r.strip() for r in row.references)}
        if row.answer is not None and row.question.choices:
            truths.add(row.question.letters[row.answer])
        for path, leaf in _leaves(row.question.meta):
            always[path] = always.get(path, 0) + (str(leaf).strip() in truths)
    answers = {canonical([r.answer, r.references]) for r in rows}
    if len(rows) >= 4 and len(answers) >= 2:
        told = sorted(path for path, count in always.items() if count == len(rows))
        require(not told, f"Question.meta tells the answer of every example: {', '.join(told)}")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner, path)
    elif value is not None and not isinstance(value, bool):
        yield path, value


@check(after=["questions_are_plain_data"])
def gold_scores_highest(case: DatasetCase) -> None:
    """A reply that states the reference scores 1 under the dataset's metric."""
    metric, tried = case.metric(), 0
    for split in ("dev", "test"):
        for row in case.split(split)[:20]:
            text = case.plan.gold(row)
            if text is None:
                continue
            score = score_of(metric, row, text)
            tried += 1
            require(score.value == 1, f"{split}: the reply {text!r} to {row.id!r} scores {score.value}, not 1")
    if not tried:
        raise NotApplicable("no example has a reference that can be said; give gold=")


@check(after=["questions_are_plain_data"])
def empty_reply_scores_lowest(case: DatasetCase) -> None:
    """An empty reply scores 0 under the dataset's metric."""
    metric = case.metric()
    for split in ("dev", "test"):
        for row in case.split(split)[:20]:
            score = score_of(metric, row, "")
            require(not score.value, f"{split}: an empty reply to {row.id!r} scores {score.value}, not 0")


@check(after=["sample_is_readable", "default_metric_is_there"])
def examples_can_be_scored(case: DatasetCase) -> None:
    """Examples have references or a right choice, unless a model judges them; kinds of answers are spelt as they are known."""
    judged = case.judged()
    for split in ("dev", "test"):
        for row in case.split(split):
            kind = row.question.answer_kind
            near = "" if kind in ANSWER_KINDS else suggest(kind, ANSWER_KINDS)
            require(not near, f"{split}: example {row.id!r} has the unknown answer_kind {kind!r}{near}")
            told = row.references or row.answer is not None or row.meta
            require(
                judged or told,
                f"{split}: example {row.id!r} has no reference, no right choice and no meta to score with",
            )


@check(after=["sample_is_readable"])
def notes_are_plain_data(case: DatasetCase) -> None:
    """What reading found worth telling is JSON, before and after reading."""
    dataset = case.make()
    for when in ("before", "after"):
        try:
            canonical(dataset.notes())
        except (TypeError, ValueError) as error:
            raise AssertionError(f"notes() {when} reading is not JSON: {error}") from None
        case.read("dev", dataset)


@check(after=["order_is_fixed"])
def examples_stay_as_they_were(case: DatasetCase) -> None:
    """An example that was given does not change when others are read, in this pass or the next."""
    for split in ("dev", "test"):
        for row, shown in case.as_read(split):
            require(as_text(row) == shown, f"{split}: example {row.id!r} changed after it was given; make each anew")


@check(per_setting=False, after=["order_is_fixed"], apart=PATIENCE)
def hash_order_changes_nothing(case: DatasetCase) -> None:
    """Two processes that order sets and hashes differently read the same examples in one order."""
    require_no_hash_order(case, "examples, their ids or their order")


@check(after=["order_is_fixed"])
def reading_leaves_nothing_behind(case: DatasetCase) -> None:
    """Reading prints nothing, and leaves no file, thread or program behind.

    Nor does it move what the whole process shares: its working directory, generators, environment, locale, warnings, root
    logger, settings of torch.
    """
    instead = "draw with random.Random(seed); tell what people should know in notes()"
    with unseen_folder({**case.cls.sample(), **case.given}) as written, process_as_it_was(instead) as trace:
        dataset = case.make()  # held meanwhile, so that a file of its own does not close with it
        for split in ("dev", "test"):
            case.read(split, dataset)
        files = written()
    trace.require_none()
    require(not files, f"{', '.join(files[:3])} was written into the working directory; read, and write nothing")


CHECKS: tuple[Check, ...] = (
    facts_are_stated,
    default_metric_is_there,
    sample_is_readable,
    ids_are_unique,
    splits_are_disjoint,
    order_is_fixed,
    questions_are_plain_data,
    questions_show_no_reference,
    gold_scores_highest,
    empty_reply_scores_lowest,
    examples_can_be_scored,
    notes_are_plain_data,
    examples_stay_as_they_were,
    hash_order_changes_nothing,
    reading_leaves_nothing_behind,
)
