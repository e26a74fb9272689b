"""Joint decoding over a shared vocabulary: several models in lock-step, one token per row and step.

The fused model is a derived model: :class:`JointRecipe` is a value with a fingerprint, and the engine calls its
:meth:`~JointRecipe.serve` with the loaded members. Per step each member gives its next-token logits for the same rows, a
:class:`~moco_toolkit_decoding.combine.Combiner` makes one distribution of them, one token per row is chosen from it, and
every member reads that token. Rows leave when they finish and waiting calls take their places (continuous batching).
"""

from __future__ import annotations

import codecs
import random
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from moco_core.converters import ints, strings
from moco_core.errors import CapabilityError, MocoError, ModelCallError
from moco_core.models import Call, Inbox, Model
from moco_core.types import FinishReason, Generation, Sampling, Span, Usage, canonical, digest
from moco_toolkit_checkpoints.growing import answer_so_far
from moco_toolkit_decoding.combine import Combiner
from moco_toolkit_decoding.runner import runner_of
from moco_toolkit_decoding.sampling import Settings, choose, sampling_device
from moco_toolkit_decoding.stops import StopWatch
from moco_toolkit_decoding.text import vocabulary_of

__all__ = ["JointRecipe", "shared_vocabulary"]

MAX_ROWS = 128
VERSION = 2
"""Raised when the decoding changes results, so that no stale reply is taken from a cache."""


@attrs.frozen(kw_only=True)
class JointRecipe:
    """Fused logits of several models with one tokenizer.

    ``combiner`` combines the members, which are the ``sources`` of ``pool.derive`` in order (the same model may appear
    twice: it runs once); their ``names`` stand in the reply. ``stops_with`` are the members whose end tokens end a reply; all
    of them if empty. ``max_rows`` bounds the rows decoded at once.
    """

    kind: ClassVar[Literal["serving"]] = "serving"
    made_by: ClassVar[tuple[str, int]] = ("joint decoding", VERSION)

    combiner: Combiner
    sources: tuple[str, ...] = attrs.field(converter=strings)
    names: tuple[str, ...] = attrs.field(converter=strings)
    stops_with: tuple[int, ...] = attrs.field(default=(), converter=ints)
    max_rows: int = attrs.field(default=MAX_ROWS, eq=False)
    capabilities: frozenset[str] = attrs.field(default=frozenset({"generate", "logprobs"}), eq=False)

    @classmethod
    def of(cls, combiner: Combiner, models: Sequence[Model], **settings: Any) -> JointRecipe:
        """Make the recipe for these members."""
        if len(models) != combiner.members:
            raise ValueError(f"the combiner takes {combiner.members} members, got {len(models)}")
        return cls(
            combiner=combiner, sources=[m.fingerprint for m in models], names=[m.name for m in models], **settings
        )

    @property
    def fingerprint(self) -> str:
        # the description goes through its JSON text: an infinite or very small number is written the same everywhere
        return digest(
            "joint",
            VERSION,
            canonical(self.combiner.description()),
            [list(part) for part in (self.sources, self.names, self.stops_with)],
        )

    def serve(self, engine: Any, model: Model, sources: Sequence[Model], inbox: Inbox) -> None:
        """Answer the calls of the derived model until none waits; see ``moco_toolkit_checkpoints.local.ServingRecipe``."""
        unique: dict[str, Model] = {}
        for source in sources:
            unique.setdefault(source.fingerprint, source)
        with engine.use(*unique.values()) as loaded:
            where = {fingerprint: i for i, fingerprint in enumerate(unique)}
            JointLoop(self, [where[s.fingerprint] for s in sources], loaded).run(inbox)


@attrs.define(eq=False)
class _Row:
    call: Call
    sampling: Sampling
    prompts: list[Any]
    generator: random.Random
    watch: StopWatch | None
    ids: list[int] = attrs.field(factory=list)
    logprobs: list[float] = attrs.field(factory=list)
    credits: list[int] = attrs.field(factory=list)


