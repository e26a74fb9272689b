"""Sentences, words and languages, as the authors' checker counts them: by nltk and langdetect, imported when first needed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

__all__ = ["has_english_model", "language_of", "sentences", "words"]

_ABBREVIATIONS = (
    "a.m. al apr aug ave capt cf col corp dec dept dr e.g. est etc feb fig gen gov hon i.e. inc jan jr jul jun lt ltd mar mr "
    "mrs ms mt no nov oct p p.m. ph.d pp prof rep rev sen sep sept sgt sr st u.k u.s univ vol vs"
)


@lru_cache(maxsize=1)
def _splitter() -> tuple[Any, bool]:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTokenizer

    try:
        return PunktTokenizer("english"), True
    except LookupError:
        parameters = PunktParameters()
        parameters.abbrev_types = {a.removesuffix(".") for a in _ABBREVIATIONS.split()}
        return PunktSentenceTokenizer(parameters), False


def has_english_model() -> bool:
    """Return whether nltk's English model of sentences is installed; without it a list of abbreviations takes its place."""
    return _splitter()[1]


def sentences(text: str) -> list[str]:
    """Cut a text into sentences by Punkt."""
    found: list[str] = _splitter()[0].tokenize(text)
    return found


def words(text: str) -> list[str]:
    """Cut a text into words and signs, sentence by sentence, as nltk does."""
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    return [word for sentence in sentences(text) for word in tokenizer.tokenize(sentence)]


@lru_cache(maxsize=1)
def _languages() -> Any:
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    factory.seed = 0  # langdetect draws: without a seed a short reply has one language today and another tomorrow
    factory.load_profile(PROFILES_DIRECTORY)
    return factory


@lru_cache(maxsize=1024)  # a reply is asked about strictly and loosely
def language_of(text: str) -> str | None:
    """Return the code of a text's language, or None if it has no letters to tell by."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _languages().create()
    detector.append(text)
    try:
        found: str = detector.detect()
    except LangDetectException:
        return None
    return found
