"""Instruction following: whether a reply does what its prompt asks for and a program can check (IFEval)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, Scored, Unit, hookimpl, option
from moco_metric_instructions.checks import CHECKS, Arguments, loosened
from moco_metric_instructions.language import has_english_model
from moco_toolkit_answers import read_open, strip_reasoning

__all__ = ["Instructions", "Options", "followed", "moco_metric"]

_COUNTING = ("length_constraints:number_sentences", "change_case:capital_word_frequency")


@attrs.frozen(kw_only=True)
class Options:
    """Which of the four published accuracies is the score; the other three stand beside it."""

    per: Literal["prompt", "instruction"] = option(
        "prompt", help="a prompt counts if all of its instructions are followed, or each instruction counts", paper="both"
    )
    loose: bool = option(False, help="also without the first line, the last line, or stars of Markdown", paper="both")


def followed(reply: str, instructions: Sequence[tuple[str, Arguments]], *, loose: bool) -> list[bool]:
    """Return which instructions (name, arguments) a reply follows; an empty one follows none.

    Raises KeyError for an unknown name or a missing argument.
    """
    forms = [form for form in (loosened(reply) if loose else [reply]) if form.strip()]
    return [any(CHECKS[name](form, given) for form in forms) for name, given in instructions]


_Options = Options  # inside the class the name means the attribute


class Instructions(Metric[Options]):
    """Checks the instructions in ``meta["instructions"]``, pairs of a name and arguments (Zhou et al. 2023, arXiv 2311.07911).

    The score is an accuracy over prompts or over instructions, strict or loose. ``meta`` of a score tells which were followed.
    """

    Options = Options

    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self.binary = options.per == "prompt"  # type: ignore[misc]

    def read(self, question: Question, text: str) -> Answer:
        """Return the whole reply without reasoning."""
        return read_open(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply; an example without instructions, or with some that nobody can check, is not scored."""
        answer = read_open(example.question, reply.text)
        wanted = [(str(name), dict(given)) for name, given in example.meta.get("instructions", ())]
        body = strip_reasoning(reply.text) or ""
        if not has_english_model() and any(name in _COUNTING for name, _ in wanted):
            context.warn(
                "instructions: nltk's English model is not installed, sentences are counted by a list of abbreviations; "
                "python -m nltk.downloader punkt_tab"
            )
        try:
            if not wanted:
                raise KeyError("instructions")
            strict, loose = (followed(body, wanted, loose=loose) for loose in (False, True))
        except KeyError as error:
            context.warn(f"question {example.id!r} is not scored: its meta has no {error.args[0]!r} that can be checked")
            return Score(value=None, answer=answer)
        kept = loose if self.options.loose else strict
        value = float(all(kept)) if self.options.per == "prompt" else sum(kept) / len(kept)
        return Score(value=value, answer=answer, meta={"strict": strict, "loose": loose})

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        """One unit per prompt; per instruction, a prompt's units are weighted by their number, so that the mean is theirs."""
        units = super().units(rows)
        if self.options.per == "prompt":
            return units
        counts = {r.example.id: len(r.score.meta["strict"]) for r in rows if r.score.value is not None}
        mean = sum(counts.values()) / len(counts) if counts else 1.0
        return [attrs.evolve(u, score=u.score * counts[u.id] / mean) for u in units]

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """The four accuracies: by prompt and by instruction, strict and loose."""
        out: dict[str, float] = {}
        for how in ("strict", "loose"):
            found = [r.score.meta[how] for r in rows if r.score.value is not None]
            if found:
                out[f"prompt {how}"] = sum(map(all, found)) / len(found)
                out[f"instruction {how}"] = sum(map(sum, found)) / sum(map(len, found))
        return out


@hookimpl
def moco_metric() -> type[Instructions]:
    return Instructions
