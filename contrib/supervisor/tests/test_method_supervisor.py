"""A supervised method on scripted models: who is dropped by hand, where a supervisor fails, and what stays untouched."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from moco_core import (
    ConfigError,
    Context,
    Example,
    Method,
    ModelCallError,
    Needs,
    NoOptions,
    Plugin,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_core.catalogue import installed
from moco_core.options import build
from moco_method_supervisor.method import Supervisor, SupervisorSystem
from moco_method_supervisor.options import Options
from moco_method_supervisor.trust import find_bad, suspects, trust_in
from moco_toolkit_authoring import Faults, ScriptedCall, ScriptedPool, as_plugin, examples, method_checks, run_method
from moco_toolkit_authoring.toy import LastWord, able

pytest.importorskip("moco_pool_unreliable", reason="the pool unreliable is not installed")
from moco_pool_unreliable.options import Options as Spoilt
from moco_pool_unreliable.pool import UnreliablePool

test_conformance = method_checks(
    "supervisor",
    settings=[
        {"method": "majority_vote"},
        {"method": "cascade", "by": "reward", "on": "dev"},
        {"method": {"name": "majority_vote", "tie": "order"}, "by": "score"},
        {"method": {"name": "majority_vote", "samples": 2}, "by": "judge", "on": "question", "ratio": 0.9},
        {"method": "majority_vote", "action": "weight", "ratio": 0.95},
        {"method": "cascade", "by": "score", "on": "dev", "action": "weight", "weight": 0.5, "ratio": 1.0},
    ],
)

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
DEV, TEST = examples(8, prefix="d"), examples(8, prefix="t")


def method(name: Any, **options: Any) -> Any:
    plugin = installed()
    return Supervisor(build(Options, {"method": name, **options}, plugins=plugin))


def experts(count: int, share: float = 1.0, **more: Any) -> ScriptedPool:
    return ScriptedPool({f"m{i}": able(share) for i in range(count)}, **more)


def with_bad(pool: ScriptedPool, bad: int, *behaviour: Any, **options: Any) -> UnreliablePool:
    """The last ``bad`` members are bad."""
    names = [m.name for m in pool.models()][len(pool.models()) - bad :] if bad else []
    return UnreliablePool(Spoilt(pool=as_plugin(pool), members=tuple(names), behaviour=behaviour, **options))


def run(method_: Any, pool: Any, **keywords: Any) -> Any:
    given = {"dev": DEV, "questions": [e.question for e in TEST], "sampling": GREEDY, **keywords}
    outcome = run_method(method_, pool, **given)
    for error in outcome.errors.values():
        raise error
    return outcome


def right(outcome: Any) -> list[bool]:
    metric, found = LastWord(NoOptions()), []
    for e in TEST:
        truth = e.references[0] if e.answer is None else e.question.letters[e.answer]
        found.append(metric.read(e.question, outcome.replies[e.id].text).key == truth)
    return found


# ---------------------------------------------------------------- trust, by hand


def of_answers(*answers: str) -> list[list[float]]:
    return [[float(a == b) for b in answers] for a in answers]


def test_trust_is_the_mean_over_the_others_and_is_measured_anew_as_members_go() -> None:
    tables = [of_answers(*"aaabb"), of_answers(*"aaacd")]
    assert trust_in(tables, range(5)) == pytest.approx({0: 1 / 2, 1: 1 / 2, 2: 1 / 2, 3: 1 / 8, 4: 1 / 8})
    assert (
        trust_in(tables, [0, 3]) == {0: 0, 3: 0}
        and trust_in(tables, [2]) == {2: 1}
        and trust_in([], [0, 1]) == {0: 1, 1: 1}
    )
    assert suspects({0: 0.5, 1: 0.35, 2: 0.34}, 0.7) == {2: 0.68} and suspects({0: 0.0, 1: 0.0}, 0.7) == {}
    bad, told = find_bad([of_answers(*"aaabb")], range(5), 0.7, lambda bad: True)
    # member 4 goes with 1 vote of 4 where others have 2, then 3 with none of 3; the rest agree
    assert (bad, told) == ({4: 1 / 2, 3: 0}, pytest.approx({0: 1, 1: 1, 2: 1, 3: 0, 4: 1 / 4}))


def test_a_suspect_that_cannot_be_spared_stays_and_the_next_one_goes() -> None:
    assert find_bad([of_answers(*"aaabc")], range(5), 0.7, lambda bad: len(bad) <= 1)[0] == {4: 0}
    assert find_bad([of_answers(*"aaabc")], range(5), 0.7, lambda bad: 4 not in bad)[0] == {3: 0}


# ---------------------------------------------------------------- nobody is bad


@pytest.mark.parametrize("name", ["majority_vote", "cascade"])
def test_where_nobody_is_suspected_replies_records_and_calls_are_the_methods_own(name: str) -> None:
    plain, watched = experts(3), experts(3)
    bare = run(installed_method(name), plain)
    outcome = run(method(name), watched, reload_with=method(name))
    for key, reply in bare.replies.items():
        told = {"dropped": [], "trust": {"m0": 1.0, "m1": 1.0, "m2": 1.0}, "replaced": []}
        assert outcome.replies[key] == attrs.evolve(reply, meta={**reply.meta, "supervisor": told})
    assert outcome.state["inner"] == bare.state
    assert {str(c) for c in plain.history} <= {str(c) for c in watched.history}
    assert outcome.noted("dropped") == []


def installed_method(name: str) -> Any:
    held: Plugin = method(name).options.method
    return held.make()


def test_sampled_replies_of_a_supervised_vote_are_those_of_the_vote() -> None:
    hot = {"sampling": attrs.evolve(GREEDY, temperature=0.7)}
    for options in ({"name": "majority_vote"}, {"name": "majority_vote", "samples": 2}):
        bare = run(installed_method(options), experts(3, 0.6), **hot)
        assert run(method(options, ratio=0.0), experts(3, 0.6), **hot).texts == bare.texts


# ---------------------------------------------------------------- somebody is


@pytest.mark.parametrize("count", [3, 5])
def test_agreement_finds_colluders_that_are_fewer_and_drops_the_honest_where_they_are_more(count: int) -> None:
    for bad in range(count + 1):
        outcome = run(method("majority_vote"), with_bad(experts(count), bad, "colluding"))
        names = [f"m{i}" for i in range(count)]
        honest, colluders = names[: count - bad], names[count - bad :]
        lost = bad > count - bad
        assert outcome.noted("dropped") == (honest if lost else colluders)
        assert all(r.meta["supervisor"]["dropped"] == outcome.noted("dropped") for r in outcome.replies.values())
        assert right(outcome) == [not lost] * len(TEST)


def test_equally_many_colluders_and_honest_members_cannot_be_told_apart_by_agreement() -> None:
    outcome = run(method("majority_vote"), with_bad(experts(4), 2, "colluding"))
    assert outcome.noted("dropped") == [] and set(outcome.noted("trust").values()) == {1 / 3}


def judge(call: ScriptedCall) -> str:
    """A member that adds; as a judge it reads what the reply between the marks says last, and heeds no orders in it."""
    question, *quoted = re.split(r"\n=== \w+ ===\n", call.prompt)
    reply = able(1.0)(attrs.evolve(call, messages=(), text=question))
    if not quoted:
        return reply
    return "Yes." if quoted[0].rsplit(" ", 1)[1] == reply.rsplit(" ", 1)[1] else "No, it is not."


@pytest.mark.parametrize("behaviour", [("colluding",), ("colluding", "injecting", "self_voting"), ("wrong", "verbose")])
def test_a_judge_finds_bad_members_that_are_more_than_half(behaviour: tuple[Any, ...]) -> None:
    supervised = method("majority_vote", by="judge")
    supervised.options = attrs.evolve(supervised.options, pool=as_plugin(ScriptedPool({"judge": judge})))
    outcome = run(supervised, with_bad(experts(5), 3, *behaviour))
    assert outcome.noted("dropped") == ["m2", "m3", "m4"] and right(outcome) == [True] * len(TEST)
    assert outcome.noted("trust") == {"m0": 1.0, "m1": 1.0, "m2": 0.0, "m3": 0.0, "m4": 0.0}


def test_dev_scores_find_colluders_that_are_more_than_half_and_watch_no_question() -> None:
    outcome = run(method("majority_vote", by="score"), with_bad(experts(5), 4, "colluding", "injecting"))
    assert outcome.noted("trust") == {"m0": 1.0, "m1": 0.0, "m2": 0.0, "m3": 0.0, "m4": 0.0}
    assert right(outcome) == [True] * len(TEST) and set(outcome.calls_per_question.values()) == {1}
    assert method("majority_vote", by="score").learns() and method("cascade", by="score").learns()
    assert not method({"name": "majority_vote", "tie": "order"}).learns()


def test_a_judge_of_the_pool_is_not_watched_and_never_dropped() -> None:
    pool = ScriptedPool({"liar": "The answer is 1000.", "judge": judge, "m": able(1.0)})
    outcome = run(method("majority_vote", by="judge", model="judge"), pool)
    assert outcome.noted("dropped") == ["liar"] and set(outcome.noted("trust")) == {"liar", "m"}
    assert outcome.state["kept"] == ["judge", "m"]


def test_rewards_are_compared_as_bradley_and_terry_do() -> None:
    def scorer(call: ScriptedCall) -> tuple[float, ...]:
        return (2.0 if call.transcript.endswith("good") else -1.0,)

    model = {"recipe": SimpleNamespace(fingerprint="r", kind="weights")}
    scorers = ScriptedPool({"scorer": scorer}, capabilities=frozenset({"reward"}), fields={"scorer": model})
    supervised = method("majority_vote", by="reward", on="dev")
    supervised.options = attrs.evolve(supervised.options, pool=as_plugin(scorers))
    pool = ScriptedPool({"a": "It is good", "b": "It is bad", "c": "All is good"})
    outcome = run(supervised, pool)
    better = 1 / (1 + math.exp(-3))
    assert outcome.noted("dropped") == ["b"] and outcome.noted("trust") == pytest.approx(
        {"a": 0.5, "b": 1 - better, "c": 0.5}
    )


def test_on_single_questions_a_suspects_reply_is_written_by_the_most_trusted_member() -> None:
    """Members that lie on some questions alone, too few for dev to drop them; a cascade would ask the liar first."""
    pool = ScriptedPool({"x": able(1.0), "m1": able(1.0), "m2": able(1.0)})
    spoilt = UnreliablePool(Spoilt(pool=as_plugin(pool), members=("x",), behaviour=("wrong",), rate=0.5))
    outcome = run(method("cascade", on="question"), spoilt)
    replaced = [r.meta["supervisor"]["replaced"] for r in outcome.replies.values()]
    assert {str(r) for r in replaced} == {"['x']", "[]"} and right(outcome) == [True] * len(TEST)
    assert {r.meta["supervisor"].get("by") for r in outcome.replies.values()} == {None, "m1"}
    assert outcome.state["kept"] == ["x", "m1", "m2"] and outcome.state["trust"] == {}


# ---------------------------------------------------------------- weights in place of dropping


@pytest.mark.parametrize("name", ["majority_vote", "cascade"])
def test_with_weights_too_nothing_changes_where_nobody_is_suspected(name: str) -> None:
    bare = run(installed_method(name), experts(3))
    outcome = run(method(name, action="weight"), experts(3))
    for key, reply in bare.replies.items():
        told = {"dropped": [], "trust": {"m0": 1.0, "m1": 1.0, "m2": 1.0}, "weights": {}, "replaced": []}
        assert outcome.replies[key] == attrs.evolve(reply, meta={**reply.meta, "supervisor": told})
    assert (outcome.state["inner"], outcome.state["weights"], outcome.noted("weights")) == (bare.state, {}, {})


@pytest.mark.parametrize("name", ["majority_vote", "cascade"])
@pytest.mark.parametrize("on", ["dev", "question"])
def test_a_weight_of_0_is_dropping(name: str, on: str) -> None:
    def supervised(**options: Any) -> Any:
        return run(method(name, on=on, **options), with_bad(experts(5), 2, "colluding"))

    dropped, weighed = supervised(), supervised(action="weight", weight=0.0)
    for key, reply in weighed.replies.items():
        told = dict(reply.meta["supervisor"])
        weights = {"m3": 0.0, "m4": 0.0} if on == "question" else {}
        assert told.pop("weights") == weights
        if on == "dev":
            assert told.pop("replaced") == []
        assert dropped.replies[key] == attrs.evolve(reply, meta={**reply.meta, "supervisor": told})
    told = {"weights": {"m3": 0.0, "m4": 0.0}} if on == "dev" else {}
    assert dropped.state == weighed.state and weighed.notes[:1] == [{**n, **told} for n in dropped.notes[:1]]
    assert dropped.notes[1:] == weighed.notes[1:]


@pytest.mark.parametrize(("weight", "said", "counts", "winner"), [(0.7, "No.", 0.7, "B"), (0.6, "No.", 0.6, "A"),
                                                               (None, "Hm.", 0.5, "A"), (None, "No.", 0, "A")])  # fmt: skip
def test_votes_weigh_as_much_as_those_who_cast_them(weight: float | None, said: str, counts: float, winner: str) -> None:
    """Three say B and two A. The judge says yes to A; what it says of B is worth 0 for no, and 1/2 if it is neither."""
    pool = ScriptedPool({f"m{i}": f"The answer is {letter}." for i, letter in enumerate("BBBAA")})
    judges = ScriptedPool({"judge": lambda call: "Yes." if "answer is A." in call.prompt else said})
    supervised = method("majority_vote", by="judge", on="question", action="weight", weight=weight)
    supervised.options = attrs.evolve(supervised.options, pool=as_plugin(judges))
    (reply,) = run(supervised, pool, questions=[TEST[1].question]).replies.values()
    told = reply.meta["supervisor"]
    assert told["weights"] == dict.fromkeys(["m0", "m1", "m2"], counts) and reply.meta["answer"] == winner
    # who weighs nothing is left out as ever: the most trusted one writes in its place
    assert told["replaced"] == ([] if counts else ["m0", "m1", "m2"])
    assert reply.meta["support"] == pytest.approx({"B": 3 * counts, "A": 2} if counts else {"A": 5})


def test_members_found_bad_on_dev_keep_a_vote_of_their_weight_and_stay_in_the_pool() -> None:
    """Of three honest votes and two of a ring that are weighed at their trust: on dev 1 of 4 and 0 of 3, against 2 and 2."""
    weighing = method("majority_vote", on="dev", action="weight")
    outcome = run(weighing, with_bad(experts(5), 2, "colluding"), reload_with=weighing)
    assert outcome.noted("weights") == {"m3": 0.0, "m4": 0.5} and outcome.state["weights"] == {"m4": 0.5}
    assert outcome.noted("dropped") == ["m3"] and outcome.state["kept"] == ["m0", "m1", "m2", "m4"]
    for reply in outcome.replies.values():
        assert sorted(reply.meta["support"].values()) == [0.5, 3.0] and len(reply.meta["votes"]) == 4
        assert reply.meta["supervisor"] == {"dropped": ["m3"], "weights": {"m4": 0.5}, "replaced": []}


class FirstSystem(System):
    """Answers with the first of three members, without whom there is no such system."""

    async def respond(self, question: Question, context: Context) -> Reply:
        return Reply.of(await context.generate(self.pool[0], question), model=self.pool[0].name)


class First(Method[NoOptions]):
    system = FirstSystem

    def needs(self) -> Needs:
        return Needs(min_models=3)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> FirstSystem:
        return FirstSystem(pool, self.options)


def test_where_nothing_is_counted_a_weight_is_the_share_of_questions_on_which_replies_stand() -> None:
    """The first, who lies on every question, could not be dropped from three."""
    questions = [e.question for e in examples(60, prefix="t")]

    def answered(weight: float, **keywords: Any) -> Any:
        pool = ScriptedPool({"x": "The answer is 1000.", "m1": able(1.0), "m2": able(1.0)})
        supervised = method("majority_vote", on="dev", action="weight", weight=weight)
        supervised.options = attrs.evolve(supervised.options, method=SimpleNamespace(instance=First(NoOptions())))
        return run(supervised, pool, questions=questions, **keywords)

    def stands(outcome: Any) -> set[str]:
        told = {key: reply.meta["supervisor"] for key, reply in outcome.replies.items()}
        assert all(t["weights"] == {"x": outcome.state["weights"]["x"]} for t in told.values())
        assert {str(t.get("by")) for t in told.values()} == {"None", "m1"}
        standing = {key for key, t in told.items() if t["replaced"] == []}
        assert {key for key, reply in outcome.replies.items() if reply.text == "The answer is 1000."} == standing
        return standing

    few, many = stands(answered(0.3)), stands(answered(0.6))
    assert few < many and len(few) / 60 == pytest.approx(0.3, abs=0.18) and len(many) / 60 == pytest.approx(0.6, abs=0.19)
    assert stands(answered(0.3, in_flight=1)) == few != stands(answered(0.3, seed=1))


@pytest.mark.parametrize(("level", "needs"), [("logit", Needs()), ("weight", Needs()), ("api", Needs(optional={"step"})),
                                             ("text", Needs(capabilities={"generate", "train"}))])  # fmt: skip
def test_a_method_with_no_place_for_a_weight_is_refused_before_anything_is_asked(level: Any, needs: Needs) -> None:
    held = SimpleNamespace(name="other", instance=SimpleNamespace(level=level, needs=lambda: needs, system=System))
    models = experts(2).models()
    for options, told in (({"action": "weight"}, True), ({"action": "weight", "weight": 0.0}, False), ({}, False)):
        supervised = method("majority_vote", **options)
        supervised.options = attrs.evolve(supervised.options, method=held)
        problems = [p for p in supervised.needs().problems(models) if p.startswith("action: ")]
        assert problems == ["action: other works on its members' tokens, weights or training, of which no share can be left "
                            "out; choose drop"] * told  # fmt: skip


# ---------------------------------------------------------------- saved, nested, refused


def test_a_supervised_system_is_restored_with_the_members_it_kept_and_nests() -> None:
    for supervised in ("majority_vote", {"name": "supervisor", "method": "majority_vote", "on": "dev"}):
        first = run(method(supervised), with_bad(experts(5), 2, "colluding"))
        again = run(method(supervised), with_bad(experts(5), 2, "colluding"), reload_with=method(supervised))
        assert first.replies == again.replies and first.state["kept"] == ["m0", "m1", "m2"]
    assert first.state["inner"]["kept"] == ["m0", "m1", "m2"]


def test_what_is_one_model_stays_one_where_members_are_watched_on_dev_alone() -> None:
    pool = experts(2).pool
    found = []
    for on in ("dev", "question", "both"):
        options = method("majority_vote", on=on).options
        inner: Any = SimpleNamespace(model=pool[0])
        found.append(SupervisorSystem(pool, options, inner, pool.names, {}).model)
    assert found == [pool[0], None, None]


def test_a_member_that_the_method_cannot_do_without_is_kept() -> None:
    supervised = method("cascade", by="judge", on="dev")  # which needs two
    supervised.options = attrs.evolve(supervised.options, pool=as_plugin(ScriptedPool({"judge": judge})))
    outcome = run(supervised, ScriptedPool({"a": "The answer is 1000.", "b": able(1.0), "c": "The answer is 2000."}))
    assert outcome.noted("trust") == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert outcome.state["kept"] == ["a", "b"] and outcome.noted("dropped") == ["c"]


def test_without_dev_examples_nobody_is_dropped_and_that_is_told() -> None:
    supervised = method({"name": "majority_vote", "tie": "order"})
    outcome = run(supervised, with_bad(experts(3), 1, "wrong"), dev=[])
    assert outcome.warnings == ["supervisor: members are watched on dev examples and there are none; nobody is dropped"]
    assert {str(r.meta["supervisor"]["replaced"]) for r in outcome.replies.values()} == {"['m2']"}


def test_a_member_that_fails_is_worth_nothing_and_a_pool_that_fails_is_no_answer() -> None:
    down = Faults(when=lambda call: call.model == "m1")
    outcome = run(method({"name": "majority_vote", "tie": "order"}), experts(3, faults=down))
    assert outcome.noted("trust") == {"m0": 1.0, "m1": 0.0, "m2": 1.0} and outcome.noted("dropped") == ["m1"]
    everything = experts(2, faults=Faults(when=lambda call: "Item t" in call.transcript))
    with pytest.raises(ModelCallError, match="injected failure"):
        run(method({"name": "majority_vote", "tie": "order"}), everything, questions=[TEST[0].question])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"by": "judge", "model": "nobody"}, "model: no model 'nobody' in the pool"),
        ({"by": "reward"}, "'m0' cannot supervise by reward (capability 'reward')"),
    ],
)
def test_a_supervisor_that_is_none_is_refused_before_anything_is_asked(options: dict[str, Any], line: str) -> None:
    pool = experts(2, capabilities=frozenset({"generate"}))
    (problem,) = method("majority_vote", **options).needs().problems(pool.models())
    assert line in problem


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="method"):
        method(None)
    with pytest.raises(ConfigError, match="on: replies are scored on dev alone"):
        method("majority_vote", by="score", on="question")
    with pytest.raises(ConfigError, match="ratio: expected number"):
        method("majority_vote", ratio=1.5)
    with pytest.raises(ConfigError, match="weight: bad members are dropped; set action to weight"):
        method("majority_vote", weight=0.5)
