"""Run configurations as data, checked against the options of the plugins they name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from moco_core.catalogue import Catalogue
from moco_core.errors import ConfigError, PluginError, suggest
from moco_core.fields import Lines
from moco_core.options import Plugin, build, build_plugin, option
from moco_core.types import Sampling

T = TypeVar("T")


CONTROLS = ("self", "equal_budget", "placebo")
"""The kinds of controls; :func:`control_of` makes one."""


def default_cache_path(environ: Mapping[str, str]) -> Path:
    """Return ``$MOCO_CACHE`` or ``$XDG_CACHE_HOME/moco/calls.sqlite`` (``~/.cache`` by default)."""
    if environ.get("MOCO_CACHE"):
        return Path(environ["MOCO_CACHE"])
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "moco" / "calls.sqlite"


def default_pool(catalogue: Catalogue) -> str:
    """Return the pool that is used where none is named: the one with the keyword ``default-pool``.

    Raises ConfigError if there is none, or more than one.
    """
    found = catalogue.able("pool", "default-pool")
    if len(found) != 1:
        raise ConfigError(
            f"pool: missing, and {' and '.join(found) or 'no installed pool'} would stand in; name one (moco list pool)"
        )
    return found[0]


def _seeds_problem(seeds: tuple[int, ...]) -> str | None:
    return None if seeds and len(set(seeds)) == len(seeds) else "expected one or more seeds, each once"


def _prices_problem(prices: Mapping[str, tuple[float, float]]) -> str | None:
    wrong = [name for name, pair in prices.items() if not all(0 <= p < math.inf for p in pair)]
    return f"{wrong[0]}: expected prices >= 0" if wrong else None


@attrs.frozen(kw_only=True)
class VerdictOptions:
    """How methods are judged, fixed before the first question is asked."""

    level: float = option(0.95, gt=0, lt=1, help="confidence of the paired intervals")
    gain: float = option(0.0, ge=0, lt=1, help="how much a method must gain, in units of the score")


@attrs.frozen(kw_only=True)
class Settings:
    """The keys of a configuration that are not plugins."""

    seed: int = option(0, help="seed of all sampling, permutations and searches")
    seeds: tuple[int, ...] | None = option(None, help="several seeds (moco bench)", check=_seeds_problem)
    sampling: Sampling = option(Sampling(), help="decoding of single models")
    dev: int | None = option(None, ge=0, help="use the first n dev examples")
    test: int | None = option(None, ge=1, help="use the first n test examples")
    in_flight: int = option(256, ge=1, help="questions worked on at once")
    parallel: int = option(4, ge=1, help="runs of a grid worked on at once")
    out: str = option("runs", holds="path", help="where run folders go")
    budget: str | int | float | None = option(None, help="stop once this is spent: money, or tokens ('500k tokens')")
    prices: Mapping[str, tuple[float, float]] = option(
        factory=dict,
        check=_prices_problem,
        help="money per million [prompt, completion] tokens, by model of the pool or of one that a metric or method holds",
    )
    wait: bool = option(False, help="wait where another process writes a run folder, instead of stopping")
    baselines: bool = option(True, help="also run every single model of the pool")
    controls: tuple[str, ...] = option((), help=f"controls of every method: {', '.join(CONTROLS)}")
    verdict: VerdictOptions = option(VerdictOptions(), help="how methods are judged")


KEYS = {
    "pool": "the models",
    "method": "how they collaborate; without one the single models alone are run",
    "methods": "several methods, a list (moco bench)",
    "dataset": "the questions: a dataset, or the path of a file",
    "datasets": "several datasets, a list (moco bench)",
    "metric": "how replies are scored; by default as the dataset says",
    "observer": "what watches the runs, such as an experiment tracker",
    "observers": "several observers, a list",
    "executor": "where the runs of a grid are done; by default in this process",
}
"""The keys of a configuration that hold plugins, and what they are."""


@attrs.frozen(kw_only=True)
class RunConfig:
    """A checked configuration: one pool, and methods x datasets x seeds."""

    pool: Plugin
    methods: tuple[Plugin, ...]
    datasets: tuple[Plugin, ...]
    metric: Plugin | None
    settings: Settings
    observers: tuple[Plugin, ...] = ()
    executor: Plugin | None = None
    controls: tuple[Plugin, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.settings.seeds or (self.settings.seed,)


def parse_settings(
    data: Mapping[str, Any],
    catalogue: Catalogue,
    *,
    lines: Lines | None = None,
    source: str = "",
) -> RunConfig:
    """Check a whole configuration and load the plugins it names.

    Raises ConfigError with every problem of every section at once, or a PluginError for a plugin that cannot be used.
    """
    problems: list[str] = []
    unusable: list[PluginError] = []
    marks = lines if lines is not None else Lines()
    own = {f.name for f in attrs.fields(Settings)}
    known = [*KEYS, *sorted(own)]

    def located(problem: str, key: str) -> str:
        return f"line {marks[key]}: {problem}" if marks.get(key) else problem

    def tried(place: str, build: Callable[..., T], *args: Any) -> T | None:
        try:
            return build(*args)
        except ConfigError as error:
            problems.extend(error.problems)
        except PluginError as error:
            unusable.append(type(error)(located(str(error), place)))
            problems.append(str(unusable[-1]))
        return None

    def one(kind: str, value: Any, path: str) -> Plugin | None:
        return tried(path, plugin_of, catalogue, kind, value, path, marks)

    def many(kind: str) -> tuple[Plugin, ...]:
        single, several = data.get(kind), data.get(kind + "s")
        for key, empty in ((kind, single is None), (kind + "s", not several)):
            if key in data and empty and kind != "observer":
                problems.append(located(f"{key}: empty; name at least one, or leave the key out", key))
        if single is not None and several is not None:
            problems.append(located(f"{kind}: give either {kind} or {kind}s, not both", kind))
        if single is not None:
            return tuple(p for p in [one(kind, single, kind)] if p)
        if several is not None and not isinstance(several, (list, tuple)):
            problems.append(located(f"{kind}s: expected a list", f"{kind}s"))
            return ()
        found = [one(kind, v, f"{kind}s[{i}]") for i, v in enumerate(several or ())]
        labels = [p.label for p in found if p]
        for label in sorted({p.label for p in found if p and p.label != p.name and labels.count(p.label) > 1}):
            problems.append(located(f"{kind}s: the label {label!r} stands there twice", f"{kind}s"))
        return _numbered([p for p in found if p])

    for key in data:
        if key not in known:
            near = suggest(str(key), known) or "; known keys: " + ", ".join(known)
            problems.append(located(f"{key}: unknown key{near}", str(key)))
    if data.get("seed") is not None and data.get("seeds") is not None:
        problems.append("seed: give either seed or seeds, not both")
    settings = tried("", build, Settings, {k: v for k, v in data.items() if k in own}, "", marks)
    pool = tried("pool", lambda: one("pool", data["pool"] if "pool" in data else default_pool(catalogue), "pool"))
    methods, datasets, observers = many("method"), many("dataset"), many("observer")
    controls = [
        tried("controls", control_of, catalogue, kind, method)
        for kind in (settings.controls if settings else ())
        for method in methods
    ]
    executor = None if data.get("executor") is None else one("executor", data["executor"], "executor")
    metric = (
        None
        if data.get("metric") is None
        else tried("metric", metric_plugin, catalogue, data["metric"], datasets, marks)
    )
    if "datasets" not in data and "dataset" not in data:
        problems.append("dataset: missing; name one: dataset: NAME (moco list dataset)")
    where = f"{source}: " if source else ""
    if unusable and len(problems) == 1:
        raise type(unusable[0])(where + problems[0])
    if problems:
        raise ConfigError([where + p for p in problems])
    assert pool is not None and settings is not None
    return RunConfig(
        pool=pool,
        methods=methods,
        datasets=datasets,
        metric=metric,
        settings=settings,
        observers=observers,
        executor=executor,
        controls=tuple(c for c in controls if c is not None),
    )


def control_of(catalogue: Catalogue, kind: str, method: Plugin) -> Plugin | None:
    """Return a control of a method: an installed method with the keyword ``control`` and the options ``kind`` and ``method``.

    None for the placebo of a method that learns nothing. Raises ConfigError.
    """
    makers = catalogue.able("method", "control")
    if not makers:
        raise ConfigError("controls: no package that makes them is installed; pip install 'moco-core[controls]'")
    if kind == "placebo" and not method.make().learns():
        return None
    plugin = build_plugin(catalogue, "method", {"name": makers[0], "kind": kind, "method": method}, "controls")
    given = {**plugin.given, "method": {"name": method.name, **method.given}}
    return attrs.evolve(plugin, given=given, label=f"{method.label} {kind.replace('_', ' ')}")


def _numbered(plugins: Sequence[Plugin]) -> tuple[Plugin, ...]:
    """Number the labels of plugins that are called alike: debate#1, debate#2."""
    labels = [p.label for p in plugins]
    return tuple(
        p if labels.count(p.label) == 1 else attrs.evolve(p, label=f"{p.label}#{labels[: i + 1].count(p.label)}")
        for i, p in enumerate(plugins)
    )


