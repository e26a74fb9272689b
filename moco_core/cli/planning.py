"""``moco plan``: what a configuration would do, and whether it can, without running anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from moco_core.catalogue import Catalogue
from moco_core.cli.common import cache_file, configured, is_source, method_option, one_or_many, run_options
from moco_core.cli.display import plain_table
from moco_core.cli.keeping import train_rate
from moco_core.config import CONTROLS, control_of
from moco_core.errors import MocoError
from moco_core.methods import Cost
from moco_core.models import Pool
from moco_core.options import NoOptions
from moco_core.runs.job import Job
from moco_core.runs.runner import Benchmark
from moco_core.runtime.runtime import artifacts_of


@click.command("plan")
@click.argument("method_or_file", required=False)
@method_option
@run_options
def plan_command(method_or_file: str | None, methods: tuple[str, ...], datasets: tuple[str, ...], **given: Any) -> int:
    """Resolve METHOD_OR_FILE, check capabilities, and predict calls and memory. Exits 2 if the pool cannot serve.

    It takes what `moco run` and `moco bench` take, and runs nothing.
    """
    source = method_or_file if method_or_file and is_source(method_or_file) else None
    if method_or_file and source is None:
        methods = (method_or_file, *methods)
    catalogue, config = configured(source, one_or_many("method", methods) | one_or_many("dataset", datasets), given)
    benchmark = Benchmark(config, catalogue, cache=None)
    problems = benchmark.problems()
    cache = cache_file(given["cache_path"])
    body = {
        "models": [_model_row(m) for m in benchmark.pool],
        "engines": [dict(facts) for engine in benchmark.pool.engines if (facts := engine.facts())],
        "runs": [_job_row(benchmark, job, cache) for job in benchmark.jobs if job.role != "baseline"],
        "controls": [_job_row(benchmark, job, cache) for job in _controls(benchmark, catalogue)],
        "baselines": len(benchmark.pool) if config.settings.baselines else 0,
        "problems": problems,
        "ruled_out": _ruled_out(catalogue, benchmark),
    }
    if given["as_json"]:
        click.echo(json.dumps(body, indent=1))
    else:
        _print(body)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    return 2 if problems else 0


def _model_row(model: Any) -> dict[str, Any]:
    return {
        "model": model.name,
        "parameters": model.parameters,
        "memory_bytes": model.memory,
        "device_group": model.device_group,
        "replicas": list(model.info.get("replicas", ())),
        "context": model.context_length,
        "capabilities": sorted(model.capabilities),
        "description": model.description,
    }


def _job_row(benchmark: Benchmark, job: Any, cache: Path) -> dict[str, Any]:
    dev = len(benchmark.split(job.dataset, "dev").examples)
    test = len(benchmark.split(job.dataset, "test").examples)
    method, pool = job.method.make(), benchmark.pool
    unfit = method.needs().problems(pool)  # said elsewhere; a prediction for this very pool makes no sense
    cost = method.cost(len(pool), dev) if unfit else method.cost_on(pool, dev, benchmark.config.settings.sampling)
    return {
        "method": job.label,
        "dataset": job.dataset.label,
        "seed": job.seed,
        "dev": dev,
        "test": test,
        "fit_calls": cost.fit,
        "calls_per_question": cost.respond,
        "calls": cost.fit + cost.respond * test,
        **_training_row(cost, pool, cache),
    }


def _training_row(cost: Cost, pool: Pool, cache: Path) -> dict[str, Any]:
    """Return what a method's trainings take, if it has any. The time is told from the last training of one of the models."""
    if not cost.train_tokens:
        return {}
    rate = train_rate(artifacts_of(cache), {m.fingerprint for m in pool})
    seconds = None if rate is None else cost.train_tokens * rate
    return {"train_tokens": cost.train_tokens, "train_memory": cost.train_memory, "train_seconds": seconds}


def _controls(benchmark: Benchmark, catalogue: Catalogue) -> Iterator[Job]:
    """Yield the controls of the methods that are not asked for, as jobs; none where no package makes them."""
    if not catalogue.able("method", "control"):
        return
    for job in (j for j in benchmark.jobs if j.role == "method"):
        for kind in CONTROLS:
            if kind not in benchmark.config.settings.controls and (made := control_of(catalogue, kind, job.method)):
                yield attrs.evolve(job, method=made, role="control", label=made.label)


def _ruled_out(catalogue: Catalogue, benchmark: Benchmark) -> dict[str, str]:
    """Which other methods that are installed this pool cannot serve with their default options, and why.

    Those that are asked for have options of their own; what the pool lacks for them is a problem of the plan.
    """
    out: dict[str, str] = {}
    asked = {method.name for method in (*benchmark.config.methods, *benchmark.config.controls)}
    for name in (n for n in catalogue.plugins("method") if n not in asked):
        try:
            cls = catalogue.load("method", name)
            options = cls.Options() if cls.Options is not NoOptions else NoOptions()
            found = cls(options).needs().problems(benchmark.pool)
        except (MocoError, TypeError):
            continue  # a broken plugin, or one whose options have no defaults, is not this pool's fault
        if found:
            out[name] = found[0]
    return out


def _print(body: dict[str, Any]) -> None:
    total = sum((m["memory_bytes"] or 0) * (1 + len(m["replicas"])) for m in body["models"])
    rows = [
        [
            m["model"],
            _millions(m["parameters"]),
            _mib(m["memory_bytes"]),
            " + ".join([m["device_group"], *m["replicas"]]),
            ", ".join(m["capabilities"]),
        ]
        for m in body["models"]
    ]
    for line in plain_table(["model", "parameters", "memory", "device group", "capabilities"], rows):
        click.echo(line)
    click.echo(f"all weights together: {_mib(total)}")
    for facts in body["engines"]:
        click.echo(
            f"{facts.get('engine', 'engine')}: " + ", ".join(_flat({k: v for k, v in facts.items() if k != "engine"}))
        )
    click.echo()
    runs = [
        [
            r["method"],
            r["dataset"],
            str(r["seed"]),
            str(r["dev"]),
            str(r["test"]),
            f"{r['fit_calls']:,.0f}",
            f"{r['calls_per_question']:,.1f}",
            f"{r['calls']:,.0f}",
        ]
        for r in body["runs"]
    ]
    if runs:
        head = ["method", "dataset", "seed", "dev", "test", "fit calls", "calls/question", "calls"]
        for line in plain_table(head, runs):
            click.echo(line)
    if body["controls"]:
        click.echo("\ncontrols that would tell collaboration from more tries (--controls self,equal_budget,placebo):")
        for r in body["controls"]:
            click.echo(f"  {r['method']} on {r['dataset']}, seed {r['seed']}: at most {r['calls']:,.0f} calls")
    for row in body["runs"]:
        if row.get("train_tokens"):
            needed = f", {_mib(row['train_memory'])} at once" if row["train_memory"] else ""
            took = row["train_seconds"]
            time = "nothing measured yet" if took is None else f"about {took:,.0f} s by the last training of these models"
            click.echo(f"{row['method']} trains on {row['train_tokens']:,.0f} tokens{needed} ({time})")
    if body["ruled_out"]:
        click.echo("\nother methods that this pool cannot serve as they are by default:")
        for name, why in body["ruled_out"].items():
            click.echo(f"  {name}: {why}")


def _flat(facts: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield nested facts as short texts, without what is undecided."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name} ")
        elif value is not None:
            yield f"{above}{name} {value}"


def _millions(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e6:,.1f} M"


def _mib(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**20:,.1f} MiB"
