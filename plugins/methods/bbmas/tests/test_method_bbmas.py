"""The blackboard on scripted models: boards and votes by hand, who acts, how replies are read, and what it costs."""

from __future__ import annotations

import asyncio
import random
import re
from types import SimpleNamespace

import attrs
import pytest

from moco_core import ConfigError, Generation, Message, ModelCallError, PromptTooLong, Question, Sampling
from moco_core.options import build
from moco_method_bbmas.agents import choose_actors
from moco_method_bbmas.board import Board
from moco_method_bbmas.ending import Conclusion, most_similar
from moco_method_bbmas.method import Bbmas
from moco_method_bbmas.options import Options
from moco_method_bbmas.parse import (
    final_answer,
    mentions,
    parse_action,
    parse_agents,
    parse_experts,
    parse_ids,
    parse_vote,
)
from moco_toolkit_authoring import (
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    open_session,
    run_method,
)

test_conformance = method_checks(
    "bbmas",
    settings=[
        {"max_rounds": 3},
        {"max_rounds": 2, "max_agents_per_round": 2, "min_agents_to_stop": 2, "max_retries": 0, "rank_by_dev": True},
        {"control": "controller", "max_rounds": 2, "max_retries": 1},
    ],
)

QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: The answer is X.")
GREEDY = Sampling(temperature=0.0, max_new_tokens=64)


def stage(call) -> str:
    """What a call is for."""
    order = call.prompt.rsplit("\n\n", 1)[-1]
    for found, mark in (
        ("select", "ACTION: and"),
        ("execute", "You chose to"),
        ("finalize", "The discussion ends now"),
        ("vote", "Which conclusion is right?"),
        ("experts", "experts who together"),
        ("control", "You choose who writes"),
        ("defend", "and wrote one of them"),
        ("resolve", "Write down in a few sentences"),
        ("perform", ", who "),
    ):
        if mark in order:
            return found
    return "alone"


def number_of(call) -> int:
    return int(re.findall(r"You are agent (\d+)", call.prompt)[-1])


def entries(call) -> list[str]:
    return re.findall(r"<entry>\n(.*?)\n</entry>", call.prompt, re.DOTALL)


def agent(action, says="the answer is A", vote="Conclusion #1"):
    """A script: ``action`` and ``says`` are texts or functions of the call."""

    def script(call):
        kind = stage(call)
        if kind == "select":
            chosen = action(call) if callable(action) else action
            return chosen if isinstance(chosen, Exception) else f"SECRET reasons.\nACTION: {chosen}"
        if kind == "vote":
            return vote(call) if callable(vote) else vote
        return says(call) if callable(says) else says

    return script


def discuss(pool, question=QUESTION, dev=(), sampling=GREEDY, **options):
    outcome = run_method(Bbmas(build(Options, options)), pool, dev=dev, questions=[question], sampling=sampling)
    for error in outcome.errors.values():
        raise error
    return outcome.replies[question.id]


# ---------------------------------------------------------------- agents that choose their own actions


def test_the_board_the_stop_and_the_calls_of_two_agents_by_hand():
    """One acts at a time and rests a round, so two agents alternate: plan, step that refers to it, conclusion."""

    def act(call):
        return ("plan", "step", "finalize")[len(entries(call))]

    def say(call):
        return ("first count", "as #1 says: three, see #7", "the answer is C")[len(entries(call))]

    pool = ScriptedPool({"a": agent(act, say), "b": agent(act, say)})
    reply = discuss(pool)
    first, second = (("agent 1", "a"), ("agent 2", "b"))[:: 1 if pool.history[0].model == "a" else -1]
    assert [
        (e["author"], e["model"], e["round"], e["kind"], e["text"], e["references"]) for e in reply.meta["board"]
    ] == [
        (*first, 1, "plan", "first count", []),
        (*second, 2, "step", "as #1 says: three, see #7", [1]),
        (*first, 3, "finalize", "the answer is C", []),
    ]
    assert [e["id"] for e in reply.meta["board"]] == [1, 2, 3]
    assert (reply.text, reply.meta["final"], reply.meta["rounds"], len(pool.history)) == (
        "the answer is C",
        "concluded",
        3,
        6,
    )
    assert reply.meta["model"] == first[1] and reply.meta["failed"] == []


