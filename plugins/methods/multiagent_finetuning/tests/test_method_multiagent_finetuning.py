"""Multi-agent fine-tuning on scripted models: who learns what of a debate, how it ends, and what goes wrong."""

from __future__ import annotations

import re
from collections import Counter

import attrs
import pytest

from moco_core import ConfigError, Example, Message, Question, Sampling
from moco_method_multiagent_finetuning.lessons import Lesson, mixture
from moco_method_multiagent_finetuning.method import MultiagentFinetuning
from moco_method_multiagent_finetuning.options import Options
from moco_toolkit_authoring import Faults, ScriptedPool, examples, fallible, method_checks, run_method
from moco_toolkit_training import Demonstration

test_conformance = method_checks(
    "multiagent_finetuning",
    settings=[
        {"iterations": 2, "min_examples": 1},
        {"rounds": 3, "summarize": False, "w": 1.0, "diversity": "full", "lora_r": 0},
        {"agents": "shared", "num_agents": 4, "train_size": 3, "summarizer": 0},
    ],
)

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
SUMMARY = "Sum up these answers"


def is_summary(call) -> bool:
    return SUMMARY in call.prompt


def turn_of(call) -> int:
    """How often the agent has spoken before."""
    return sum(message.role == "assistant" for message in call.messages)


def says(*answers: str):
    """A model that gives these answers in its turns, whatever it reads, and sums up by the answers it was shown."""

    def script(call):
        if is_summary(call):
            return "They say " + " and ".join(re.findall(r"answer is (\w+)", call.prompt))
        number = turn_of(call)
        return (
            f"{call.model.partition('-')[0]} in turn {number}: the answer is {answers[min(number, len(answers) - 1)]}"
        )

    return script


def dev(count: int, **fields) -> list[Example]:
    return [
        Example(question=Question(id=f"d{q}", prompt=f"Item {q}?", **fields), references=("x",)) for q in range(count)
    ]


def run(pool, examples=None, reload=False, **options):
    given = {"temperature": 0.0, "min_examples": 1, **options}
    return run_method(
        MultiagentFinetuning(Options(**given)),
        pool,
        dev=dev(4) if examples is None else examples,
        questions=[Question(id="t", prompt="Test?")],
        sampling=GREEDY,
        reload_with=MultiagentFinetuning(Options(**given)) if reload else None,
    )


def jobs(pool) -> dict[str, object]:
    """The jobs in the order generator, critic of every agent, by the model's name and what its first row is."""
    return {
        (name, "critic" if len(job.rows[0].turns) and len(job.rows[0].messages) > 2 else "generator"): job
        for name, job in pool.trainings
    }


# ---------------------------------------------------------------- who learns what


def test_every_agent_learns_its_own_words_that_the_majority_upholds_and_nothing_else():
    """a corrects itself to x, b keeps x, c falls to y, d never was there: label x."""
    pool = ScriptedPool({"a": says("y", "x"), "b": says("x"), "c": says("x", "y"), "d": says("x", "x")})
    outcome = run(pool)
    found = jobs(pool)
    assert set(found) == {
        ("a", "critic"), ("b", "generator"), ("b", "critic"), ("c", "generator"), ("d", "generator"), ("d", "critic")
    }  # fmt: skip
    for (name, part), job in found.items():
        assert job.service == "sft" and len(job.rows) == 4
        for row in job.rows:
            texts = [message.content for message in row.messages if message.role == "assistant"]
            turns = range(1 if part == "generator" else 2)
            answers = {"a": "yx", "b": "xx", "c": "xy", "d": "xx"}[name]
            assert texts == [f"{name} in turn {n}: the answer is {answers[n]}" for n in turns]
            learnt = [row.messages[t].content for t in row.turns]
            assert learnt == texts[-1:]
            before = "\n".join(m.content for m in row.messages[: row.turns[0]])
            assert learnt[0] not in before  # no prompt holds its target
    counts = {n["agent"]: (n["generation"], n["corrected"], n["kept"]) for n in outcome.notes if "corrected" in n}
    assert counts == {"a": (0, 4, 0), "b": (4, 0, 4), "c": (4, 0, 0), "d": (4, 0, 4)}
    assert outcome.state["outcome"] == "trained"
    assert {n["agent"]: n["only"] for n in outcome.notes if "only" in n} == {"a": "corrected", "b": "kept", "d": "kept"}


