"""The engine's side of step sessions: the operations of all sessions of one model, one forward at a time."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_toolkit_decoding.drafting import DraftInProgress, generator_of, head_values
from moco_toolkit_decoding.ops import (
    DraftOp,
    HeadGate,
    InspectOp,
    Opened,
    OpenOp,
    PeekOp,
    RowHandle,
    ScoreOp,
    Seen,
    StepOp,
    Traced,
)
from moco_toolkit_decoding.runner import runner_of
from moco_toolkit_decoding.sampling import Settings, choose, sampling_device
from moco_toolkit_decoding.text import common, vocabulary_of

__all__ = ["Served", "StepServer"]

MAX_ROWS = 256
GROUP = "moco_toolkit_decoding.step"


@attrs.frozen(eq=False)
class Served:
    """The payload of a private call that carries an operation: all that wait for one model run together."""

    op: StepOp

    @property
    def group(self) -> Hashable:
        return GROUP

    def run(self, loaded: Any, calls: Sequence[Call]) -> Sequence[Any]:
        server = loaded.scratch.get(GROUP)
        if server is None:
            server = loaded.scratch[GROUP] = StepServer(loaded)
        # the cache belongs to the weights, not to the passing object that hands them out
        server.loaded, server.runner = loaded, runner_of(loaded)
        return server.run([call.payload.op for call in calls])  # type: ignore[no-any-return]


@attrs.define(eq=False)
class _Line:
    """One cached row: the ids it holds and, if known, the best next token after ``top[0]`` tokens."""

    row: int
    ids: list[int] = attrs.field(factory=list)
    used: int = 0
    top: tuple[int, int, float] | None = None


class StepServer:
    """All step sessions of one loaded model."""

    def __init__(self, loaded: Any, *, max_rows: int = MAX_ROWS) -> None:
        self.loaded = loaded
        self.vocabulary = vocabulary_of(loaded)
        self.runner = runner_of(loaded)
        self.cache = self.runner.cache(capacity=max_rows)
        self.max_rows = max_rows
        self.lines: weakref.WeakKeyDictionary[RowHandle, _Line] = weakref.WeakKeyDictionary()
        self.clock = 0
        self.size = min(self.vocabulary.size, loaded.vocab)
        holes = self.vocabulary.undefined(self.size)
        self.device = sampling_device(torch.device(loaded.device))
        self.undefined = torch.tensor(holes, device=self.device) if holes else None

    @torch.inference_mode()
    def run(self, ops: Sequence[Any]) -> list[Any]:
        """Answer operations, in order; an Exception as a result fails that one alone."""
        out: list[Any] = [None] * len(ops)
        work: list[int] = []
        for i, op in enumerate(ops):
            if isinstance(op, OpenOp):
                out[i] = self._open(op)
            elif isinstance(op, InspectOp):
                out[i] = op.function(self.loaded)
            elif not op.ids:
                out[i] = ModelCallError(
                    f"model {self.loaded.model.name!r}: the prompt has no tokens; ask with some text"
                )
            else:
                work.append(i)
        limit = self._row_limit(max((len(ops[i].ids) for i in work), default=0))
        while work:
            wave: list[int] = []
            busy: set[RowHandle] = set()
            for i in work:  # two operations of one session never share a forward
                if len(wave) < limit and ops[i].handle not in busy:
                    wave.append(i)
                    busy.add(ops[i].handle)
            work = [i for i in work if i not in wave]
            self.clock += 1
            self._free(limit, busy)
            for i, result in zip(wave, self._wave([ops[i] for i in wave]), strict=True):
                out[i] = result
        return out

    def _open(self, op: OpenOp) -> Any:
        try:
            prompt = self.loaded.render_input(op.given, reserve=op.reserve)
        except ModelCallError as error:
            return error
        return Opened(
            vocabulary=self.vocabulary,
            prompt=tuple(prompt.ids),
            context_length=self.loaded.context_length,
            meta=prompt.meta,
            tags=getattr(self.loaded, "tags", ()),
            closing=prompt.opened,
        )

    # ---------------------------------------------------------------- rows

    def _row_limit(self, longest: int) -> int:
        """Return how many rows of this length the cache may hold: a share of the device's memory."""
        if not longest:
            return self.max_rows
        device = torch.device(self.loaded.device)
        total = torch.cuda.mem_get_info(device)[1] // 6 if device.type == "cuda" else 2 << 30
        return max(1, min(self.max_rows, total // (self.cache.bytes_per_token * (longest + 64))))

    def _free(self, limit: int, busy: set[RowHandle]) -> None:
        """Drop the rows of closed sessions, and the least recently used ones beyond the limit."""
        for handle in [h for h in self.lines if h.closed and h not in busy]:
            del self.lines[handle]
        new = sum(h not in self.lines for h in busy)
        idle = sorted((h for h in self.lines if h not in busy), key=lambda h: self.lines[h].used)
        for handle in idle[: max(0, len(self.lines) + new - limit)]:
            del self.lines[handle]

    def _line(self, op: Any) -> tuple[_Line, int]:
        """Return the op's row and the number of its tokens that the cache already holds."""
        ids, line = op.ids, self.lines.get(op.handle)
        if line is None:
            taken = {other.row for other in self.lines.values()}
            row = next(r for r in range(len(taken) + 1) if r not in taken)
            self.cache.append(max(0, row + 1 - self.cache.count))
            self.cache.rollback(row, 0)
            line = self.lines[op.handle] = _Line(row)
            origin = op.handle.parent() if op.handle.parent is not None else None
            parent = self.lines.get(origin) if origin is not None else None
            if parent is not None:
                self.cache.copy([parent.row], [row])
                line.ids, line.top = list(parent.ids), parent.top
        line.used = self.clock
        del line.ids[self.cache.lengths[line.row] :]  # what a failed run has lost
        kept = common(line.ids, ids)
        return line, kept

    # ---------------------------------------------------------------- one wave

    def _wave(self, ops: Sequence[Any]) -> list[Any]:
        out: list[Any] = [None] * len(ops)
        feeds: list[tuple[int, _Line, int]] = []
        scores: list[tuple[int, _Line, int]] = []
        drafts: list[tuple[int, DraftInProgress]] = []
        for i, op in enumerate(ops):
            line, kept = self._line(op)
            if isinstance(op, ScoreOp):
                scores.append((i, line, min(kept, op.start - 1)))
                continue
            known = line.top is not None and line.top[0] == len(op.ids) and kept >= len(op.ids)
            if isinstance(op, DraftOp):
                drafts.append((i, DraftInProgress(op, line, generator_of(op))))
                known = known and op.sampling.greedy and not isinstance(op.gate, HeadGate) and op.size is None
            else:
                known = known and op.k == 1 and not (op.want or op.full or op.hidden)
                if known and line.top is not None:
                    out[i] = Seen(ids=(line.top[1],), logprobs=(line.top[2],))
            if not known:
                feeds.append((i, line, min(kept, len(op.ids) - 1)))
        if scores:
            self._score(ops, scores, out)
        started = {i: None for i, _, _ in feeds}
        live = [(i, d) for i, d in drafts if i not in started]
        if live:  # drafts whose first token is known need no forward for it
            live = [(i, d) for i, d in live if not self._settle(out, i, d, d.line.top[1], d.line.top[2], d.line.top[2])]
        by_index = dict(drafts)
        pending: list[tuple[int, _Line, list[int]]] = []
        for i, line, start in feeds:
            line.ids[start:] = []
            self.cache.rollback(line.row, start)
            pending.append((i, line, list(ops[i].ids[start:])))
        for i, d in live:
            pending.append((i, d.line, [d.ids[-1]]))
        live = [(i, by_index[i]) for i, _, _ in pending if i in by_index]
        while pending:
            # rows in the cache's order: those side by side are read in place
            pending.sort(key=lambda p: p[1].row)
            hidden = any(_wants_hidden(ops[i]) for i, _, _ in pending)
            logits, states = self._feed(pending, hidden)
            self._peeks(ops, pending, logits, states, out)
            places = {i: place for place, (i, _, _) in enumerate(pending)}
            live = [(i, d) for i, d in live if i in places]
            live = self._advance(out, live, places, logits, states)
            if 2 * len(live) < len(ops):  # most sessions wait for their results
                live = self._pause(out, live)
            pending = [(i, d.line, [d.ids[-1]]) for i, d in live]
        return out

    @staticmethod
    def _pause(out: list[Any], live: list[tuple[int, DraftInProgress]]) -> list[tuple[int, DraftInProgress]]:
        """Hand out unfinished drafts as they are, for their sessions to ask for the rest; return those that must go on.

        Words are counted within one operation, so a draft of words is never cut.
        """
        for i, d in live:
            if not d.op.words:
                out[i] = d.finished("length")
        return [(i, d) for i, d in live if d.op.words]

    def _feed(self, pending: Sequence[tuple[int, _Line, list[int]]], hidden: bool) -> tuple[Tensor, Any]:
        for _, line, _ in pending:
            self.cache.rollback(line.row, len(line.ids))  # also drops what a failed run may have left
        logits, states = self.runner.feed(
            self.cache, [p[1].row for p in pending], [p[2] for p in pending], hidden=hidden
        )
        for _, line, chunk in pending:
            line.ids.extend(chunk)
            line.top = None
        logits = logits[:, : self.size].to(self.device)
        if self.undefined is not None:
            logits = logits.index_fill(-1, self.undefined, -torch.inf)
        return logits, states

    def _advance(
        self,
        out: list[Any],
        live: list[tuple[int, DraftInProgress]],
        places: Mapping[int, int],
        logits: Tensor,
        states: Any,
    ) -> list[tuple[int, DraftInProgress]]:
        """Choose the next token of every draft; return those that go on."""
        if not live:
            return []
        index = [places[i] for i, _ in live]
        if index != list(range(len(logits))):
            at = torch.tensor(index, device=logits.device)
            logits, states = logits[at], states[at] if states is not None else None
        sizes = {d.op.size for _, d in live}
        if sizes != {None}:  # some rows are limited to a vocabulary shared with another model
            for row, (_, d) in enumerate(live):
                if d.op.size is not None and d.op.size < logits.shape[-1]:
                    logits[row, d.op.size :] = -torch.inf
        if all(d.op.sampling.greedy for _, d in live):
            best, tokens = logits.max(-1)  # of equal ones the first, as everywhere
            # the token is the largest logit: one pass over the others gives its share
            chosen = tops = -(logits - best[:, None]).exp_().sum(-1).log_()
        else:
            settings = Settings.of([d.op.sampling for _, d in live], logits.device)
            tokens = choose(logits, settings, [d.generator for _, d in live]).clamp(max=logits.shape[-1] - 1)
            total = logits.logsumexp(-1)
            tops = logits.max(-1).values - total
            chosen = logits.gather(-1, tokens[:, None]).squeeze(-1) - total
        gates = head_values([d for _, d in live], states)
        going: list[tuple[int, DraftInProgress]] = []
        rows = zip(live, tokens.tolist(), chosen.tolist(), tops.tolist(), gates, strict=True)
        for (i, d), token, logprob, top, gate in rows:
            if d.op.sampling.greedy and d.op.size is None:
                d.line.top = (len(d.line.ids), token, logprob)
            if not self._settle(out, i, d, token, logprob, top, gate):
                going.append((i, d))
        return going

    def _settle(
        self,
        out: list[Any],
        i: int,
        d: DraftInProgress,
        token: int,
        logprob: float,
        top: float,
        gate: float | None = None,
    ) -> bool:
        """Give a draft its next token; return whether it is over (its result is then in ``out``)."""
        if logprob != logprob or logprob == float("-inf"):
            out[i] = ModelCallError(f"model {self.loaded.model.name!r}: its scores are not finite; check its weights")
        else:
            out[i] = d.take(self.vocabulary, token, logprob, top, gate)
        return out[i] is not None

    def _peeks(
        self,
        ops: Sequence[Any],
        pending: Sequence[tuple[int, _Line, list[int]]],
        logits: Tensor,
        states: Any,
        out: list[Any],
    ) -> None:
        for place, (i, line, _) in enumerate(pending):
            op = ops[i]
            if not isinstance(op, PeekOp) or out[i] is not None:
                continue
            logp = logits[place].log_softmax(-1)
            ordered = logp.sort(descending=True, stable=True) if op.k > 1 else None
            if ordered is None:
                best = int(logp.max(-1).indices)
                ids = [best] if op.k else []
                values = [float(logp[best])] if op.k else []
                line.top = (len(line.ids), best, float(logp[best]))
            else:
                ids, values = ordered.indices[: op.k].tolist(), ordered.values[: op.k].tolist()
            if op.want:
                ids += op.want
                values += logp[torch.tensor(op.want, device=logp.device)].tolist()
            out[i] = Seen(
                ids=tuple(ids),
                logprobs=tuple(values),
                full=logp.cpu() if op.full else None,
                hidden=states[place].float().cpu().clone() if op.hidden else None,
            )

    def _score(self, ops: Sequence[Any], scores: Sequence[tuple[int, _Line, int]], out: list[Any]) -> None:
        chunks: list[list[int]] = []
        for i, line, start in scores:
            self.cache.rollback(line.row, start)
            line.ids[start:] = []
            line.top = None
            chunks.append(list(ops[i].ids[start:]))
        gathered: dict[int, tuple[list[int], list[float], list[float]]] = {n: ([], [], []) for n in range(len(scores))}
        full: dict[int, list[Tensor]] = {}
        states: dict[int, list[Tensor]] = {}
        wants = any(ops[i].hidden for i, _, _ in scores)
        for n, logits, hidden in self.runner.feed_all(
            self.cache, [line.row for _, line, _ in scores], chunks, hidden=wants
        ):
            size = ops[scores[n][0]].size
            logits = logits[:, : self.size if size is None else size].to(self.device)
            if self.undefined is not None and size is None:
                logits = logits.index_fill(-1, self.undefined, -torch.inf)
            if wants:
                assert hidden is not None
                states.setdefault(n, []).append(hidden.float().cpu())
            ids, tops, own = gathered[n]
            logp = logits.log_softmax(-1)
            best = logp.max(-1).indices
            first = len(ids) + 1
            following = torch.tensor(chunks[n][first : first + len(logp)], dtype=torch.long, device=logp.device)
            if ops[scores[n][0]].full:
                full.setdefault(n, []).append(logp.half().cpu())
            ids += best.tolist()
            tops += logp.gather(-1, best[:, None]).squeeze(-1).tolist()
            own += logp[: len(following)].gather(-1, following[:, None]).squeeze(-1).tolist()
        for n, (i, line, start) in enumerate(scores):
            line.ids.extend(chunks[n])
            skip = ops[i].start - 1 - start
            ids, tops, own = gathered[n]
            out[i] = Traced(
                top_ids=tuple(ids[skip:]),
                top_logprobs=tuple(tops[skip:]),
                logprobs=tuple(own[skip:]),
                full=torch.cat(full[n])[skip:] if n in full else None,
                hidden=torch.cat(states[n])[skip:] if ops[i].hidden else None,
            )


def _wants_hidden(op: Any) -> bool:
    return (isinstance(op, DraftOp) and isinstance(op.gate, HeadGate)) or (isinstance(op, PeekOp) and op.hidden)
