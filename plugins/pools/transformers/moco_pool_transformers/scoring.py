"""Answers that are no generations: teacher-forced scores, embeddings, rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.types import ContinuationScore
from moco_pool_transformers.loaded import LoadedModel
from moco_toolkit_decoding.kv_cache import bucket

__all__ = ["KINDS", "embed", "reward", "score"]

CHUNK = 128
"""Continuation tokens run at once: bounds the (rows, tokens, vocabulary) logits."""

LOGIT_BUDGET = 1 << 26
"""Largest number of logits held at once: 256 MiB in float32."""


def score(loaded: LoadedModel, calls: Sequence[Call]) -> list[Any]:
    """Return, per call, one ContinuationScore per continuation.

    The continuation's tokens are those of prompt + continuation, tokenised as one text, beyond the prefix it shares with
    the prompt's own tokens: exactly what the model would have to emit. Prompts of a batch are run once for all their
    continuations.
    """
    jobs: list[tuple[int, int, tuple[int, ...], list[int]]] = []  # call, continuation, prefix, tokens
    results: list[Any] = [None] * len(calls)
    for c, call in enumerate(calls):
        texts = list(call.input["continuations"])
        try:
            prompt = loaded.render_input(call.input)
            rows = []
            for text in texts:
                kept, ids = loaded.continuation_ids(prompt, text)
                prefix = prompt.ids[:kept]
                if not prefix and ids:  # nothing predicts the first token of all: it is given, not scored
                    prefix, ids = (ids[0],), ids[1:]
                if loaded.context_length is not None and len(prefix) + len(ids) > loaded.context_length:
                    # lets the renderer word its own refusal, or cut the prompt from the left if it may
                    prompt = loaded.render_input(call.input, reserve=len(ids) + len(prompt.ids) - kept)
                    prefix, ids = prompt.ids, loaded.encode(text)
                rows.append((prefix, ids))
        except ModelCallError as error:
            results[c] = error
            continue
        results[c] = [None] * len(texts)
        jobs += [(c, i, prefix, ids) for i, (prefix, ids) in enumerate(rows)]
    scored = _teacher_force(loaded, [(prefix, ids) for _, _, prefix, ids in jobs])
    for (c, i, prefix, ids), logprobs in zip(jobs, scored, strict=True):
        results[c][i] = ContinuationScore(
            token_ids=tuple(ids),
            token_logprobs=tuple(logprobs),
            prompt_tokens=len(prefix) if i == 0 else 0,  # read once for all continuations
        )
    return [tuple(r) if isinstance(r, list) else r for r in results]


def _teacher_force(loaded: LoadedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
    """Return the log-probabilities of each row's tokens after its prefix."""
    out: list[list[float]] = [[] for _ in rows]
    live = [i for i, (_, ids) in enumerate(rows) if ids]
    if not live:
        return out
    if loaded.runner.new_cache() is None:
        for i in live:
            out[i] = _alone(loaded, *rows[i])
        return out
    size = max(1, min(CHUNK, max(len(rows[i][1]) for i in live)))
    step = max(1, LOGIT_BUDGET // (size * loaded.vocab))
    live.sort(key=lambda i: (tuple(rows[i][0]), len(rows[i][1])))  # equal prompts side by side
    for start in range(0, len(live), step):
        part = live[start : start + step]
        for i, values in zip(part, _ragged(loaded, [rows[i] for i in part]), strict=True):
            out[i] = values
    return out


def _ragged(loaded: LoadedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
    runner, cache = loaded.runner, loaded.runner.cache()
    heads = list(dict.fromkeys(tuple(prefix[:-1]) for prefix, _ in rows))
    where: dict[tuple[int, ...], int] = {}
    for group in bucket(heads):
        span = cache.append(len(group))
        runner.prefill(cache, span, [heads[i] for i in group])
        where |= {heads[i]: row for i, row in zip(group, span, strict=True)}
    span = cache.append(len(rows))
    cache.copy([where[tuple(prefix[:-1])] for prefix, _ in rows], span)
    # feed the last prompt token and all continuation tokens but the last: their logits predict the continuation
    feed = [[prefix[-1], *ids[:-1]] for prefix, ids in rows]
    out: list[list[float]] = [[] for _ in rows]
    for start in range(0, max(map(len, feed)), CHUNK):
        there = [r for r, ids in enumerate(feed) if len(ids) > start]
        pieces = [feed[r][start : start + CHUNK] for r in there]
        targets = torch.zeros(len(there), max(map(len, pieces)), dtype=torch.long)
        for place, r in enumerate(there):
            aim = rows[r][1][start : start + CHUNK]
            targets[place, : len(aim)] = torch.tensor(aim, dtype=torch.long)
        with torch.inference_mode():
            ends = [len(rows[r][0]) - 1 + len(feed[r]) for r in there]
            logits, _ = runner.extend(cache, [span[r] for r in there], pieces, ends=ends)
            values = _picked(logits, targets.to(loaded.device)).tolist()
        for r, piece, row in zip(there, pieces, values, strict=True):
            out[r] += row[: len(piece)]
    return out


def _picked(logits: Tensor, targets: Tensor) -> Tensor:
    chosen = logits.gather(-1, targets.clamp(max=logits.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, -1)


def _alone(loaded: LoadedModel, prefix: Sequence[int], ids: Sequence[int]) -> list[float]:
    """Score one row without a cache: for architectures whose state is no plain key/value cache."""
    row = torch.tensor([[*prefix, *ids[:-1]]], dtype=torch.long, device=loaded.device)
    places = torch.arange(row.shape[1], device=loaded.device)[None]
    with torch.inference_mode():
        logits = loaded.forward(row, torch.ones_like(row), places, None, keep=len(ids)).logits
        logits = logits if logits.ndim == 3 else logits.unsqueeze(1)
        targets = torch.tensor([ids], dtype=torch.long, device=loaded.device)
        values: list[float] = _picked(logits[..., : loaded.vocab], targets)[0].tolist()
    return values


def embed(loaded: LoadedModel, calls: Sequence[Call]) -> list[Any]:
    """Return, per call, one vector per text: the mean of the last hidden states over the text's tokens (float32)."""
    writes = loaded.model.can("generate")
    read = loaded.render_input if writes else loaded.renderer.render_closed
    jobs: list[tuple[int, tuple[int, ...]]] = []
    results: list[Any] = [None] * len(calls)
    for c, call in enumerate(calls):
        try:
            prompts = [read({"text": text}) for text in call.input["texts"]]
        except ModelCallError as error:
            results[c] = error
            continue
        results[c] = []
        jobs += [(c, p.ids) for p in prompts]
    vectors: list[Any] = [None] * len(jobs)
    for group in _groups(loaded, [ids for _, ids in jobs]):
        rows = [jobs[i][1] for i in group]
        if writes:
            ids, mask, places = _left_padded(rows, loaded)
            hidden = _hidden(loaded, ids, mask, places).float()
        else:  # encoders count positions their own way, some from the padding
            ids, mask = _right_padded(rows, loaded)
            hidden = loaded.body(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask.unsqueeze(-1).float()
        mean = (hidden * weight).sum(1) / weight.sum(1)
        for i, vector in zip(group, mean.tolist(), strict=True):
            vectors[i] = tuple(vector)
    for (c, _), vector in zip(jobs, vectors, strict=True):
        results[c].append(vector)
    return [tuple(r) if isinstance(r, list) else r for r in results]


def reward(loaded: LoadedModel, calls: Sequence[Call]) -> list[Any]:
    """Return, per call, the logits of the sequence-classification head after the last token of the conversation."""
    results: list[Any] = [None] * len(calls)
    rows: list[tuple[int, tuple[int, ...]]] = []
    for c, call in enumerate(calls):
        try:
            rows.append((c, loaded.renderer.render_whole(call.input).ids))
        except ModelCallError as error:
            results[c] = error
    head = getattr(loaded.module, "score", None)
    everything = [ids for _, ids in rows]
    for group in _groups(loaded, everything) if head is not None else _equal_lengths(everything):
        ids, mask, places = _left_padded([everything[i] for i in group], loaded)
        if head is not None:
            # with padding on the left the last token is the last column, whatever the pad id (which the class would use)
            with torch.inference_mode():
                values = head(_hidden(loaded, ids, mask, places)[:, -1])
        else:
            values = loaded.run(input_ids=ids, attention_mask=mask).logits
        for i, row in zip(group, values.float().tolist(), strict=True):
            results[rows[i][0]] = tuple(row)
    return results


def _groups(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    switch = getattr(loaded.runner, "switch", None)
    if switch is not None:  # the longest row decides which rotary table serves: rows on either side of it apart
        sides = ([i for i, ids in enumerate(rows) if (len(ids) > switch) == far] for far in (False, True))
        return [[side[i] for i in group] for side in sides for group in bucket([rows[i] for i in side])]
    if loaded.supports_rollback:
        return list(bucket(rows))
    return _equal_lengths(rows)  # recurrent states would read padding


def _equal_lengths(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(rows):
        by_length.setdefault(len(ids), []).append(i)
    return list(by_length.values())


def _left_padded(rows: Sequence[Sequence[int]], loaded: LoadedModel) -> tuple[Tensor, Tensor, Tensor]:
    width = max(len(r) for r in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, width - len(row) :] = 1
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    return ids.to(loaded.device), mask.to(loaded.device), places.to(loaded.device)


def _right_padded(rows: Sequence[Sequence[int]], loaded: LoadedModel) -> tuple[Tensor, Tensor]:
    width = max(len(r) for r in rows)
    pad = loaded.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.long)
    return ids.to(loaded.device), mask.to(loaded.device)


def _hidden(loaded: LoadedModel, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    """Return the last hidden states (B, L, H): the decoder's output, after its final norm."""
    out: Tensor = loaded.body(
        input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False
    ).last_hidden_state
    return out


KINDS: Mapping[str, Callable[[LoadedModel, Sequence[Call]], list[Any]]] = {
    "score": score,
    "embed": embed,
    "reward": reward,
}
"""What answers each public kind of call."""
