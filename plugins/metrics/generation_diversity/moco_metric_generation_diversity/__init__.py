"""Generation diversity: how far replies are from references and from each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import attrs

from moco_core import (
    Answer,
    CapabilityError,
    ConfigError,
    Context,
    Example,
    Metric,
    Model,
    Plugin,
    Question,
    Reply,
    Score,
    Scored,
    hookimpl,
    option,
    plugin_option,
)
from moco_metric_generation_diversity.measures import (
    distinct_n,
    pairwise_distance,
    reference_distance,
    self_bleu,
    vendi_score,
)
from moco_toolkit_answers import judge_of, read_open, strip_reasoning

__all__ = [
    "GenerationDiversity",
    "Options",
    "distinct_n",
    "moco_metric",
    "pairwise_distance",
    "reference_distance",
    "self_bleu",
    "vendi_score",
]

_EMBEDDED = ("reference_distance", "pairwise", "vendi")


@attrs.frozen(kw_only=True)
class Options:
    """Which diversity is measured, and with which encoder."""

    measure: Literal["distinct", "self_bleu", "reference_distance", "pairwise", "vendi"] = option(
        "distinct",
        help="distinct n-grams, 1 - self-BLEU, distance to references, distance between replies, Vendi score",
    )
    n: int = option(2, ge=1, le=8, help="length of the n-grams of distinct")
    pool: Plugin | None = plugin_option("pool", None, help="the encoder's pool, as in a run: {name: ..., ...}")
    model: str = option("", help="the encoder's name in that pool; default: its first model")

    def __attrs_post_init__(self) -> None:
        if self.measure in _EMBEDDED and self.pool is None:
            raise ConfigError(
                f"pool: missing; measure: {self.measure} needs an encoder, give its pool: {{name: ..., ...}}"
            )


class GenerationDiversity(Metric[Options]):
    """Diversity of one reply against its references, or of the replies in ``reply.meta["samples"]`` among themselves.

    ``reference_distance`` is 1 - the mean cosine between the reply and the references; ``pairwise`` the mean cosine
    distance between replies; ``vendi`` the Vendi score divided by the number of replies (arXiv 2210.02410); ``self_bleu``
    is reported as 1 - self-BLEU/100 (arXiv 1802.01886); ``distinct`` is unique over all n-grams (arXiv 1510.03055). All
    are in [0, 1] but distances, which reach 2. Gibberish is diverse: report a quality metric beside this one. A measure
    that needs several replies gives no score to a single one.
    """

    Options = Options
    binary = False

    @cached_property
    def encoder(self) -> Model:
        """The encoder. Raises ConfigError or CapabilityError if the metric's pool has none."""
        model = judge_of("generation_diversity", self.options.pool, self.options.model)
        if not model.can("embed"):
            raise CapabilityError(
                f"metric.pool: model {model.name!r} gives no embeddings (capability 'embed'); choose an encoder"
            )
        return model

    def check(self) -> Sequence[str]:
        """Look for the encoder, if the measure takes one. Raises ConfigError or CapabilityError if there is none."""
        if self.options.measure in _EMBEDDED:
            self.encoder  # noqa: B018
        return ()

    def read(self, question: Question, text: str) -> Answer:
        """Return the whole reply without reasoning."""
        return read_open(question, text)

    async def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply and its samples."""
        answer = read_open(example.question, reply.text)
        samples = reply.meta.get("samples")
        raw = [str(s) for s in samples] if isinstance(samples, (list, tuple)) and samples else [reply.text]
        texts = [t for t in ((strip_reasoning(s) or "").strip() for s in raw) if t]
        meta = {"replies": len(texts), "characters": sum(map(len, texts))}
        return Score(value=await self._value(example, texts, context), answer=answer, meta=meta)

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """Mean length of a question's replies in characters, which all of these measures depend on."""
        lengths = [float(r.score.meta["characters"]) for r in rows]
        return {"characters": sum(lengths) / len(lengths)} if lengths else {}

    async def _value(self, example: Example, texts: list[str], context: Context) -> float | None:
        measure = self.options.measure
        if not texts:
            return 0.0
        if measure == "distinct":
            return distinct_n(texts, self.options.n)
        if measure == "reference_distance":
            references = [r for r in example.references if r.strip()]
            if not references:
                return None
            vectors = await self._embed([*texts, *references], context)
            own, others = vectors[: len(texts)], vectors[len(texts) :]
            return sum(reference_distance(v, others) for v in own) / len(own)
        if len(texts) < 2:
            return None
        if measure == "self_bleu":
            return 1.0 - self_bleu(texts) / 100.0
        vectors = await self._embed(texts, context)
        return pairwise_distance(vectors) if measure == "pairwise" else vendi_score(vectors) / len(vectors)

    async def _embed(self, texts: list[str], context: Context) -> list[tuple[float, ...]]:
        return list(await context.embed(self.encoder, texts))


@hookimpl
def moco_metric() -> type[GenerationDiversity]:
    return GenerationDiversity