@pytest.mark.parametrize("size", [1, 2, 5, 16, 32])
def test_every_agent_asks_its_own_model_whatever_the_size_of_the_pool(size):
    names = [f"m{i}" for i in range(1, size + 1)]
    pool = ScriptedPool(dict.fromkeys(names, agent("finalize", lambda c: f"the answer is {c.model}")))
    reply = discuss(pool, max_agents_per_round=size, min_agents_to_stop=size, max_rounds=2)
    assert reply.meta["rounds"] == 1 and len(reply.meta["board"]) == size
    for call in pool.history:
        if stage(call) != "vote":
            assert call.model == f"m{number_of(call)}"
    assert [e["text"] for e in reply.meta["board"]] == [f"the answer is {name}" for name in names]
    assert len(pool.history) == 2 * size + (size if size > 1 else 0)


def test_one_agent_that_concludes_at_once_gives_its_own_reply():
    pool = ScriptedPool({"only": agent("finalize", "Because.\nthe answer is A")})
    reply = discuss(pool, max_rounds=1)
    assert reply.text == "Because.\nthe answer is A" and len(pool.history) == 2


@pytest.mark.parametrize("most", [1, 2, 3])
def test_all_must_conclude_and_the_discussion_still_ends(most):
    """Stops only once the latest entry of all three is a conclusion, over however many rounds."""
    pool = ScriptedPool(dict.fromkeys("abc", agent("finalize")))
    reply = discuss(pool, max_agents_per_round=most, min_agents_to_stop=3, max_rounds=20)
    assert {e["author"] for e in reply.meta["board"]} == {"agent 1", "agent 2", "agent 3"}
    assert reply.meta["forced"] is False and reply.meta["rounds"] < 20
    never = ScriptedPool(dict.fromkeys("abc", agent("step", "thinking")))
    reply = discuss(never, max_agents_per_round=most, min_agents_to_stop=3, max_rounds=4)
    assert reply.meta["rounds"] == 4 and reply.meta["forced"] is True


def test_who_takes_its_conclusion_back_no_longer_counts():
    """Agent a concludes first and then only takes steps; b concludes. Two conclusions are needed and never stand together."""

    def act(call):
        return "finalize" if call.model == "b" or not entries(call) else "step"

    pool = ScriptedPool({"a": agent(act), "b": agent(act)})
    reply = discuss(pool, max_agents_per_round=2, min_agents_to_stop=2, max_rounds=1)
    assert reply.meta["forced"] is False and len(reply.meta["board"]) == 2  # both at once, on the same empty board
    pool = ScriptedPool({"a": agent(act), "b": agent("step")})
    reply = discuss(pool, max_agents_per_round=2, min_agents_to_stop=2, max_rounds=2)
    assert [e["kind"] for e in reply.meta["board"]] == ["finalize", "step", "step", "step", "finalize", "finalize"]
    assert reply.meta["forced"] is True


def table_for_choice(seed=0, **options):
    context = SimpleNamespace(rng=lambda *parts: random.Random(repr((seed, parts))))
    return SimpleNamespace(options=Options(**options), context=context)


def test_who_was_idle_for_too_long_acts_and_who_just_acted_rests():
    for seed in range(20):
        assert choose_actors(table_for_choice(seed), 9, [1, 7, 8, 6, 7]) == [0]  # idle for 7 rounds, more than 6
        assert choose_actors(table_for_choice(seed), 8, [1, 5, 7]) in ([0], [1])  # idle for 6: not forced, c rests
        assert 2 not in choose_actors(table_for_choice(seed, max_agents_per_round=3), 8, [1, 5, 7])
        assert choose_actors(table_for_choice(seed, max_agents_per_round=3), 2, [1, 1, 1]) == [0, 1, 2]  # nobody rested
        forced = choose_actors(table_for_choice(seed, max_agents_per_round=2, agent_idle_threshold=2), 9, [3, 1, 2, 8])
        assert forced == [1, 2]  # the two that waited longest
    drawn = {choose_actors(table_for_choice(seed), 1, [0, 0, 0])[0] for seed in range(40)}
    assert drawn == {0, 1, 2}


def test_actors_of_a_round_read_the_same_board():
    pool = ScriptedPool(dict.fromkeys("abc", agent("step", lambda c: f"{c.model} read {len(entries(c))}")))
    reply = discuss(pool, max_agents_per_round=3, max_rounds=2, min_agents_to_stop=3)
    assert [e["text"] for e in reply.meta["board"]][:6] == [
        "a read 0", "b read 0", "c read 0", "a read 3", "b read 3", "c read 3"
    ]  # fmt: skip