class JointLoop:
    """The decoding loop of one fused model.

    ``members[i]`` is the index in ``loaded`` of member i.
    """

    def __init__(self, recipe: JointRecipe, members: Sequence[int], loaded: Sequence[Any]) -> None:
        self.combiner = recipe.combiner
        self.members = list(members)
        self.loaded = list(loaded)
        self.names = recipe.names
        self.max_rows = recipe.max_rows
        self.runners = [runner_of(one) for one in loaded]
        self.caches = [runner.cache(capacity=recipe.max_rows) for runner in self.runners]
        self.vocabularies = [vocabulary_of(one) for one in loaded]
        self.size, self.undefined = shared_vocabulary(loaded)
        stops = recipe.stops_with or range(len(members))
        self.ends = frozenset().union(*(loaded[members[i]].end_ids for i in stops))
        self.rows: list[_Row] = []
        self.logits: list[Tensor] = []
        self.settings: Settings | None = None
        # on an accelerator the members of one step may sit on different devices; they are combined on the first one's
        self.device = sampling_device(loaded[0].device)

    @torch.inference_mode()
    def run(self, inbox: Inbox) -> None:
        """Answer calls until none waits and every row has finished."""
        while not inbox.cancelled:
            self._admit(inbox)
            if not self.rows:
                if not inbox.waiting:
                    return
                continue
            self._step(inbox)

    # ---------------------------------------------------------------- rows come

    def _admit(self, inbox: Inbox) -> None:
        room = min(self.max_rows, inbox.limit) - len(self.rows)
        if room <= 0 or not inbox.waiting:
            return
        fresh: list[_Row] = []
        for call in inbox.take(room):
            try:
                fresh.append(self._open(call))
            except MocoError as error:
                inbox.reject(call, error)
        if not fresh:
            return
        # room for the whole replies at once: growing copies the cache
        most = max(min(row.sampling.max_new_tokens, 256) for row in fresh)
        for m, (runner, cache) in enumerate(zip(self.runners, self.caches, strict=True)):
            prompts = [row.prompts[m].ids for row in fresh]
            cache.reserve(cache.count + len(fresh), max(map(len, prompts)) + most)
            logits = self._cut(runner.feed(cache, cache.append(len(fresh)), prompts)[0])
            if self.rows:
                self.logits[m] = torch.cat([self.logits[m], logits])
            elif m < len(self.logits):
                self.logits[m] = logits
            else:
                self.logits.append(logits)
        self.rows += fresh
        self.settings = None

    def _open(self, call: Call) -> _Row:
        if call.kind != "generate":
            raise CapabilityError(f"model {call.model.name!r} cannot answer {call.kind!r} calls; it only writes text")
        sampling = Sampling.from_params(call.params)
        prompts = [one.render_input(call.input, reserve=sampling.max_new_tokens) for one in self.loaded]
        empty = next((i for i, p in enumerate(prompts) if not p.ids), None)
        if empty is not None:
            raise ModelCallError(
                f"model {self.loaded[empty].model.name!r}: the prompt has no tokens; ask with some text"
            )
        watch = StopWatch(self.loaded[0], sampling.stop) if sampling.stop else None
        return _Row(call, sampling, prompts, random.Random(call.seed or 0), watch)

    def _cut(self, logits: Tensor) -> Tensor:
        return logits[:, : self.size].to(self.device, torch.float32)

    # ---------------------------------------------------------------- one step

    def _step(self, inbox: Inbox) -> None:
        rows = self.rows
        logits = [self.logits[i] for i in self.members]
        combined = self.combiner(logits, self.undefined)
        if self.settings is None:
            self.settings = Settings.of([r.sampling for r in rows], self.device)
        tokens = choose(combined, self.settings, [r.generator for r in rows])
        beyond = combined.shape[-1]
        safe = tokens.clamp(max=beyond - 1)
        chosen = combined.gather(-1, safe[:, None]).squeeze(-1)
        credit = self.combiner.credit(logits, combined, safe).tolist() if len(self.loaded) > 1 else [0] * len(rows)
        done: list[tuple[Call, Generation]] = []
        gone: list[int] = []
        ids = tokens.tolist()
        for i, (row, token, logprob) in enumerate(zip(rows, ids, chosen.tolist(), strict=True)):
            if token == beyond:
                names = ", ".join(dict.fromkeys(self.names))
                inbox.reject(
                    row.call,
                    ModelCallError(
                        f"the fused scores of {names} are not finite at step {len(row.ids)}; check their weights"
                    ),
                )
                gone.append(i)
                continue
            row.ids.append(token)
            row.logprobs.append(logprob)
            row.credits.append(credit[i])
            finish = self._finish(row, token)
            if finish is not None:
                done.append((row.call, self._generation(row, finish)))
                gone.append(i)
            elif row.call.tell is not None:
                first = self.loaded[0]
                text, tags = first.decode(row.ids, tags=True), getattr(first, "tags", ())
                row.call.tell(answer_so_far(text, row.sampling.stop, tags, row.prompts[0].opened))
        if gone:
            ids = self._leave(gone, ids)
            self.settings = None
        if done:
            inbox.resolve(done)
        if self.rows:
            self.logits = [
                self._cut(runner.advance(cache, torch.tensor(ids, device=cache.device)))
                for runner, cache in zip(self.runners, self.caches, strict=True)
            ]

    def _finish(self, row: _Row, token: int) -> FinishReason | None:
        """Return why the row ends with this token, if it does."""
        if token in self.ends:
            if row.watch is not None:
                row.watch.flush(row.ids[:-1])  # characters that were held back may complete a stop string
            return "eos"
        if row.watch is not None and row.watch.add(token, row.ids):
            return "stop"
        return "length" if len(row.ids) >= row.sampling.max_new_tokens else None

    def _leave(self, gone: Sequence[int], ids: list[int]) -> list[int]:
        """Drop rows from every cache; the last rows take the gaps. Returns the tokens in the new order."""
        *_, order = (cache.drop(gone) for cache in self.caches)
        self.rows = [self.rows[i] for i in order]
        return [ids[i] for i in order]

    # ---------------------------------------------------------------- rows go

    def _generation(self, row: _Row, finish: FinishReason) -> Generation:
        emitted = row.ids[:-1] if finish == "eos" else row.ids
        counts: dict[str, int] = {}
        for c in row.credits[: len(emitted)]:
            counts[self.names[c]] = counts.get(self.names[c], 0) + 1
        total = max(1, len(emitted))
        meta: dict[str, Any] = {"share": {name: round(n / total, 6) for name, n in counts.items()}}
        text: str | None = None
        if row.watch is not None and row.watch.found:
            text = row.watch.text
            meta |= {"stop": row.watch.found} if finish == "stop" else {}
        made: Generation = self.loaded[0].generation(
            row.prompts[0], row.ids, row.logprobs, finish, text=text, meta=meta
        )
        # every member reads its prompt and each token
        usage = Usage(sum(len(p.ids) for p in row.prompts), len(self.loaded) * len(row.ids))
        return attrs.evolve(made, spans=self._spans(row, emitted, made.text), usage=usage)

    def _spans(self, row: _Row, emitted: Sequence[int], text: str) -> tuple[Span, ...]:
        """Cut the answer's text into pieces by the member each token is owed to."""
        pieces: list[tuple[str, bytes, int]] = []
        view = self.vocabularies[0]
        for token, c in zip(emitted, row.credits, strict=False):
            name = self.names[c]
            if pieces and pieces[-1][0] == name:
                pieces[-1] = (name, pieces[-1][1] + view.piece(token), pieces[-1][2] + 1)
            else:
                pieces.append((name, view.piece(token), 1))
        return cut_spans(pieces, text)


