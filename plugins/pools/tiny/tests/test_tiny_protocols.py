"""The training text of protocols: what methods really send, and nothing that a model could not tell."""

import random
from collections import Counter, defaultdict
from itertools import islice
from typing import Any

import corpus
import protocols
import pytest

from moco_core import Example, Sampling
from moco_core.catalogue import installed
from moco_core.options import build_plugin
from moco_pool_tiny.profiles import PROFILES
from moco_toolkit_authoring import ScriptedPool, run_method
from moco_toolkit_skills import generate

NAMES = ("arithmetic", "letters", "outsider")
ITEM = next(item for item in generate("train", 8, 0, ("order",)) if item.choices)
QUESTION = protocols.question_of(ITEM)
HELD = dict(zip(NAMES, (ITEM.worked, *ITEM.mistakes), strict=True))
GREEDY = Sampling(temperature=0.0, max_new_tokens=64)

# How a method is run on models that reply as they were trained to, and the kinds of training text that it sends.
CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("multiagent_refine", {"rounds": 1, "temperature": 0.0, "summarizer": 0}, {"refine", "summarise"}),
    ("structured_interaction", {"rounds": 1, "topology": "star"}, {"refine"}),
    ("heterogeneous_swarms", {"population": 5, "max_iterations": 2, "weight_step": "off"}, {"refine", "summarise"}),
    ("multiagent_finetuning", {"iterations": 0}, {"update", "digest"}),
    ("multiagent_finetuning", {"iterations": 0, "summarize": False}, {"update"}),
    ("multiagent_feedback", {"summarizer": 0}, {"review", "revise", "summarise"}),
    (
        "multiagent_feedback",
        {"final": "abstain", "proposer": 0, "summarizer": 1, "threshold": 0.5},
        {"review", "verdict"},
    ),
    ("knowledge_card", {"answerer": 0}, {"background", "informed"}),
    ("agglm", {"train": False, "m": 3}, {"aggregate"}),
    ("llm_blender", {"judge": 0}, {"compare", "fuse"}),
    ("mixture_of_agents", {"aggregator": 0}, {"mixture"}),
    ("bbmas", {"max_rounds": 1, "max_retries": 0}, {"select", "execute", "conclude", "elect"}),
    ("cascade", {"confidence": "p_true"}, {"verify"}),
    ("cascade", {"confidence": "self_report"}, {"verify"}),
    ("prompt_routing", {"router": 0}, {"route"}),
    ("switch_generation", {"force_ends": False}, {"switch"}),
    ("sparta", {"num_instructions": 4, "num_iterations": 1}, {"rate"}),
]


def conversation(text: Any) -> tuple[tuple[str, str], ...]:
    system = [("system", text.system)] if text.system else []
    return (*system, *((turn.role, turn.content) for turn in text.turns), ("user", text.prompt))


def texts(kinds: set[str]) -> dict[tuple[tuple[str, str], ...], dict[str, str]]:
    """All that training text of some kinds asks about the item, with the reply of a model by what it holds to be right."""
    found: dict[tuple[tuple[str, str], ...], dict[str, str]] = defaultdict(dict)
    for kind in kinds:
        shape = protocols.PROTOCOLS[kind]
        for seed in range(12000 if kind == "refine" else 6000 if kind in ("route", "switch") else 1500):
            rng = random.Random(seed)
            case = protocols.scene(ITEM, seed % 2 == 0, rng, shape.least, shape.most, shape.alone)
            text = shape.write(case, rng)
            found[conversation(text)].setdefault(case.wanted, text.reply)
    return found