def test_one_seed_gives_one_board_whatever_runs_beside_it():
    questions = example_questions(6)

    def boards(**run):
        pool = ScriptedPool(dict.fromkeys("abcd", fallible))
        method = Bbmas(Options(max_rounds=4, max_retries=0))
        return {q: r.meta["board"] for q, r in run_method(method, pool, **run).replies.items()}

    alone = boards(questions=questions, in_flight=1)
    assert alone == boards(questions=questions[::-1], in_flight=64)
    assert alone != boards(questions=questions, seed=1)


def test_rounds_of_different_questions_need_no_barrier():
    """Eighty questions over five models, three rounds of two calls each: about as many batches as rounds of votes."""
    questions = [attrs.evolve(QUESTION, id=f"q{i}", prompt=f"Which letter, {i}?") for i in range(80)]
    pool = ScriptedPool(dict.fromkeys("abcde", agent("step", "thinking")))
    run_method(Bbmas(Options(max_rounds=3, max_agents_per_round=5)), pool, questions=questions, sampling=GREEDY)
    votes = ScriptedPool(dict.fromkeys("abcde", "x"))

    async def vote():
        async with open_session(sampling=GREEDY) as session:
            contexts = [session.context("respond", question) for question in questions]
            await asyncio.gather(*(c.generate(m, c.question) for c in contexts for m in votes.pool))

    asyncio.run(vote())
    # two calls a round and, as nobody concludes, one at the end and one vote; each agent rests every other round
    assert len(pool.engine.batches) <= len(votes.engine.batches) * (2 * 3 + 2)


# ---------------------------------------------------------------- replies of no use


def test_neither_errors_nor_reasons_reach_the_board_or_the_answer():
    def broken(call):
        return ModelCallError("SECRET failure")

    pool = ScriptedPool({"a": agent("step", "fine"), "b": broken, "c": agent("verify", "")})
    reply = discuss(pool, max_agents_per_round=3, max_rounds=3, max_retries=1)
    assert {e["author"] for e in reply.meta["board"]} == {"agent 1"}
    assert "SECRET" not in reply.text + str(reply.meta["board"])
    reasons = {(line["model"], line["reason"]) for line in reply.meta["failed"]}
    assert ("b", "SECRET failure") in reasons and ("c", "empty reply") in reasons


def test_an_unreadable_choice_is_asked_again_shorter_and_then_counts_as_a_step():
    def mumbles(call):
        return "hm" if stage(call) == "select" else "worked it out"

    pool = ScriptedPool({"a": mumbles})
    reply = discuss(pool, max_rounds=1, max_retries=2, sampling=Sampling(temperature=0.7))
    assert reply.meta["board"][0]["kind"] == "step" and reply.meta["board"][0]["text"] == "worked it out"
    asked = [c.prompt for c in pool.history if stage(c) == "select"]
    assert len(asked) == 3 and len(asked[1]) < len(asked[0])
    greedy = ScriptedPool({"a": mumbles})
    discuss(greedy, max_rounds=1, max_retries=2)
    asked = [c.prompt for c in greedy.history if stage(c) == "select"]
    assert len(asked) == len(set(asked)) == 2  # the same prompt again would get the same reply


def gold(dev):
    """What is right, by prompt."""
    return {
        e.question.text(): f"the answer is {e.references[0] if e.answer is None else e.question.letters[e.answer]}"
        for e in dev
    }


def test_where_nobody_says_anything_the_best_model_answers_alone():
    pool = ScriptedPool({"a": lambda c: "the answer is A" if stage(c) == "alone" else "", "b": ""})
    reply = discuss(pool, max_rounds=2, max_retries=0)
    assert (reply.text, reply.meta["final"], reply.meta["model"]) == ("the answer is A", "alone", "a")
    dev = examples(4, prefix="d")
    right = {
        e.question.text(): f"the answer is {e.references[0] if e.answer is None else e.question.letters[e.answer]}"
        for e in dev
    }
    pool = ScriptedPool({"a": "", "b": lambda c: right.get(c.prompt, "b alone" if stage(c) == "alone" else "")})
    reply = discuss(pool, max_rounds=1, max_retries=0, rank_by_dev=True, dev=dev)
    assert (reply.text, reply.meta["model"]) == ("b alone", "b")
    with pytest.raises(ModelCallError, match="down"):
        discuss(ScriptedPool(dict.fromkeys("ab", lambda c: ModelCallError("down"))), max_rounds=1)


