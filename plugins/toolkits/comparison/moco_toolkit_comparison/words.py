"""What a comparison found, in a sentence or a few."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from moco_toolkit_comparison.comparing import Comparison, Standing

__all__ = ["brief", "findings"]


def brief(name: str, width: int) -> str:
    """Return a name in at most ``width`` columns of a terminal, cut in its middle: names that begin alike end differently."""
    name = "".join(c if c.isprintable() else " " for c in name)
    if cell_len(name) <= width:
        return name
    tail = ""
    while name and cell_len(name[-1] + tail) <= width * 9 // 20:
        name, tail = name[:-1], name[-1] + tail
    while cell_len(name) + 1 + cell_len(tail) > width:
        name = name[:-1]
    return f"{name}…{tail}"


def findings(comparison: Comparison) -> list[str]:
    """Return sentences: who beats the best single model, who cannot be told apart, what it costs, what was not to be seen."""
    methods = [s for s in comparison.standings if s.row.role == "method" and s.row.estimate]
    best = comparison.report.best
    if not methods:
        return []
    out: list[str] = []
    if best is not None:
        out.append(_winners(comparison, methods, best.label))
    out += _alike(comparison, methods)
    out += _prices(comparison, methods)
    out += _limits(comparison, methods)
    return [" ".join(out)] if out else []


def _winners(comparison: Comparison, methods: Sequence[Standing], best: str) -> str:
    alpha = 1 - comparison.rule.level
    found = {True: 0, False: 0}
    for s in methods:
        if s.row.versus is not None and s.p_holm is not None and s.p_holm < alpha:
            found[s.row.versus.difference > 0] += 1
    won, lost, count = found[True], found[False], len(methods)
    if count == 1:
        verb = "beats" if won else "does worse than" if lost else "cannot be told apart from"
        return f"{methods[0].label} {verb} the best single model ({best})."
    worse = f", {lost} {'does' if lost == 1 else 'do'} worse" if lost else ""
    return f"{won} of {count} methods {'beats' if won == 1 else 'beat'} the best single model ({best}){worse}."


def _alike(comparison: Comparison, methods: Sequence[Standing]) -> list[str]:
    """Say which methods share the letter of the best one."""
    top = max(methods, key=lambda s: s.row.estimate.mean if s.row.estimate else 0.0)
    same = [s.label for s in methods if s is not top and set(s.group) & set(top.group)]
    if not same:
        return [f"{top.label} is ahead of all others."] if len(methods) > 1 else []
    return [f"{_listed([top.label, *same])} cannot be told apart."]


def _prices(comparison: Comparison, methods: Sequence[Standing]) -> list[str]:
    priced = [s for s in methods if s.times.value is not None]
    if not priced:
        return []
    dear = max(priced, key=lambda s: s.times.value or 0.0)
    least = "at least " if dear.times.at_least else ""
    times = dear.times.value or 0.0
    what = "money" if comparison.unit == "money" else "tokens"
    return [f"{dear.label} costs {least}{times:.{0 if times >= 10 else 1}f}x the {what} of the best single model."]


def _limits(comparison: Comparison, methods: Sequence[Standing]) -> list[str]:
    out = []
    if (least := comparison.detectable) is not None:
        out.append(f"With {comparison.scores.shape[1]} questions a difference of {least:.3f} is found 8 times in 10.")
    if not any(s.control for s in comparison.standings):
        out.append("No control was run: more tries of one model might do as well (--controls).")
    idle = [s.label for s in methods if (v := s.versus_controls.get("placebo")) and v.low <= 0]
    if idle:
        out.append(f"What {_listed(idle)} learnt from dev cannot be told from chance (placebo).")
    kept = [s.label for s in methods if s.verdict and s.verdict.decision == "KEEP"]
    if kept:
        out.append(f"KEEP {_listed(kept)}.")
    return out


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:4], f"{len(names) - 4} more"] if len(names) > 5 else list(names)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
