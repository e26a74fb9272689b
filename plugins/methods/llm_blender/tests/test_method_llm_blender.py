"""LLM-Blender: who is fused, what judges and fuser read, and what is told of bad options; on scripted models."""

from __future__ import annotations

import math
import re

import attrs
import pytest
from blended_replies import QUESTION, TEXTS, blend, council, fusing, judging, longest, member, quoted

from moco_core import ConfigError, Example, Message, ModelCallError
from moco_core.options import build
from moco_core.types import ContinuationScore
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.rankers import JudgeRanker
from moco_toolkit_authoring import ScriptedPool, as_plugin, method_checks

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


def test_a_judge_reads_the_question_from_its_end_where_it_is_too_long():
    long = attrs.evolve(QUESTION, prompt="w " * 5000 + "Which is it?")
    pool = council()
    judge = JudgeRanker(model=pool.pool[0], options=Options(source_tokens=50), scored=False)
    (message,) = judge.messages(long, "one", "two")
    assert QUESTION.answer_format in message.content and len(message.content) < 400
