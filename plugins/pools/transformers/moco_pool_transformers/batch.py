"""Continuous batching: rows are admitted between two steps, decoded together, and leave as soon as they are finished."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from moco_core.errors import EngineOutOfMemory, ModelCallError
from moco_core.models import Call
from moco_core.types import FinishReason, Generation, Sampling
from moco_pool_transformers.loaded import LoadedModel
from moco_toolkit_checkpoints.growing import answer_so_far
from moco_toolkit_checkpoints.local import Rendered
from moco_toolkit_checkpoints.transformers import DynamicCache
from moco_toolkit_decoding.kv_cache import KVCache, bucket
from moco_toolkit_decoding.prefixes import PrefixStore, read_blocks
from moco_toolkit_decoding.sampling import Settings, pick
from moco_toolkit_decoding.stops import StopWatch
from moco_toolkit_decoding.two_tables import TwoTableCache

__all__ = ["Batch", "Row", "StaticBatch", "new_batch"]

Finished = tuple[Call, Generation | Exception]


@attrs.define(eq=False)
class Row:
    """One request in the batch."""

    call: Call
    prompt: Rendered
    sampling: Sampling
    generator: random.Random
    limit: int
    watch: StopWatch | None = None
    ids: list[int] = attrs.field(factory=list)
    logprobs: list[float] = attrs.field(factory=list)
    reused: int = 0  # tokens of the prompt whose keys and values were known

    @classmethod
    def of(cls, call: Call, loaded: LoadedModel) -> Row:
        """Render a call. Raises ModelCallError (PromptTooLong, ...) if that fails."""
        sampling = Sampling.from_params(call.params)
        prompt = loaded.render_input(call.input, reserve=sampling.max_new_tokens)
        # the generator belongs to the request: it depends on the call's seed, never on its place in a batch
        return cls(
            call,
            prompt,
            sampling,
            random.Random(call.seed or 0),
            sampling.max_new_tokens,
            StopWatch(loaded, sampling.stop) if sampling.stop else None,
        )

    def add(self, token: int, logprob: float, end_ids: frozenset[int]) -> FinishReason | None:
        """Append an emitted token; return why the reply ends with it, if it does."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        if token in end_ids:
            return "eos"
        if self.watch is not None and self.watch.add(token, self.ids):
            return "stop"
        return "length" if len(self.ids) >= self.limit else None

    def tell(self, loaded: LoadedModel) -> None:
        """Tell the answer so far to who wants to know."""
        if self.call.tell is not None:
            text = loaded.decode(self.ids, tags=True)
            self.call.tell(answer_so_far(text, self.sampling.stop, loaded.tags, self.prompt.opened))

    def result(self, loaded: LoadedModel, finish: FinishReason) -> Generation:
        meta: dict[str, Any] = {"cached_tokens": self.reused} if self.reused else {}
        if finish == "stop":
            assert self.watch is not None
            meta["stop"] = self.watch.found
            return loaded.generation(self.prompt, self.ids, self.logprobs, finish, text=self.watch.text, meta=meta)
        text = None
        if finish == "eos" and self.watch is not None and self.watch.flush(self.ids[:-1]):
            text = self.watch.text  # characters that were held back completed a stop string
        return loaded.generation(self.prompt, self.ids, self.logprobs, finish, text=text, meta=meta)


def new_batch(loaded: LoadedModel, capacity: int, prefixes: PrefixStore | None = None) -> Batch | StaticBatch:
    """Return an empty batch of the kind that the model's architecture allows."""
    cache = loaded.runner.new_cache(capacity=capacity)
    if cache is not None:
        # what two rotary tables make of the first tokens depends on how many follow
        return Batch(loaded, cache, None if isinstance(cache, TwoTableCache) else prefixes)
    if "remembers" not in loaded.scratch:
        loaded.scratch["remembers"] = _remembers(loaded)
    return StaticBatch(loaded, capacity, remembers=loaded.scratch["remembers"])


def _remembers(loaded: LoadedModel) -> bool:
    """Compare three steps with plain forwards: a class that ignores the cache it is given sees its last token alone."""
    ids = (torch.arange(1, 9, device=loaded.device) % loaded.vocab)[None]
    places = torch.arange(8, device=loaded.device)[None]
    mask = torch.ones_like(ids)
    worst = 0.0
    try:
        cache = DynamicCache(config=loaded.module.config)
        loaded.forward(ids[:, :5], mask[:, :5], places[:, :5], cache)
        for n in (6, 7, 8):
            plain = loaded.forward(ids[:, :n], mask[:, :n], places[:, :n], None).logits
            got = loaded.forward(ids[:, n - 1 : n], mask[:, :n], places[:, n - 1 : n], cache).logits
            worst = max(worst, float((got - plain).abs().max() / plain.abs().max().clamp(min=1.0)))
    except EngineOutOfMemory:
        raise
    except Exception:  # it takes no cache of this kind
        return False
    return worst <= (1e-3 if loaded.dtype == torch.float32 else 6e-2)


