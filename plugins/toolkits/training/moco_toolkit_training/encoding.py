"""From rows to token ids: prompts rendered by the very call that asking uses, masks by construction, lengths by policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from moco_core.errors import ConfigError
from moco_core.types import Message
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_training.jobs import Job
from moco_toolkit_training.rows import pairing

__all__ = ["IGNORED", "Encoded", "absent", "encode"]

IGNORED = -100
"""The label of a token that is read and not learnt."""


@attrs.define(kw_only=True)
class Encoded:
    """Rows as a trainer reads them, by columns. ``truncated`` counts those that lost tokens, ``dropped`` those that were
    left out, by reason; ``tokens`` are read in one pass over all of them.
    """

    columns: dict[str, list[Any]] = attrs.field(factory=dict)
    count: int = 0
    truncated: int = 0
    dropped: Counter[str] = attrs.field(factory=Counter)
    tokens: int = 0

    def warnings(self) -> list[str]:
        """Return what was lost, in sentences."""
        out = [f"{n:,} rows are left out: {reason}" for reason, n in sorted(self.dropped.items())]
        return [*out, *([f"{self.truncated:,} rows are cut to fit"] if self.truncated else [])]


@attrs.frozen(kw_only=True)
class _Limit:
    """How long a sequence may be, and what becomes of a longer one."""

    bound: int
    policy: str
    bos: int | None

    def keeps(self, prompt: Sequence[int], reply: int) -> list[int] | None:
        """Return the positions that are kept of a prompt and as many tokens after it; None if the row must go."""
        length = len(prompt) + reply
        if length <= self.bound:
            return list(range(length))
        if self.policy == "error":
            raise ConfigError(
                f"a row has {length} tokens and at most {self.bound} are allowed; raise max_length as far as the context "
                "goes, or choose overlong: left_prompt, keep_start or drop"
            )
        if self.policy == "keep_start" and len(prompt) < self.bound:
            return list(range(self.bound))
        head = int(bool(prompt) and prompt[0] == self.bos)
        if self.policy == "left_prompt" and reply < self.bound - head:
            return [*range(head), *range(length - self.bound + head, length)]
        return None


class _Drop(Exception):
    """A row that is left out, and why."""


def absent(job: Job) -> list[str]:
    """Return what a classifier cannot learn from its rows, in sentences: the classes that none of them has."""
    classes = getattr(job, "classes", 0)
    labels = [row.probabilities(classes) for row in job.rows] if classes else []
    never = [str(c) for c in range(classes) if not any(label[c] for label in labels)]
    return [f"no row has the class {', '.join(never)}: it will never be chosen with reason"] if never else []


def encode(job: Job, rows: Sequence[Any], renderer: Renderer, context: int | None) -> Encoded:
    """Return a job's rows as token ids. ``context`` is how many positions the model has.

    Raises ConfigError for a row that is too long where the job says so.
    """
    bound = most = min(job.max_length, context or job.max_length)
    if job.service == "grpo":
        bound -= job.max_new_tokens  # type: ignore[attr-defined]
        if bound < 2:
            raise ConfigError(f"grpo: max_new_tokens leaves no room for a prompt in {most} tokens")
    limit = _Limit(bound=bound, policy=job.overlong, bos=renderer.tokenizer.bos_token_id)
    out = Encoded()
    write: Callable[..., Written] = _WRITERS.get(job.service, _own)
    for place, row in enumerate(rows):
        try:
            for tokens, cut, columns in write(job, row, place, renderer, limit):
                for name, value in columns.items():
                    out.columns.setdefault(name, []).append(value)
                out.count += 1
                out.truncated += cut
                out.tokens += tokens
        except _Drop as why:
            out.dropped[str(why)] += 1
    return out


Written = Iterator[tuple[int, bool, Mapping[str, Any]]]
"""How many tokens a sequence has, whether it was cut, and its columns."""


def reply_ids(renderer: Renderer, prompt: Sequence[Message], reply: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt as asking renders it, and those that a model is to write after them, end included.

    The reply is what the template makes of it, where that goes on from the prompt; else it follows as it is.
    """
    rendered = renderer.render(prompt)
    start, special = list(rendered.ids), set(renderer.tokenizer.all_special_ids)
    end = renderer.end_of_turn if renderer.end_of_turn is not None else renderer.tokenizer.eos_token_id
    if rendered.template == "chat":
        turns = [*prompt, Message("assistant", reply)]
        whole = list(renderer.render_whole({"messages": [[m.role, m.content] for m in turns]}).ids)
        if whole[: len(start)] == start and end in (tail := whole[len(start) :]):
            tail = tail[: len(tail) - tail[::-1].index(end)]
            if not special.intersection(tail[:-1]):
                return start, tail
    kept, ids = renderer.continuation_ids(rendered, reply)
    if kept != len(start) or special.intersection(ids):
        ids = renderer.encode(reply)  # the prompt's tokens stand; what looks like a special token is text
    return start, [*ids, end]


