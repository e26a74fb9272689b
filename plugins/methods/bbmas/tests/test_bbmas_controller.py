"""A discussion that a control unit leads, by hand: who is called on, what roles do, what it costs."""

from __future__ import annotations

import re

import attrs
import pytest
from bbmas_agents import GREEDY, QUESTION, discuss, entries, stage

from moco_core import Sampling
from moco_core.options import build
from moco_method_bbmas.ending import Conclusion, most_similar
from moco_method_bbmas.method import Bbmas
from moco_method_bbmas.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method


def led(control, **says):
    """One model plays everybody; ``control`` names who acts from the number of entries, ``says`` what a role replies."""

    def script(call):
        kind = stage(call)
        if kind == "experts":
            return says.get("experts", "Counter: counts\nReader: reads\nThinker: thinks")
        if kind == "control":
            return control[min(len(entries(call)), len(control) - 1)]
        if kind == "perform":
            name = (
                re.findall(r"You are the ([\w ]+), who", call.prompt)[-1]
                .replace(" ", "_")
                .replace("expert_", "expert ")
            )
            return says.get(name, f"{name} writes")
        return says.get(kind, "the answer is Z")

    return ScriptedPool({"a": script, "b": script})


def test_a_led_discussion_by_hand():
    """The planner and an expert write, the decider closes: one call for experts, one per control and per role."""
    control = ["AGENTS: planner, expert 2", "AGENTS: expert 1", "AGENTS: decider"]
    pool = led(control, decider="Settled.\nDECISION: final\nthe answer is D")
    reply = discuss(pool, control="controller")
    assert [(e["author"], e["round"], e["kind"], e["text"]) for e in reply.meta["board"]] == [
        ("planner", 1, "plan", "planner writes"),
        ("expert 2", 1, "step", "expert 2 writes"),
        ("decider", 2, "finalize", "the answer is D"),
    ]
    assert (reply.text, reply.meta["final"], len(pool.history)) == ("the answer is D", "decided", 1 + 3 + 2)
    assert [m["duty"] for m in reply.meta["team"]][-3:] == [
        "is Counter: counts",
        "is Reader: reads",
        "is Thinker: thinks",
    ]


def test_roles_play_their_own_models_and_the_others_are_drawn_per_question():
    pool = led(["AGENTS: planner, critic, decider"])
    method = Bbmas(build(Options, {"control": "controller", "max_rounds": 1, "roles": {"planner": "b", "critic": 0}}))
    questions = [attrs.evolve(QUESTION, id=f"q{i}", prompt=f"Which, {i}?") for i in range(12)]
    replies = run_method(method, pool, questions=questions, sampling=GREEDY).replies.values()
    teams = [{m["name"]: m["model"] for m in reply.meta["team"]} for reply in replies]
    assert {(team["planner"], team["critic"]) for team in teams} == {("b", "a")}
    assert {team["decider"] for team in teams} == {team["expert 1"] for team in teams} == {"a", "b"}
    for call in pool.history:
        if "You are the planner" in call.prompt:
            assert call.model == "b"


def test_nobody_named_means_all_experts_and_missing_experts_are_made_up():
    pool = led(["whoever"], experts="Counter: counts")
    reply = discuss(pool, control="controller", max_rounds=1, max_retries=0)
    assert [e["author"] for e in reply.meta["board"]][:3] == ["expert 1", "expert 2", "expert 3"]
    assert [m["duty"] for m in reply.meta["team"]][-3:] == [
        "is Counter: counts",
        *["knows the subject of the question"] * 2,
    ]


def test_the_cleaner_hides_entries_and_the_record_keeps_them():
    control = ["AGENTS: planner, critic", "AGENTS: planner", "AGENTS: cleaner", "AGENTS: critic"]
    pool = led(control, cleaner="REMOVE: 1, 7", planner="old")
    reply = discuss(pool, control="controller", max_rounds=3, max_retries=0)
    board = reply.meta["board"]
    assert [(e["author"], e["kind"], e["references"]) for e in board[:3]] == [
        ("planner", "plan", []), ("critic", "critique", []), ("cleaner", "remove", [1])
    ]  # fmt: skip
    seen = [entries(call) for call in pool.history if stage(call) == "control"]
    assert seen[:3] == [[], ["old", "critic writes"], ["critic writes"]]
    assert [e["text"] for e in board][:2] == ["old", "critic writes"]


