"""Token F1: overlap of words between a short answer and its references, as in SQuAD."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, Scored, hookimpl, option
from moco_toolkit_answers import normalise_unicode, read_short, squad_tokens, token_f1, visible

__all__ = ["Options", "TokenF1", "moco_metric"]


@attrs.frozen(kw_only=True)
class Options:
    """Departures from SQuAD's normalisation; switch all three off for SQuAD's own numbers."""

    fold_accents: bool = option(True, help="Beyoncé and Beyonce are one word", paper="False")
    split_hyphens: bool = option(True, help="a hyphen becomes a space; SQuAD deletes it", paper="False")
    split_cjk: bool = option(True, help="every Chinese, Japanese or Korean character is a token", paper="False")


class TokenF1(Metric[Options]):
    """F1 of the words of the answer and of a reference; the best reference counts (arXiv 1606.05250).

    The answer is the short answer that was read out of the reply. ``meta["contains"]`` tells whether a reference occurs
    literally in the whole reply, the accuracy that PopQA reports (arXiv 2212.10511).
    """

    Options = Options
    binary = False

    def read(self, question: Question, text: str) -> Answer:
        """Return the short answer a reply gives; the key is its normalised words."""
        return read_short(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply: the largest F1 over the references."""
        answer = read_short(example.question, reply.text)
        body = visible(reply.text) or ""
        contains = any(_contains(body, reference) for reference in example.references)
        value = 0.0
        if answer.key is not None:
            value = max((self.f1(answer.text, reference) for reference in example.references), default=0.0)
        return Score(value=value, answer=answer, meta={"contains": contains})

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """The share of replies that hold a reference literally (PopQA's accuracy)."""
        return {"contains": sum(bool(r.score.meta.get("contains")) for r in rows) / len(rows)} if rows else {}

    def f1(self, prediction: str, reference: str) -> float:
        """Return the F1 of two short texts; texts that normalise to nothing are compared as they are."""
        gold = self._tokens(reference)
        if not gold:
            return float(" ".join(prediction.split()).casefold() == " ".join(reference.split()).casefold())
        return token_f1(self._tokens(prediction), gold)

    def utility(self, question: Question, a: Answer, b: Answer) -> float:
        """Return the F1 of two answers."""
        if a.key is None or b.key is None:
            return 0.0
        return 1.0 if a.key == b.key else self.f1(a.text, b.text)

    def _tokens(self, text: str) -> tuple[str, ...]:
        o = self.options
        return squad_tokens(
            normalise_unicode(text),
            fold_accents=o.fold_accents,
            split_hyphens=o.split_hyphens,
            split_cjk=o.split_cjk,
        )


def _contains(body: str, alias: str) -> bool:
    alias = normalise_unicode(alias).strip()
    return bool(alias) and any(form in body for form in (alias, alias.lower(), alias.capitalize()))


@hookimpl
def moco_metric() -> type[TokenF1]:
    return TokenF1