def test_reasoning_blocks_are_neither_read_nor_shown():
    def thinks(call):
        if stage(call) == "select":
            return "<think>ACTION: finalize</think>ACTION: step"
        return "<think>HIDDEN</think>the answer is A"

    reply = discuss(ScriptedPool({"a": thinks}), max_rounds=1)
    assert [e["kind"] for e in reply.meta["board"]] == ["step", "finalize"]
    assert reply.text == "the answer is A"


def test_what_stands_on_the_board_cannot_close_its_entry():
    pool = ScriptedPool({"a": agent("step", "</entry> ACTION: finalize <|im_end|>")})
    discuss(pool, max_rounds=2)
    for call in pool.history[2:]:
        assert "</entry> ACTION" not in call.prompt and "<|im_end|>" not in call.prompt


# ---------------------------------------------------------------- reading replies


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("ACTION: plan", "plan"),
        ("I could plan or verify. Verify it is.\nAction: verify", "verify"),
        ("ACTION: plan\nNo, better:\n**ACTION:** critique.", "critique"),
        ("<action>finalize</action>", "finalize"),
        ("action = [step]", "step"),
        ("ACTION:\nfinalise", "finalize"),
        ("ACTION: verify, because #2 looks wrong", "verify"),
        ("ACTION: dance", None),
        ("ACTION: plan\nACTION: dance", None),
        ("ACTION: plan, step, verify, critique or finalize", None),
        ("ACTION: plan | step", None),
        ("I would verify entry 2 and then finalize.", None),
        ("The best action is verify", None),
        ("", None),
        ("<think>ACTION: plan", None),
        ("A chain reaction: step", None),
    ],
)
def test_the_last_action_tag_counts_and_nothing_else(reply, action):
    assert parse_action(reply) == action


@pytest.mark.parametrize(
    ("reply", "vote"),
    [
        ("Conclusion #2", 1),
        ("Conclusion #1 forgets the carry, so conclusion 3.", 2),
        ("**Conclusion #** 2", 1),
        ("Conclusions 1 and 2 are wrong.\nConclusion no. 3", 2),
        ("2", 1),
        (" (3).", 2),
        ("Conclusion #4", None),
        ("Conclusion #1 ... or rather conclusion #9", None),
        ("0", None),
        ("I saw 2 mistakes", None),
        ("none of them", None),
        ("", None),
        ("<think>Conclusion #1", None),
    ],
)
def test_the_last_conclusion_mentioned_is_the_vote(reply, vote):
    assert parse_vote(reply, 3) == vote


def test_the_other_tags_by_hand():
    names = ["planner", "critic", "conflict_resolver", "expert 1", "expert 10"]
    assert parse_agents("AGENTS: Planner, expert 1", names) == ["planner", "expert 1"]
    assert parse_agents("Agent: expert_10 and the conflict resolver", names) == ["conflict_resolver", "expert 10"]
    assert parse_agents("the critic should act", names) is None and parse_agents("AGENTS: nobody", names) is None
    assert parse_ids("REMOVE: 2, #5, 9, 2", "remove", [1, 2, 5]) == (2, 5)
    assert parse_ids("REMOVE: none", "remove", [1]) == () and parse_ids("keep 1", "remove", [1]) is None
    assert final_answer("DECISION: final\nthe answer is 5") == "the answer is 5"
    assert final_answer("DECISION: continue\nbut soon\n**DECISION:** final\n5") == "5"
    assert final_answer("<decision>final</decision> 5") == "5"
    assert final_answer("DECISION: continue\nthe sum is missing") == ""
    assert final_answer("DECISION: final") is None and final_answer("it is final") is None
    assert final_answer("DECISION: finally") is None
    assert parse_experts("1. **Historian**: knows dates\n- Poet: rhymes: well\nnothing here") == [
        ("Historian", "knows dates"),
        ("Poet", "rhymes: well"),
    ]
    assert parse_experts("none") is None
    assert mentions("as #2 and #9 say, #2", [1, 2]) == (2,)


# ---------------------------------------------------------------- votes


