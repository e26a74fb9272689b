"""Majority voting against its papers' cases, on scripted models."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter

import attrs
import pytest

from moco_core import (
    Answer,
    ConfigError,
    Example,
    Generation,
    Metric,
    ModelCallError,
    NoOptions,
    Question,
    Sampling,
    Score,
)
from moco_core.models import Pool
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_majority_vote.method import MajorityVote, MajorityVoteSystem
from moco_method_majority_vote.options import Options
from moco_toolkit_authoring import (
    LastWord,
    ScriptedCall,
    ScriptedPool,
    example_questions,
    examples,
    fallible,
    method_checks,
    open_state,
    run_method,
)

test_conformance = method_checks(
    "majority_vote",
    settings=[
        {},
        {"samples": 3, "tie": "random"},
        {"weights": "log_odds", "temperature": 0.0},
        {"similarity": "embedding", "tie": "order", "reply": "shortest"},
        {"weights": "probability", "samples": 2},
    ],
    identical_is_single=False,
)

QUESTION = Question(id="q", prompt="Which one?", answer_kind="text")
CHOICE = Question(id="c", prompt="Which one?", choices=("x", "y"), answer_kind="choice")


def says(*answers: str | None) -> ScriptedPool:
    """One model per answer; None is a reply without any."""
    scripts = {
        f"m{i}": "I cannot say" if answer is None else f"model {i}: the answer is {answer}"
        for i, answer in enumerate(answers)
    }
    return ScriptedPool(scripts)


def vote(pool, question=QUESTION, metric=None, dev=(), **options):
    outcome = run_method(
        MajorityVote(Options(**options)), pool, questions=[question], dev=dev, metric=metric
    )
    for error in outcome.errors.values():
        raise error
    return outcome.replies[question.id]


@pytest.mark.parametrize(
    ("answers", "winner", "voter"),
    [(("A", "A", "B", None), "a", 0), ((None, None, "B"), "b", 2), (("A", "B", "B"), "b", 1)],
)
def test_the_most_frequent_answer_wins_and_its_full_reply_is_returned(answers, winner, voter):
    reply = vote(says(*answers), tie="order")
    assert reply.meta["answer"] == winner
    assert reply.text == f"model {voter}: the answer is {answers[voter]}"
    assert reply.meta["model"] == f"m{voter}"
    votes = [row["answer"] for row in reply.meta["votes"]]
    assert Counter(key for key in votes if key is not None).most_common(1)[0][0] == winner


def test_unanimous_voters_win_with_margin_one():
    reply = vote(says("A", "A", "A"))
    assert (reply.meta["answer"], reply.meta["margin"], reply.meta["share"]) == ("a", 1.0, 1.0)


def test_nobody_parsed_gives_the_best_dev_models_reply_flagged():
    dev = examples(4)

    def knows(call: ScriptedCall) -> str:
        right = {e.question.prompt: _right(e) for e in dev}
        asked = next((p for p in right if p in call.transcript), None)
        return f"the answer is {right[asked]}" if asked else "no idea, says the expert"

    pool = ScriptedPool({"fool": "no idea", "expert": knows})
    assert vote(pool, dev=dev).text == "no idea, says the expert"
    reply = vote(pool, tie="order")
    assert reply.text == "no idea" and reply.meta["unparsed"] is True and "answer" not in reply.meta


def _right(example: Example) -> str:
    return example.references[0] if example.answer is None else example.question.letters[example.answer]


def test_one_model_and_one_sample_is_that_model_byte_for_byte():
    pool = ScriptedPool({"only": fallible})
    questions = example_questions(6)
    outcome = run_method(MajorityVote(Options()), pool, questions=questions, dev=examples(3))
    assert outcome.calls["fit"] == 0
    for question in questions:
        (call,) = [c for c in pool.history if question.prompt in c.transcript]
        assert outcome.replies[question.id].text == fallible(call)


def test_a_failed_call_and_an_empty_reply_abstain():
    pool = ScriptedPool({"down": lambda call: ModelCallError("down"), "mute": "  ", "c": "the answer is C"})
    reply = vote(pool)
    assert reply.meta["answer"] == "c"
    assert [row["status"] for row in reply.meta["votes"]] == ["failed", "empty", "parsed"]


def test_the_question_fails_if_every_call_does():
    pool = ScriptedPool({"a": lambda call: ModelCallError("down"), "b": lambda call: ModelCallError("down")})
    with pytest.raises(ModelCallError, match="down"):
        vote(pool)


def test_ties_go_to_the_best_dev_model():
    """d = (0.5, 1.0) by construction: the second model wins the tie, the first one without dev scores."""
    dev = examples(4)
    right = {e.question.prompt: _right(e) for e in dev}

    def answers(call: ScriptedCall, sure: int) -> str:
        for number, (prompt, answer) in enumerate(right.items()):
            if prompt in call.transcript:
                return f"the answer is {answer if number < sure else 'nonsense'}"
        return f"the answer is {'A' if sure == 2 else 'B'}"

    pool = ScriptedPool({"half": lambda c: answers(c, 2), "full": lambda c: answers(c, 4)})
    assert vote(pool, dev=dev).meta["answer"] == "b"
    assert vote(pool, dev=dev, tie="best_model").meta["answer"] == "b"
    assert vote(pool, dev=dev, tie="order").meta["answer"] == "a"
    assert vote(pool).meta["answer"] == "a"
    assert vote(pool, dev=dev).meta["tied"] == ["a", "b"]


def test_random_ties_depend_on_seed_and_question_alone():
    pool = says("A", "B")
    questions = [Question(id=f"q{i}", prompt="?") for i in range(40)]
    method = MajorityVote(Options(tie="random"))

    def winners(**keywords):
        replies = run_method(method, pool, questions=questions, **keywords).replies
        return [replies[q.id].meta["answer"] for q in questions]

    first = winners(in_flight=1)
    assert first == winners(in_flight=40)
    questions.reverse()
    assert first == winners()[::-1]
    questions.reverse()
    assert 10 < first.count("a") < 30 and first != winners(seed=1)
    other = MajorityVote(Options(tie="random", seed=5))
    assert first != [run_method(other, pool, questions=questions).replies[q.id].meta["answer"] for q in questions]


class Phrase(Metric[NoOptions]):
    """Every reply is its own answer, read as it stands."""

    def read(self, question, text):
        return Answer(key=text.strip().casefold(), text=text.strip(), status="parsed")

    def score(self, example, reply, context):
        return Score(value=0.0)


def test_token_f1_groups_what_equality_splits():
    pool = ScriptedPool({"a": "Joe Biden", "b": "Barack Obama", "c": "Obama"})
    reply = vote(pool, metric=Phrase(NoOptions()), similarity="token_f1")
    assert reply.meta["support"] == pytest.approx({"joe biden": 1.0, "barack obama": 5 / 3, "obama": 5 / 3})
    assert reply.text == "Barack Obama" and reply.meta["tied"] == ["barack obama", "obama"]
    assert vote(pool, metric=Phrase(NoOptions())).text == "Joe Biden"


class Graded(Phrase):
    def utility(self, question, a, b):
        return 1.0 if a.text[0] == b.text[0] else 0.0


def test_the_metrics_own_utility_is_the_default():
    pool = ScriptedPool({"a": "xa", "b": "ya", "c": "yb"})
    assert vote(pool, metric=Graded(NoOptions())).text == "ya"
    assert vote(pool, metric=Graded(NoOptions()), similarity="exact").text == "xa"


def test_open_questions_vote_by_bleu_over_whole_replies():
    pytest.importorskip("sacrebleu")
    question = Question(id="o", prompt="Describe.", answer_kind="open")
    pool = ScriptedPool({"a": "nothing of the kind", "b": "the cat sat on the mat", "c": "the cat sat on a mat"})
    reply = vote(pool, question)
    assert reply.text == "the cat sat on the mat" and "unparsed" not in reply.meta
    outcome = run_method(MajorityVote(Options(similarity="exact")), pool, questions=[question])
    assert "compared exactly" in outcome.warnings[0]


def test_embedding_similarity_asks_the_model_that_can_embed():
    pool = ScriptedPool({"a": "zebra", "b": "red green blue", "c": "red green pink"})
    first, *others = pool.pool
    models = Pool([attrs.evolve(first, capabilities=frozenset({"generate"})), *others])
    reply = vote(models, metric=Phrase(NoOptions()), similarity="embedding")
    assert reply.text == "red green blue"
    (call,) = [c for c in pool.history if c.kind == "embed"]
    assert call.model == "b" and call.given["texts"] == ["zebra", "red green blue", "red green pink"]
    method = MajorityVote(Options(similarity="embedding"))
    blind = [attrs.evolve(m, capabilities=frozenset({"generate"})) for m in pool.pool]
    assert "embed" in method.needs().problems(blind)[0]
    named = MajorityVote(Options(similarity="embedding", embedder="a"))
    assert named.needs().problems(models) == ["embedder: model 'a' cannot embed; name one that can"]


def test_samples_are_numbered_and_independent_of_the_others():
    """Sample k of a model has one seed, however many samples are drawn and whatever the order of completion."""
    pool = ScriptedPool.copies(2, fallible)
    question = example_questions(1)[0]
    run_method(MajorityVote(Options(samples=3)), pool, questions=[question])
    few = {(c.model, c.seed) for c in pool.history}
    assert len(few) == 6 and len({seed for _, seed in few}) == 6
    more = ScriptedPool.copies(2, fallible)
    run_method(MajorityVote(Options(samples=5)), more, questions=[question])
    assert few < {(c.model, c.seed) for c in more.history}


def test_fit_costs_only_where_dev_decides():
    dev, pool = examples(5), says("A", "B", "A")
    for options, calls in [
        ({}, 15),
        ({"tie": "order"}, 0),
        ({"tie": "random"}, 0),
        ({"tie": "order", "weights": "dev"}, 15),
    ]:
        method = MajorityVote(Options(**options))
        assert run_method(method, pool, dev=dev).calls["fit"] == method.cost(3, 5).fit == calls


def test_log_odds_lets_a_lone_expert_beat_a_pair():
    """18 of 18 right is p = 19/20 with two choices, 11 of 18 is 12/20: log 19 = 2.944 > 2 log 1.5 = 0.811."""
    dev = [Example(question=Question(id=f"d{i}", prompt=f"dev {i}?", choices=("x", "y")), answer=0) for i in range(18)]

    def answers(call: ScriptedCall, right: int, final: str) -> str:
        for i in range(18):
            if f"dev {i}?" in call.transcript:
                return f"the answer is {'A' if i < right else 'B'}"
        return f"the answer is {final}"

    pool = ScriptedPool(
        {
            "expert": lambda c: answers(c, 18, "A"),
            "one": lambda c: answers(c, 11, "B"),
            "two": lambda c: answers(c, 11, "B"),
        }
    )
    assert vote(pool, CHOICE, dev=dev).meta["answer"] == "B"
    reply = vote(pool, CHOICE, dev=dev, weights="log_odds")
    assert reply.meta["answer"] == "A"
    assert reply.meta["support"] == pytest.approx({"A": 2.944439, "B": 0.810930}, abs=1e-6)
    # by dev score the pair still wins, 1 against 2 * 11/18
    assert vote(pool, CHOICE, dev=dev, weights="dev").meta["support"] == pytest.approx({"A": 1.0, "B": 22 / 18})


def test_weights_given_from_outside_multiply_those_of_the_votes(monkeypatch):
    weigh = lambda self, q, c: self.respond_weighed(q, c, {"m0": 0.25, "m2": 0.5})  # noqa: E731
    monkeypatch.setattr(MajorityVoteSystem, "respond", weigh)
    assert vote(says("A", "B", "A"), samples=2).meta["support"] == {"a": 1.5, "b": 2.0}
    pool = says("A", "B", "A")
    meta = vote(pool, dev=examples(2), weights="log_odds").meta  # nobody was right on dev: all votes count the same
    assert meta["support"] == {"a": 0.75, "b": 1.0} and meta["share"] == pytest.approx(1 / 1.75)


def test_shortest_reply_of_the_winner():
    pool = ScriptedPool({"long": "well well, the answer is A", "short": "the answer is A"})
    assert vote(pool, reply="shortest").text == "the answer is A"


def test_bad_options():
    with pytest.raises(ConfigError, match="temperature: expected number > 0 with samples > 1"):
        build(Options, {"samples": 2, "temperature": 0})
    with pytest.raises(ConfigError, match=r"majority_vote\.weights: dev needs dev examples"):
        vote(says("A"), weights="dev")


@pytest.mark.parametrize("kind", ["math", "decimal"])
def test_numbers_in_other_forms_are_one_vote(kind):
    cls = pytest.importorskip("moco_metric_exact_match").moco_metric()
    question = Question(id="n", prompt="How much?", answer_kind=kind)
    forms = ["0.5", "1/2", r"\frac{1}{2}", ".50"]
    pool = ScriptedPool({f"m{i}": f"The answer is ${form}$" for i, form in enumerate(forms)})
    reply = vote(pool, question, metric=cls(build(cls.Options, {})))
    assert list(reply.meta["support"].values()) == [4.0]


def test_replies_follow_the_methods_sampling_and_the_runs_budget():
    pool = says("A", "B")
    run_method(
        MajorityVote(Options(temperature=0.3, top_p=0.8)),
        pool,
        questions=[QUESTION],
        sampling=Sampling(max_new_tokens=99, stop=("X",)),
    )
    for call in pool.history:
        assert call.params == {
            "max_new_tokens": 99,
            "temperature": 0.3,
            "top_p": 0.8,
            "top_k": 0,
            "min_p": 0.0,
            "stop": ["X"],
        }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.2, 0.9, 5)),  # one reply is the model's own, whatever the run decodes with
        ({"temperature": 0.4}, (0.4, 0.9, 5)),
        ({"samples": 2}, (0.7, 1.0, 5)),
        ({"samples": 2, "temperature": 1.0, "top_p": 0.8, "top_k": 40}, (1.0, 0.8, 40)),
    ],
)
def test_one_reply_takes_the_runs_decoding_and_several_the_papers(options, expected):
    found = Options(**options).sampling(Sampling(temperature=0.2, top_p=0.9, top_k=5, min_p=0.1))
    assert (found.temperature, found.top_p, found.top_k, found.min_p) == (*expected, 0.1)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_one_reply_per_model_shares_every_call_with_the_single_models(temperature):
    """What a baseline asks, on dev and on test, is not asked again."""
    cache, dev, questions = Cache(None), examples(3, prefix="d"), example_questions(4)
    sampling = Sampling(temperature=temperature, top_p=0.9)
    pool = ScriptedPool(dict.fromkeys("ab", fallible))

    async def baselines():
        async with open_state(sampling=sampling, cache=cache) as state:
            for question in (*questions, *(e.question for e in dev)):
                for model in pool.pool:
                    await state.context("respond", question).generate(model, question)

    asyncio.run(baselines())
    served = len(pool.history)
    assert served == 2 * 7
    together = run_method(
        MajorityVote(Options()), pool, dev=dev, questions=questions, sampling=sampling, cache=cache
    )
    assert len(together.replies) == 4 and len(pool.history) == served


def test_probability_weights_are_the_mean_token_probability():
    """exp of the mean log-probability: 0.9 against 0.2 + 0.3."""

    def sure(text, *probabilities):
        return Generation(text=text, token_ids=range(len(probabilities)), token_logprobs=map(math.log, probabilities))

    pool = ScriptedPool(
        {
            "sure": lambda c: sure("the answer is A", 0.9, 0.9),
            "unsure": lambda c: sure("the answer is B", 0.1, 0.4),
            "other": lambda c: sure("the answer is B", 0.3),
        }
    )
    assert vote(pool, tie="order").meta["answer"] == "b"
    reply = vote(pool, tie="order", weights="probability")
    assert reply.meta["answer"] == "a" and reply.meta["support"] == pytest.approx({"a": 0.9, "b": 0.5})
    blind = [attrs.evolve(m, capabilities=frozenset({"generate"})) for m in pool.pool]
    assert "log-probabilities" in MajorityVote(Options(weights="probability")).needs().problems(blind)[0]


def test_probability_weights_need_no_dev_split_and_fall_back_to_equal_votes():
    said = {"a": "the answer is A", "b": "the answer is B", "c": "the answer is B"}
    pool = ScriptedPool({name: lambda c, text=text: Generation(text=text) for name, text in said.items()})
    reply = vote(pool, tie="order", weights="probability")
    assert reply.meta["support"] == {"a": 1.0, "b": 2.0}  # nobody told a probability


def test_the_fit_tells_how_alike_the_models_err():
    dev = examples(4)
    right = {e.question.prompt: _right(e) for e in dev}

    def knows(*numbers):
        def script(call):
            for number, (prompt, answer) in enumerate(right.items()):
                if prompt in call.transcript:
                    return f"the answer is {answer if number in numbers else 'nonsense'}"
            return "no idea"

        return script

    pool = ScriptedPool({"a": knows(0, 1), "b": knows(2, 3), "c": knows(0, 1), "d": knows(0, 1, 2, 3)})
    outcome = run_method(MajorityVote(Options()), pool, dev=dev)
    assert outcome.calls["fit"] == 16
    found = outcome.noted("error_correlation")
    expected = [[1, -1, 1, None], [-1, 1, -1, None], [1, -1, 1, None], [None] * 4]
    assert [[c if c is None else round(c, 9) for c in row] for row in found] == expected


def test_a_system_that_an_earlier_version_saved_is_read_and_saved_alike():
    state = {"tie": "best_model", "tally": [[3.0, 4], [1.5, 4]]}
    system = MajorityVote(Options()).restore(says("A", "B").pool, json.loads(json.dumps(state)), None)
    assert system.tally == ((3.0, 4), (1.5, 4)) and json.loads(json.dumps(system.state())) == state
    bare = {"tie": "order", "tally": None}
    assert MajorityVote(Options()).restore(says("A").pool, bare, None).state() == bare


def test_relabelling_the_models_changes_ties_only():
    """The order of the pool is the last tie rule and nothing else."""
    pool = says("A", "B", "B")
    for models in (pool.pool, Pool(reversed(list(pool.pool)))):
        assert vote(models, tie="order", metric=LastWord(NoOptions())).meta["answer"] == "b"
