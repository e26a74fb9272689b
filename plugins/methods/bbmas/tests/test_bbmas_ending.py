"""How a discussion ends: votes on conclusions, or the conclusion most like the others."""

from __future__ import annotations

import re

from bbmas_agents import agent, discuss, gold, stage

from moco_toolkit_authoring import ScriptedPool, examples


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
