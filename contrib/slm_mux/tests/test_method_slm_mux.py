"""SLM-MUX against its paper's rule and hand-made tables, on scripted models."""

from __future__ import annotations

import itertools
import random

import pytest
from sklearn.metrics import f1_score

from moco_core import ConfigError, ModelCallError, Question
from moco_core.options import build
from moco_method_slm_mux.confidence import Belief, believed, confident
from moco_method_slm_mux.method import SlmMux, SlmMuxSystem
from moco_method_slm_mux.options import Options
from moco_method_slm_mux.search import Drawn, best_subset, mux_accuracy, union_less_penalty
from moco_toolkit_authoring import ScriptedCall, ScriptedPool, examples, method_checks, run_method

test_conformance = method_checks(
    "slm_mux",
    settings=[
        {},
        {"samples": 3, "tie": "random", "temperature": 0.0},
        {"samples": 2, "select": "union", "size": "1-2", "tie": "support"},
        {"samples": 2, "select": "mux_accuracy", "size": "2", "dev_accuracy": "mean"},
    ],
    identical_is_single=False,
)

QUESTION = Question(id="q", prompt="Which one?", answer_kind="text")


def says(**answers: str) -> ScriptedPool:
    """One model per keyword; its letters are the answers of its samples in turn, ``-`` one that cannot be read."""

    def script(letters: str):
        numbers = itertools.count()

        def reply(call: ScriptedCall) -> str:
            number = next(numbers)
            letter = letters[number % len(letters)]
            return "I cannot say" if letter == "-" else f"sample {number}: the answer is {letter}"

        return reply

    return ScriptedPool({name: script(letters) for name, letters in answers.items()})


def ask(pool, question=QUESTION, dev=(), **options):
    outcome = run_method(SlmMux(Options(**options)), pool, questions=[question], dev=dev)
    for error in outcome.errors.values():
        raise error
    return outcome.replies[question.id]


def test_the_most_consistent_model_wins_where_a_pooled_vote_would_go_to_the_many() -> None:
    reply = ask(says(m1="AAAAA", m2="BBBCD", m3="BBBCD"), tie="order")
    assert (reply.meta["answer"], reply.meta["model"], reply.meta["confidence"]) == ("a", "m1", 1.0)
    assert reply.text == "sample 0: the answer is A"


@pytest.mark.parametrize(("weight", "winner"), [(0.7, "m1"), (0.5, "m2")])
def test_a_weight_given_from_outside_multiplies_a_models_confidence(weight, winner, monkeypatch) -> None:
    monkeypatch.setattr(SlmMuxSystem, "respond", lambda self, q, c: self.respond_weighed(q, c, {"m1": weight}))
    reply = ask(says(m1="AAAAA", m2="BBBCD"), tie="order")
    assert reply.meta["model"] == winner and [b["confidence"] for b in reply.meta["beliefs"]] == [weight, 0.6]


def test_samples_that_cannot_be_read_count_as_drawn() -> None:
    reply = ask(says(m1="A----", m2="BBBBC"), tie="order")
    assert [b["confidence"] for b in reply.meta["beliefs"]] == [0.2, 0.8]
    assert reply.meta["answer"] == "b"


def test_the_reply_is_the_first_sample_that_gives_the_answer() -> None:
    assert ask(says(m1="-CBBC"), tie="order").text == "sample 1: the answer is C"  # 2 of 5 each: C was drawn first
    assert ask(says(m1="CBB"), samples=3, tie="order").text == "sample 1: the answer is B"


def test_one_model_is_self_consistency_and_asks_nothing_on_dev() -> None:
    pool = says(only="ABBAB")
    outcome = run_method(SlmMux(Options()), pool, questions=[QUESTION], dev=examples(3))
    assert outcome.calls["fit"] == 0 and outcome.calls["respond"] == 5
    assert outcome.replies["q"].meta["answer"] == "b"


@pytest.mark.parametrize(("skills", "winner"), [((0.5, 0.7), 1), ((0.7, 0.7), 0), (None, 0)])
def test_ties_go_to_the_more_accurate_model_then_to_the_first(skills, winner) -> None:
    sure = [Belief(key=key, confidence=1.0, shares={key: 1.0}) for key in "ab"]
    assert believed(sure, tie="dev", skills=skills) == (winner, (0, 1))


