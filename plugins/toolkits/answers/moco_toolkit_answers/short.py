"""Short free-text answers: SQuAD normalisation and token F1 (Rajpurkar et al. 2016, arXiv 1606.05250)."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import plain_markdown, strip_outer, visible
from moco_toolkit_answers.evidence import SHORT, evidence

__all__ = ["read_short", "squad_tokens", "token_f1"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_HYPHENS = str.maketrans(dict.fromkeys("-/\u2010\u2011\u2012\u2013\u2014", " "))
_DELETE = str.maketrans(dict.fromkeys(string.punctuation))
_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])")


def squad_tokens(
    text: str, *, fold_accents: bool = True, split_hyphens: bool = True, split_cjk: bool = True
) -> tuple[str, ...]:
    """Lower case, delete ASCII punctuation, delete the words a/an/the, split on white space.

    With all three switches off this is SQuAD's normalisation. ``fold_accents`` makes Beyoncé and Beyonce equal,
    ``split_hyphens`` turns hyphens into spaces (SQuAD deletes them), ``split_cjk`` makes every CJK character a token.
    """
    text = text.lower()
    if fold_accents and not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        text = unicodedata.normalize("NFC", text)
    if split_hyphens:
        text = text.translate(_HYPHENS)
    text = _ARTICLES.sub(" ", text.translate(_DELETE))
    if split_cjk and not text.isascii():
        text = _CJK.sub(r" \1 ", text)
    return tuple(text.split())


def token_f1(prediction: tuple[str, ...], gold: tuple[str, ...]) -> float:
    """Return 2·overlap / (|P| + |G|) of two bags of words; 1 if both are empty, 0 if one is."""
    if not prediction or not gold:
        return float(prediction == gold)
    overlap = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * overlap / (len(prediction) + len(gold))


def read_short(question: Question, text: str) -> Answer:
    """Read a short answer: the strongest evidence; a reply that declares nothing is its own answer.

    The key is the normalised word sequence. ``text`` keeps the answer as written.
    """
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    plain = plain_markdown(body)
    captured = ""
    for piece in evidence(body, plain):
        if piece.kind == "line":
            single = "\n" not in plain.strip()
            captured = piece.text if single or len(piece.text) <= SHORT else strip_outer(plain)
        else:
            captured = piece.text
        if captured:
            break
    if not captured:
        return Answer()
    key = " ".join(squad_tokens(captured)) or " ".join(captured.casefold().split())
    return Answer(key=key, text=captured, status="parsed")
