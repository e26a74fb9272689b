"""Continuous batching: rows are admitted between two steps, decoded together, and leave as soon as they are finished."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from transformers import DynamicCache

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.types import FinishReason, Generation, Sampling
from moco_pool_transformers.host import Rendered
from moco_pool_transformers.loaded import LoadedModel
from moco_pool_transformers.sampling import Settings, choose, log_probabilities
from moco_pool_transformers.stops import StopWatch

__all__ = ["Batch", "Row", "StaticBatch", "bucket"]

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
            StopWatch(loaded.renderer, sampling.stop) if sampling.stop else None,
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

    def result(self, loaded: LoadedModel, finish: FinishReason) -> Generation:
        if finish == "stop":
            assert self.watch is not None
            return loaded.generation(
                self.prompt, self.ids, self.logprobs, finish, text=self.watch.text, meta={"stop": self.watch.found}
            )
        text = None
        if finish == "eos" and self.watch is not None and self.watch.flush(self.ids[:-1]):
            text = self.watch.text  # characters that were held back completed a stop string
        return loaded.generation(self.prompt, self.ids, self.logprobs, finish, text=text)


def bucket(rows: Sequence[Sequence[int]], tokens: int = 4096, waste: float = 0.25) -> Iterable[list[int]]:
    """Group rows by length, longest first, so that padding stays below ``waste`` and a group below ``tokens``."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    group: list[int] = []
    real = 0
    for i in order:
        if group:
            width = len(rows[group[0]])
            padded = width * (len(group) + 1)
            if padded > tokens or padded - (real + len(rows[i])) > max(waste * padded, 256):
                yield group
                group, real = [], 0
        group.append(i)
        real += len(rows[i])
    if group:
        yield group


class Batch:
    """The running batch of one model on a slab."""

    def __init__(self, loaded: LoadedModel, capacity: int) -> None:
        slab = loaded.slab()
        if slab is None:
            raise ValueError("this architecture needs a StaticBatch")
        self.loaded, self.slab = loaded, slab
        slab.capacity = capacity
        self.rows: list[Row] = []
        self._last: Tensor | None = None
        self._settings: Settings | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def admit(self, rows: Sequence[Row]) -> None:
        """Add rows. All prompt tokens but the last are run now, equal prompts once; the last one enters the next step."""
        first: dict[tuple[int, ...], int] = {}
        unique: list[tuple[int, ...]] = []
        for row in rows:
            head = row.prompt.ids[:-1]
            if head not in first:
                first[head] = len(unique)
                unique.append(head)
        order: list[Row] = []
        twins: list[tuple[Row, int]] = []
        by_head: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            by_head.setdefault(row.prompt.ids[:-1], []).append(row)
        start = self.slab.count
        # room for all of them and for a good part of their replies at once: growing later copies what is there
        self.slab.reserve(start + len(rows), max(len(r.prompt.ids) + min(r.limit, 128) for r in rows))
        for group in bucket(unique):
            self.loaded.prefill(self.slab, [unique[i] for i in group])
            for i in group:
                leader, *others = by_head[unique[i]]
                twins += [(other, start + len(order)) for other in others]
                order.append(leader)
        if twins:
            sources = [source for _, source in twins]
            span = self.slab.append([self.slab.lengths[s] for s in sources])
            self.slab.copy(sources, span)
            order += [row for row, _ in twins]
        self.rows += order
        last = torch.tensor([row.prompt.ids[-1] for row in order], dtype=torch.long).to(self.loaded.device)
        self._last = last if self._last is None else torch.cat([self._last, last])
        self._settings = None

    def step(self) -> list[Finished]:
        """Run one forward, choose one token per row; return the requests that are finished (or failed)."""
        assert self._last is not None
        if self._settings is None:
            self._settings = Settings.of([r.sampling for r in self.rows], self.loaded.sampling_device)
            self._generators = [self.rows[i].generator for i in self._settings.sampled]
        with torch.inference_mode():
            logits = self.loaded.advance(self.slab, self._last).to(self.loaded.sampling_device)
            tokens = choose(logits, self._settings, self._generators)
            safe = tokens.clamp(max=logits.shape[-1] - 1)
            both = torch.stack([tokens.double(), log_probabilities(logits, safe).double()]).tolist()
        self._last = safe.to(self.loaded.device)
        out: list[Finished] = []
        gone: list[int] = []
        loaded, end_ids, beyond = self.loaded, self.loaded.end_ids, logits.shape[-1]
        for i, (row, token, logprob) in enumerate(zip(self.rows, both[0], both[1], strict=True)):
            if token == beyond:
                out.append((row.call, _not_finite(loaded, len(row.ids))))
                gone.append(i)
                continue
            finish = row.add(int(token), logprob, end_ids)
            if finish is not None:
                out.append((row.call, row.result(loaded, finish)))
                gone.append(i)
        if gone:
            self._leave(gone)
        return out

    def _leave(self, gone: Sequence[int]) -> None:
        assert self._last is not None
        order = self.slab.drop(gone)
        self.rows = [self.rows[i] for i in order]
        self._last = self._last[torch.tensor(order, dtype=torch.long, device=self.loaded.device)]
        self._settings = None


