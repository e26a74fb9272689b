"""The declarative base of dataset plugins: a plugin states facts and options and turns one row into one example."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import attrs

from moco_core import ConfigError, Dataset, DatasetError, Example, Question, Split
from moco_core.errors import suggest
from moco_core.types import digest
from moco_toolkit_data.duplicates import DuplicateReport, content_key
from moco_toolkit_data.hub import Hub
from moco_toolkit_data.options import SourceOptions
from moco_toolkit_data.rows import Drop, Row
from moco_toolkit_data.source import Source, SourceSpec
from moco_toolkit_data.splits import Sample, cut, rank, sampled, shuffled
from moco_toolkit_data.study import StudyItems

__all__ = ["SourceDataset"]


_STUDY = ("study", "peer")
O = TypeVar("O", bound=SourceOptions)  # noqa: E741


class SourceDataset(Dataset[O]):
    """A dataset read from the Hub, from a local copy of it, or from the reference study's published JSON.

    A plugin states ``name``, ``facts`` and ``hub``, the source splits that dev and test come from (``dev_from``,
    ``test_from``; if they are the same, that split is cut in two by seed, whole :meth:`unit` by unit) and implements
    :meth:`record`. Both row forms go through the same ``record``, which recognises them by their fields.

    Reading streams: what is held is a sample of the asked size, and one key per example yielded.
    """

    Options: ClassVar[type] = SourceOptions
    name: str
    hub: tuple[Hub, ...] = ()
    dev_from: tuple[str, ...] = ("train",)
    test_from: tuple[str, ...] = ("test",)
    subsets: tuple[str, ...] = ()
    fixture: ClassVar[str] = "fixture.jsonl"
    answer_format: str = ""
    access_hint: str = ""
    """What to do, or which page to open, to get a source that is gated or not on the Hub; a clause."""
    split_by_hash: ClassVar[bool] = False
    """If true, a unit's hash decides its split and examples are sampled one by one: for few, large units."""
    repeated_ids: ClassVar[Literal["refuse", "drop"]] = "refuse"
    """What happens to a row whose upstream id was seen before: some sources list the same item twice."""
    drop_contradictions: ClassVar[bool] = False
    """If true, questions asked twice with different answers are left out; the source is read once more to find them."""

    def __init__(self, options: O) -> None:
        super().__init__(options)
        self._dropped: dict[Split, Counter[str]] = {}
        self._ids: dict[Split, dict[str, int]] = {}
        self._examples: dict[Split, int] = {}
        self._fingerprints: dict[Split, str] = {}
        self._duplicates = DuplicateReport()
        self.commits: dict[str, str] = {}
        self._policy: dict[Split, str] = {}
        self._wanted = self._check_subsets()
        if options.split_source in _STUDY and not (options.peer_items or options.path):
            raise ConfigError(
                "split_source: study needs the reference study's published JSON, as peer_items or as path"
            )
        if options.revision and options.path:
            raise ConfigError("revision: it pins a Hub source, but path is read instead; leave one of the two out")
        if options.sha256 and not options.path:
            raise ConfigError(
                "sha256: it checks the file at path, but path is not set; a Hub source is pinned by revision"
            )

    @classmethod
    def fixture_path(cls) -> Path:
        """Return the package's few hand-written rows in the source's own form, for tests without network."""
        return Path(inspect.getfile(cls)).parent / cls.fixture

    @classmethod
    def sample(cls) -> dict[str, Any]:
        """Return options that read :meth:`fixture_path`."""
        return {"path": str(cls.fixture_path())}

    # what a plugin writes

    @abstractmethod
    def record(self, row: Row) -> Example | Drop:
        """Turn one row into one example, or say why it is left out. Raises DatasetError through the row's getters."""

    def records(self, row: Row) -> Iterable[Example | Drop]:
        """Turn one row into its examples; only sources whose rows hold several items override this."""
        yield self.record(row)

    def unit(self, example: Example) -> str:
        """Return what must stay on one side when a split is cut: by default equal questions with equal choices."""
        return example.group or content_key(example)

    def side(self, example: Example) -> Split | None:
        """Return the split that a published list puts an example in, where one source split is cut; None: no list."""
        return None

    def peer_key(self, example: Example) -> str:
        """Return what tells that an item of the source is the reference study's: by default question and choices."""
        return content_key(example)

    def file_names(self) -> tuple[str, ...]:
        """Return how this dataset's file is called, endings aside, in a folder of published items."""
        return (self.name,)

    def sizes(self) -> tuple[int, int] | None:
        """Return how many dev and test examples to keep where nothing is asked for; None: all."""
        return self.facts.sizes

    def sources(self) -> tuple[Hub, ...]:
        """Return the Hub configurations to read; a subset that has its own configuration is the only one read."""
        kept = tuple(h for h in self.hub if not self._wanted or not h.subset or h.subset in self._wanted)
        return kept or self.hub

    # helpers for ``record``

    def choice(
        self,
        id: str,
        prompt: str,
        choices: Sequence[str],
        answer: int,
        *,
        shuffle: bool = False,
        subset: str = "",
        group: str = "",
        labels: Sequence[str] = (),
        asked: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Example:
        """Make a multiple-choice example; ``choices`` have no letters and ``answer`` is the index of the right one.

        ``shuffle`` (or the option ``shuffle_choices``) orders the choices by the seed and the item's own key; the
        permutation is kept in the example's ``meta``. ``asked`` is what a method may know besides the question.
        """
        shown, right, extra = tuple(choices), answer, dict(meta or {})
        if shuffle or self.options.shuffle_choices:
            key = id or digest(prompt, sorted(shown))
            # without an upstream id the item's content seeds its order, whatever the order it was given in
            shown, right, order = shuffled(shown, answer, self.options.seed, key)
            extra["permutation"] = list(order)
        question = self._question(id, prompt, "choice", subset, tuple(labels), asked, choices=shown)
        return Example(question=question, references=(shown[right],), answer=right, group=group, meta=extra)

    def text(
        self,
        id: str,
        prompt: str,
        references: Sequence[str],
        kind: str,
        *,
        subset: str = "",
        group: str = "",
        labels: Sequence[str] = (),
        answer_format: str | None = None,
        asked: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Example:
        """Make an example whose reply is compared with reference texts, judged, or run."""
        question = self._question(id, prompt, kind, subset, tuple(labels), asked, answer_format=answer_format)
        return Example(question=question, references=tuple(references), group=group, meta=dict(meta or {}))

    def _question(
        self,
        id: str,
        prompt: str,
        kind: str,
        subset: str,
        labels: tuple[str, ...],
        asked: Mapping[str, Any] | None,
        *,
        choices: tuple[str, ...] = (),
        answer_format: str | None = None,
    ) -> Question:
        own = self.answer_format if answer_format is None else answer_format
        wanted = self.options.answer_format
        return Question(
            id=id,
            prompt=prompt,
            choices=choices,
            labels=labels,
            answer_kind=kind,
            answer_format=own if wanted is None else wanted,
            system=self.options.system,
            subset=subset,
            meta=asked,
        )

    # reading

    def examples(self, split: Split) -> Iterator[Example]:
        """Yield the examples of a split; see :class:`moco_core.Dataset`."""
        self._dropped[split] = Counter()
        self._duplicates.start(split)
        ids = self._ids[split] = {}
        seen_subsets: set[str] = set()
        fingerprint = digest(self.facts.prompt_version)
        count = 0
        for row, example in self._selected(split, seen_subsets):
            key = content_key(example)
            if example.id in ids and self.repeated_ids == "drop":
                self._dropped[split]["listed before"] += 1
                continue
            example = self._named(row, example, key, ids)
            self._duplicates.add(split, example, key)
            fingerprint = digest(fingerprint, _content(example))
            count += 1
            # told as it goes: a run may take the first examples only, and the notes are about those it took
            self._examples[split], self._fingerprints[split] = count, fingerprint
            yield example
        if not count or self._wanted - seen_subsets:
            self._refuse_empty(split, seen_subsets)

    def notes(self) -> dict[str, Any]:
        """Return source, revision, split policy, counts, dropped rows with reasons, duplicates, fingerprints.

        ``commits`` says at which commit each Hub repository was read, so that "main" can be pinned afterwards.
        A fingerprint is a SHA-256 over the examples of a split that were read, in order; equal ones mean equal data.
        """
        return {
            "source": self.options.path or ", ".join(h.name for h in self.sources()),
            "revision": "" if self.options.path else self.options.revision or self.facts.revision,
            "commits": dict(self.commits),
            "split": dict(self._policy),
            "examples": dict(self._examples),
            "dropped": {split: dict(sorted(reasons.items())) for split, reasons in self._dropped.items()},
            "duplicates": self._duplicates.result(),
            "fingerprint": dict(self._fingerprints),
        }

    def _check_subsets(self) -> frozenset[str]:
        given = self.options.subset
        wanted = tuple(s for s in ((given,) if isinstance(given, str) else given) if s)
        if self.subsets:
            known = ", ".join(self.subsets)
            wrong = [s for s in wanted if s not in self.subsets]
            if wrong:
                raise ConfigError(
                    [f"subset: unknown {s!r}{suggest(s, self.subsets) or f'; known: {known}'}" for s in wrong]
                )
        return frozenset(wanted)

    def _spec(self) -> SourceSpec:
        stated = {n: getattr(self, n) for n in ("name", "options", "dev_from", "test_from", "subsets", "commits")}
        files, revision = self.file_names(), self.facts.revision
        return SourceSpec(**stated, hubs=self.sources(), revision=revision, file_names=files, access_hint=self.access_hint)

    def _selected(self, split: Split, seen: set[str]) -> Iterator[tuple[Row, Example]]:
        spec = self._spec()
        source = Source(spec)
        refused = self._contradictory(source) if self.drop_contradictions else frozenset()
        size = self.options.dev_size if split == "dev" else self.options.test_size
        study = None
        if self.options.split_source in _STUDY and self.options.peer_items:
            study = StudyItems(spec, self.records, self.peer_key)
        if source.study or study is not None:
            self._policy[split] = "the reference study's items"
            rows = self._kept(split, source.rows(None if study else split), seen, refused)
            found = rows if study is None else (pair for pair in rows if study.holds(split, *pair))
            yield from found if not size else sampled(found, size, self.options.seed)
            if study is not None and study.missing(split):
                self._policy[split] += f"; {study.missing(split)} of them are not in the source"
            return
        if self.options.split_source in _STUDY:
            raise DatasetError(
                f"{self.options.path}: not in the reference study's published form (rows with split dev or test), "
                "which split_source=study needs; to find its items in the full source give its file as peer_items"
            )
        size = self._size(split)
        if self.dev_from == self.test_from or source.undivided:
            whole = self._kept(split, source.rows(None), seen, refused)
            self._policy[split] = f"cut by seed {self.options.seed}"
            yield from self._cut(split, whole)
            return
        self._policy[split] = "official: " + ", ".join(self.dev_from if split == "dev" else self.test_from)
        rows = self._kept(split, source.rows(split), seen, refused)
        if size:
            self._policy[split] += f", at most {size} by seed {self.options.seed}"
        yield from rows if not size else sampled(rows, size, self.options.seed)

    def _kept(
        self, split: Split, rows: Iterable[Row], seen: set[str], refused: frozenset[str]
    ) -> Iterator[tuple[Row, Example]]:
        for row in rows:
            for made in self.records(row):
                if isinstance(made, Drop):
                    self._dropped[split][made.reason] += 1
                    continue
                if refused and content_key(made) in refused:
                    self._dropped[split]["asked twice with different answers"] += 1
                    continue
                subset = made.question.subset
                if self._wanted:
                    seen.add(subset)
                    if subset not in self._wanted:
                        continue
                yield row, made

    def _contradictory(self, source: Source) -> frozenset[str]:
        answers: dict[str, tuple[str, ...]] = {}
        refused = set()
        for row in source.rows(None):
            for made in self.records(row):
                if not isinstance(made, Drop):
                    key = content_key(made)
                    if answers.setdefault(key, made.references) != made.references:
                        refused.add(key)
        return frozenset(refused)

    def _size(self, split: Split) -> int:
        """How many examples to keep; 0: all."""
        asked = self.options.dev_size if split == "dev" else self.options.test_size
        if asked is not None:
            return asked
        sizes = self.sizes()
        return 0 if sizes is None else sizes[split == "test"]

    def _cut(self, split: Split, pairs: Iterable[tuple[Row, Example]]) -> Iterator[tuple[Row, Example]]:
        """Cut one source split in two. Both sides are decided by the items' own hashes, so they never overlap."""
        dev, test = self._size("dev"), self._size("test")
        seed = self.options.seed
        if self.split_by_hash:
            share = dev / (dev + test) if dev and test else 0.5
            side = (p for p in pairs if (rank(seed, "side", self.unit(p[1])) < share * 2**64) == (split == "dev"))
            size = self._size(split)
            yield from side if not size else sampled(side, size, self.options.seed)
            return
        first = next(iter_pairs := iter(pairs), None)
        if first is None:
            return
        pairs = chain([first], iter_pairs)
        if self.side(first[1]) is not None:
            self._policy[split] = "a published list"
            listed = (p for p in pairs if self.side(p[1]) == split)
            size = self._size(split)
            yield from listed if not size else sampled(listed, size, self.options.seed)
            return
        # without a size the whole source is cut, in halves or leaving the other side what it asked for
        total = dev + test if dev and test else 2**62
        sample: Sample[tuple[Row, Example]] = Sample(total)
        for row, example in pairs:
            unit = self.unit(example)
            sample.add(rank(seed, "cut", unit), unit, (row, example))
        units = sample.units()
        everything = sum(map(len, units))
        if not (dev and test):
            dev = dev or (everything - test if test else everything // 2)
            test = everything - dev
        yield from cut(units, dev, test)[split == "test"]

    def _named(self, row: Row, example: Example, key: str, ids: dict[str, int]) -> Example:
        """Give an example without an upstream id one made of its content; refuse upstream ids that repeat."""
        if example.id:
            if example.id in ids:
                raise DatasetError(f"{row.where('id')}: duplicate id {example.id!r}, first in row {ids[example.id]}")
            other: Split = "dev" if ids is self._ids.get("test") else "test"
            if example.id in (theirs := self._ids.get(other, {})):
                raise DatasetError(
                    f"{row.where('id')}: duplicate id {example.id!r}, in {other} too (row {theirs[example.id]})"
                )
            ids[example.id] = row.number
            return example
        # the study repeats some items in both splits: its split keeps their ids apart
        name = f"{row.split}-{key}" if row.study else key
        ids[name] = ids.get(name, 0) + 1
        name = name if ids[name] == 1 else f"{name}~{ids[name]}"
        return attrs.evolve(example, question=attrs.evolve(example.question, id=name))

    def _refuse_empty(self, split: Split, seen: set[str]) -> None:
        dropped = sum(self._dropped[split].values())
        where = self.options.path or ", ".join(h.name for h in self.sources())
        if seen and self._wanted - seen:
            wanted = ", ".join(sorted(self._wanted - seen))
            raise DatasetError(
                f"{where}: split {split} has no row of subset {wanted}; it has {', '.join(sorted(seen)) or 'none'}"
            )
        why = f": all {dropped} rows were dropped" if dropped else ""
        if self._policy.get(split, "").startswith("official"):
            why += (
                f"; it is read from the source's split {', '.join(self.dev_from if split == 'dev' else self.test_from)}"
            )
        raise DatasetError(f"{where}: split {split} of {self.name} is empty{why}")


def _content(example: Example) -> list[Any]:
    q = example.question
    return [q.id, q.text(), q.system, q.answer_kind, q.subset, list(example.references), example.answer, example.group]