class Batch:
    """The running batch of one model on a key/value cache."""

    def __init__(self, loaded: LoadedModel, cache: KVCache, prefixes: PrefixStore | None = None) -> None:
        self.loaded, self.cache, self.prefixes = loaded, cache, prefixes
        self.rows: list[Row] = []
        self._next: Tensor | None = None  # what every row reads next, (B,)
        self._settings: Settings | None = None
        self._generators: list[random.Random] = []
        # steps that are not yet entered into the rows, and at how many of them a row may be full (0: not known)
        self._steps: list[tuple[list[int], Tensor]] = []
        self._due = 0
        self._beyond = 0  # one above the largest id that can be chosen

    def __len__(self) -> int:
        return len(self.rows)

    def admit(self, rows: Sequence[Row]) -> list[Finished]:
        """Run the prompts of new rows, equal prompts once, and choose their first tokens; return who is finished by that."""
        self._enter()
        loaded, runner = self.loaded, self.loaded.runner
        ready = runner.plain_head
        # where the head cannot be run by itself, a prompt's last token enters the next step
        by_prompt: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            by_prompt.setdefault(row.prompt.ids if ready else row.prompt.ids[:-1], []).append(row)
        unique = list(by_prompt)
        start = self.cache.count
        # room for all of them and for a good part of their replies at once: growing later copies what is there
        self.cache.reserve(start + len(rows), max(len(r.prompt.ids) + min(r.limit, 128) for r in rows))
        order: list[Row] = []
        twins: list[tuple[Row, int]] = []
        parts: list[Tensor] = []
        for group in bucket(unique) if self.prefixes is None else [_by_length(unique)]:
            prompts = [unique[i] for i in group]
            span = self.cache.append(len(prompts))
            states, reused = self._read_prompts(span, prompts)
            if ready:
                assert states is not None
                parts.append(runner.head(states))
            for i, known in zip(group, reused, strict=True):
                leader, *others = by_prompt[unique[i]]
                leader.reused = known
                twins += [(other, len(order)) for other in others]
                order.append(leader)
        if twins:
            sources = [source for _, source in twins]
            self.cache.copy([start + s for s in sources], self.cache.append(len(sources)))
            if ready:
                parts.append(torch.cat(parts)[torch.tensor(sources, device=loaded.device)])
            order += [row for row, _ in twins]
        self.rows += order
        if not ready:
            self._read(torch.tensor([row.prompt.ids[-1] for row in order], device=loaded.device))
            return []
        settings = Settings.of([r.sampling for r in order], loaded.sampling_device)
        tokens, safe, logprobs = self._choose(torch.cat(parts), settings, [row.generator for row in order])
        self._read(safe)
        return self._take(tokens, logprobs.tolist(), start)

    def _read_prompts(self, span: range, prompts: Sequence[Sequence[int]]) -> tuple[Tensor | None, list[int]]:
        """Read prompts into new rows; return the states at their ends and how many tokens of each were known."""
        runner, cache, store, model = self.loaded.runner, self.cache, self.prefixes, self.loaded.model.fingerprint
        if store is None:
            return runner.read(cache, span, prompts), [0] * len(prompts)
        states: Tensor | None = None
        reused, waiting = [0] * len(prompts), list(range(len(prompts)))
        while waiting:  # what several of them begin with is read once
            now = [waiting[place] for place in store.first(model, [prompts[i] for i in waiting])]
            for i in now:
                reused[i] = store.load(model, cache, span[i], prompts[i])
            found = read_blocks(runner, cache, [span[i] for i in now], [prompts[i] for i in now])
            for i in now:
                store.save(model, cache, span[i], prompts[i])
            if found is not None:
                states = found.new_empty(len(prompts), found.shape[-1]) if states is None else states
                states[torch.tensor(now, device=found.device)] = found
            waiting = sorted(set(waiting).difference(now))
        return states, reused

    def step(self) -> list[Finished]:
        """Run one forward, choose one token per row; return the requests that are finished (or failed)."""
        assert self._next is not None
        if self._settings is None:
            self._settings = Settings.of([r.sampling for r in self.rows], self.loaded.sampling_device)
            self._generators = [row.generator for row in self.rows]
        if not self._due:
            watched = any(r.watch is not None or r.call.tell is not None for r in self.rows)
            self._due = 1 if watched else min(r.limit - len(r.ids) for r in self.rows)
        logits = self.loaded.runner.advance(self.cache, self._next)
        tokens, self._next, logprobs = self._choose(logits, self._settings, self._generators)
        self._steps.append((tokens, logprobs))
        if len(self._steps) < self._due and self._beyond not in tokens and self.loaded.end_ids.isdisjoint(tokens):
            return []
        self._steps.pop()
        self._enter()
        return self._take(tokens, logprobs.tolist())

    def _choose(
        self, logits: Tensor, settings: Settings, generators: Sequence[random.Random]
    ) -> tuple[list[int], Tensor, Tensor]:
        """Return one token per row, the same on the model's device, and log-probabilities (B,).

        The token of a row whose logits are not finite is one above the largest.
        """
        with torch.inference_mode():
            logits = logits.to(self.loaded.sampling_device)
            self._beyond = logits.shape[-1]
            tokens, logprobs = pick(logits, settings, generators)
            return tokens.tolist(), tokens.clamp(max=self._beyond - 1).to(self.loaded.device), logprobs

    def _read(self, tokens: Tensor) -> None:
        """Let the rows that just came read these tokens next."""
        self._next = tokens if self._next is None else torch.cat([self._next, tokens])
        self._settings = None

    def _enter(self) -> None:
        """Enter the steps so far into the rows; none of them ends one."""
        self._due = 0
        if not self._steps:
            return
        columns = torch.stack([values for _, values in self._steps], -1).tolist()
        for row, ids, logprobs in zip(self.rows, zip(*(t for t, _ in self._steps), strict=True), columns, strict=True):
            row.ids += ids
            row.logprobs += logprobs
        self._steps = []

    def _take(self, tokens: Sequence[int], logprobs: Sequence[float], start: int = 0) -> list[Finished]:
        """Give the rows from ``start`` on their newest tokens; take out and return those that are finished or failed."""
        out: list[Finished] = []
        gone: list[int] = []
        loaded, end_ids = self.loaded, self.loaded.end_ids
        for i, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True), start):
            row = self.rows[i]
            if token == self._beyond:
                out.append((row.call, _not_finite(loaded, len(row.ids))))
                gone.append(i)
                continue
            finish = row.add(token, logprob, end_ids)
            if finish is not None:
                out.append((row.call, row.result(loaded, finish)))
                gone.append(i)
            else:
                row.tell(loaded)
        if gone:
            self._leave(gone)
        return out

    def _leave(self, gone: Sequence[int]) -> None:
        assert self._next is not None
        order = self.cache.drop(gone)
        self.rows = [self.rows[i] for i in order]
        self._next = self._next[torch.tensor(order, dtype=torch.long, device=self.loaded.device)]
        self._settings = None


