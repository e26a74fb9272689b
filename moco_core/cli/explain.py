"""Why a run's calls were not in the cache."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import attrs

from moco_core.cli.keeping import differing, nearest, parts_of
from moco_core.runs.records import read_records, read_run
from moco_core.runtime.cache import Cache

_WORDS = {
    "model": "another model (weights, tokenizer, template or numeric settings)",
    "kind": "another kind of call",
    "input": "another prompt",
    "params": "other decoding settings",
    "seed": "another seed",
}


@attrs.frozen(kw_only=True)
class Explanation:
    """Counts of a run's recorded calls. ``differences`` maps what differed from the nearest older call to how often."""

    run: str
    hits: int
    misses: int
    gone: int
    differences: dict[str, int]
    examples: dict[str, str]

    def data(self) -> dict[str, Any]:
        return attrs.asdict(self)

    def lines(self) -> list[str]:
        out = [f"{self.run}: {self.hits + self.misses:,} calls, {self.hits:,} from the cache, {self.misses:,} computed"]
        if self.gone:
            out.append(f"  {self.gone:,} of them are no longer stored (pruned, or another cache file)")
        for what, count in sorted(self.differences.items(), key=lambda item: -item[1]):
            out.append(f"  {count:,} computed because: {what} (e.g. question {self.examples[what]})")
        return out


def explain_run(folder: Path, cache: Cache) -> Explanation:
    """Compare the calls that a run computed with what the cache held before the run began.

    Raises StoreError if ``folder`` is no run folder.
    """
    head = read_run(folder)
    started = float(head.get("started", 0))
    hits = misses = gone = 0
    differences: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for record in read_records(folder):
        for call in record.get("calls", ()):
            if not call.get("key"):
                continue  # the steps of a session: they are never stored by themselves
            if call.get("cached"):
                hits += 1
                continue
            misses += 1
            parts = parts_of(cache, bytes.fromhex(call["key"]))
            if parts is None:
                gone += 1
                continue
            like = nearest(cache, parts, before=started)
            if like is None:
                what = "no such call of this model or prompt was ever made"
            else:
                what = (
                    " and ".join(_WORDS[p] for p in differing(parts, like))
                    or "it was made while this run was going on"
                )
            differences[what] += 1
            examples.setdefault(what, str(record.get("id", "")))
    return Explanation(
        run=str(head.get("id", folder)),
        hits=hits,
        misses=misses,
        gone=gone,
        differences=dict(differences),
        examples=examples,
    )