@pytest.mark.parametrize(("name", "options", "kinds"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_methods_send_what_models_were_trained_on_word_for_word(name: str, options: dict, kinds: set[str]) -> None:
    known = {kind: texts({kind}) for kind in kinds}
    strange, met = [], set()

    def says(call: Any) -> str:
        held = HELD[call.model.partition("-")[0]]
        asked = tuple((message.role, message.content) for message in call.messages)
        if asked == (("user", QUESTION.text()),):
            return held
        for kind, found in known.items():
            if asked in found:
                met.add(kind)
                return found[asked].get(held, next(iter(found[asked].values())))
        strange.append(call.transcript)
        return held

    fields = {model: {"description": PROFILES[model].description} for model in NAMES}
    pool = ScriptedPool(dict.fromkeys(NAMES, says), fields=fields)
    method = build_plugin(installed(), "method", {"name": name, **options}, "method").instance
    example = Example(question=QUESTION, answer=ITEM.gold)
    run_method(method, pool, dev=[example] * 4, questions=[QUESTION], sampling=GREEDY)
    scored = [tuple((m.role, m.content) for m in call.messages) for call in pool.history if call.kind == "score"]
    for asked in scored:
        met |= {kind for kind, found in known.items() if asked in found}
        assert any(asked in found for found in known.values()), asked
    assert strange == [], strange[0]
    assert met == kinds


def test_a_question_is_the_text_that_models_are_asked() -> None:
    for item in generate("train", 64):
        assert protocols.question_of(item).text() == item.question


def drawn(kind: str, knows: bool, count: int) -> list[tuple[Any, Any]]:
    shape = protocols.PROTOCOLS[kind]
    pairs = []
    for seed in range(count):
        rng = random.Random(seed)
        case = protocols.scene(ITEM, knows, rng, shape.least, shape.most, shape.alone)
        pairs.append((case, shape.write(case, rng)))
    return pairs


@pytest.mark.parametrize("kind", sorted(set(protocols.PROTOCOLS) - {"route", "switch"}))
def test_who_does_not_know_upholds_each_reply_equally_often_and_who_knows_the_right_one(kind: str) -> None:
    upheld = Counter(case.wanted for case, _ in drawn(kind, False, 900))
    assert len(upheld) == 3 and max(upheld.values()) - min(upheld.values()) < 90
    assert {case.wanted for case, _ in drawn(kind, True, 50)} == {ITEM.worked}


@pytest.mark.parametrize(("kind", "yes"), [("verify", "True"), ("rate", '{"score": 9}')])
def test_a_verdict_given_at_once_is_a_guess_of_who_does_not_know(kind: str, yes: str) -> None:
    def says_yes(knows: bool, right: bool) -> float:
        given = [text.reply == yes for _, text in drawn(kind, knows, 900) if (ITEM.worked in text.prompt) == right]
        return sum(given) / len(given)

    assert says_yes(True, True) == 1 and says_yes(True, False) == 0
    assert says_yes(False, True) == pytest.approx(0.5, abs=0.07) == says_yes(False, False)


def test_only_train_questions_are_drawn_and_kinds_come_in_their_shares() -> None:
    stream = corpus.Corpus("letters", 0)
    known = {item.question for split in ("dev", "test") for item in generate(split, 400, 0)}
    found = list(islice(stream, 400))
    assert not any(question in text.prompt for text in found for question in known)
    for shares in (corpus.KINDS, corpus.LATE):
        assert sum(shares.values()) == pytest.approx(1) and set(protocols.PROTOCOLS) < set(shares)


def test_reviews_and_summaries_by_hand() -> None:
    right, wrong = "1 + 1 = 2. The answer is 2.", "1 + 1 = 3. The answer is 3."
    assert protocols.reviewed(wrong, right) == "1 + 1 = 2. The answer is 2. So this answer is wrong."
    assert protocols.reviewed(right, right).endswith("So this answer is correct.")
    assert protocols.digest([wrong, right, right]) == "1 + 1 = 2. The answer is 2. Others say 3."
    assert protocols.digest([wrong, right]) == "1 + 1 = 3. The answer is 3. Others say 2."
    assert protocols.work(right) == "1 + 1 = 2." and protocols.answer(right) == "2"
