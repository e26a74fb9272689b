"""The model card of an exported system, in the form of the Hub."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from moco_core import MocoError, Model, RunResult
from moco_core.runs.stats import estimate

__all__ = ["card"]


def card(run: Path, parts: Any, body: Mapping[str, Any], model: Model | None) -> str:
    """Return the card of a system that was written as ``model``, or as a system to open where that is None."""
    method = type(parts.method)
    parents = model.sources or (model,) if model is not None and model.recipe is not None else tuple(parts.pool)
    stated = dict(_licences(body["pool"]))
    licences = {p.name: stated.get(p.name, "unknown") for p in parents}
    named = sorted(set(licences.values()))
    front: dict[str, Any] = {
        "library_name": "moco" if model is None else "peft" if model.adapter else "transformers",
        "tags": ["moco", str(body["method"]["name"])],
        "license": named[0] if len(named) == 1 and named[0] != "unknown" else "other",
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {method.title or body['method']['name']}",
    ]
    what = "An adapter" if model is not None and model.adapter else "A checkpoint" if model is not None else "A system"
    lines += ["", f"{what} made with MoCo: {method.title or body['method']['name']} over {len(parts.pool)} models."]
    if method.paper:
        lines += ["", f"Paper: {method.paper}."]
    lines += ["", "## Parents", "", "| model | fingerprint | licence |", "| --- | --- | --- |"]
    lines += [f"| {p.name} | `{p.fingerprint[:16]}` | {licences[p.name]} |" for p in parents]
    if "unknown" in named:
        lines += [
            "",
            "A licence is known where a parent's own card states it; ask about the others before you publish.",
        ]
    lines += _results(run)
    if model is None:
        lines += [
            "",
            "## Use",
            "",
            "```python",
            "import moco_core as moco",
            "",
            'moco.load("this folder").ask("...")',
            "```",
        ]
    shown = {key: body[key] for key in ("method", "pool", "metric", "sampling", "seed", "state") if key in body}
    lines += ["", "## Recipe", "", "```json", json.dumps(shown, indent=1, ensure_ascii=False), "```"]
    lines += ["", "## Made by", "", "```console", *_commands(run, body), "```", ""]
    return "\n".join(lines)


def _results(run: Path) -> list[str]:
    try:
        result = RunResult.read(run)
    except MocoError:
        return []
    found = estimate(result.units, result.seed)
    out = ["", "## Results", ""]
    if found is None:
        return [*out, "Not scored."]
    out += ["| dataset | metric | score | 95% interval | n |", "| --- | --- | --- | --- | --- |"]
    span = f"[{found.low:.3f}, {found.high:.3f}]"
    return [*out, f"| {result.dataset} | {result.metric} | {found.mean:.3f} | {span} | {found.n} |"]


def _commands(run: Path, body: Mapping[str, Any]) -> Iterator[str]:
    """Yield the commands that make it again: the options stand in the recipe, or in the run's own run.json."""
    given = [
        f"-o {shlex.quote(f'method.{k}={json.dumps(v)}')}"
        for k, v in body["method"].items()
        if k not in ("name", "label")
    ]
    try:
        data = RunResult.read(run).config["dataset"]["name"]
    except (MocoError, KeyError, TypeError):
        data = "DATASET"
    words = ["moco run", str(body["method"]["name"]), "-d", str(data), "-p", str(body["pool"]["name"])]
    words += [f"-o {shlex.quote(f'pool.{k}={json.dumps(v)}')}" for k, v in body["pool"].items() if k != "name"]
    yield " ".join([*words, *given, f"--seed {body['seed']}"])
    yield "moco export RUN --to FOLDER"


def _licences(pool: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the licences that the cards of local models state, by the models' names."""
    for entry in pool.get("models", ()) if isinstance(pool.get("models"), list) else ():
        path = entry.get("model") or entry.get("path") if isinstance(entry, Mapping) else entry
        file = Path(str(path)) / "README.md"
        if not file.is_file():
            continue
        found = re.search(r"\A---\n.*?^license: *(\S+)", file.read_text("utf-8", "replace"), re.MULTILINE | re.DOTALL)
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if found:
            yield str(name or Path(str(path)).name), found[1]
