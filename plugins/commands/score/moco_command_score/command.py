"""``moco score``: stored replies, scored by another metric."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import cache_option, complete_plugin, json_option, plugin_option

__all__ = ["score_command"]


@click.command("score")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("-m", "--metric", required=True, shell_complete=complete_plugin("metric"), help="Metric to score by.")
@click.option(
    "-o", "--option", "overrides", multiple=True, metavar="KEY=VALUE", help="Set an option, e.g. -o metric.pool=judges."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where run folders go  [default: beside each RUN]")
@plugin_option
@cache_option
@json_option
def score_command(
    runs: tuple[Path, ...],
    metric: str,
    overrides: tuple[str, ...],
    out: Path | None,
    plugin_files: tuple[Path, ...],
    cache_path: Path | None,
    as_json: bool,
) -> int:
    """Score the replies of each RUN folder by another metric. Each becomes a run of its own that names its source.

    \b
    moco score runs/popqa-cascade-s0-1a2b3c4d -m token_f1
    moco score runs/popqa-*-s0-* -m answer_verifier -o metric.pool=judges
    """
    from moco_command_score.scoring import Scorer
    from moco_core.cli.common import cache_file, known_plugins, status_console, warn
    from moco_core.cli.display import LiveProgress
    from moco_core.cli.screen import printable, say
    from moco_core.runs.observe import Observers

    known, status = known_plugins(plugin_files), status_console()
    scorer = Scorer(known, metric, overrides, cache_file(cache_path), out)
    with LiveProgress(status) as live:
        told = Observers(known.manager(), [live], report=lambda line: say(status, line))
        done = scorer.score(runs, told)
    warn(warning for one in done for warning in one.result.warnings)
    if as_json:
        click.echo(printable(json.dumps([d.data() for d in done], indent=1, ensure_ascii=False)))
    for one in done:
        if not as_json:
            click.echo(printable(one.line()))
        if one.result.first_error:
            click.echo(printable(f"error: {one.result.folder}: {one.result.first_error}"), err=True)
    return 1 if any(d.result.status != "finished" for d in done) else 0
