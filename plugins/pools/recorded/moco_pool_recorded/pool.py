"""The pool plugin, and the engine that looks replies up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import attrs

from moco_core import Call, ConfigError, Engine, Inbox, Model, ModelCallError, PoolSource, option
from moco_core.errors import suggest
from moco_core.types import digest
from moco_pool_recorded.reading import declared, read
from moco_pool_recorded.rows import Row, Table

__all__ = ["Options", "RecordedPool"]


def _problem(tables: Sequence[str]) -> str | None:
    return None if tables else "empty; name at least one file or folder"


@attrs.frozen(kw_only=True)
class Options:
    """Options of the recorded pool."""

    tables: tuple[str, ...] = option(
        holds="path",
        check=_problem,
        help="files (CSV, JSON lines, parquet) and folders (runs, LLMRouterBench's results)",
    )
    models: tuple[str, ...] = option((), help="which models, in order; default: all, as they occur")
    match: Literal["auto", "id"] = option(
        "auto",
        help="by what a question is found; auto: by what was read, its prompt, and its id where a row has no more",
    )
    fingerprints: Literal["own", "recorded"] = option(
        "own",
        help="recorded: models of runs are known to be those they were, calls are found by their keys, seeds included, and "
        "orders that hang on fingerprints return; use a cache of its own (--cache)",
    )
    fields: Mapping[str, str] = option(
        factory=dict, help="columns of a table by what they are: {reply: answer_text}; default: by their usual names"
    )
    columns: tuple[str, ...] = option((), help="columns that are models, each cell a reply, in a table without models")
    descriptions: Mapping[str, str] = option(
        factory=dict, help="what models are good at, by name, for methods that choose models by description"
    )


class RecordedEngine(Engine):
    """Looks replies up. ``refused`` counts, by model, the calls that the recording does not hold."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()

    def serve(self, model: Model, inbox: Inbox) -> None:
        table: Table = model.info["table"]
        while calls := inbox.take():
            found = [(call, _found(table, call)) for call in calls]
            inbox.resolve([(call, row.generation(priced=table.priced)) for call, row in found if row is not None])
            for call, row in found:
                if row is None:
                    self.refused[model.name] += 1
                    inbox.reject(call, ModelCallError(f"{model.name}: {_asked(call)} is not in the recording"))

    def ready(self, model: Model) -> bool:
        return True

    def facts(self) -> Mapping[str, Any]:
        return {"refused": dict(self.refused)}


def _found(table: Table, call: Call) -> Row | None:
    return table.find(call.input, call.key.hex() if call.key else "") if call.kind == "generate" else None


def _asked(call: Call) -> str:
    given = call.input
    if "question" in given:
        return f"question {given['question']['id']!r}"
    text = str(given["messages"][-1][1] if given.get("messages") else given.get("text", call.kind))
    return f"what it is asked ({' '.join(text.split())[:60]!r})"


class RecordedPool(PoolSource[Options]):
    """Models whose replies come from a table: earlier runs, LLMRouterBench, RouterBench, or one's own."""

    Options = Options

    @cached_property
    def engine(self) -> RecordedEngine:
        return RecordedEngine()

    @cached_property
    def known(self) -> dict[str, str]:
        """The models of recorded runs in their pool's order, with their fingerprints. Raises ConfigError if runs disagree."""
        out: dict[str, str] = {}
        for path in self.options.tables:
            for name, mark in declared(path):
                if out.setdefault(name, mark) != mark and self.options.fingerprints == "recorded":
                    raise ConfigError(f"tables: in two runs two models are called {name!r}; name the runs of one pool")
        return out

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The recorded replies by model. Raises ConfigError: a file that cannot be read, two replies to one question."""
        options = self.options
        match = "key" if options.fingerprints == "recorded" else options.match
        out = {name: Table(name, match) for name in self.known}
        for path in options.tables:
            for row in read(path, options.fields, options.columns):
                table = out.setdefault(row.model, Table(row.model, match))
                if not options.models or row.model in options.models:
                    table.add(row)
        return out

    def models(self) -> Sequence[Model]:
        """Describe the models in order. Raises ConfigError if the tables cannot be read or do not hold a model."""
        tables, names = self.tables, self.options.models or tuple(self.tables)
        if missing := [name for name in names if name not in tables]:
            there = ", ".join(tables) or "none"
            raise ConfigError(
                f"models: no {missing[0]!r} in the recording (there are: {there}){suggest(missing[0], tables)}"
            )
        if not names:
            raise ConfigError("tables: they hold no replies")
        exact = self.options.fingerprints == "recorded"
        can = {"generate"} if exact else {"generate", "question"}  # a key holds the form in which a question was read
        out, copies = [], Counter[str]()
        for name in names:
            mark = tables[name].fingerprint
            if exact:
                mark = self.known.get(name, mark)
            out.append(
                Model(
                    name=name,
                    fingerprint=mark,
                    capabilities=frozenset(can),
                    engine=self.engine,
                    description=self.options.descriptions.get(name, ""),
                    tokenizer=digest("recorded tokenizer", mark),  # unknown: equal for copies only
                    architecture=digest("recorded architecture", mark),
                    device_group="recorded",
                    copy=copies[mark],
                    info={"table": tables[name]},
                )
            )
            copies[mark] += 1
        return out