class StaticBatch:
    """For architectures whose state is no plain key/value cache (recurrent, linear attention, position biases).

    Makes no assumption about the cache: rows run together only if their prompts are equally long, so that there is no
    padding, and finished rows ride along until the group ends.
    """

    def __init__(self, loaded: LoadedModel, capacity: int) -> None:
        self.loaded, self.capacity = loaded, capacity
        self.rows: list[Row] = []
        self._groups: list[list[Row]] = []
        self._done: set[int] = set()
        self._cache: Any = None
        self._last: Tensor | None = None
        self._position = 0

    def __len__(self) -> int:
        return len(self.rows) - len(self._done) + sum(len(g) for g in self._groups)

    def admit(self, rows: Sequence[Row]) -> None:
        by_length: dict[int, list[Row]] = {}
        for row in rows:
            by_length.setdefault(len(row.prompt.ids), []).append(row)
        self._groups += by_length.values()

    def step(self) -> list[Finished]:
        loaded = self.loaded
        if not self.rows:
            self.rows = self._groups.pop(0)
            self._done = set()
            self._cache = DynamicCache(config=loaded.module.config)
            ids = torch.tensor([r.prompt.ids for r in self.rows], dtype=torch.long).to(loaded.device)
            self._position = 0
        else:
            assert self._last is not None
            ids = self._last.unsqueeze(-1)
        n, queries = ids.shape
        places = torch.arange(self._position, self._position + queries, device=loaded.device).expand(n, queries)
        mask = torch.ones(n, self._position + queries, dtype=torch.long, device=loaded.device)
        self._position += queries
        with torch.inference_mode():
            logits = loaded.forward(ids, mask, places, self._cache).logits[:, : loaded.vocab].to(loaded.sampling_device)
            settings = Settings.of([r.sampling for r in self.rows], loaded.sampling_device)
            tokens = choose(logits, settings, [self.rows[i].generator for i in settings.sampled])
            safe = tokens.clamp(max=logits.shape[-1] - 1)
            both = torch.stack([tokens.double(), log_probabilities(logits, safe).double()]).tolist()
        self._last = safe.to(loaded.device)
        out: list[Finished] = []
        for i, (row, token, logprob) in enumerate(zip(self.rows, both[0], both[1], strict=True)):
            if i in self._done:
                continue
            if token == logits.shape[-1]:
                out.append((row.call, _not_finite(loaded, len(row.ids))))
                self._done.add(i)
                continue
            finish = row.add(int(token), logprob, loaded.end_ids)
            if finish is not None:
                out.append((row.call, row.result(loaded, finish)))
                self._done.add(i)
        if len(self._done) == len(self.rows):
            self.rows, self._done, self._cache, self._last = [], set(), None, None
        return out


def _not_finite(loaded: LoadedModel, step: int) -> ModelCallError:
    return ModelCallError(
        f"{loaded.model.name}: the logits of step {step} are not finite; use dtype float32 or bfloat16, or check the weights"
    )
