"""Byte views, seams and word boundaries."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from moco_toolkit_decoding import Vocabulary
from moco_toolkit_decoding.compatibility import compare, report
from moco_toolkit_decoding.testing import bpe_tokenizer, spaced_tokenizer
from moco_toolkit_decoding.text import cut_at, last_boundary, starts_word, valid_prefix, words

TEXTS = (
    "the quick brown fox",
    " a leading space",
    "中文文本 and 日本語 😀👩‍👩‍👧 end",
    "tabs\tand\n\nlines\n",
    "literal <end> and <pad> stay text",
    "12 + 34 = 46",
)


@pytest.fixture(scope="module", params=["bpe", "spaced"])
def view(request):
    tokenizer = bpe_tokenizer() if request.param == "bpe" else spaced_tokenizer()
    return Vocabulary(tokenizer, [tokenizer.eos_token_id])


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("first", [True, False])
def test_text_survives_and_special_tokens_never_appear(view, text, first):
    ids = view.encode(text.encode(), first=first)
    assert view.text(ids, first=first) == text.encode()
    assert not view.special.intersection(ids)


@pytest.mark.parametrize("text", TEXTS[:4])
def test_the_view_agrees_with_the_tokenizer(view, text):
    ids = view.tokenizer.encode(text, add_special_tokens=False)
    assert view.text(ids).decode() == view.tokenizer.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_random_cuts_give_the_ids_of_the_whole(view, text):
    data = (text + " " + text).encode()
    whole = view.encode(data)
    for seed in range(6):
        g = random.Random(seed)
        places = sorted(g.sample(range(1, len(data)), 4))
        ids: list[int] = []
        for a, b in zip([0, *places], [*places, len(data)], strict=True):
            kept, new = view.extend(ids, data[a:b])
            ids = ids[:kept] + new
            assert view.text(ids) == data[:b]
        assert ids == whole


def test_a_piece_is_not_encoded_alone():
    view = Vocabulary(spaced_tokenizer(), [1])
    ids = view.encode(b"inter")
    kept, new = view.extend(ids, b"national")
    assert view.text(ids[:kept] + new) == b"international"  # encoded alone it would read "inter national"


def test_invalid_bytes_round_trip(view):
    data = b"a \xf0\x9f b \xff c"
    assert view.text(view.encode(data)) == data


def test_valid_prefix():
    smile = "😀".encode()
    for n in range(1, 4):
        assert valid_prefix(b"ok " + smile[:n]) == b"ok "
    assert valid_prefix(b"ok " + smile) == b"ok " + smile
    assert valid_prefix(b"") == b""


def test_words_are_the_text_cut_before_white_space_and_between_cjk_characters():
    assert words("the quick\nfox ") == ["the", " quick", "\nfox", " "]
    assert words("中文ok fine") == ["中", "文", "ok", " fine"]
    assert "".join(words(TEXTS[2])) == TEXTS[2]


def test_starts_word():
    assert starts_word(b"the", b" quick") and starts_word(b"the", b"\n")
    assert not starts_word(b"the", b"re") and not starts_word(b" ", b" x")
    assert starts_word("中".encode(), "文".encode())
    assert not starts_word("中".encode()[:2], "中".encode()[2:])  # in the middle of a character


@pytest.mark.parametrize(
    ("draft", "kept"),
    [("one two thr", "one two"), ("one two ", "one two"), ("single", "single"), ("中文", "中文"), ("a 😀", "a")],
)
def test_last_boundary(draft, kept):
    assert draft.encode()[: last_boundary(draft.encode())].decode() == kept


def test_last_boundary_of_a_cut_character():
    data = "fine 😀".encode()[:-1]
    assert data[: last_boundary(data)] == b"fine"


def test_earliest_stop_string_wins():
    assert cut_at("abc STOP def END", ["END", "STOP"]) == ("abc ", "STOP")
    assert cut_at("abc", ["x", ""]) is None


# -------------------------------------------------------------------- compatibility


def test_compatibility_report():
    a = bpe_tokenizer()
    assert compare(a, bpe_tokenizer()) == ("same", "")
    assert compare(a, bpe_tokenizer(extra=["<tool>"])) == ("superset", "")
    relation, reason = compare(a, spaced_tokenizer())
    assert relation == "different" and "id 0" in reason
    other = bpe_tokenizer(texts=("wholly other words train this one",))
    relation, reason = compare(a, other)
    assert relation == "different" and "id" in reason


def test_a_tokenizer_that_cannot_be_opened_counts_as_different(tmp_path):
    models = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "unheard_of"}')
        engine = SimpleNamespace(files=lambda model, folder=folder: SimpleNamespace(tokenizer=folder))
        models.append(SimpleNamespace(name=name, tokenizer=name, engine=engine))
    found = report(models)
    assert found.relation == "different" and found.pairs[0].reason and "\n" not in found.pairs[0].reason