def test_training_shows_the_very_conversations_that_asking_shows():
    pool = ScriptedPool({"a": says("y", "z", "x"), "b": says("x"), "c": says("x")})
    examples = dev(2, system="Be brief.", history=(Message("user", "Hi."), Message("assistant", "Hello.")))
    run(pool, examples, rounds=3, iterations=1)
    asked = {call.messages for call in pool.history if call.kind == "generate" and not is_summary(call)}
    rows = [row for _, job in pool.trainings for row in job.rows]
    assert {len(row.turns) for row in rows} == {1, 2}  # critics of three rounds learn two turns
    for row in rows:
        assert row.messages[0] == Message("system", "Be brief.") and min(row.turns) > 3
        for turn in row.turns:
            assert tuple(row.messages[:turn]) in asked


def test_unanimous_agents_have_nothing_to_correct_and_learn_every_first_answer():
    pool = ScriptedPool(dict.fromkeys("abc", says("x")))
    outcome = run(pool)
    for note in outcome.notes:
        if "corrected" in note:
            assert (note["generation"], note["corrected"], note["kept"]) == (4, 0, 4)
    assert outcome.noted("consensus") == 1.0


def test_answers_count_as_equal_where_the_metric_says_so_and_what_nobody_can_read_is_dropped():
    """The toy metric folds case; the question on which nothing parses has no label."""

    def loud(call):
        return says("X")(call).replace("item", "")

    def silent(call):
        return "no idea" if "Item 1?" in call.transcript else says("x")(call)

    def both(script):
        return lambda call: "no idea" if "Item 1?" in call.transcript else script(call)

    pool = ScriptedPool({"a": both(loud), "b": silent, "c": both(says("y"))})
    outcome = run(pool)
    assert (outcome.noted("questions"), outcome.noted("labelled")) == (4, 3)
    assert {name for name, _ in pool.trainings} == {"a", "b"}
    assert all(len(job.rows) == 3 for _, job in pool.trainings)


@pytest.mark.parametrize(
    ("corrected", "kept", "w", "wanted"),
    [
        (10, 1000, 0.5, (10, 10)),
        (30, 10, 0.5, (10, 10)),
        (10, 1000, 0.2, (10, 40)),
        (7, 7, 0.0, (0, 7)),
        (7, 5, 1.0, (7, 0)),
        (0, 5, 0.5, (0, 5)),
        (4, 0, 0.5, (4, 0)),
        (4, 0, 0.0, (4, 0)),
        (0, 0, 0.5, (0, 0)),
    ],
)
def test_the_mixture_has_the_proportion_that_was_asked_for(corrected, kept, w, wanted):
    import random

    rows = {
        side: [Demonstration.of(f"{side}{i}", "x") for i in range(n)] for side, n in (("c", corrected), ("k", kept))
    }
    found = mixture(Lesson(corrected=rows["c"], kept=rows["k"]), w, random.Random(0))
    sides = Counter(row.messages[0].content[0] for row in found)
    assert (sides["c"], sides["k"]) == wanted and len({row.messages for row in found}) == len(found)


# ---------------------------------------------------------------- iterations, and diversity


def test_the_second_iteration_debates_with_and_goes_on_from_the_models_of_the_first():
    pool = ScriptedPool({"a": says("x"), "b": says("x")}, learn=lambda t, b: lambda c: b(c).replace(":", "+:"))
    outcome = run(pool, iterations=2, reload=True)
    assert [name for name, _ in pool.trainings[4:]] == ["a-generator1", "a-critic1", "b-generator1", "b-critic1"]
    (row,) = {row.messages[-1].content for row in pool.trainings[4][1].rows}
    assert row == "a in turn 0+: the answer is x"
    assert outcome.replies["t"].text == "a in turn 1++: the answer is x"


def of_style(call):
    """Three agents with the same answers in words of their own."""
    if is_summary(call):
        return "all agree"
    words = {"a": "first we add", "b": "counting upwards gives", "c": "surely one sees"}[call.model.partition("-")[0]]
    return f"{words} so the answer is x"


