"""The options of the pool, and of each system in it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import ConfigError, Plugin, Sampling, option, plugin_option

__all__ = ["Entry", "Options", "entries_of"]


def _label(value: str) -> str | None:
    return None if not value or value.strip() else "expected a name"


@attrs.frozen(kw_only=True)
class Entry:
    """One system: a run folder, or a method over a pool, which is fitted when it is first asked."""

    run: str = option("", holds="path", help="a run folder; the system that was fitted there is restored")
    method: Plugin | None = plugin_option("method", None, help="instead of a run folder: how its models collaborate")
    pool: Plugin | None = plugin_option("pool", None, help="the method's models; another pool of systems too")
    dataset: Plugin | None = plugin_option("dataset", None, help="the method is fitted on its dev split")
    metric: Plugin | None = plugin_option(
        "metric", None, help="how the method reads answers; default: the dataset's, else one that reads texts"
    )
    dev: int = option(50, ge=0, help="the method is fitted on the first n dev examples")
    seed: int = option(0, help="seed of the fit, and of what is random in a greedily asked system")
    sampling: Sampling = option(Sampling(), help="decoding of the fit")
    name: str = option("", help="name within the pool; default: the run's label, or the method's name", check=_label)
    description: str = option("", help="what it is good at, for methods that choose models by description")

    def __attrs_post_init__(self) -> None:
        if bool(self.run) == (self.method is not None):
            raise ConfigError("run: give a run folder, or a method and its pool")
        given = [key for key in ("pool", "dataset", "metric") if getattr(self, key) is not None]
        if self.run and given:
            raise ConfigError(f"{given[0]}: a saved system has its own; leave it out")
        if not self.run and self.pool is None:
            raise ConfigError("pool: missing; name the models of the method")


def _problem(systems: Sequence[str | Entry]) -> str | None:
    return None if systems else "empty; name at least one run folder or method"


@attrs.frozen(kw_only=True)
class Options:
    """Options of the pool of systems."""

    systems: tuple[str | Entry, ...] = option(
        check=_problem, holds="path", help="the systems in order: run folders, or mappings with details"
    )


def entries_of(options: Options) -> list[Entry]:
    """Return the systems of a pool, each with all its details."""
    return [Entry(run=s) if isinstance(s, str) else s for s in options.systems]