class StaticBatch:
    """For architectures whose state is no plain key/value cache (recurrent, linear attention, position biases).

    Makes no assumption about the cache: rows run together only if their prompts are equally long, so that there is no
    padding, and finished rows ride along until the group ends. A class that does not remember what it read, or does so in a
    way of its own, reads the whole text again for every token.
    """

    def __init__(self, loaded: LoadedModel, capacity: int, *, remembers: bool = True) -> None:
        self.loaded, self.capacity, self._remembers = loaded, capacity, remembers
        self.rows: list[Row] = []
        self._groups: list[list[Row]] = []
        self._done: set[int] = set()
        self._cache: Any = None
        self._ids: Tensor | None = None  # what is read next, (B, Q)
        self._position = 0

    def __len__(self) -> int:
        return len(self.rows) - len(self._done) + sum(len(g) for g in self._groups)

    def admit(self, rows: Sequence[Row]) -> list[Finished]:
        """Take rows in; they start once the group before them has ended."""
        by_length: dict[int, list[Row]] = {}
        for row in rows:
            by_length.setdefault(len(row.prompt.ids), []).append(row)
        self._groups += by_length.values()
        return []

    def step(self) -> list[Finished]:
        loaded = self.loaded
        if self._ids is None:
            self.rows = self._groups.pop(0)
            self._done = set()
            self._cache = DynamicCache(config=loaded.module.config) if self._remembers else None
            self._ids = torch.tensor([r.prompt.ids for r in self.rows], dtype=torch.long).to(loaded.device)
            self._position = 0
        ids = self._ids
        n, queries = ids.shape
        places = torch.arange(self._position, self._position + queries, device=loaded.device).expand(n, queries)
        mask = torch.ones(n, self._position + queries, dtype=torch.long, device=loaded.device)
        with torch.inference_mode():
            logits = loaded.forward(ids, mask, places, self._cache).logits[:, : loaded.vocab].to(loaded.sampling_device)
            settings = Settings.of([r.sampling for r in self.rows], loaded.sampling_device)
            tokens, logprobs = pick(logits, settings, [row.generator for row in self.rows])
        last = tokens.clamp(max=logits.shape[-1] - 1).to(loaded.device).unsqueeze(-1)
        if self._remembers:
            self._ids, self._position = last, self._position + queries
        else:
            self._ids = torch.cat([ids, last], -1)
        out: list[Finished] = []
        for i, (row, token, logprob) in enumerate(zip(self.rows, tokens.tolist(), logprobs.tolist(), strict=True)):
            if i in self._done:
                continue
            if token == logits.shape[-1]:
                out.append((row.call, _not_finite(loaded, len(row.ids))))
                self._done.add(i)
                continue
            finish = row.add(token, logprob, loaded.end_ids)
            if finish is not None:
                out.append((row.call, row.result(loaded, finish)))
                self._done.add(i)
            else:
                row.tell(loaded)
        if len(self._done) == len(self.rows):
            self.rows, self._done, self._cache, self._ids = [], set(), None, None
        return out


def _by_length(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return the longest first, so that the rows of every block lie side by side."""
    return sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))


def _not_finite(loaded: LoadedModel, step: int) -> ModelCallError:
    return ModelCallError(
        f"{loaded.model.name}: the logits of step {step} are not finite; use dtype float32 or bfloat16, or check the weights"
    )