def cut_spans(pieces: Sequence[tuple[str, bytes, int]], text: str) -> tuple[Span, ...]:
    """Turn (author, bytes, tokens) pieces into spans whose texts concatenate to ``text``.

    A character split between two authors belongs to the one that finished it. What stands around ``text`` (a reasoning block
    before it, a stop string after it) is left out.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    written = [decoder.decode(data) for _, data, _ in pieces]
    if written:
        written[-1] += decoder.decode(b"", True)
    begin = "".join(written).rfind(text)  # what stands in front may say the same
    if begin < 0 or not text:
        return ()
    end, at = begin + len(text), 0
    out: list[Span] = []
    for (name, _, tokens), part in zip(pieces, written, strict=True):
        low, high = max(at, begin), min(at + len(part), end)
        if low < high:
            out.append(Span(name, part[low - at : high - at], tokens))
        at += len(part)
    return tuple(out)


def shared_vocabulary(loaded: Sequence[Any]) -> tuple[int, Tensor | None]:
    """Return (V, mask): the number of ids that every model covers, and which of them some tokenizer leaves undefined.

    Rows of the output embedding from V on are padding; they are cut off before anything is normalised.
    """
    views = [vocabulary_of(one) for one in loaded]
    size = min([view.size for view in views] + [one.vocab for one in loaded])
    holes = sorted({i for view in views for i in view.undefined(size)})
    if not holes:
        return size, None
    mask = torch.zeros(size, dtype=torch.bool, device=sampling_device(loaded[0].device))
    mask[holes] = True
    return size, mask