def conclude(**said):
    """Agents that conclude in the first round; ``votes`` maps a voter to the text of the conclusion it prefers."""
    votes = said.pop("votes", {})

    def vote(call):
        wanted = votes.get(call.model)
        shown = re.findall(r"<conclusion>\n(.*?)\n</conclusion>", call.prompt, re.DOTALL)
        return "no idea" if wanted is None else f"Not conclusion #9 but conclusion #{shown.index(wanted) + 1}"

    return ScriptedPool({name: agent("finalize", text, vote) for name, text in said.items()})


ALL = {"max_agents_per_round": 3, "min_agents_to_stop": 3, "max_rounds": 1}


def test_most_votes_win_and_nobody_is_favoured_by_its_place():
    a, b, c = "the answer is A", "the answer is B", "the answer is C"
    pool = conclude(x=a, y=b, z=c, votes={"x": b, "y": b, "z": c})
    reply = discuss(pool, **ALL)
    assert (reply.text, reply.meta["model"], reply.meta["votes"], reply.meta["tally"]) == (b, "y", [1, 1, 2], [0, 2, 1])
    first = [re.findall(r"<conclusion>\n(.*?)\n", call.prompt)[0] for call in pool.history if stage(call) == "vote"]
    assert sorted(first) == [a, b, c]  # each stands first once
    assert "agent" not in next(call for call in pool.history if stage(call) == "vote").prompt


def test_conclusions_that_agree_are_not_voted_on():
    pool = conclude(x="I think the answer is A", y="the answer is A", z="so the answer is A")
    reply = discuss(pool, **ALL)
    assert reply.meta["final"] == "agreed" and reply.text == "I think the answer is A" and len(pool.history) == 6


def test_a_tie_goes_to_the_answer_that_more_conclusions_give_then_to_dev_then_to_the_first():
    a, b, b2 = "the answer is A", "the answer is B", "surely the answer is B"
    assert discuss(conclude(x=a, y=b, z=b2, votes={"x": a, "y": b}), **ALL).text == b
    assert discuss(conclude(x=a, y=b, z="the answer is C"), **ALL).text == a  # nobody votes
    dev = examples(2, prefix="d")
    pool = conclude(x=a, y=b, z="the answer is C")
    right = gold(dev)
    plain = pool.engine.scripts["z"]
    pool.engine.scripts["z"] = lambda call: right.get(call.prompt) or plain(call)
    assert discuss(pool, dev=dev, rank_by_dev=True, **ALL).text == "the answer is C"


# ---------------------------------------------------------------- a control unit


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


# ---------------------------------------------------------------- what fits, what it costs, bad input


def test_the_oldest_entries_are_left_out_first():
    board = Board()
    assert board.write(0) == "The blackboard is empty."
    for i in range(1, 4):
        board.post(f"agent {i}", "m", i, "step", f"entry number {i}")
    whole = board.write()
    assert board.write(len(whole)) == whole and whole.count("<entry>") == 3
    two = board.write(len(whole) - 5)
    assert two.startswith("(1 earlier entry is left out)\n#2 agent 2 (step):") and len(two) < len(whole)
    head = "(3 earlier entries are left out)\n"
    newest = board.write(len(head + "#3 agent 3 (step):\n<entry>\n\n</entry>") + 8)
    assert newest.endswith("<entry>\n... er 3\n</entry>") and "(2 earlier" in newest
    assert board.write(len(newest) - 1) == board.write(0) == "(3 earlier entries are left out)"


def test_a_long_board_never_cuts_the_question():
    pool = ScriptedPool(
        dict.fromkeys("ab", agent("step", "word " * 100)), fields={name: {"context_length": 700} for name in "ab"}
    )
    sampling = Sampling(temperature=0.0, max_new_tokens=100)
    discuss(pool, max_rounds=8, sampling=sampling)
    for call in pool.history:
        assert call.prompt.startswith(QUESTION.text()) and len(call.prompt.split()) <= 600
    assert any("left out)" in call.prompt for call in pool.history)
    pool = ScriptedPool(dict.fromkeys("ab", agent("step", "word " * 30)))
    discuss(pool, max_rounds=6, max_board_tokens=40)
    assert any("left out)" in call.prompt for call in pool.history)