def imitate(taught, before):
    """A trained model says what it was taught most often, the first of equals."""
    said = Counter(row["messages"][-1]["content"] for row in taught["rows"])
    return lambda call: "all agree" if is_summary(call) else said.most_common(1)[0][0]


def test_agents_of_their_own_stay_different_where_one_shared_model_collapses():
    found = {}
    for agents in ("separate", "shared"):
        pool = ScriptedPool(dict.fromkeys("abc", of_style), learn=imitate)
        outcome = run(pool, agents=agents, iterations=3)
        found[agents] = [n["word_dissimilarity"] for n in outcome.notes if "word_dissimilarity" in n]
    assert found["separate"][0] == found["separate"][2] == found["shared"][0] > 0.4
    assert found["shared"][1:] == [0.0, 0.0]
    full = {}
    for agents in ("separate", "shared"):
        pool = ScriptedPool(dict.fromkeys("abc", of_style), learn=imitate)
        outcome = run(pool, agents=agents, iterations=1, diversity="full")
        full[agents] = outcome.noted("embedding_dissimilarity")
        assert outcome.noted("cross_nll") > 0
    assert full["separate"] > 0.1 and full["shared"] == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------- answering


def test_one_round_without_iterations_is_a_majority_vote():
    questions = [e.question for e in examples(12, prefix="v")]
    names = ["a", "b", "c"]
    outcome = run_method(
        MultiagentFinetuning(Options(iterations=0, rounds=1, temperature=0.7, top_p=1.0)),
        ScriptedPool(dict.fromkeys(names, fallible)),
        questions=questions,
    )
    pool = ScriptedPool(dict.fromkeys(names, fallible))
    plugin = pytest.importorskip("moco_method_majority_vote").moco_method()
    voted = run_method(plugin(plugin.Options()), pool, questions=questions)
    assert {k: r.text for k, r in outcome.replies.items()} == {k: r.text for k, r in voted.replies.items()}
    assert outcome.state["outcome"] == "no_iterations"


def test_one_agent_revises_itself():
    pool = ScriptedPool({"a": says("y", "x")})
    outcome = run(pool, iterations=0)
    assert outcome.replies["t"].text == "a in turn 1: the answer is x"
    last = pool.history[-1]
    assert [m.role for m in last.messages] == ["user", "assistant", "user"] and "your own answer" in last.prompt


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        ({"a": ("x", "x"), "b": ("y", "y"), "c": ("y", "z")}, "b in turn 1: the answer is y"),  # y was said more before
        ({"a": ("p", "x"), "b": ("q", "y"), "c": ("r", "z")}, "a in turn 1: the answer is x"),  # nothing decides
        (
            {"a": ("x", "y"), "b": ("x", "z"), "c": ("x", "z")},
            "b in turn 1: the answer is z",
        ),  # the first that holds it
        ({"a": ("x", "?"), "b": ("x", "?"), "c": ("x", "?")}, "a in turn 1: the answer is ?"),  # nobody can be read
    ],
)
def test_the_whole_reply_of_the_first_agent_with_the_winning_answer_is_returned(answers, winner):
    pool = ScriptedPool({name: says(*given) for name, given in answers.items()})
    reply = run(pool, iterations=0).replies["t"]
    assert reply.text == winner and reply.meta.get("unparsed", False) == winner.endswith("?")


def test_critics_read_a_summary_of_the_others_and_their_own_turns_as_a_chat():
    pool = ScriptedPool({"a": says("x"), "b": says("y"), "c": says("z")})
    run(pool, iterations=0)
    asked = {c.model: c for c in pool.history if turn_of(c)}
    summaries = {c.model: c for c in pool.history if is_summary(c)}
    assert set(re.findall(r"answer is (\w)", summaries["a"].prompt)) == {"y", "z"}
    assert re.search("They say (y and z|z and y)", asked["a"].prompt) and "the answer is y" not in asked["a"].prompt
    assert [m.content for m in asked["a"].messages[:2]] == ["Test?", "a in turn 0: the answer is x"]
    plain = ScriptedPool({"a": says("x"), "b": says("y"), "c": says("z")})
    run(plain, iterations=0, summarize=False)
    (call,) = [c for c in plain.history if turn_of(c) and c.model == "a"]
    assert "b in turn 0: the answer is y" in call.prompt and not any(is_summary(c) for c in plain.history)


