"""Options of knowledge_card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import Model, Sampling, option
from moco_toolkit_discussion import model_problems

__all__ = ["WORDS", "Options"]

WORDS = ("best", "best_reader")


@attrs.frozen(kw_only=True)
class Options:
    """Who answers, who writes passages and how many, and which of them are shown."""

    mode: Literal["bottom_up", "top_down_auto", "top_down_explicit", "plain"] = option(
        "bottom_up",
        help="ask all cards; or let the answerer ask for what it lacks, the card chosen by its description or by the answerer; "
        "plain: one passage per card, no selectors",
        paper="all three but plain",
    )
    answering: Literal["generate", "max_prob"] = option(
        "generate",
        help="max_prob: the choice that is likeliest with any one passage, or with none (generated knowledge prompting)",
        paper="generate; max_prob (GKP)",
    )
    n1: int = option(1, ge=1, help="passages per card (1 in mode=plain); sampled if more than one", paper="5 (GKP 20)")
    n2: int = option(20, ge=1, help="passages kept as the most relevant", paper="20")
    n3: int = option(5, ge=0, help="passages shown to the answerer", paper="5 (GKP: 1 per prompt)")
    max_seek: int = option(3, ge=1, help="mode=top_down: how often the answerer may ask for more", paper="3")
    knowledge_tokens: int = option(128, ge=1, help="length of a passage as it is written", paper="100 (GKP 60)")
    max_passage_tokens: int = option(
        64,
        ge=1,
        help="longer passages are summarised, or cut at the end of a sentence",
        paper="about 30 (120 characters)",
    )
    knowledge_temperature: float = option(0.7, ge=0, help="sampling of passages where it is sampled", paper="GKP 1.0")
    top_p: float = option(0.9, gt=0, le=1, help="nucleus, of passages", paper="GKP 0.5")
    relevance: Literal["auto", "embed", "tfidf", "bm25"] = option(
        "auto",
        help="how relevance is measured: cosine of a model's embeddings, of TF-IDF vectors, or BM25; auto: embeddings if "
        "embedder names a model, else tfidf",
        paper="mean-pooled MPNet",
    )
    embedder: str | int | None = option(
        None, help="model that embeds; none takes the first that can (relevance=embed)", paper="MPNet"
    )
    summarizer: str | int | None = option(
        None, help="model that summarises long passages; none cuts them", paper="Pegasus"
    )
    checker: str | int | None = option(
        None,
        help="model that says how probably a passage is true; none takes all for true",
        paper="fact verification against retrieved Wikipedia text",
    )
    selection: Literal["sample", "top"] = option(
        "sample",
        help="with a checker: draw n3 in proportion to truth among the best 2 n3, or take the n3 best",
        paper="sample",
    )
    exclude_self: bool = option(True, help="the answerer writes no passage", paper="the answerer is never a card")
    answerer: str | int = option(
        "best",
        help="who answers: best (dev score alone), best_reader (dev score with passages), or a model's name or index",
        paper="a large general model",
    )
    descriptions: tuple[str, ...] | None = option(
        None,
        help="mode=top_down: what each model of the pool knows, in order; none takes the models' own, or their names",
    )
    base_cards: tuple[str | int, ...] = option(
        (), help="cards that are base models, by name or index: they continue the question as plain text"
    )
    dev_sample: int | None = option(None, ge=1, help="dev examples read with passages (best_reader); none takes all")
    seed: int = option(0, help="added to the run's for the choice and order of passages")

    @property
    def seeks(self) -> bool:
        """Whether the answerer asks for what it lacks."""
        return self.mode in ("top_down_auto", "top_down_explicit")

    @property
    def per_card(self) -> int:
        """Passages per card."""
        return 1 if self.mode == "plain" else self.n1

    @property
    def embeds(self) -> bool:
        """Whether relevance is the cosine of embeddings."""
        return self.relevance == "embed" or (self.relevance == "auto" and self.embedder is not None)

    def knowledge(self, run: Sampling, *, sampled: bool) -> Sampling:
        """Return the decoding of passages."""
        temperature = self.knowledge_temperature if sampled else 0.0
        return attrs.evolve(
            run, temperature=temperature, top_p=self.top_p if sampled else 1.0, max_new_tokens=self.knowledge_tokens
        )

    def problems(self, pool: Sequence[Model]) -> list[str]:
        """Return what does not fit a pool, one sentence each; for ``Needs.check``."""
        named = {"embedder": self.embedder, "summarizer": self.summarizer, "checker": self.checker}
        out = [p for where, name in named.items() if name is not None for p in model_problems(pool, [name], where)]
        out += model_problems(pool, self.base_cards, "base_cards")
        if self.answerer not in WORDS:
            out += model_problems(pool, [self.answerer], "answerer")
        if self.embeds and not out:
            able = [m for i, m in enumerate(pool) if self.embedder in (None, i, m.name) and m.can("embed")]
            if not able:
                who = "any model of the pool" if self.embedder is None else f"the embedder {self.embedder!r}"
                out.append(f"relevance: embeddings are wanted and {who} cannot embed; choose relevance=tfidf or bm25")
        if self.answering == "max_prob":
            readers = [m for i, m in enumerate(pool) if self.answerer in (*WORDS, i, m.name)]
            out += [
                f"answering: max_prob scores choices and {m.name!r} cannot; choose answering=generate"
                for m in readers
                if not m.can("score")
            ]
        if self.descriptions is not None and len(self.descriptions) != len(pool):
            out.append(f"descriptions: {len(self.descriptions)} are given for {len(pool)} models; give one per model")
        for model in pool:
            if model.context_length is not None and model.context_length <= self.knowledge_tokens:
                out.append(
                    f"knowledge_tokens: {self.knowledge_tokens} tokens of a passage leave nothing of the context of "
                    f"{model.name!r}, {model.context_length} tokens; lower it"
                )
        return out
