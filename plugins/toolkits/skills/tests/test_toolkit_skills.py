"""Determinism, disjoint splits, and golds that an independent reader and an independent solver agree with."""

import re
from fractions import Fraction
from itertools import islice

import pytest

from moco_toolkit_skills import PEOPLE, SKILLS, VALUES, fact, generate, split_of, stream


def read(text: str) -> str:
    """What stands in the last answer sentence."""
    return re.findall(r"The answer is (.+?)\.(?:\s|$)", text)[-1]


def solve(question: str) -> str:
    """The answer from the question alone, written without the generator's code."""
    numbers = [int(n) for n in re.findall(r"\b\d\d?\b", question)]
    letters = re.findall(r"\b[a-z]\b(?= [a-z]\b)|(?<=\b[a-z] )[a-z]\b", question.splitlines()[0].replace(".", ""))
    signs = {"sum": (1, 1), "remains": (-1, -1), "gaining": (1, -1), "falling": (-1, 1)}
    for word, (first, second) in signs.items():
        if word in question:
            return str(numbers[0] + first * numbers[1] + second * numbers[2])
    if "Remove the first letter" in question:
        return " ".join(letters[1:])
    if "Move" in question:
        return " ".join(letters[1:] + letters[:1])
    if "first letter twice" in question:
        return " ".join([letters[0], *letters])
    if "last letter twice" in question:
        return " ".join([*letters, letters[-1]])
    ranks = {
        "largest": max(numbers, default=0),
        "smallest": min(numbers, default=0),
        "middle": sorted(numbers)[len(numbers) // 2 :][:1],
    }
    if "Sort" in question:
        return " ".join(map(str, sorted(numbers)))
    for word, value in ranks.items():
        if word in question:
            return str(value[0] if isinstance(value, list) else value)
    person = next(person for person in PEOPLE if person in question)
    relation = next(relation for relation in VALUES if relation in question)
    return fact(relation, person)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_gold_agrees_with_solver_and_reader(split: str) -> None:
    for item in generate(split, 800, seed=3):
        solved = solve(item.question)
        if item.choices is None:
            assert solved == item.gold == read(item.worked)
        else:
            assert item.choices[item.gold] == solved
            assert read(item.worked) == item.choices[item.gold]
            assert len(set(item.choices)) == len(item.choices)


def test_mistakes_are_wrong_and_different() -> None:
    for item in generate("test", 800, seed=1):
        answers = [read(reply) for reply in item.mistakes]
        assert read(item.worked) not in answers
        assert len(set(answers)) == len(answers) >= 2


def test_same_seed_same_items_and_larger_samples_extend_smaller_ones() -> None:
    first = list(generate("test", 300, seed=5))
    assert first == list(generate("test", 300, seed=5))
    assert first[:100] == list(generate("test", 100, seed=5))
    assert first != list(generate("test", 300, seed=6))
    assert len({item.id for item in first}) == len({item.question for item in first}) == 300


def test_splits_share_no_question_whatever_the_seed() -> None:
    seen = {
        split: {item.question for seed in (0, 1) for item in generate(split, 700, seed=seed)}
        for split in ("train", "dev", "test")
    }
    for skill, sub_skills in SKILLS.items():
        for sub_skill in sub_skills:
            seen["train"] |= {item.question for item in islice(stream("train", 0, skill, sub_skill), 3000)}
    assert not seen["train"] & seen["dev"]
    assert not seen["train"] & seen["test"]
    assert not seen["dev"] & seen["test"]


def test_every_fact_has_a_training_question() -> None:
    """Else a model could not know it, however well it was trained."""
    for relation in VALUES:
        for person in PEOPLE:
            assert any(split_of(f"facts|{relation}|{person}|{template}") == "train" for template in range(6))


def test_split_shares() -> None:
    names = [split_of(f"content {i}") for i in range(20_000)]
    assert abs(Fraction(names.count("test"), 20_000) - Fraction(15, 100)) < Fraction(1, 100)
    assert abs(Fraction(names.count("dev"), 20_000) - Fraction(10, 100)) < Fraction(1, 100)


def test_skills_take_turns_and_can_be_chosen() -> None:
    assert [item.skill for item in generate("dev", 4)] == list(SKILLS)
    assert {item.skill for item in generate("dev", 50, skills=["facts"])} == {"facts"}
    kinds = {item.answer_kind for item in generate("test", 400)}
    assert kinds == {"choice", "integer", "text", "tokens"}


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="none of train, dev, test"):
        next(generate("validation", 1))
    with pytest.raises(ValueError, match="arithmetic"):
        next(generate("test", 1, skills=["cooking"]))
    with pytest.raises(ValueError, match="negative"):
        next(generate("test", -1))
    with pytest.raises(ValueError, match="ask for fewer"):
        list(generate("test", 100_000, skills=["arithmetic"]))
