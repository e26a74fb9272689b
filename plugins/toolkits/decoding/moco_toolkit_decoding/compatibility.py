"""Do the tokenizers of a pool agree? Answered from tokenizer files alone, before any weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import attrs

from moco_core.errors import CapabilityError, MocoError
from moco_core.models import Model
from moco_core.options import plain

__all__ = ["Relation", "Report", "compare", "report", "require_same", "tokenizer_of"]

Relation = Literal["same", "superset", "different"]

_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs.",
    "  two spaces,\ttab\nnewline\n\n\nthree",
    "x=3.14159; y = f(x)**2  # 1234567890",
    "naïve café – “quotes” — 100 €",
    "日本語のテキスト 中文 한국어 ไทย русский العربية",
    "emoji 😀👩‍👩‍👧 end",
)


@attrs.frozen(kw_only=True)
class Pair:
    """How one model's tokenizer relates to the first one's; ``reason`` is the first difference, empty if none matters."""

    first: str
    other: str
    relation: Relation
    reason: str = ""


@attrs.frozen(kw_only=True)
class Report:
    """The tokenizers of a pool. ``relation`` is the weakest of ``pairs``.

    ``same``: equal on every id. ``superset``: equal on all shared ids, some tokenizer defines more; ids can be exchanged
    below the smaller size. ``different``: only text can be exchanged.
    """

    relation: Relation
    pairs: tuple[Pair, ...]

    def first_difference(self) -> str:
        """Return one line about the first pair that differs; empty if all agree."""
        for pair in self.pairs:
            if pair.relation == "different":
                return f"the tokenizers of {pair.first!r} and {pair.other!r} differ: {pair.reason}"
        return ""

    def data(self) -> dict[str, Any]:
        """Return the report as JSON data, for notes and records."""
        out: dict[str, Any] = plain(self)
        return out


def compare(first: Any, other: Any) -> tuple[Relation, str]:
    """Compare two transformers tokenizers: vocabulary, special tokens, segmentation, and a set of probe texts."""
    a, b = first.get_vocab(), other.get_vocab()
    by_id_a, by_id_b = {i: t for t, i in a.items()}, {i: t for t, i in b.items()}
    shared = min(max(by_id_a, default=-1), max(by_id_b, default=-1)) + 1
    for i in range(shared):
        if by_id_a.get(i) != by_id_b.get(i):
            return "different", f"id {i} is {by_id_a.get(i)!r} in one and {by_id_b.get(i)!r} in the other"
    special_a = {t: a[t] for t in first.all_special_tokens if a.get(t, shared) < shared}
    special_b = {t: b[t] for t in other.all_special_tokens if b.get(t, shared) < shared}
    for token in sorted(set(special_a) ^ set(special_b)):
        if not _special(first, a.get(token)) or not _special(other, b.get(token)):
            return "different", f"{token!r} is special in only one of them"
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        x, y = _part(first, part), _part(other, part)
        if x != y:
            return "different", f"their {part.replace('_', '-')}s differ"
    for text in _PROBES:
        x, y = (t.encode(text, add_special_tokens=False) for t in (first, other))
        if x != y:
            at = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
            return "different", f"{text!r} is tokenised differently from token {at} on"
    return ("same" if len(by_id_a) == len(by_id_b) else "superset"), ""


def _special(tokenizer: Any, token: int | None) -> bool:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return token is not None and (token in tokenizer.all_special_ids or (token in added and added[token].special))


def _part(tokenizer: Any, part: str) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()).get(part) if backend is not None else type(tokenizer).__name__


def tokenizer_of(model: Model) -> Any:
    """Read a model's tokenizer from its files, without its weights. Raises CapabilityError if there are none."""
    engine: Any = model.engine
    folder = engine.files(model).tokenizer if hasattr(engine, "files") else None
    if folder is None:
        raise CapabilityError(
            f"the tokenizer of model {model.name!r} cannot be read: {type(engine).__name__} has none in a folder; "
            "use models that can step (`moco list pool --can step`)"
        )
    from moco_toolkit_checkpoints.transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def report(models: Sequence[Model]) -> Report:
    """Compare the tokenizers of a pool with the first one's.

    Equal ``Model.tokenizer`` fingerprints mean the same tokenizer; otherwise the tokenizer files are compared. Models of
    which no files can be read count as different.
    """
    pairs: list[Pair] = []
    first: Any = None
    for other in models[1:]:
        if models[0].tokenizer and models[0].tokenizer == other.tokenizer:
            pairs.append(Pair(first=models[0].name, other=other.name, relation="same"))
            continue
        try:
            first = first if first is not None else tokenizer_of(models[0])
            relation, reason = compare(first, tokenizer_of(other))
        except (MocoError, OSError, ValueError, ImportError) as error:  # or no library knows its kind
            relation, reason = "different", str(error).splitlines()[0]
        pairs.append(Pair(first=models[0].name, other=other.name, relation=relation, reason=reason))
    order: tuple[Relation, ...] = ("same", "superset", "different")
    worst = max((order.index(p.relation) for p in pairs), default=0)
    return Report(relation=order[worst], pairs=tuple(pairs))


def require_same(models: Sequence[Model], who: str, remedy: str = "choose models of one family") -> Report:
    """Return the report of models that may exchange ids; raise CapabilityError naming the first differing token if not."""
    found = report(models)
    if found.relation == "different":
        raise CapabilityError(f"{who}: {found.first_difference()}; {remedy}")
    return found
