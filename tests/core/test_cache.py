import json
import multiprocessing
import sqlite3
import time
import zlib

import attrs
import pytest

from moco_core.cli.keeping import cache_info, clear, differing, nearest, prune
from moco_core.errors import StoreError
from moco_core.models import Call, Engine, Model
from moco_core.runtime.cache import Cache, KeyParts, decode_result, encode_result, key_parts
from moco_core.types import ContinuationScore, Generation, Span, Usage


class Nothing(Engine):
    pass


MODEL = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Nothing())


def parts(**changes):
    return KeyParts(**{"model": "m", "kind": "generate", "input": "i", "params": "{}", "seed": "", **changes})


def row(wanted, value, seconds=None):
    return wanted.key(), wanted, encode_result(value), seconds


RESULTS = [
    Generation(
        text="héllo \ud83d", reasoning="r", finish_reason="stop", token_ids=(1, 2), token_logprobs=(-0.1, -2.5),
        usage=Usage(3, 2), spans=(Span("a", "x", 1),), meta={"k": [1, None]},
    ),
    (ContinuationScore(token_ids=(5,), token_logprobs=(-1.5,)),),
    [[0.1, 0.2], [1e-9, 3.0]],
    {"a": None},
]  # fmt: skip


@pytest.mark.parametrize("result", RESULTS, ids=["generation", "scores", "vectors", "memo"])
def test_results_round_trip(result):
    assert decode_result(encode_result(result)) == result


def test_put_get_and_damage(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    rows = [row(parts(input=str(i)), {"n": i}, i / 8) for i in range(1200)]
    cache.put_many(rows)
    found = cache.get_many([r[0] for r in rows] + [b"absent"])
    assert len(found) == 1200 and found[rows[7][0]] == ({"n": 7}, 0.875)
    with sqlite3.connect(tmp_path / "c.sqlite") as raw:
        raw.execute("UPDATE calls SET value = x'00' WHERE key = ?", (rows[7][0],))
    assert rows[7][0] not in cache.get_many([rows[7][0]])


def test_what_was_stored_first_stays_and_is_told_to_whoever_comes_second(tmp_path):
    ours, theirs = Cache(tmp_path / "c.sqlite"), Cache(tmp_path / "c.sqlite")
    first, new, damaged, odd = (parts(input=i) for i in ("first", "new", "damaged", "odd"))
    said = Generation(text="first")
    theirs.put_many([row(first, said, 0.5), row(damaged, said), row(odd, {"of": "another form"})])
    theirs.execute("UPDATE calls SET value = x'00' WHERE key = ?", (damaged.key(),))
    later = Generation(text="second")
    assert ours.put_many([row(p, later, 9.0) for p in (first, new, damaged, odd)]) == {first.key(): (said, 0.5)}
    assert {stored.value.text for stored in theirs.get_many([new.key(), damaged.key(), odd.key()]).values()} == {"second"}
    assert theirs.get_many([first.key()]) == {first.key(): (said, 0.5)}


def test_key_depends_on_every_part_and_on_nothing_else():
    call = Call(MODEL, "generate", {"messages": [["user", "q"]]}, {"temperature": 0.5}, 7)
    base = key_parts(call)
    renamed = Model(name="other name", fingerprint="f", capabilities={"generate"}, engine=Nothing(), description="d")
    assert key_parts(Call(renamed, "generate", call.input, call.params, 7)).key() == base.key()
    variants = [
        Call(MODEL, "score", call.input, call.params, 7),
        Call(MODEL, "generate", {"messages": [["user", "q "]]}, call.params, 7),
        Call(MODEL, "generate", call.input, {"temperature": 0.6}, 7),
        Call(MODEL, "generate", call.input, call.params, 8),
        Call(MODEL, "generate", call.input, call.params, None),
    ]
    keys = {key_parts(c).key() for c in variants}
    assert len(keys) == 5 and base.key() not in keys


def test_nearest_names_what_differs():
    cache = Cache(None)
    cache.put_many([row(parts(params="old"), 1), row(parts(input="j"), 2)])
    wanted = parts(params="new")
    assert differing(wanted, nearest(cache, wanted)) == ("params",)
    assert nearest(cache, parts(model="x", input="unseen")) is None


def test_what_a_later_version_replaced_is_counted_and_pruned(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    old, new, other, memo, renewed = (
        parts(model="f1"), parts(model="f2"), parts(model="plain"), parts(model="", kind="once"), parts(model="", input="j"),
    )  # fmt: skip
    cache.put_many([row(p, "x") for p in (old, attrs.evolve(old, input="j"), new, other, memo, renewed)])
    cache.note_makers({"f1": ("fusion", 1)})
    cache.note_makers({memo.key().hex(): ("answer", 9)})
    assert cache_info(cache).outdated == {}  # nothing later was seen
    cache.note_makers({"f2": ("fusion", 2), renewed.key().hex(): ("answer", 10)})
    assert cache_info(cache).outdated == {"answer 9": 1, "fusion 1": 2}
    assert prune(cache, outdated=True) == 3
    assert set(cache.get_many([p.key() for p in (old, new, other, memo, renewed)])) == {
        new.key(), other.key(), renewed.key(),
    }  # fmt: skip
    assert cache_info(cache).outdated == {}


def test_prune_and_clear(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    for i in range(10):
        cache.put_many([row(parts(input=str(i)), "x" * 100)])
    assert prune(cache, older_than=0) == 0
    kept = prune(cache, keep_bytes=3 * 250)
    assert 5 <= kept < 10 and cache.count == 10 - kept
    newest = parts(input="9")
    assert newest.key() in cache.get_many([newest.key()])
    assert prune(cache, older_than=time.time() + 1) == 10 - kept
    assert cache.count == 0 and clear(cache) == 0


def _hammer(path, worker):
    cache = Cache(path)
    for i in range(100):
        cache.put_many([row(parts(input=f"{worker}-{i}"), [worker, i]), row(parts(input=str(i)), i)])
    cache.close()


def test_two_processes_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(path, w)) for w in range(2)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0, 0]
    assert Cache(path).count == 300


def _open_all(folder, barrier):
    for i in range(60):
        barrier.wait(60)
        Cache(folder / f"{i}.sqlite").close()


def test_a_new_file_can_be_opened_by_several_processes_in_the_same_moment(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_open_all, args=(tmp_path, barrier)) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]