def test_support_asks_all_models_which_of_the_tied_answers_they_back() -> None:
    beliefs = [confident(list(keys)) for keys in ("aab", "bbc", "bcd")]
    assert believed(beliefs, tie="dev", skills=[0.9, 0.1, 0.5])[0] == 0
    # a: 2/3; b: 1/3 + 2/3 + 1/3
    assert believed(beliefs, tie="support", skills=[0.9, 0.1, 0.5])[0] == 1
    assert believed(beliefs, tie="order")[0] == 0


def test_random_ties_are_even_and_others_are_no_draw() -> None:
    beliefs = [confident(list(keys)) for keys in ("aa", "bb", "cd")]
    rng = random.Random(0)
    drawn = [believed(beliefs, tie="random", rng=rng)[0] for _ in range(2000)]
    assert set(drawn) == {0, 1} and abs(drawn.count(0) - 1000) < 3 * (2000 / 4) ** 0.5


def test_graded_answers_support_each_other_as_much_as_they_overlap() -> None:
    """Token F1 of "red fox" with the others, by scikit-learn's F1 over bags of distinct words."""
    texts = ["red fox", "red dog", "blue cat", "fox"]
    words = sorted({w for t in texts for w in t.split()})

    def f1(a: str, b: str) -> float:
        return float(f1_score([w in a.split() for w in words], [w in b.split() for w in words]))

    belief = confident(texts, f1)
    expected = {a: sum(f1(a, b) for b in texts) / 4 for a in texts}
    assert belief.shares == pytest.approx(expected)
    assert (belief.key, belief.sample) == ("red fox", 0) and belief.confidence == pytest.approx((1 + 0.5 + 2 / 3) / 4)


def test_at_temperature_0_everybody_is_sure_and_the_best_dev_model_answers() -> None:
    dev = examples(4)
    right = {e.question.prompt: e.references[0] if e.answer is None else e.question.letters[e.answer] for e in dev}

    def expert(call: ScriptedCall) -> str:
        return next((f"the answer is {a}" for p, a in right.items() if p in call.transcript), "the answer is B")

    pool = ScriptedPool({"fool": "the answer is A", "expert": expert})
    for accuracy in ("majority", "single", "mean"):
        reply = ask(pool, dev=dev, temperature=0.0, dev_accuracy=accuracy)
        assert (reply.meta["model"], reply.meta["tied"]) == ("expert", ["fool", "expert"])


def test_nothing_readable_gives_a_flagged_reply_and_all_failures_a_failure() -> None:
    reply = ask(says(m1="--", m2="--"), samples=2, tie="order")
    assert reply.text == "I cannot say" and reply.meta["unparsed"] is True and "answer" not in reply.meta
    with pytest.raises(ModelCallError, match="every sample"):
        ask(ScriptedPool({"a": lambda call: ModelCallError("down")}), tie="order")
    mixed = ScriptedPool({"down": lambda call: ModelCallError("down"), "up": "the answer is B"})
    assert ask(mixed, tie="order").meta["model"] == "up"


def test_whole_replies_are_grouped_by_what_they_mean() -> None:
    """Embeddings by script: the first letter decides; 3 of 4 replies of the second model mean the same."""
    texts = {"m1": ["alpha", "beta", "gamma", "delta"], "m2": ["one", "once", "two", "ounce"]}
    letters = sorted({w[0] for row in texts.values() for w in row})

    def vector(text: str) -> list[float]:
        return [float(text.strip()[0] == letter) for letter in letters]

    close = lambda a, b: sum(x * y for x, y in zip(vector(a), vector(b), strict=True))  # noqa: E731
    beliefs = [confident(row, lambda a, b: float(close(a, b) >= 0.9), close) for row in texts.values()]
    assert [b.confidence for b in beliefs] == [0.25, 0.75]
    assert believed(beliefs, tie="order") == (1, (1,)) and beliefs[1].key == "one"


# ---------------------------------------------------------------- the search


def drawn(keys: str, right: str) -> Drawn:
    given = tuple(None if key == "-" else key for key in keys)
    return Drawn(keys=given, scores=tuple(float(k == right) for k in given), belief=confident(given))


TABLE = [  # three models; the right answer is a
    [drawn("aab", "a"), drawn("bbb", "a"), drawn("a--", "a")],
    [drawn("bbc", "a"), drawn("aaa", "a"), drawn("bcd", "a")],
    [drawn("aaa", "a"), drawn("abc", "a"), drawn("bbb", "a")],
    [drawn("bcd", "a"), drawn("bb-", "a"), drawn("aab", "a")],
]