def test_a_conflict_is_settled_in_private_and_its_outcome_posted():
    control = ["AGENTS: planner, critic", "AGENTS: conflict_resolver"]
    pool = led(control, conflict_resolver="CONFLICT: 1, 2", defend="mine holds", resolve="the critic is right")
    reply = discuss(pool, control="controller", max_rounds=2, max_retries=0)
    assert [(e["kind"], e["text"], e["references"]) for e in reply.meta["board"][2:3]] == [
        ("resolve", "the critic is right", [1, 2])
    ]
    private = [call for call in pool.history if stage(call) == "defend"]
    assert sorted(re.findall(r"You are the (\w+) and wrote", c.prompt)[0] for c in private) == ["critic", "planner"]
    assert all("mine holds" not in e["text"] for e in reply.meta["board"])
    nothing = led(control, conflict_resolver="CONFLICT: 1")
    discuss(nothing, control="controller", max_rounds=2, max_retries=0)
    assert not [call for call in nothing.history if stage(call) == "defend"]


def test_without_a_decision_the_most_similar_last_answer_is_taken():
    texts = ["red fox runs", "red fox sleeps", "blue whale", "the red fox"]
    said = [Conclusion(author=i, text=text, key=None) for i, text in enumerate(texts)]
    # token F1 sums by hand: 2/3 + 4/5, 2/3 + 4/5, 0, 4/5 + 4/5
    assert most_similar(said, [0.0] * 4) == 3
    assert most_similar(said[:2], [0.0, 1.0]) == 1 and most_similar(said[:2], [1.0, 1.0]) == 0
    keyed = [attrs.evolve(c, key=k) for c, k in zip(said, ["a", "b", "b", None], strict=True)]
    assert most_similar(keyed[:3], [0.0] * 3) == 1  # 2/3 + 1 beats 2/3 and 1
    reply = discuss(led(["AGENTS: planner"]), control="controller", max_rounds=1)
    assert (reply.meta["final"], reply.text) == ("similar", "the answer is Z")


@pytest.mark.parametrize("size", [2, 5, 16, 32])
def test_a_large_team_is_listed_one_line_each(size):
    experts = "\n".join(f"Expert of {i}: knows {i}" for i in range(size))
    pool = led([f"AGENTS: expert {size}"], experts=experts)
    long = Sampling(temperature=0.0, max_new_tokens=512)
    reply = discuss(pool, control="controller", max_rounds=1, num_experts=size, sampling=long)
    (control,) = [call.prompt for call in pool.history if stage(call) == "control"]
    assert re.findall(r"^- expert (\d+): is Expert of (\d+): knows \2$", control, re.MULTILINE) == [
        (str(i + 1), str(i)) for i in range(size)
    ]
    assert reply.meta["board"][0]["author"] == f"expert {size}"


def test_a_led_question_makes_at_most_the_calls_it_predicts():
    everybody = "AGENTS: planner, decider, critic, cleaner, conflict_resolver, expert 1"
    pool = led(
        [everybody],
        cleaner="REMOVE: none",
        decider="DECISION: continue",
        conflict_resolver="CONFLICT: 1, 2, 3, 4, 5, 6",
    )
    method = Bbmas(Options(control="controller", num_experts=1, max_rounds=2, max_retries=0))
    outcome = run_method(method, pool, questions=[QUESTION], sampling=GREEDY)
    # experts; two rounds of control and six roles; a private discussion of the four authors and its outcome; last answers
    assert outcome.calls["respond"] == 1 + 2 * 7 + 4 + 1 + 2 <= method.cost(2, 0).respond
