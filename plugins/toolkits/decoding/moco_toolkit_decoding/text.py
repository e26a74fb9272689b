"""Tokens as bytes: what every exchange between different tokenizers rests on.

A :class:`Vocabulary` maps each id of one tokenizer to the bytes it stands for, so that prefixes, stop strings, word
boundaries and re-encodings compare text, never ids or single-token decodes (which lose SentencePiece spaces and split
characters). Its :meth:`~Vocabulary.encode` always returns tokens whose bytes are exactly the bytes it was given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from moco_core.errors import CapabilityError
from moco_toolkit_checkpoints.reasoning import markers

__all__ = ["Vocabulary", "common", "cut_at", "last_boundary", "starts_word", "valid_prefix", "vocabulary_of", "words"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PROBES = ("Hello world", "The end of 12 days.")
_ANCHORS = ("\n", "a\n", ".", "\u2028")


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """The printable letters that byte-level BPE (GPT-2) writes for the 256 bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in kept}
    for n, byte in enumerate(b for b in range(256) if b not in kept):
        table[chr(256 + n)] = byte
    return table


class Vocabulary:
    """The byte view of one tokenizer.

    ``pieces[id]`` are the id's bytes, empty for special tokens (but those ``shown``: tags of reasoning) and for ids that the
    tokenizer does not define. ``ends`` are
    the ids that end a reply. ``exact`` tells that text survives encoding and decoding through the view; where it does not
    (a tokenizer that lowercases, say), only ids may be exchanged, and :meth:`encode` raises.
    """

    by_identity: ClassVar[bool] = True

    def __init__(self, tokenizer: Any, ends: Collection[int] = (), shown: Collection[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.ends = frozenset(ends)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._backend = backend
        layout: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
        kinds = _kinds(layout.get("decoder")) | _kinds(layout.get("pre_tokenizer"))
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.size = max(vocabulary.values(), default=-1) + 1
        added = {int(i): t for i, t in getattr(tokenizer, "added_tokens_decoder", {}).items()}
        special = (
            set(getattr(tokenizer, "all_special_ids", ())) | {i for i, t in added.items() if t.special} | self.ends
        )
        self.special = frozenset(special)
        self.defined = frozenset(vocabulary.values())
        self.pieces: list[bytes] = [b""] * self.size
        wordpiece = "WordPiece" in kinds
        bytelevel = "ByteLevel" in kinds
        for token, i in vocabulary.items():
            if i in special and (token not in shown or i in self.ends):
                continue
            if i in added:
                self.pieces[i] = added[i].content.encode()
            elif bytelevel:
                self.pieces[i] = _from_letters(token)
            elif wordpiece:
                self.pieces[i] = token[2:].encode() if token.startswith("##") else b" " + token.encode()
            else:
                found = _BYTE_TOKEN.fullmatch(token)
                self.pieces[i] = bytes([int(found[1], 16)]) if found else token.replace("\u2581", " ").encode()
        self.single: dict[bytes, int] = {}
        for i in sorted(vocabulary.values(), reverse=True):  # the lowest id wins
            if self.pieces[i]:
                self.single[self.pieces[i]] = i
        self.drops_first_space = self._drops_first_space()
        self.exact = self._probe()

    # ---------------------------------------------------------------- ids to bytes

    def text(self, ids: Sequence[int], *, first: bool = True) -> bytes:
        """Return the bytes of a continuation; ``first`` tells that it starts the reply.

        SentencePiece tokenizers write a space before a reply's first word, which is no part of the reply.
        """
        pieces = self.pieces
        out = b"".join(pieces[i] for i in ids if i < self.size)
        return out[1:] if first and self.drops_first_space and out.startswith(b" ") else out

    def piece(self, token: int) -> bytes:
        """Return one token's bytes."""
        return self.pieces[token] if token < self.size else b""

    # ---------------------------------------------------------------- bytes to ids

    def encode(self, data: bytes, *, first: bool = True) -> list[int]:
        """Return tokens whose bytes are exactly ``data``; ``first`` as in :meth:`text`.

        Special tokens are neither added nor parsed. Bytes that are not complete characters become single-byte tokens.
        Raises CapabilityError if the tokenizer has no tokens for these bytes.
        """
        if not data:
            return []
        ids: list[int] | None = []
        at = 0
        while ids is not None and at < len(data):
            try:
                end, bad = len(data), len(data)
                text = data[at:].decode()
            except UnicodeDecodeError as error:
                end, bad = at + error.start, at + error.end
                text = data[at:end].decode()
            part = self._encode_text(text, first and at == 0) if text else []
            tail = self._bytewise(data[end:bad])
            ids = None if part is None or tail is None else [*ids, *part, *tail]
            at = bad
        if ids is not None:
            return ids
        found = self._by_pieces(data, first)
        if found is None:
            raise CapabilityError(
                f"the tokenizer {type(self.tokenizer).__name__} has no tokens for {data[:40]!r}; "
                "choose models whose tokenizers cover all text (byte-level or byte fallback)"
            )
        return found

    def extend(self, ids: Sequence[int], data: bytes, *, window: int = 8) -> tuple[int, list[int]]:
        """Return ``(kept, new)``: the continuation ``ids`` plus ``data`` is encoded as ``ids[:kept] + new``.

        The end of ``ids`` is encoded again together with ``data``, from a token that starts a word, because tokens merge
        across the seam; the window grows until its first token comes out unchanged. A piece is never encoded alone.
        """
        if not data:
            return len(ids), []
        start = len(ids)
        while start:
            start = self._word_start(ids, max(0, len(ids) - window))
            tail = list(ids[start:])
            new = self.encode(self.text(tail, first=start == 0) + data, first=start == 0)
            if start == 0 or (new and tail and new[0] == tail[0]):
                kept = 0
                while kept < min(len(tail), len(new)) and tail[kept] == new[kept]:
                    kept += 1
                return start + kept, new[kept:]
            window *= 2
        return 0, self.encode(data, first=True)

    def undefined(self, size: int) -> list[int]:
        """Return the ids below ``size`` that the tokenizer does not define."""
        return [i for i in range(size) if i not in self.defined]

    # ---------------------------------------------------------------- inside

    def _word_start(self, ids: Sequence[int], start: int) -> int:
        """Move ``start`` left to a token that starts a word (at most 64 tokens)."""
        for i in range(start, max(-1, start - 64), -1):
            if i == 0 or self.pieces[ids[i]][:1] in (b" ", b"\n", b"\t"):
                return max(i, 0)
        return start

    def _raw(self, text: str) -> list[int]:
        if self._backend is not None:
            # the backend splits literal special tokens out of text; break the literals so that they stay text
            ids: list[int] = []
            for part in self._split_special(text):
                ids += self._backend.encode(part, add_special_tokens=False).ids
            return ids
        out: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return out

    def _split_special(self, text: str) -> list[str]:
        """Cut text inside every literal special token, after the literal's first character."""
        pattern = self._special_pattern()
        if pattern is None:
            return [text]
        parts, begin = [], 0
        for found in pattern.finditer(text):
            parts.append(text[begin : found.start() + 1])
            begin = found.start() + 1
        return [p for p in (*parts, text[begin:]) if p]

    def _special_pattern(self) -> re.Pattern[str] | None:
        if not hasattr(self, "_pattern"):
            added = getattr(self.tokenizer, "added_tokens_decoder", {})
            literals = [t.content for i, t in added.items() if int(i) in self.special and len(t.content) > 1]
            joined = "|".join(re.escape(t) for t in sorted(literals, key=len, reverse=True))
            self._pattern = re.compile(joined) if joined else None
        return self._pattern

    def _encode_text(self, text: str, first: bool) -> list[int] | None:
        data = text.encode()
        ids = self._raw(text)
        if self.text(ids, first=first) == data and not self.special.intersection(ids):
            return ids
        for anchor in _ANCHORS:  # a tokenizer that puts a space in front: encode behind an anchor
            head, whole = self._raw(anchor), self._raw(anchor + text)
            if whole[: len(head)] == head:
                ids = whole[len(head) :]
                if self.text(ids, first=first) == data and not self.special.intersection(ids):
                    return ids
        return None

    def _bytewise(self, data: bytes) -> list[int] | None:
        ids = [self.single.get(bytes([b])) for b in data]
        return None if any(i is None for i in ids) else [i for i in ids if i is not None]

    def _by_pieces(self, data: bytes, first: bool) -> list[int] | None:
        """Cover ``data`` by the longest pieces from the left: not canonical, but the same text."""
        longest = max(map(len, self.single), default=0)
        ids: list[int] = []
        if first and self.drops_first_space and data.startswith(b" "):
            data = b" " + data
        at = 0
        while at < len(data):
            for n in range(min(longest, len(data) - at), 0, -1):
                i = self.single.get(data[at : at + n])
                if i is not None:
                    ids.append(i)
                    at += n
                    break
            else:
                return None
        return ids

    def _drops_first_space(self) -> bool:
        """Whether decoding swallows the space that the tokenizer itself puts before the first word."""
        for i, piece in enumerate(self.pieces):
            if piece[:1] == b" " and piece[1:].isalpha() and piece.isascii():
                return not str(self.tokenizer.decode([i])).startswith(" ")
        return False

    def _probe(self) -> bool:
        try:
            return all(self.text(self.encode(p.encode())) == p.encode() for p in _PROBES)
        except CapabilityError:
            return False


def vocabulary_of(loaded: Any) -> Vocabulary:
    """Return the byte view of a loaded model's tokenizer, made once per loaded model."""
    key = "moco_toolkit_decoding.vocabulary"
    found = loaded.scratch.get(key)
    if found is None:
        tags = getattr(loaded, "tags", ())
        special = {t.content for t in loaded.tokenizer.added_tokens_decoder.values() if t.special} if tags else set()
        found = loaded.scratch[key] = Vocabulary(loaded.tokenizer, loaded.end_ids, markers(special, tags))
    return found  # type: ignore[no-any-return]


def _kinds(part: Any) -> set[str]:
    """The component types in one part of a serialised tokenizer."""
    if not isinstance(part, dict):
        return set()
    out = {str(part.get("type"))}
    for key in ("decoders", "pretokenizers", "normalizers"):
        for inner in part.get(key, ()):
            out |= _kinds(inner)
    return out


def _from_letters(token: str) -> bytes:
    table = _byte_letters()
    try:
        return bytes(table[c] for c in token)
    except KeyError:
        return token.encode()


# -------------------------------------------------------------------- boundaries


def valid_prefix(data: bytes) -> bytes:
    """Return ``data`` without an incomplete UTF-8 character at its end.

    Bytes that can never become a character are left alone: they are an error of the model, not of the cut.
    """
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:  # a continuation byte: its leader is further left
            continue
        need = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
        return data[:-back] if need > back else data
    return data


def _spaceless(char: str) -> bool:
    """Whether a script that writes no spaces between words uses this character (CJK, kana, Thai, Lao, Khmer, Burmese)."""
    c = ord(char)
    return (
        0x0E00 <= c <= 0x0EFF
        or 0x1000 <= c <= 0x109F
        or 0x1780 <= c <= 0x17FF
        or 0x2E80 <= c <= 0x30FF
        or 0x3100 <= c <= 0x9FFF
        or 0xF900 <= c <= 0xFAFF
        or 0xFF00 <= c <= 0xFFEF
        or 0x20000 <= c <= 0x3FFFF
    )


def words(text: str) -> list[str]:
    """Cut text into words whose concatenation is the text.

    White space belongs to the word after it; a newline starts a word; each character of a script without spaces is a word.
    White space at the very end is a word of its own.
    """
    out: list[str] = []
    current, seen = "", False  # seen: the current word has a visible character
    for char in text:
        boundary = (
            (char.isspace() and seen)
            or (_spaceless(char) and seen)
            or (seen and bool(current) and _spaceless(current[-1]))
        )
        if boundary:
            out.append(current)
            current, seen = "", False
        current += char
        seen = seen or not char.isspace()
    if current:
        out.append(current)
    return out


def starts_word(before: bytes, piece: bytes) -> bool:
    """Return whether a token with these bytes starts a new word after ``before`` (the word so far).

    True at white space once the word has a visible character, and between characters of scripts without spaces.
    """
    if valid_prefix(before) != before:
        return False
    so_far = before.decode("utf-8", "replace")
    if not so_far.strip() or not piece:
        return False
    if piece[:1] in (b" ", b"\n", b"\t", b"\r"):
        return True
    if _spaceless(so_far[-1]):
        return True
    following = valid_prefix(piece).decode("utf-8", "replace")
    return bool(following) and _spaceless(following[0])


def last_boundary(data: bytes) -> int:
    """Return how many bytes of a draft may be handed over: whole words only, no trailing space, no cut character.

    The last word may be incomplete and is left out, unless it is the only one or belongs to a script without spaces.
    """
    whole = valid_prefix(data).decode("utf-8", "replace")
    parts = words(whole)
    if parts and parts[-1].isspace():
        parts.pop()  # the space belongs to the word that follows; the word before it is complete
    elif len(parts) > 1 and not _spaceless(parts[-1][-1]):
        parts.pop()
    kept = "".join(parts).rstrip()
    return len(kept.encode()) if kept else len(valid_prefix(data))


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    n = min(len(a), len(b))
    if list(a[:n]) == list(b[:n]):
        return n
    return next(i for i in range(n) if a[i] != b[i])


def cut_at(text: str, stops: Sequence[str]) -> tuple[str, str] | None:
    """Return the text before the earliest stop string, and that string; None if there is none."""
    places = [(at, -len(s), s) for s in stops if s and (at := text.find(s)) >= 0]
    if not places:
        return None
    at, _, stop = min(places)
    return text[:at], stop
