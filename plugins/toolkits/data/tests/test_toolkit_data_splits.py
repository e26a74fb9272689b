"""Seeded choices: they depend on the item alone, stay within bounds and keep units whole."""

from __future__ import annotations

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import Example, Question
from moco_toolkit_data import DuplicateReport, content_key, normalised, permutation, rank, shuffled
from moco_toolkit_data.splits import Sample, cut


def test_rank_is_the_stated_hash() -> None:
    expected = hashlib.blake2b(b"7\x1fcut\x1fx", digest_size=8).digest()
    assert rank(7, "cut", "x") == int.from_bytes(expected, "big")
    assert rank(7, "x") != rank(8, "x")


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(), st.text(max_size=8))
def test_a_permutation_holds_every_choice_once_and_keeps_the_right_one(count: int, seed: int, key: str) -> None:
    order = permutation(count, seed, key)
    assert sorted(order) == list(range(count))
    choices = [f"c{i}" for i in range(count)]
    shown, right, used = shuffled(choices, count - 1, seed, key)
    assert used == order and shown[right] == choices[-1] and [choices[i] for i in order] == list(shown)


def test_shuffling_spreads_the_right_choice_evenly() -> None:
    places = [shuffled("abcd", 0, 0, f"item {i}")[1] for i in range(4000)]
    # 1000 expected for each place, standard deviation 27
    assert all(abs(places.count(p) - 1000) < 110 for p in range(4))


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=120), st.integers(1, 30), st.randoms(use_true_random=False))
def test_a_sample_is_the_best_ranked_whole_units_whatever_the_order(
    units: list[int], size: int, order: random.Random
) -> None:
    items = list(enumerate(units))  # item number, unit
    expected: list[set[int]] = []
    for unit in sorted(set(units), key=lambda u: (rank(0, u), str(u))):
        if sum(map(len, expected)) < size:
            expected.append({i for i, u in items if u == unit})
    order.shuffle(items)
    sample: Sample[int] = Sample(size)
    for i, u in items:
        sample.add(rank(0, u), str(u), i)
    assert [set(unit) for unit in sample.units()] == expected


def test_a_sample_holds_no_more_than_its_size_and_one_unit() -> None:
    sample: Sample[int] = Sample(10)
    for i in range(5000):
        sample.add(rank(1, i // 4), str(i // 4), i)
        assert sum(map(len, sample.units())) <= 10 + 4
    assert {len(u) for u in sample.units()} == {4}


def test_cut_keeps_units_whole_and_the_proportion_of_short_sources() -> None:
    units = [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert cut(units, 4, 4) == ([1, 2, 3, 4], [5, 6, 7, 8])
    assert cut(units, 3, 4) == ([1, 2, 3, 4], [5, 6, 7, 8])
    assert cut([[i] for i in range(10)], 100, 400) == ([0, 1], list(range(2, 10)))
    assert cut([[1], [2]], 1000, 1) == ([1], [2])  # both parts get something


def example(id: str, prompt: str, *choices: str) -> Example:
    return Example(question=Question(id=id, prompt=prompt, choices=choices))


def test_near_duplicates_ignore_case_quotes_spaces_and_the_order_of_choices() -> None:
    a = example("a", "What  is “Oak”?", "a tree", "A rock.")
    b = example("b", 'what is "oak" ?', "a rock", "A tree")
    assert content_key(a) == content_key(b)
    assert content_key(a) != content_key(example("c", "What is oak?", "a tree", "a pea"))
    assert content_key(example("c", "3 - 2")) != content_key(example("d", "3 + 2"))
    assert normalised("x = 1, y") == "x = 1, y"


def test_the_report_counts_within_and_across_splits() -> None:
    report = DuplicateReport()
    for split, rows in (("dev", ["q1", "q2", "Q1"]), ("test", ["q3", "q2"])):
        report.start(split)
        for i, prompt in enumerate(rows):
            made = example(f"{split}{i}", prompt)
            report.add(split, made, content_key(made))
    assert report.result() == {
        "dev": {"count": 1, "ids": [["dev0", "dev2"]]},
        "test": {"count": 0, "ids": []},
        "across": {"count": 1, "ids": [["dev1", "test1"]]},
    }