def test_union_and_penalty_are_those_counted_by_hand() -> None:
    # models 0, 1 know questions 0, 1, 2; on question 0 model 1 is surely wrong
    assert union_less_penalty(TABLE, (0, 1), robust=2, penalty=0.5) == pytest.approx((3 / 4 - 0.5 / 3, 3 / 4))
    assert union_less_penalty(TABLE, (2,), robust=1, penalty=0.5) == pytest.approx((2 / 4, 2 / 4))
    assert union_less_penalty(TABLE, (1, 2), robust=3, penalty=1.0) == pytest.approx((1 / 4, 1 / 4))


def test_without_penalty_the_union_alone_counts_and_more_models_never_hurt() -> None:
    for size in (1, 2):
        for subset in itertools.combinations(range(3), size):
            for more in set(range(3)) - set(subset):
                wider = tuple(sorted((*subset, more)))
                assert union_less_penalty(TABLE, wider, robust=2, penalty=0)[0] >= union_less_penalty(
                    TABLE, subset, robust=2, penalty=0
                )[0]


def test_a_model_that_is_always_surely_wrong_never_helps() -> None:
    fools = [[*row, drawn("zzz", "a")] for row in TABLE]
    for size in (1, 2, 3):
        for subset in itertools.combinations(range(3), size):
            worth = [union_less_penalty(fools, s, robust=2, penalty=0.5)[0] for s in (subset, (*subset, 3))]
            assert worth[1] <= worth[0]


def test_the_subset_is_that_of_brute_force_and_the_smaller_of_equals() -> None:
    def value(subset: tuple[int, ...]) -> tuple[float, float]:
        return union_less_penalty(TABLE, subset, robust=2, penalty=0.5)

    every = [s for size in (1, 2, 3) for s in itertools.combinations(range(3), size)]
    best = best_subset(3, (1, 3), value)
    assert value(best)[0] == max(value(s)[0] for s in every)
    assert best_subset(5, (2, 4), lambda subset: (0.0, 0.0)) == (0, 1)
    # far too many subsets for all: members that are worth something are found one by one
    assert best_subset(60, (1, 8), lambda subset: (len({7, 31, 58} & set(subset)) - 0.1 * len(subset), 0)) == (7, 31, 58)


def test_mux_accuracy_is_the_score_of_the_rule_itself() -> None:
    skills = [0.5, 0.25, 0.25]
    for subset in [(0, 1), (0, 1, 2), (1, 2)]:
        expected = 0.0
        for row in TABLE:
            chosen = believed([row[i].belief for i in subset], tie="dev", skills=[skills[i] for i in subset])
            expected += row[subset[chosen[0]]].score
        assert mux_accuracy(TABLE, subset, tie="dev", skills=skills)[0] == pytest.approx(expected / 4)
    # question 2: models 0 and 2 are tied at 1.0 and one of them is right
    assert mux_accuracy(TABLE[2:3], (0, 2), tie="random", skills=skills)[0] == 0.5


def test_selected_models_alone_are_asked() -> None:
    dev = examples(6)
    right = {e.question.prompt: e.references[0] if e.answer is None else e.question.letters[e.answer] for e in dev}

    def expert(call: ScriptedCall) -> str:
        return next((f"the answer is {a}" for p, a in right.items() if p in call.transcript), "the answer is B")

    pool = ScriptedPool({"fool": "the answer is nonsense", "expert": expert, "mute": "hm"})
    outcome = run_method(
        SlmMux(Options(select="union", size="1-2", samples=2)), pool, questions=[QUESTION], dev=dev
    )
    assert outcome.state["members"] == ["expert"] and outcome.calls["respond"] == 2
    assert any("6 dev examples" in warning for warning in outcome.warnings)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"size": "5-2"}, "expected a number or a range"),
        ({"size": "all"}, "expected a number or a range"),
        ({"select": "union", "samples": 1}, "2 right samples are asked for, 1 are drawn"),
    ],
)
def test_options_that_cannot_be_are_refused(options, line) -> None:
    with pytest.raises(ConfigError, match=line):
        build(Options, options)


def test_a_selection_without_dev_and_one_of_too_many_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are no dev examples"):
        ask(says(m1="A", m2="B"))
    method = SlmMux(Options(select="union", size="4"))
    (problem,) = method.needs().problems(list(says(m1="A", m2="B").models()))
    assert "4 models are to be selected, the pool has 2" in problem