def test_unusable_places_give_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot open the call cache .* choose another with --cache"):
        Cache(tmp_path / "file" / "c.sqlite")
    (tmp_path / "garbage.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="file is not a database"):
        Cache(tmp_path / "garbage.sqlite")


def test_a_full_disk_is_one_error_and_loses_nothing(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    first = parts(input="first")
    cache.put_many([row(first, "kept")])
    pages = cache._db.execute("PRAGMA page_count").fetchone()[0]
    cache._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way of being full
    big = parts(input="big")
    with pytest.raises(StoreError, match=r"database or disk is full.*--cache"):
        cache.put_many([row(big, list(range(100_000)))])
    assert cache.get_many([first.key(), big.key()]) == {first.key(): ("kept", None)}
    assert Cache(tmp_path / "c.sqlite")._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_cache_of_another_format_is_refused(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    cache._db.execute("UPDATE facts SET value = '99' WHERE name = 'format'")
    cache.close()
    with pytest.raises(StoreError, match="has format 99"):
        Cache(tmp_path / "c.sqlite")


def test_scores_keep_the_tokens_that_were_read():
    scores = (
        ContinuationScore(token_ids=(1, 2), token_logprobs=(-0.5, -1.0), prompt_tokens=7),
        ContinuationScore(token_ids=(3,), token_logprobs=(-0.25,)),
    )
    again = decode_result(encode_result(scores))
    assert again == scores and [s.prompt_tokens for s in again] == [7, 0]
    older = zlib.compress(json.dumps(["c", [[[1], [-0.5]]]]).encode())  # written before they were kept
    assert decode_result(older)[0].prompt_tokens == 0
