"""LLM-Blender: rankings by hand, verdicts, fusing, what is trained and what is told of it; on scripted models."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import re
import signal
import warnings

import attrs
import pytest
from scipy.stats import spearmanr

from moco_core import ConfigError, Example, Message, ModelCallError, Question, Sampling
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_core.types import ContinuationScore
from moco_method_llm_blender.aggregates import bias, rank, scores, spearman
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.rankers import JudgeRanker, Ranker, order
from moco_method_llm_blender.verdicts import parse
from moco_toolkit_authoring import ScriptedPool, as_plugin, method_checks, open_session, run_method
from moco_toolkit_authoring.toy import LastWord

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
QUESTION = Question(id="q", prompt="Which is it?", answer_format="End with: the answer is X.")

test_conformance = method_checks(
    "llm_blender",
    settings=[
        {},
        {"verdict": "text", "aggregation": "max_wins", "verify": True},
        {"aggregation": "bubble", "orders": 1},
        {"ranker": "pair_head", "ranker_epochs": 2, "train_fuser": True, "fuser_epochs": 1},
        {"train_ranker": True, "ranker_epochs": 2, "verdict": "text", "fuse": False},
    ],
    identical_is_single=True,
)


# ---------------------------------------------------------------- rankings


@attrs.frozen
class Given(Ranker):
    """Preferences between texts "0", "1", ... by a matrix, and how often it was asked."""

    matrix: list
    asked: list = attrs.field(factory=list)

    async def preferences(self, question, texts, pairs, context):
        self.asked.extend(pairs)
        return [self.matrix[int(texts[i])][int(texts[j])] for i, j in pairs]


def ranked(matrix, texts=None, skills=None, **options):
    """Return the texts in order, best first, and the ranking."""
    texts = texts or [str(i) for i in range(len(matrix))]
    ranker = Given(matrix)

    async def work():
        async with open_session() as session:
            context = session.context("respond", QUESTION)
            return await order(ranker, QUESTION, texts, skills or [0.0] * len(texts), Options(**options), context)

    found = asyncio.run(work())
    return [texts[i] for i in found.places], found, ranker.asked


def test_scores_of_three_candidates_are_those_worked_out_by_hand():
    m = [[0, 2, 1], [-2, 0, 3], [-1, -3, 0]]
    assert scores(m, "max_logits") == [6, 2, -8]
    assert scores(m, "max_wins") == [4, 2, 0]
    assert scores([[0, 0.0], [0.0, 0]], "max_wins") == [1, 1]  # a 0 is half a win in each order
    assert ranked(m)[1].scores == (6, 2, -8)


@pytest.mark.parametrize("b", [-7.0, -0.5, 0.0, 3.0, 100.0])
def test_a_bias_for_a_place_that_adds_to_every_preference_cancels(b):
    rng = random.Random(3)
    delta = [[float(rng.randint(-8, 8)) for _ in range(5)] for _ in range(5)]
    moved = [[value + b for value in row] for row in delta]
    assert scores(moved, "max_logits") == scores(delta, "max_logits")
    assert ranked(moved)[0] == ranked(delta)[0]
    own = [[delta[i][j] - delta[j][i] for j in range(5)] for i in range(5)]
    found = ranked([[v + b for v in row] for row in own])[1]
    assert found.record(2)["position_bias"] == b
    one = ranked([[100.0 + 0 * v for v in row] for row in own], orders=1)[1]  # the ablation does not cancel it
    assert one.scores[0] > one.scores[-1]


def test_a_judge_that_always_names_one_place_decides_nothing_and_dev_does():
    always = [[1.0] * 4 for _ in range(4)]
    found = ranked(always, skills=[0.2, 0.9, 0.9, 0.1])
    assert set(found[1].scores) == {0.0} and found[0] == ["1", "2", "0", "3"]
    assert found[1].record(2) == {"scores": [0.0] * 4, "unread": 0, "position_bias": 1.0, "same_place": 1.0}
    assert bias([[0.0]]) == (0.0, 0.0)


@pytest.mark.parametrize("how", ["max_logits", "max_wins", "bubble"])
def test_transitive_preferences_have_one_winner_whatever_the_order_of_the_models(how):
    worth = [1.0, 4.0, 2.5, 3.0]
    m = [[a - b for b in worth] for a in worth]
    for texts in itertools.permutations("0123"):
        first, _, asked = ranked(m, list(texts), aggregation=how)
        assert first[0] == "1"
        assert len(asked) == (6 if how == "bubble" else 12) == Options(aggregation=how).comparisons(4)
        if how != "bubble":
            assert first == ["1", "3", "2", "0"]


def test_ties_go_to_the_own_comparison_then_to_dev_and_cycles_to_dev():
    tied = [[0, 3, -3], [-3, 0, 3], [3, -3, 0]]
    assert scores(tied, "max_logits") == [0, 0, 0]
    assert rank([0, 0, 0], tied, [0.1, 0.2, 0.3]) == [2, 1, 0]  # a cycle
    assert rank([1, 1, 5], [[0, -1, 0], [1, 0, 0], [0, 0, 0]], [0.9, 0.1, 0]) == [2, 1, 0]  # 1 beats 0
    assert rank([1, 1 + 1e-12], [[0, 0], [0, 0]], [0.5, 0.5]) == [0, 1]
    assert rank([0, 1], [[0, 0], [0, 0]], [9, 0]) == [1, 0]


def test_the_rank_correlation_is_scipys():
    rng = random.Random(0)
    for _ in range(20):
        a, b = ([float(rng.randint(0, 4)) for _ in range(6)] for _ in range(2))
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman([1, 1], [0, 1]) is None


# ---------------------------------------------------------------- verdicts


B = ("B", "**B**", '"B"', "(B)", "B.", " B\n", "Candidate B", "Answer: B", "Answer B", "Final: B", "After comparing, B")
B += ("Reply A is short. Verdict: B", "**Verdict:** Reply **B**", "The answer is B.")
A = ("A", "[A]", "Based on correctness, A is better", "Winner: Reply A", "I prefer A.")
UNCLEAR = (
    "Both",
    "",
    "A or B",
    "Both are equal",
    "A good reply",
    "neither a nor b",
    "Answer: A or B",
    "A and B",
    "ABBA",
)
UNCLEAR += ("A is better", "A's and so on", "Answer: A is wrong and B right")


@pytest.mark.parametrize(
    ("reply", "verdict"), [(text, v) for texts, v in ((A, 1), (B, -1), (UNCLEAR, 0)) for text in texts]
)
def test_a_verdict_is_read_where_it_is_clear_and_only_there(reply, verdict):
    assert parse(reply) == verdict


# ---------------------------------------------------------------- answering


def quoted(prompt: str) -> list[str]:
    return re.findall(r"<quote>\n(.*?)\n</quote>", prompt, re.DOTALL)


def judging(call) -> bool:
    return call.prompt.startswith("Which reply answers")


def fusing(call) -> bool:
    return "Candidate answers, best first" in call.prompt


def member(says, *, judges=lambda a, b: "A", fuses="the answer is fused"):
    def say(call):
        if judging(call):
            return judges(*quoted(call.prompt))
        if fusing(call):
            return fuses(call) if callable(fuses) else fuses
        return says(call) if callable(says) else says

    return say


def longest(a: str, b: str) -> str:
    """A judge who likes long replies, in either place."""
    return "A" if len(a) > len(b) else "B" if len(b) > len(a) else "neither"


TEXTS = {
    "x": "the answer is 1",
    "y": "surely, the answer is 22",
    "z": "so, the answer is 3",
    "w": "surely now, the answer is 444",
}


def council(judges=longest, fuses="the answer is fused", names="xyz", **keywords) -> ScriptedPool:
    return ScriptedPool({n: member(TEXTS[n], judges=judges, fuses=fuses) for n in names}, **keywords)


def blend(pool, dev=(), questions=(QUESTION,), **options):
    settings = {"verdict": "text", **options}
    return run_method(LlmBlender(build(Options, settings)), pool, dev=dev, questions=questions, sampling=GREEDY)


def test_the_best_replies_are_fused_best_first_under_neutral_labels():
    pool = council(names="xyzw")
    reply = blend(pool).replies["q"]
    assert (reply.text, reply.meta["final"], reply.meta["ranking"]["order"]) == (
        "the answer is fused",
        "fused",
        [3, 1, 2, 0],
    )
    (prompt,) = [c.prompt for c in pool.history if fusing(c)]
    assert quoted(prompt) == [TEXTS["w"], TEXTS["y"], TEXTS["z"]]
    assert prompt.startswith(QUESTION.text()) and prompt.endswith(QUESTION.answer_format)
    assert len([c for c in pool.history if judging(c)]) == 12 and len(pool.history) == 4 + 12 + 1
    assert all(f'"{n}"' not in c.prompt and f" {n}:" not in c.prompt for c in pool.history for n in "xyzw")
    assert {c.params["max_new_tokens"] for c in pool.history if judging(c)} == {8}
    assert reply.meta["ranking"]["position_bias"] == 0


def test_without_fusing_the_best_reply_is_handed_on_unchanged():
    for options in ({"fuse": False}, {"top_k": 1}, {"aggregation": "bubble"}):
        pool = council()
        reply = blend(pool, **options).replies["q"]
        assert (reply.text, reply.meta["model"], reply.meta["final"]) == (TEXTS["y"], "y", "best")
        assert not any(fusing(c) for c in pool.history)


def test_one_model_or_equal_replies_ask_no_judge():
    assert len((alone := council(names="x")).models()) == 1
    assert blend(alone).texts == {"q": TEXTS["x"]} and len(alone.history) == 1
    same = ScriptedPool(dict.fromkeys("abc", member("the answer is 7")))
    reply = blend(same).replies["q"]
    assert (reply.text, reply.meta["candidates"], len(same.history)) == ("the answer is 7", [["a", "b", "c"]], 3)
    two = ScriptedPool({"a": member(" "), "b": member("the answer is 1"), "c": lambda call: ModelCallError("down")})
    reply = blend(two).replies["q"]
    assert (reply.meta["model"], reply.meta["failed"], reply.meta["final"]) == ("b", {"c": "down"}, "single")
    assert blend(ScriptedPool(dict.fromkeys("ab", ""))).replies["q"].meta["final"] == "empty"


def test_a_fused_reply_that_cannot_be_read_or_fails_leaves_the_best_one():
    reply = blend(council(fuses="???")).replies["q"]
    assert (reply.text, reply.meta["unfused"]) == (TEXTS["y"], "it cannot be read")
    reply = blend(council(fuses=lambda call: ModelCallError("down"))).replies["q"]
    assert (reply.text, reply.meta["unfused"]) == (TEXTS["y"], "down")


def test_a_fused_reply_that_loses_to_the_best_one_is_not_returned_where_that_is_verified():
    outcome = blend(council(fuses="the answer is 0"), verify=True)
    assert outcome.replies["q"].text == TEXTS["y"] and "loses" in outcome.replies["q"].meta["unfused"]
    long = "the answer, after all of this, is: the answer is 5"
    outcome = blend(council(fuses=long), verify=True)
    assert outcome.replies["q"].text == long
    assert outcome.calls_per_question["q"] == LlmBlender(Options(verify=True)).cost(3, 0).respond == 3 + 6 + 1 + 2
    assert (
        blend(council(fuses=long, judges=lambda a, b: "A"), verify=True).replies["q"].text == long
    )  # a tie is no loss


def test_judges_of_whom_nobody_can_be_read_leave_it_to_the_dev_scores_and_it_is_said():
    dev = [
        Example(question=attrs.evolve(QUESTION, id=f"d{i}", prompt=f"Dev {i}?"), references=("3",)) for i in range(4)
    ]
    outcome = blend(council(judges=lambda a, b: "hard to say"), dev=dev, fuse=False)
    reply = outcome.replies["q"]
    assert (reply.meta["model"], reply.meta["ranking"]["unread"]) == ("z", 6)
    assert any("24 comparisons of dev replies by z cannot be read" in text for text in outcome.warnings)
    failing = council(judges=lambda a, b: ModelCallError("down"))
    assert blend(failing, fuse=False).replies["q"].meta["model"] == "x"


def test_labels_are_summed_over_their_forms_where_a_judge_scores():
    """The preference is log P(A) - log P(B), both with and without a space before them."""
    pool = council()
    logp = {"A": -1.0, " A": -2.0, "B": -3.0, " B": -0.5}
    answer = pool.engine.answer

    def scored(call):
        if call.kind != "score":
            return answer(call)
        return tuple(ContinuationScore(token_ids=(1,), token_logprobs=(logp[t],)) for t in call.input["continuations"])

    pool.engine.answer = scored
    reply = blend(pool, verdict="auto", fuse=False).replies["q"]
    wanted = math.log(math.exp(-1) + math.exp(-2)) - math.log(math.exp(-3) + math.exp(-0.5))
    assert reply.meta["ranking"]["position_bias"] == pytest.approx(wanted, abs=1e-9)
    assert reply.meta["ranking"]["scores"] == [0.0, 0.0, 0.0] and reply.meta["ranking"]["same_place"] == 1.0


def test_long_replies_keep_their_ends_before_judge_and_fuser_and_the_question_is_whole():
    pool = ScriptedPool(
        {n: member("f" * 9000 + f" the answer is {n}", judges=longest) for n in "ab"},
        fields={n: {"context_length": 300} for n in "ab"},
    )
    assert blend(pool).replies["q"].meta["final"] == "fused"
    for call in pool.history[2:]:
        assert QUESTION.prompt in call.prompt and len(call.prompt) <= 300 * 3
        assert all(re.search(r"the answer is \w$", text) for text in quoted(call.prompt))


def test_a_conversation_stands_before_the_fusers_prompt_and_inside_the_judges():
    question = attrs.evolve(QUESTION, system="Be brief.", history=(Message("user", "Hi."), Message("assistant", "Ho.")))
    pool = council()
    blend(pool, questions=[question])
    (fused,) = [c for c in pool.history if fusing(c)]
    assert [m.content for m in fused.messages[:-1]] == ["Be brief.", "Hi.", "Ho."]
    assert all("user: Hi." in c.prompt and len(c.messages) == 1 for c in pool.history if judging(c))


def test_a_reward_model_scores_each_reply_once():
    def reward(call):
        return (float(len(call.messages[-1].content)),)

    judge = ScriptedPool({"r": reward}, fields={"r": {"recipe": object()}})
    pool = council()
    outcome = blend(pool, ranker="reward_model", reward_model=as_plugin(judge), fuse=False)
    reply = outcome.replies["q"]
    assert reply.meta["model"] == "y" and reply.meta["ranking"]["scores"] == [
        -26.0,
        28.0,
        -2.0,
    ]  # 2 * sums of differences
    assert len(judge.history) == 3 and outcome.calls_per_question["q"] == 6


# ---------------------------------------------------------------- what is learnt from dev


WORDS = ("good", "poor", "bad")


def says(word: str):
    """A model whose replies to most questions are marked by a word; the marked-good ones are right."""
    return lambda call: f"{word}: the answer is {'right' if word == 'good' else call.model}"


def examples(count: int, prefix: str = "d") -> list[Example]:
    return [
        Example(question=Question(id=f"{prefix}{i}", prompt=f"Question {prefix}{i}?"), references=("right",))
        for i in range(count)
    ]


def marked(text: str) -> bool:
    return "good:" in text


def taught(lesson, before):
    """What a ranker makes of separable pairs from its second epoch on; a fuser learns to write the gold answer."""
    stage, first = lesson.get("stage"), lesson["rows"][0]

    def script(call):
        if lesson["service"] == "rank":
            _, a, b = re.split(r"\n\n(?:First|Second) reply:\n", call.transcript)
            return (5.0 + marked(a), 4.0 + marked(b))
        if judging(call) and stage != 1:
            a, b = quoted(call.prompt)
            return "A" if marked(a) else "B" if marked(b) else "?"
        if fusing(call) and "Candidate answers" in first["messages"][-2]["content"]:
            return "trained, the answer is right"
        return before(call)

    return script


def separable(judges=lambda a, b: "A", **keywords) -> ScriptedPool:
    scripts = {f"m{i}": member(says(word), judges=judges) for i, word in enumerate(("bad", "good", "poor"))}
    return ScriptedPool(scripts, **{"learn": taught, **keywords})


DEV, TEST = examples(10), [e.question for e in examples(3, "t")]


def mixed() -> ScriptedPool:
    """Models that are good in turn: no single model is best everywhere, and only the mark tells."""

    def turn(i):
        def say(call):
            number = int(re.findall(r"Question \w(\d+)", call.transcript)[-1])
            return says("good" if number % 3 == i else "bad")(call)

        return say

    return ScriptedPool({f"m{i}": member(turn(i)) for i in range(3)}, learn=taught)


@pytest.mark.parametrize("options", [{"ranker": "pair_head"}, {"train_ranker": True}])
def test_a_trained_ranker_beats_the_untrained_judge_on_separable_replies(options):
    untrained = blend(mixed(), dev=DEV, questions=TEST, fuse=False)
    outcome = blend(mixed(), dev=DEV, questions=TEST, fuse=False, ranker_epochs=3, **options)
    right = [sum("right" in text for text in found.texts.values()) for found in (untrained, outcome)]
    assert right == [1, 3]
    found = outcome.noted("ranking")
    assert (found["top1"], found["top_score"], found["position_bias"] is None) == (1.0, 1.0, False)
    before = untrained.noted("ranking")
    assert before["top1"] < 1 and before["position_bias"] == 1.0 and before["same_place"] == 1.0
    assert before["spearman"] is None  # all its scores are equal
    if "train_ranker" in options:
        assert outcome.noted("pair_accuracy") == {"m0": 0.5, "m0-ranker@1": 0.5, "m0-ranker@2": 1.0, "m0-ranker": 1.0}
        assert outcome.noted("ranking_untrained")["position_bias"] == 1.0
        assert found["spearman"] == 1.0 and found["position_bias"] == 0.0
    else:
        assert found["position_bias"] == 1.0  # the head's favourite place, which changed nothing
        assert outcome.state["trained_ranker"]["name"] == "m0-ranker"


def test_pairs_are_trained_on_in_both_orders_and_held_out_questions_are_not():
    pool = separable()
    blend(pool, dev=DEV, questions=(), train_ranker=True, pairs_per_question=1, ranker_epochs=2)
    ((_, job),) = pool.trainings
    labels = [row.messages[-1].content for row in job.rows]
    assert len(labels) == 2 * 8 and labels.count("A") == labels.count("B")
    asked = [row.messages[0].content for row in job.rows]
    assert all((marked(quoted(p)[0])) is (label == "A") for p, label in zip(asked, labels, strict=True))
    seen = {re.findall(r"Question (d\d+)", p)[0] for p in asked}
    assert len(seen) == 8
    judged = [c for c in pool.history if judging(c) and "-ranker" in c.model]
    assert {re.findall(r"Question (d\d+)", c.prompt)[0] for c in judged} == {e.id for e in DEV} - seen
    both = separable()
    blend(both, dev=DEV, ranker="pair_head", ranker_epochs=2)
    ((_, job),) = both.trainings
    assert job.both_orders and {(row.a[:4], row.b[:4], row.label) for row in job.rows} <= {
        ("bad:", "good", 0.0), ("good", "poor", 1.0)
    }  # fmt: skip
    assert (job.lora.r, job.rate, job.epochs, job.keep) == (16, 1e-5, 2, 2)


def test_a_dev_without_pairs_trains_nothing_and_says_so():
    pool = ScriptedPool({f"m{i}": member(f"the answer is {i}") for i in range(3)}, learn=taught)
    outcome = blend(pool, dev=DEV, ranker="pair_head", fuse=False)
    assert any("no dev question has two replies of different scores" in text for text in outcome.warnings)
    assert pool.trainings == [] and outcome.replies["q"].meta["model"] == "m0"


def test_a_fuser_is_trained_on_the_prompts_it_is_asked_with_and_on_gold_answers():
    pool = mixed()
    outcome = blend(pool, dev=DEV, questions=TEST, train_fuser=True, fuser_epochs=2)
    ((name, job),) = pool.trainings
    assert (name, job.keep_best, job.rate, len(job.rows), len(job.held_out)) == ("m0", True, 5e-5, 8, 2)
    assert {row.messages[-1].content for row in job.rows} == {"The answer is right."}
    asked = [c.prompt for c in pool.history if c.model == "m0-fuser"]
    strip = re.compile(r"Question \w\d+\?|<quote>\n.*?\n</quote>", re.DOTALL)
    shapes = {re.sub(r"Candidate 3:\n", "", strip.sub("", row.messages[-2].content)).strip() for row in job.rows}
    assert {re.sub(r"Candidate 3:\n", "", strip.sub("", p)).strip() for p in asked} <= shapes
    assert set(outcome.texts.values()) == {"trained, the answer is right"}
    assert {r.meta["model"] for r in outcome.replies.values()} == {"m0-fuser"}


def test_a_heads_ranking_of_a_fusers_training_comes_from_the_other_half():
    pool = separable()
    blend(pool, dev=DEV, ranker="pair_head", ranker_epochs=2, train_fuser=True, fuser_epochs=1)
    ranks = [job for _, job in pool.trainings if job.service == "rank"]
    assert len(ranks) == 3  # the one that answers, and one for each half
    ids = [{row.query for row in job.rows} for job in ranks]
    assert not ids[1] & ids[2] and ids[1] | ids[2] == ids[0]
    for half, others in ((1, 2), (2, 1)):
        read = {
            re.findall(r"Question d\d+\?", c.transcript)[0] for c in pool.history if c.model == f"m1-ranker-half{half}"
        }
        assert read == ids[others]


def test_without_a_form_of_the_gold_answer_the_best_reply_is_the_target():
    pool = mixed()
    dev = [attrs.evolve(e, references=()) for e in DEV]
    blend(pool, dev=dev, questions=(), train_fuser=True, fuser_epochs=1)
    ((_, job),) = pool.trainings
    assert {row.messages[-1].content[:4] for row in job.rows} <= {"good", "bad:"}


def test_trained_systems_are_saved_and_answer_alike():
    method = LlmBlender(
        build(
            Options,
            {"ranker": "pair_head", "ranker_epochs": 2, "train_fuser": True, "fuser_epochs": 1, "dev_sample": 4},
        )
    )
    given = {"dev": DEV, "questions": TEST, "sampling": GREEDY}
    outcome, again = run_method(method, mixed(), **given), run_method(method, mixed(), reload_with=method, **given)
    assert again.texts == outcome.texts
    assert {k: r.meta for k, r in again.replies.items()} == {k: r.meta for k, r in outcome.replies.items()}
    assert outcome.files == ("fuser/scripted.json", "ranker/scripted.json")
    assert outcome.calls["fit"] <= method.cost(3, 10).fit


def test_dev_calls_are_those_that_are_predicted():
    method = LlmBlender(build(Options, {"verdict": "text", "dev_sample": 4}))
    outcome = run_method(method, council(), dev=DEV, questions=[QUESTION], sampling=GREEDY)
    assert outcome.calls["fit"] == method.cost(3, 10).fit == 30 + 4 * 6
    assert outcome.calls_per_question["q"] == method.cost(3, 10).respond == 3 + 6 + 1
    assert LlmBlender(Options(aggregation="bubble")).cost(5, 0).respond == 5 + 8
    assert LlmBlender(Options(orders=1)).cost(5, 0).respond == 5 + 10 + 1


def test_the_plan_tells_the_tokens_of_training():
    pool = ScriptedPool(dict.fromkeys("abc", "x"), fields={n: {"context_length": 1000} for n in "abc"}).pool

    def tokens(**options):
        return LlmBlender(build(Options, options)).cost_on(pool, 10, GREEDY).train_tokens

    assert tokens() == 0
    assert tokens(train_ranker=True) == 2 * 5 * 8 * 5 * 1000  # orders, pairs, questions, epochs, length
    assert tokens(train_fuser=True) == 8 * 15 * 1000
    assert tokens(ranker="pair_head", train_fuser=True) == 2 * 2 * 5 * 8 * 5 * 1000 + 8 * 15 * 1000


# ---------------------------------------------------------------- bad input, and killed


def test_bad_options_are_told_in_one_line():
    pool = ScriptedPool(dict.fromkeys(["alpha", "beta"], "x"), capabilities=frozenset({"generate"}))

    def problem(**options):
        return "\n".join(LlmBlender(build(Options, options)).needs().problems(pool.pool))

    assert "no model 'alfa'" in problem(judge="alfa") and "did you mean 'alpha'" in problem(fuser="alfa")
    assert "judge: alpha, beta cannot be it (capability 'train')" in problem(ranker="pair_head")
    assert "judge: beta cannot be it (capability 'score')" in problem(verdict="logprobs", judge="beta")
    assert "fuser: alpha, beta cannot be it (capability 'train')" in problem(train_fuser=True)
    assert "reward_model: expected a pool of one model" in problem(ranker="reward_model", reward_model=as_plugin(pool))
    assert problem() == ""
    with pytest.raises(ConfigError, match="reward_model: missing"):
        build(Options, {"ranker": "reward_model"})
    with pytest.raises(ConfigError, match="trains on dev and there are no dev examples"):
        blend(council(), train_fuser=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fit_that_was_killed_between_its_trainings_trains_and_asks_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setattr("moco_core.runtime.claims.LEASE", 0.5)  # what the killed process was asking is soon free

    class Deadly(LastWord):
        left = 3 * len(DEV)

        def score(self, example, reply, context):
            Deadly.left -= 1
            if Deadly.left < 0:  # the first gold answer, for the fuser: the ranker is trained by then
                os.kill(os.getpid(), signal.SIGKILL)
            return super().score(example, reply, context)

    options = {
        "ranker": "pair_head",
        "ranker_epochs": 2,
        "train_fuser": True,
        "fuser_epochs": 1,
        "judge": 0,
        "fuser": 0,
    }

    def run(pool, metric=LastWord, cache=None):
        method = LlmBlender(build(Options, options))
        return run_method(method, pool, dev=DEV, sampling=GREEDY, cache=cache, metric=metric(NoOptions()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons dislike forks
        child = os.fork()
    if child == 0:
        try:
            run(mixed(), Deadly, Cache(tmp_path / "calls.sqlite"))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    pool = mixed()
    assert run(pool, cache=Cache(tmp_path / "calls.sqlite")).state == run(mixed()).state
    assert [job.service for _, job in pool.trainings] == ["sft"]  # the rankers are there
    assert {call.kind for call in pool.history} <= {"reward"}


def test_a_judge_reads_the_question_from_its_end_where_it_is_too_long():
    long = attrs.evolve(QUESTION, prompt="w " * 5000 + "Which is it?")
    pool = council()
    judge = JudgeRanker(model=pool.pool[0], options=Options(source_tokens=50), scored=False)
    (message,) = judge.messages(long, "one", "two")
    assert QUESTION.answer_format in message.content and len(message.content) < 400
