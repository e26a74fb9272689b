"""Run configurations: YAML files and ``-o key=value`` overrides, checked against the options of the plugins they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import yaml

from moco_core.catalogue import Catalogue
from moco_core.errors import ConfigError, suggest
from moco_core.options import Plugin, build, build_plugin, option
from moco_core.types import Sampling

__all__ = [
    "DEFAULT_POOL",
    "Plugin",
    "RunConfig",
    "Settings",
    "apply_overrides",
    "default_cache_path",
    "load_yaml",
    "metric_plugin",
    "parse_settings",
    "plugin_of",
]

DEFAULT_POOL = "tiny"


def default_cache_path(environ: Mapping[str, str]) -> Path:
    """Return ``$MOCO_CACHE`` or ``$XDG_CACHE_HOME/moco/calls.sqlite`` (``~/.cache`` by default)."""
    if environ.get("MOCO_CACHE"):
        return Path(environ["MOCO_CACHE"])
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "moco" / "calls.sqlite"


@attrs.frozen(kw_only=True)
class SamplingOptions:
    """How a single model of the pool is asked, and what methods use unless their own options say otherwise."""

    temperature: float = option(0.0, ge=0, help="0 is greedy")
    top_p: float = option(1.0, gt=0, le=1)
    top_k: int = option(0, ge=0, help="0 is off")
    min_p: float = option(0.0, ge=0, lt=1)
    max_new_tokens: int = option(512, ge=1)
    stop: tuple[str, ...] = option(())


def _seeds_problem(seeds: tuple[int, ...]) -> str | None:
    return None if seeds and len(set(seeds)) == len(seeds) else "expected one or more seeds, each once"


@attrs.frozen(kw_only=True)
class Settings:
    """The keys of a configuration that are not plugins."""

    seed: int = option(0, help="seed of all sampling, permutations and searches")
    seeds: tuple[int, ...] | None = option(None, help="several seeds (moco bench)", check=_seeds_problem)
    sampling: SamplingOptions = option(SamplingOptions(), help="decoding of single models")
    dev: int | None = option(None, ge=0, help="use the first n dev examples")
    test: int | None = option(None, ge=1, help="use the first n test examples")
    in_flight: int = option(256, ge=1, help="questions worked on at once")
    parallel: int = option(4, ge=1, help="runs of a grid worked on at once")
    out: str = option("runs", help="where run folders go")
    wait: bool = option(False, help="wait where another process writes a run folder, instead of stopping")
    baselines: bool = option(True, help="also run every single model of the pool")


_PLUGIN_KEYS = ("pool", "method", "methods", "dataset", "datasets", "metric", "observer", "observers", "executor")


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

    @property
    def sampling(self) -> Sampling:
        return Sampling(**attrs.asdict(self.settings.sampling))

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.settings.seeds or (self.settings.seed,)


def load_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read a YAML mapping; return its data and the line of every dotted path. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}:{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(data).__name__}")
    return data, dict(_lines(node, "")) if node is not None else {}


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = f"{path}.{key.value}" if path else str(key.value)
            yield child, key.start_mark.line + 1
            yield from _lines(value, child)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}[{index}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{index}]")


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``data`` with ``key.path=value`` overrides applied; values are read as YAML. Raises ConfigError.

    A plugin given by name alone becomes a mapping when one of its options is overridden; ``method=cascade`` replaces it,
    ``seed=1`` replaces ``seeds`` too, and ``seeds=[0,1]`` a ``seed``.
    """
    out: dict[str, Any] = _copy(data)
    named = {text.partition("=")[0].strip() for text in overrides}
    for key, other in (("seed", "seeds"), ("seeds", "seed")):
        if key in named and other not in named:
            out.pop(other, None)
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"-o {text}: expected key=value, for example -o method.rounds=3")
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError:
            value = raw
        target: Any = out
        *parents, last = key.strip().split(".")
        for part in parents:
            child = target.get(part) if isinstance(target, dict) else None
            if isinstance(child, str):
                child = {"name": child}
            elif child is None:
                child = {}
            elif not isinstance(child, dict):
                raise ConfigError(f"-o {text}: {part} is a {type(child).__name__}, it has no keys")
            target[part] = child
            target = child
        target[last] = value
    return out


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def parse_settings(
    data: Mapping[str, Any],
    catalogue: Catalogue,
    *,
    lines: Mapping[str, int] | None = None,
    source: str = "",
) -> RunConfig:
    """Check a whole configuration and load the plugins it names.

    Raises ConfigError with every problem of every section at once, or a PluginError for a plugin that cannot be used.
    """
    problems: list[str] = []
    marks = lines or {}
    own = {f.name for f in attrs.fields(Settings)}
    known = [*_PLUGIN_KEYS, *sorted(own)]
    for key in data:
        if key not in known:
            line = f"line {marks[key]}: " if key in marks else ""
            problems.append(
                f"{line}{key}: unknown key{suggest(str(key), known) or '; known keys: ' + ', '.join(known)}"
            )
    if data.get("seed") is not None and data.get("seeds") is not None:
        problems.append("seed: give either seed or seeds, not both")
    settings: Settings | None = None
    try:
        settings = build(Settings, {k: v for k, v in data.items() if k in own}, "", marks)
    except ConfigError as error:
        problems.extend(error.problems)

    def one(kind: str, value: Any, path: str) -> Plugin | None:
        try:
            return plugin_of(catalogue, kind, value, path, marks)
        except ConfigError as error:
            problems.extend(error.problems)
            return None

    def many(kind: str) -> list[Plugin | None]:
        single, several = data.get(kind), data.get(kind + "s")
        if single is not None and several is not None:
            problems.append(f"{kind}: give either {kind} or {kind}s, not both")
        if several is not None:
            if not isinstance(several, list):
                problems.append(f"{kind}s: expected a list")
                return []
            return [one(kind, v, f"{kind}s[{i}]") for i, v in enumerate(several)]
        return [] if single is None else [one(kind, single, kind)]

    pool = one("pool", data.get("pool", DEFAULT_POOL), "pool")
    methods, datasets, observers = many("method"), many("dataset"), many("observer")
    executor = None if data.get("executor") is None else one("executor", data["executor"], "executor")
    metric: Plugin | None = None
    if data.get("metric") is not None:
        try:
            metric = metric_plugin(catalogue, data["metric"], [d for d in datasets if d], marks)
        except ConfigError as error:
            problems.extend(error.problems)
    if not datasets and "datasets" not in data and "dataset" not in data:
        problems.append("dataset: missing; name one, for example dataset: skills")
    if problems:
        raise ConfigError([f"{source}: {p}" if source else p for p in problems])
    assert pool is not None and settings is not None
    return RunConfig(
        pool=pool,
        methods=tuple(m for m in methods if m),
        datasets=tuple(d for d in datasets if d),
        metric=metric,
        settings=settings,
        observers=tuple(o for o in observers if o),
        executor=executor,
    )


def metric_plugin(
    catalogue: Catalogue, given: Any, datasets: Sequence[Plugin], lines: Mapping[str, int] | None = None
) -> Plugin:
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


def plugin_of(catalogue: Catalogue, kind: str, value: Any, path: str, lines: Mapping[str, int] | None = None) -> Plugin:
    """Load the plugin that a section names and build its options. Raises ConfigError or PluginError."""
    name = value.get("name") if isinstance(value, Mapping) else value
    if isinstance(name, str):
        catalogue.load(kind, name)  # what cannot be used at all is told as what it is, a PluginError
    return build_plugin(catalogue, kind, value, path, lines)
