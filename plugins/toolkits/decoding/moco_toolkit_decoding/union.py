"""Joint decoding across tokenizers: fusion over the union of each model's best strings (UniTE, arXiv 2410.03777).

At every step each model names its ``k`` most probable tokens as strings. Every model scores every string of the union (a
string that is not one token of a model gets the probability of its first token there), the scores are renormalised over
the union and combined, one string is chosen, and every model continues with that string in its own tokens. All end tokens
of all models are one candidate, the end.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from moco_core.converters import strings
from moco_core.errors import CapabilityError, MocoError, ModelCallError
from moco_core.models import Call, Inbox, Model
from moco_core.types import Generation, Sampling, Usage, canonical, digest
from moco_toolkit_checkpoints.growing import answer_so_far
from moco_toolkit_decoding.combine import Combiner
from moco_toolkit_decoding.joint import MAX_ROWS, cut_spans
from moco_toolkit_decoding.runner import runner_of
from moco_toolkit_decoding.sampling import Settings, choose
from moco_toolkit_decoding.text import Vocabulary, cut_at, vocabulary_of

__all__ = ["UnionRecipe"]

VERSION = 2
"""Raised when the decoding changes results, so that no stale reply is taken from a cache."""
END = b""
"""The candidate that ends the reply: no token has these bytes."""


@attrs.frozen(kw_only=True)
class UnionRecipe:
    """Fused strings of several models with different tokenizers. ``k`` strings per model form the union.

    The members' ``names`` stand in the reply. It ends with ``length`` where a member's context is full.
    """

    kind: ClassVar[Literal["serving"]] = "serving"
    made_by: ClassVar[tuple[str, int]] = ("union decoding", VERSION)

    combiner: Combiner
    sources: tuple[str, ...] = attrs.field(converter=strings)
    names: tuple[str, ...] = attrs.field(converter=strings)
    k: int = 10
    max_rows: int = attrs.field(default=MAX_ROWS, eq=False)
    capabilities: frozenset[str] = attrs.field(default=frozenset({"generate", "logprobs"}), eq=False)

    @classmethod
    def of(cls, combiner: Combiner, models: Sequence[Model], **settings: Any) -> UnionRecipe:
        """Make the recipe for these members."""
        return cls(
            combiner=combiner, sources=[m.fingerprint for m in models], names=[m.name for m in models], **settings
        )

    @property
    def fingerprint(self) -> str:
        combiner = canonical(self.combiner.description())
        return digest("union", VERSION, combiner, [list(self.sources), list(self.names)], self.k)

    def serve(self, engine: Any, model: Model, sources: Sequence[Model], inbox: Inbox) -> None:
        """Answer the calls of the derived model until none waits."""
        unique: dict[str, Model] = {}
        for source in sources:
            unique.setdefault(source.fingerprint, source)
        with engine.use(*unique.values()) as loaded:
            where = {fingerprint: i for i, fingerprint in enumerate(unique)}
            members = [where[s.fingerprint] for s in sources]
            UnionLoop(self, members, loaded).run(inbox)


@attrs.define(eq=False)
class _Row:
    call: Call
    sampling: Sampling
    prompts: list[Any]
    generator: random.Random
    ids: list[list[int]]
    data: bytes = b""
    steps: int = 0
    logprobs: list[float] = attrs.field(factory=list)
    pieces: list[tuple[str, bytes, int]] = attrs.field(factory=list)


class UnionLoop:
    """The decoding loop of one fused model; see :class:`UnionRecipe`."""

    def __init__(self, recipe: UnionRecipe, members: Sequence[int], loaded: Sequence[Any]) -> None:
        self.recipe, self.combiner = recipe, recipe.combiner
        self.members, self.loaded, self.names = list(members), list(loaded), recipe.names
        self.runners = [runner_of(one) for one in loaded]
        self.caches = [runner.cache(capacity=recipe.max_rows) for runner in self.runners]
        self.views = [vocabulary_of(one) for one in loaded]
        for one, view in zip(loaded, self.views, strict=True):
            if not view.exact:
                raise CapabilityError(
                    f"the tokenizer of model {one.model.name!r} does not keep text as it is, so its strings cannot be fused "
                    "with other tokenizers'; choose models with byte-level or SentencePiece tokenizers"
                )
        self.sizes = [min(v.size, o.vocab) for v, o in zip(self.views, loaded, strict=True)]
        self.ends = [
            torch.tensor(sorted(i for i in v.ends if i < size), dtype=torch.long, device=o.device)
            for v, o, size in zip(self.views, loaded, self.sizes, strict=True)
        ]
        self.holes = [
            torch.tensor(v.undefined(size), dtype=torch.long, device=o.device)
            for v, o, size in zip(self.views, loaded, self.sizes, strict=True)
        ]
        self.firsts: list[dict[bytes, int | None]] = [{} for _ in loaded]
        self.rows: list[_Row] = []
        self.logp: list[Tensor] = []

    @torch.inference_mode()
    def run(self, inbox: Inbox) -> None:
        """Answer calls until none waits and every row has finished."""
        while not inbox.cancelled:
            self._admit(inbox)
            if self.rows:
                self._step(inbox)
            elif not inbox.waiting:
                return

    def _admit(self, inbox: Inbox) -> None:
        room = min(self.recipe.max_rows, inbox.limit) - len(self.rows)
        if room <= 0 or not inbox.waiting:
            return
        fresh: list[_Row] = []
        for call in inbox.take(room):
            try:
                if call.kind != "generate":
                    raise CapabilityError(
                        f"model {call.model.name!r} cannot answer {call.kind!r} calls; it only writes text"
                    )
                sampling = Sampling.from_params(call.params)
                prompts = [one.render_input(call.input, reserve=sampling.max_new_tokens) for one in self.loaded]
                if not all(p.ids for p in prompts):
                    raise ModelCallError(f"model {call.model.name!r}: the prompt has no tokens; ask with some text")
            except MocoError as error:
                inbox.reject(call, error)
                continue
            fresh.append(_Row(call, sampling, prompts, random.Random(call.seed or 0), [[] for _ in self.loaded]))
        if not fresh:
            return
        for m, (runner, cache) in enumerate(zip(self.runners, self.caches, strict=True)):
            prompts = [row.prompts[m].ids for row in fresh]
            logp = self._normal(m, runner.feed(cache, cache.append(len(fresh)), prompts)[0])
            if self.rows:
                self.logp[m] = torch.cat([self.logp[m], logp])
            elif m < len(self.logp):
                self.logp[m] = logp
            else:
                self.logp.append(logp)
        self.rows += fresh

    def _normal(self, m: int, logits: Tensor) -> Tensor:
        logits = logits[:, : self.sizes[m]]
        if len(self.holes[m]):
            logits = logits.index_fill(-1, self.holes[m], -torch.inf)
        return logits.log_softmax(-1)

    # ---------------------------------------------------------------- one step

    def _step(self, inbox: Inbox) -> None:
        tops = [logp.topk(min(self.recipe.k, logp.shape[-1]), -1).indices.tolist() for logp in self.logp]
        ended = [
            logp[:, ends].logsumexp(-1).tolist() if len(ends) else [-float("inf")] * len(self.rows)
            for logp, ends in zip(self.logp, self.ends, strict=True)
        ]
        done: list[tuple[Call, Generation]] = []
        gone: list[int] = []
        for i, row in enumerate(self.rows):
            try:
                finish = self._advance(i, row, [t[i] for t in tops], [e[i] for e in ended])
            except MocoError as error:
                inbox.reject(row.call, error)
                gone.append(i)
                continue
            if finish is not None:
                done.append((row.call, self._generation(row, finish)))
                gone.append(i)
            elif row.call.tell is not None:
                text, tags = row.data.decode("utf-8", "replace"), getattr(self.loaded[0], "tags", ())
                row.call.tell(answer_so_far(text, row.sampling.stop, tags, row.prompts[0].opened))
        if gone:
            *_, order = (cache.drop(gone) for cache in self.caches)
            self.rows = [self.rows[i] for i in order]
        if done:
            inbox.resolve(done)
        if not self.rows:
            return
        for m, (runner, cache) in enumerate(zip(self.runners, self.caches, strict=True)):
            chunks: list[list[int]] = []
            for place, row in enumerate(self.rows):
                whole = [*row.prompts[m].ids, *row.ids[m]]
                cache.rollback(place, len(whole) - 1)
                chunks.append(whole[cache.lengths[place] :])
            self.logp[m] = self._normal(m, runner.feed(cache, range(cache.count), chunks)[0])

    def _advance(self, i: int, row: _Row, tops: Sequence[Sequence[int]], ended: Sequence[float]) -> str | None:
        """Choose a row's next string and append it for every model; return the finish reason if the row ends."""
        # by string: which token each model had in mind, the more probable one where two have the same bytes
        candidates: dict[bytes, dict[int, int]] = {}
        for m, (view, ids) in enumerate(zip(self.views, tops, strict=True)):
            for token in ids:
                data = END if token in view.ends else self._string(view, token, row)
                if data or token in view.ends:
                    candidates.setdefault(data, {}).setdefault(m, token)
        names = [
            c for c in candidates if c == END or all(self._first(m, c, row) is not None for m in range(len(self.views)))
        ]
        if not names:
            raise ModelCallError(
                f"model {row.call.model.name!r}: no string that all tokenizers can write follows {row.data[-40:]!r}"
            )
        scores: list[Tensor] = []
        for m in range(len(self.views)):
            wanted = [candidates[c].get(m, self._first(m, c, row) if c != END else 0) for c in names]
            values = self.logp[m][i, torch.tensor(wanted, device=self.logp[m].device)].float().cpu()
            if END in candidates:
                values[names.index(END)] = ended[m]
            scores.append(values[None])
        members = [scores[m] for m in self.members]
        combined = self.combiner(members)
        pick = int(choose(combined, Settings.of([row.sampling], combined.device), [row.generator])[0])
        if pick == len(names):
            raise ModelCallError(f"the fused scores of {', '.join(self.names)} are not finite at step {row.steps}")
        logprob = float(combined[0, pick])
        chosen = names[pick]
        row.steps += 1
        row.logprobs.append(logprob)
        if chosen == END:
            return "eos"
        credit = int(self.combiner.credit(members, combined, torch.tensor([pick]))[0])
        row.pieces.append((self.names[credit], chosen, 1))
        for m, view in enumerate(self.views):
            if m in candidates[chosen]:
                row.ids[m].append(candidates[chosen][m])
            else:
                kept, new = view.extend(row.ids[m], chosen)
                row.ids[m][kept:] = new
                # tokens before the seam may have been replaced: what was read of them must not stay in the cache
                self.caches[m].rollback(i, len(row.prompts[m].ids) + kept)
        row.data += chosen
        if row.sampling.stop and cut_at(row.data.decode("utf-8", "replace"), row.sampling.stop):
            return "stop"
        return "length" if row.steps >= row.sampling.max_new_tokens or self._full(row) else None

    def _full(self, row: _Row) -> bool:
        """Whether some member cannot read the reply so far: a string may be many tokens of it."""
        lengths = [len(prompt.ids) + len(ids) for prompt, ids in zip(row.prompts, row.ids, strict=True)]
        return any(n > (one.context_length or n) for n, one in zip(lengths, self.loaded, strict=True))

    @staticmethod
    def _string(view: Vocabulary, token: int, row: _Row) -> bytes:
        """Return a token's bytes; at the start of a reply without the space that its tokenizer puts there."""
        data = view.piece(token)
        return data[1:] if not row.data and view.drops_first_space and data[:1] == b" " else data

    def _first(self, m: int, data: bytes, row: _Row) -> int | None:
        """Return the token of model m that stands for these bytes, or the first of several; None if it has none."""
        view = self.views[m]
        start = not row.data and view.drops_first_space
        key = b"^" + data if start else b" " + data
        cache = self.firsts[m]
        if key not in cache:
            single = view.single.get(b" " + data) if start else view.single.get(data)
            if single is None:
                try:
                    ids = view.encode(data, first=start)
                    single = ids[0] if ids else None
                except CapabilityError:
                    single = None
            cache[key] = single if single is not None and single < self.sizes[m] else None
        return cache[key]

    def _generation(self, row: _Row, finish: str) -> Generation:
        text = row.data.decode("utf-8", "replace")
        if finish == "stop":
            found = cut_at(text, row.sampling.stop)
            text = found[0] if found else text
        counts: dict[str, int] = {}
        for name, _, n in row.pieces:
            counts[name] = counts.get(name, 0) + n
        total = max(1, len(row.pieces))
        meta = {"share": {name: round(n / total, 6) for name, n in counts.items()}, "steps": row.steps}
        ids = row.ids[0]
        # one log-probability per chosen string: they belong to the tokens only where every string was one token
        emitted = len(row.logprobs) - (finish == "eos")
        logprobs = row.logprobs[:emitted] if emitted == len(ids) else []
        made: Generation = self.loaded[0].generation(row.prompts[0], ids, logprobs, finish, text=text, meta=meta)
        merged: list[tuple[str, bytes, int]] = []
        for name, data, n in row.pieces:
            if merged and merged[-1][0] == name:
                merged[-1] = (name, merged[-1][1] + data, merged[-1][2] + n)
            else:
                merged.append((name, data, n))
        # every member reads its own prompt and writes the answer in its own tokens
        usage = Usage(sum(len(p.ids) for p in row.prompts), sum(map(len, row.ids)))
        return attrs.evolve(made, spans=cut_spans(merged, made.text), usage=usage)
