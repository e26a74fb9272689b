"""``moco run`` and ``moco bench``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from moco_core.cli.common import (
    cache_file,
    cache_option,
    complete_plugin,
    console,
    json_option,
    known_plugins,
    override_option,
    plugin_option,
    read_config,
    status_console,
)
from moco_core.config import RunConfig
from moco_core.display import LiveProgress, report_lines, report_table
from moco_core.errors import ConfigError
from moco_core.observe import Observers
from moco_core.report import make_reports
from moco_core.results import RunResult
from moco_core.runner import Benchmark

__all__ = ["bench_command", "run_command"]

_dataset = click.option(
    "-d",
    "--dataset",
    "datasets",
    multiple=True,
    shell_complete=complete_plugin("dataset"),
    help="Dataset (repeatable in bench).",
)
_pool = click.option("-p", "--pool", shell_complete=complete_plugin("pool"), help="Pool  [default: tiny]")
_metric = click.option(
    "-m", "--metric", shell_complete=complete_plugin("metric"), help="Metric  [default: the dataset's]"
)
_seed = click.option("--seed", type=int, help="Seed of sampling, permutations and searches.")
_dev = click.option("--dev", type=int, help="Use the first N dev examples.")
_test = click.option("--test", type=int, help="Use the first N test examples.")
_out = click.option("--out", type=click.Path(), help="Where run folders go  [default: runs]")
_baselines = click.option("--no-baselines", is_flag=True, help="Do not run the single models of the pool.")


def _is_file(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or "/" in text or Path(text).is_file()


@click.command("run")
@click.argument("method", shell_complete=complete_plugin("method"))
@_dataset
@_pool
@_metric
@_seed
@_dev
@_test
@_out
@_baselines
@override_option
@plugin_option
@cache_option
@json_option
def run_command(
    method: str,
    datasets: tuple[str, ...],
    pool: str | None,
    metric: str | None,
    seed: int | None,
    dev: int | None,
    test: int | None,
    out: str | None,
    no_baselines: bool,
    overrides: tuple[str, ...],
    plugin_files: tuple[Path, ...],
    cache_path: Path | None,
    as_json: bool,
) -> int:
    """Run METHOD (a plugin's name, or a YAML file) and compare it with every single model of the pool.

    \b
    moco run majority_vote --dataset skills
    moco run cascade -d gsm8k -o dataset.path=gsm8k.jsonl.gz -o method.confidence=chow_quantile
    moco run my_run.yaml -o test=200
    """
    catalogue = known_plugins(plugin_files)
    extra: dict[str, Any] = {"pool": pool, "metric": metric, "seed": seed, "dev": dev, "test": test, "out": out}
    source = method if _is_file(method) else None
    if source is None:
        extra["method"] = method
    if len(datasets) > 1:
        raise ConfigError("--dataset: moco run takes one dataset; moco bench takes several")
    extra["dataset"] = datasets[0] if datasets else None
    if no_baselines:
        extra["baselines"] = False
    config = read_config(source, extra, overrides, catalogue)
    if len(config.methods) != 1:
        raise ConfigError(f"moco run takes one method, the configuration names {len(config.methods)}; use moco bench")
    return _do(config, catalogue, cache_file(cache_path), as_json)


@click.command("bench")
@click.argument("config_file", required=False, type=click.Path())
@click.option(
    "--method", "methods", multiple=True, shell_complete=complete_plugin("method"), help="Method (repeatable)."
)
@_dataset
@_pool
@_metric
@_seed
@_dev
@_test
@_out
@_baselines
@override_option
@plugin_option
@cache_option
@json_option
def bench_command(
    config_file: str | None,
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    pool: str | None,
    metric: str | None,
    seed: int | None,
    dev: int | None,
    test: int | None,
    out: str | None,
    no_baselines: bool,
    overrides: tuple[str, ...],
    plugin_files: tuple[Path, ...],
    cache_path: Path | None,
    as_json: bool,
) -> int:
    """Run a grid: methods x datasets x seeds over one pool. Resumable: what was computed is not computed again.

    \b
    moco bench templates/runs/demo.yaml
    moco bench --method majority_vote --method cascade --dataset skills --test 400
    """
    catalogue = known_plugins(plugin_files)
    extra: dict[str, Any] = {"pool": pool, "metric": metric, "seed": seed, "dev": dev, "test": test, "out": out}
    for kind, names in (("method", methods), ("dataset", datasets)):
        if len(names) == 1:  # singular, so that -o dataset.path=... reaches it
            extra[kind] = names[0]
        elif names:
            extra[kind + "s"] = list(names)
    if no_baselines:
        extra["baselines"] = False
    config = read_config(config_file, extra, overrides, catalogue)
    return _do(config, catalogue, cache_file(cache_path), as_json)


def _do(config: RunConfig, catalogue: Any, cache: Path, as_json: bool) -> int:
    status, results = status_console(), []
    manager, problems = catalogue.observers()
    for line in problems:
        status.print(line, highlight=False)
    said: set[str] = set()

    def on_result(result: RunResult) -> None:
        results.append(result)
        for warning in result.warnings:
            if warning not in said:
                said.add(warning)
                status.print(f"warning: {warning}", highlight=False)

    with LiveProgress(status) as live:
        observers = Observers(manager, [live], report=lambda line: status.print(line, highlight=False))
        benchmark = Benchmark(config, catalogue, cache=cache, observers=observers, on_result=on_result)
        asyncio.run(benchmark.run())
    _show(results, as_json)
    failed = [r for r in results if r.status != "finished"]
    for result in failed:
        status.print(
            f"error: {result.job.label}: {result.failed} of {result.questions} questions failed: {result.first_error}",
            highlight=False,
        )
    if not as_json:
        folders = {str(r.folder.parent) for r in results}
        calls, cached = sum(r.calls for r in results), sum(r.cached_calls for r in results)
        status.print(
            f"{len(results)} runs in {', '.join(sorted(folders))}/; {calls:,} model calls, {cached:,} from the cache ({cache})",
            highlight=False,
        )
    return 1 if failed else 0


def _show(results: list[RunResult], as_json: bool) -> None:
    reports = make_reports(results)
    out = console()
    if as_json:
        click.echo(json.dumps([r.data() for r in reports], indent=1))
        return
    for report in reports:
        if out.is_terminal:
            out.print(report_table(report))
        else:
            click.echo("\n".join(report_lines(report)))