def metric_plugin(catalogue: Catalogue, given: Any, datasets: Sequence[Plugin], lines: Lines | None = None) -> Plugin:
    """Load the metric that a section names; options without a name are those of the datasets' default metric.

    Raises ConfigError or PluginError.
    """
    if isinstance(given, Mapping) and "name" not in given and datasets:
        defaults = sorted({d.make().facts.metric for d in datasets})
        if len(defaults) > 1:
            raise ConfigError(
                f"metric: name missing; the datasets have different default metrics: {', '.join(defaults)}"
            )
        given = {"name": defaults[0], **given}
    return plugin_of(catalogue, "metric", given, "metric", lines)


def plugin_of(catalogue: Catalogue, kind: str, value: Any, path: str, lines: Lines | None = None) -> Plugin:
    """Load the plugin that a section names and build its options.

    A method or a dataset may have a ``label``, its name in tables; a dataset may be the path of a file, which an installed
    dataset reads (keyword ``reads-files``). Raises ConfigError or PluginError.
    """
    if isinstance(value, Plugin):
        return value
    section = {"name": value} if isinstance(value, str) else value
    if kind == "dataset":
        section = _file_as_dataset(catalogue, section, path, lines)
    label: Any = None
    if isinstance(section, Mapping) and isinstance(section.get("name"), str):
        # what cannot be used at all is told as what it is, a PluginError
        own = {f.name for f in attrs.fields(catalogue.load(kind, section["name"]).Options)}
        if kind in ("method", "dataset") and "label" in section and "label" not in own:
            label = section["label"]
            section = {k: v for k, v in section.items() if k != "label"}
            if not isinstance(label, str) or not label.strip():
                raise ConfigError(f"{path}.label: expected a text, got {label!r}")
    plugin = build_plugin(catalogue, kind, section, path, lines)
    return plugin if label is None else attrs.evolve(plugin, label=label, given={**plugin.given, "label": label})


def _file_as_dataset(catalogue: Catalogue, section: Any, path: str, lines: Lines | None) -> Any:
    """Return the section of a dataset that reads the file which stands in place of a dataset's name, or the section as it is.

    The reader is told to guess what is not given. Short names of fields are taken too: ``id`` for ``id_field``.
    """
    file = section.get("name") if isinstance(section, Mapping) else None
    if not isinstance(file, str) or file in catalogue.plugins("dataset"):
        return section
    if not ("." in file or "/" in file or Path(file).is_file()):  # no name of a plugin has these signs
        return section
    readers = catalogue.able("dataset", "reads-files")
    if not readers:
        raise ConfigError(f"{path}: {file} is a file, and no installed dataset reads files of any form")
    own = {f.name for f in attrs.fields(catalogue.load("dataset", readers[0]).Options)}
    given = {k: v for k, v in section.items() if k != "name"}
    given = {f"{k}_field" if k not in own and f"{k}_field" in own else k: v for k, v in given.items()}
    if lines is not None and (line := lines.get(f"{path}.name") or lines.get(path)):
        lines[f"{path}.path"] = line
    stem = Path(file).name.partition(".")[0]
    return {"label": stem, "guess": True, **given, "name": readers[0], "path": file}
