"""``moco run`` and ``moco bench``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from moco_core.catalogue import Catalogue
from moco_core.cli.common import (
    cache_file,
    complete_plugin,
    configured,
    console,
    is_source,
    method_option,
    one_or_many,
    run_options,
    status_console,
)
from moco_core.cli.display import LiveProgress, check_columns, report_lines
from moco_core.cli.screen import printable, say
from moco_core.config import RunConfig
from moco_core.errors import ConfigError
from moco_core.runs.observe import Observers
from moco_core.runs.report import make_reports, shown
from moco_core.runs.results import RunResult
from moco_core.runs.runner import Benchmark


@click.command("run")
@click.argument("method", shell_complete=complete_plugin("method"))
@run_options
def run_command(method: str, datasets: tuple[str, ...], **given: Any) -> int:
    """Run METHOD (a plugin's name, a YAML file, an earlier run's folder), compare it with every single model of the pool.

    \b
    moco run METHOD --dataset DATASET
    moco run METHOD -d DATASET -o dataset.path=questions.jsonl.gz -o method.rounds=2
    moco run METHOD -d mine.jsonl --field answer=gold
    moco run my_run.yaml -o test=200
    moco run runs/RUN            an earlier run, again
    """
    if len(datasets) > 1:
        raise ConfigError("--dataset: moco run takes one dataset; moco bench takes several")
    source = method if is_source(method) else None
    named = {"dataset": datasets[0] if datasets else None} | ({} if source else {"method": method})
    catalogue, config = configured(source, named, given)
    if len(config.methods) != 1:
        raise ConfigError(f"moco run takes one method, the configuration names {len(config.methods)}; use moco bench")
    return _do(config, catalogue, given)


@click.command("bench")
@click.argument("config_file", required=False, type=click.Path())
@method_option
@run_options
def bench_command(config_file: str | None, methods: tuple[str, ...], datasets: tuple[str, ...], **given: Any) -> int:
    """Run a grid: methods x datasets x seeds over one pool. Resumable: what was computed is not computed again.

    \b
    moco bench templates/runs/demo.yaml
    moco bench --method METHOD --method ANOTHER --dataset DATASET --test 400
    """
    named = one_or_many("method", methods) | one_or_many("dataset", datasets)
    catalogue, config = configured(config_file, named, given)
    return _do(config, catalogue, given)


def _do(config: RunConfig, catalogue: Catalogue, given: Mapping[str, Any]) -> int:
    status, cache, as_json = status_console(), cache_file(given["cache_path"]), given["as_json"]
    columns = [name.strip() for part in given["columns"] for name in part.split(",") if name.strip()]
    check_columns(columns, catalogue)
    said: set[str] = set()

    def on_result(result: RunResult) -> None:
        for warning in result.warnings:
            if warning not in said:
                said.add(warning)
                say(status, f"warning: {warning}")

    with LiveProgress(status) as live:
        observers = Observers(catalogue.manager(), [live], report=lambda line: say(status, line))
        benchmark = Benchmark(
            config, catalogue, cache=cache, observers=observers, on_result=on_result, plugins=given["plugin_files"]
        )
        results = asyncio.run(benchmark.run())
    _show(results, catalogue, given, columns)
    failed = [r for r in results if r.status != "finished"]
    for result in failed:
        how_many = f"{result.failed} of {result.questions} questions failed: " if result.failed else ""
        say(status, f"error: {result.label}: {how_many}{result.first_error}")
    if not as_json:
        folders = {str(r.folder.parent) for r in results}
        calls, cached = sum(r.calls for r in results), sum(r.cached_calls for r in results)
        where = ", ".join(sorted(folders))
        say(status, f"{len(results)} runs in {where}/; {calls:,} model calls, {cached:,} from the cache ({cache})")
    # what is told before any model is asked is a configuration error, whoever tells it
    return 0 if not failed else 2 if all(r.refused for r in failed) else 1


def _show(results: list[RunResult], catalogue: Catalogue, given: Mapping[str, Any], columns: Sequence[str]) -> None:
    reports, out = shown(make_reports(results), catalogue), console()
    if given["as_json"]:
        click.echo(json.dumps([r.data() for r in reports], indent=1, allow_nan=False))
        return
    for report in reports:
        for line in report_lines(report, out.width, columns):
            if out.is_terminal:
                out.print(Text(printable(line.plain), style=line.style))
            else:
                click.echo(printable(line.plain))