def _sft(job: Any, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    """One sequence for all trained turns where later prompts go on from earlier replies, else one for each turn."""
    if not any(row.messages[t].content for t in row.turns):
        raise _Drop("empty reply")
    found: list[tuple[list[int], list[int], int]] = []
    for turn in row.turns:
        prompt, reply = reply_ids(renderer, row.messages[:turn], row.messages[turn].content)
        before = found[-1][0] if found else []
        learnt = [IGNORED] * len(prompt)
        if found and prompt[: len(before)] == before:
            learnt[: len(before)] = found.pop()[1]
        found.append(([*prompt, *reply], [*learnt, *reply], len(reply)))
    for ids, labels, last in found:
        kept = limit.keeps(ids[: len(ids) - last], last)
        if kept is None:
            raise _Drop(f"longer than {limit.bound} tokens")
        columns = {"input_ids": [ids[i] for i in kept], "labels": [labels[i] for i in kept]}
        columns["labels"][0] = IGNORED  # nothing predicts a first token
        yield len(kept), len(kept) < len(ids), columns


def _dpo(job: Any, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    if row.chosen == row.rejected:
        raise _Drop("equal replies")
    prompt, chosen = reply_ids(renderer, row.prompt, row.chosen)
    _, rejected = reply_ids(renderer, row.prompt, row.rejected)
    longest = max(len(chosen), len(rejected))
    kept = limit.keeps(prompt, longest)
    if kept is None:
        raise _Drop(f"longer than {limit.bound} tokens")
    cut = len(kept) < len(prompt) + longest
    if limit.policy == "keep_start":
        chosen, rejected = (r[: limit.bound - len(prompt)] for r in (chosen, rejected))
    prompt = [prompt[i] for i in kept if i < len(prompt)]
    if chosen == rejected:
        raise _Drop("equal replies")
    tokens = 2 * len(prompt) + len(chosen) + len(rejected)
    yield tokens, cut, {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def _grpo(job: Any, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    rendered = renderer.render(row.prompt)
    kept = limit.keeps(rendered.ids, 0)
    if kept is None or (limit.policy == "keep_start" and len(kept) < len(rendered.ids)):
        raise _Drop(f"prompt longer than {limit.bound} tokens")
    columns = {"prompt": str(place), "ids": [rendered.ids[i] for i in kept], "opened": rendered.opened}
    yield len(kept), len(kept) < len(rendered.ids), columns


def _whole(messages: Iterable[Message], renderer: Renderer, limit: _Limit) -> tuple[list[int], bool]:
    """Return a finished conversation, as a model that judges it reads it."""
    ids = renderer.render_whole({"messages": [[m.role, m.content] for m in messages]}).ids
    kept = limit.keeps(ids[:-1], 1)
    if kept is None:
        raise _Drop(f"longer than {limit.bound} tokens")
    return [ids[i] for i in kept], len(kept) < len(ids)


def _classify(job: Any, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    ids, cut = _whole(row.messages, renderer, limit)
    yield len(ids), cut, {"input_ids": ids, "labels": list(row.probabilities(job.classes))}


def _rank(job: Any, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    duels = [(row.a, row.b, row.label), (row.b, row.a, 1 - row.label)]
    for a, b, label in duels if job.both_orders else duels[:1]:
        ids, cut = _whole(pairing(row.query, a, b), renderer, limit)
        yield len(ids), cut, {"input_ids": ids, "labels": [label, 1 - label]}


def _reward(job: Any, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    if row.chosen == row.rejected:
        raise _Drop("equal replies")
    ends = [Message("assistant", text) for text in (row.chosen, row.rejected)]
    (chosen, one), (rejected, other) = (_whole([*row.prompt, end], renderer, limit) for end in ends)
    yield len(chosen) + len(rejected), one or other, {"chosen_ids": chosen, "rejected_ids": rejected}


def _own(job: Job, row: Any, place: int, renderer: Renderer, limit: _Limit) -> Written:
    columns = job.columns(row, limit.bound)
    if columns is None:
        raise _Drop(f"longer than {limit.bound} tokens")
    yield len(columns["input_ids"]), False, columns


_WRITERS: Mapping[str, Callable[[Any, Any, int, Renderer, _Limit], Written]] = {
    "sft": _sft,
    "dpo": _dpo,
    "grpo": _grpo,
    "classify": _classify,
    "reward": _reward,
    "rank": _rank,
}