def test_without_a_summary_critics_read_the_replies_themselves():
    faults = Faults(when=is_summary)
    pool = ScriptedPool({"a": says("x"), "b": says("y")}, faults=faults)
    outcome = run(pool, iterations=0)
    assert any("b in turn 0: the answer is y" in c.prompt for c in pool.history if turn_of(c))
    assert outcome.errors == {}


def test_copies_of_one_model_are_agents_that_draw_each_for_itself():
    pool = ScriptedPool({"only": lambda call: f"the answer is {(call.seed or 0) % 5}"})
    outcome = run(pool, num_agents=4, temperature=1.0, examples=dev(30))
    assert outcome.noted("consensus") < 0.5
    assert {n["agent"] for n in outcome.notes if "corrected" in n} == {f"only-{n}" for n in range(4)}
    assert len({job.fingerprint for _, job in pool.trainings}) == len(pool.trainings)


# ---------------------------------------------------------------- bad input


def test_where_nothing_is_readable_nothing_is_trained_and_the_outcome_says_so():
    pool = ScriptedPool(dict.fromkeys("abc", "no idea"))
    outcome = run(pool, iterations=2)
    assert (
        outcome.state["outcome"] == outcome.replies["t"].meta["outcome"] == "nothing_trained" and pool.trainings == []
    )
    assert "outcome nothing_trained" in outcome.warnings[0] and outcome.replies["t"].meta["unparsed"]


def test_models_with_too_few_examples_stay_as_they_are():
    pool = ScriptedPool({"a": says("x"), "b": says("y", "x")})
    outcome = run(pool, dev(3), min_examples=3)
    assert [name for name, _ in pool.trainings] == ["a", "a", "b"]  # b's generator has nothing
    assert outcome.state["generators"][1] == {"name": "b"}
    assert (
        run(ScriptedPool({"a": says("x"), "b": says("x")}), dev(2), min_examples=3).state["outcome"]
        == "nothing_trained"
    )


def test_a_question_that_no_call_answers_is_left_out_and_told():
    faults = Faults(when=lambda call: "Item 2?" in call.transcript)
    pool = ScriptedPool({"a": says("x"), "b": says("x")}, faults=faults)
    outcome = run(pool)
    assert outcome.warnings == ["multiagent_finetuning: 1 dev questions had no debate: every call failed"]
    assert all(len(job.rows) == 3 for _, job in pool.trainings)


def test_questions_without_a_majority_and_pools_that_cannot_be_trained_are_refused():
    with pytest.raises(ConfigError, match=r"answers of the kind 'open' .dev question 'd0'. cannot be compared"):
        run(ScriptedPool(dict.fromkeys("ab", says("x"))), dev(3, answer_kind="open"))
    with pytest.raises(ConfigError, match="there are none; raise the dev limit, or set iterations=0"):
        run(ScriptedPool(dict.fromkeys("ab", says("x"))), [])
    bare = [attrs.evolve(m, capabilities={"generate"}) for m in ScriptedPool({"a": "x"}).pool]
    assert "cannot be trained" in MultiagentFinetuning(Options()).needs().problems(bare)[0]
    wrong = MultiagentFinetuning(Options(summarizer="q")).needs().problems(ScriptedPool({"a": "x"}).pool)
    assert "summarizer: no model 'q' in the pool" in wrong[0]


def test_the_plan_counts_calls_and_the_tokens_of_training():
    pool = ScriptedPool(dict.fromkeys("abc", says("x")))
    method = MultiagentFinetuning(Options(iterations=2, rounds=3, min_examples=1))
    cost = method.cost_on(pool.pool, 4, GREEDY)
    outcome = run(pool, iterations=2, rounds=3)
    assert cost.fit == outcome.calls["fit"] == 2 * 4 * (3 * 3 + 3 * 2)
    assert cost.respond == outcome.calls["respond"] == 15
    first, whole = 128 + 64, 192 + 2 * (128 + 128)
    assert cost.train_tokens == 4 * 3 * 2 * 2 * (first + whole)