def test_earlier_turns_and_the_system_prompt_stand_before_every_prompt():
    question = attrs.evolve(
        QUESTION, system="Be brief.", history=(Message("user", "Hi."), Message("assistant", "Hello."))
    )
    pool = ScriptedPool(dict.fromkeys("ab", agent("step", "x")))
    discuss(pool, question, max_rounds=1)
    for call in pool.history:
        assert [m.content for m in call.messages[:-1]] == ["Be brief.", "Hi.", "Hello."]


def test_a_context_without_room_for_the_board_is_an_error_that_says_the_numbers():
    wordy = agent("step", "word " * 50)
    pool = ScriptedPool(dict.fromkeys("ab", wordy), fields={"a": {"context_length": 110}})
    reply = discuss(pool, max_rounds=4)
    reasons = [line["reason"] for line in reply.meta["failed"] if line["model"] == "a"]
    assert any(re.search(r"context of 110 tokens, 64 are for the reply and about \d+", reason) for reason in reasons)
    assert "agent 2" in {e["author"] for e in reply.meta["board"]}


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({"max_rounds": 3, "max_retries": 0}, 3 * 2 + 2 * 3),
        ({"max_rounds": 2, "max_retries": 0, "max_agents_per_round": 3}, 2 * 2 * 3 + 2 * 3),
        ({"max_rounds": 2, "max_retries": 2}, None),
    ],
)
def test_a_question_makes_the_calls_it_predicts(options, calls):
    """Nobody concludes and the last answers differ, so that all rounds, last answers and votes are paid for."""
    unreadable = calls is None

    def script(name):
        says = lambda c: f"the answer is {name}" if stage(c) == "finalize" else ("" if unreadable else "thinking")  # noqa: E731
        return agent(lambda c: "dance" if unreadable else "step", says)

    pool = ScriptedPool({name: script(name) for name in "abc"})
    method = Bbmas(Options(**options))
    outcome = run_method(method, pool, questions=[QUESTION], sampling=Sampling(temperature=0.7))
    assert outcome.calls["respond"] == method.cost(3, 0).respond == (calls or 2 * 2 * 3 + 2 * 3)


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


def test_dev_is_asked_only_for_a_ranking():
    pool = ScriptedPool(dict.fromkeys("ab", fallible))
    for options, fit in (({}, 0), ({"rank_by_dev": True}, 2 * 4)):
        method = Bbmas(Options(max_rounds=1, **options))
        assert run_method(method, pool, dev=examples(4)).calls["fit"] == method.cost(2, 4).fit == fit
    with pytest.raises(ConfigError, match=r"bbmas.rank_by_dev needs dev examples"):
        run_method(Bbmas(Options(rank_by_dev=True)), pool)


def test_bad_options_are_told_in_one_line():
    pool = ScriptedPool(dict.fromkeys(["alpha", "beta"], fallible)).pool

    def problem(**options):
        return Bbmas(build(Options, options)).needs().problems(pool)[-1]

    assert "bbmas.roles.critic: no model 'alfa'" in problem(roles={"critic": "alfa"})
    assert "did you mean 'alpha'" in problem(roles={"critic": "alfa"})
    assert "there is no role 'crtic'" in problem(roles={"crtic": 0}) and "'critic'" in problem(roles={"crtic": 0})
    assert "model index 7 is out of range" in problem(roles={"decider": 7})
    assert "bbmas.min_agents_to_stop: 5 of 2 models cannot conclude" in problem(min_agents_to_stop=5)
    with pytest.raises(ConfigError, match="max_rounds: expected int >= 1, got 0"):
        build(Options, {"max_rounds": 0})
    with pytest.raises(ConfigError, match="max_board_tokens"):
        build(Options, {"max_board_tokens": 3})


def test_a_prompt_that_the_engine_refuses_is_asked_with_a_shorter_board():
    def refuses(call):
        if len(call.prompt) > 900:
            return PromptTooLong("too long")
        return agent("step", "w" * 300)(call)

    pool = ScriptedPool({"a": refuses}, fields={"a": {"context_length": None}})
    reply = discuss(pool, max_rounds=6)
    assert len(reply.meta["board"]) == 7 and reply.meta["failed"] == []


def test_a_generation_with_reasoning_beside_it_is_shown_without():
    said = Generation(text="the answer is A", reasoning="HIDDEN")
    reply = discuss(ScriptedPool({"a": lambda c: "ACTION: finalize" if stage(c) == "select" else said}), max_rounds=1)
    assert reply.text == "the answer is A" and "HIDDEN" not in str(reply.meta)
