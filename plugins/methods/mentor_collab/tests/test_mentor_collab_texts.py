"""Models with different tokenizers, or that only write text: the same words, clean ends, no leads of rounding."""

from __future__ import annotations

import asyncio

import pytest
from mentored_writing import GO, STEPPING, WORDS, pool, texting, written

from moco_core import Question, Sampling
from moco_method_mentor_collab.method import MentorCollab
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.prompts import Segment
from moco_method_mentor_collab.verifying import TIE, verifier_of
from moco_method_mentor_collab.writing import Writing
from moco_toolkit_authoring import example_questions, method_checks
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import Vocabulary
from moco_toolkit_decoding.handover import reply_of
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule

test_conformance_of_models_that_only_write_text = method_checks(
    "mentor_collab",
    settings=[{"patch_size": 3, "decision_proportion": 50.0, "debias": True, "wording": "choice"}],
    pool=lambda: pool(1, 2, capabilities={"generate"}),
    sampling=Sampling(max_new_tokens=24),
    questions=example_questions(2),
)


def test_different_tokenizers_write_clean_text():
    models = pool(1, other=(4,))
    reply, _ = written(models, True, shared=False, decision_proportion=60.0, patch_size=5)
    assert "".join(s.text for s in reply.spans) == reply.text
    assert not any(t in reply.text for t in ("<end>", "<pad>", "<unk>"))


@pytest.mark.parametrize(("verdict", "text"), [(" A", "a b"), (" B", "a c d"), (" e", "a b")])
def test_models_that_only_write_text_are_weighed_too(verdict, text):
    models = texting(["a", " b"], ["a", " c", " d"], verdict=verdict)
    reply, _ = written(
        models, None, shared=False, question=Question(id="q", prompt="go!"), decision_proportion=100.0, patch_size=4
    )
    assert reply.text == text and reply.finish_reason == "eos"
    assert reply.meta["disagreements"] == 1 and reply.meta["mentored"] == (verdict == " B")
    assert not MentorCollab(Options()).needs().problems(models)
    (problem,) = MentorCollab(Options(verifier="mlp")).needs().problems(models)
    assert "'m0'" in problem and "verifier=prompt" in problem


SMILES = "\U0001f600 ok \U0001f601\U0001f602 \u4e2d\u6587 \U0001f603 and \U0001f604"


def spelling(*texts, capabilities=frozenset({"generate"})):
    """Models that write a text byte by byte, a token each, whatever was written before."""
    engine = LocalEngine()

    def following(text):
        def scores(ids):
            told = bytes(BYTES[i] for i in ids if i in BYTES)
            told = told.rpartition(b"!")[2]
            rest = text.encode()[len(told) :]
            return {next(i for i, b in BYTES.items() if b == rest[0]) if rest else WORDS.eos_token_id: 10.0}

        return scores

    return [
        engine.add(f"m{i}", ScriptedModule(len(WORDS), following(t)), WORDS, capabilities=capabilities)
        for i, t in enumerate(texts)
    ]


BYTES = {i: Vocabulary(WORDS).piece(i)[0] for i in range(len(WORDS)) if len(Vocabulary(WORDS).piece(i)) == 1}


@pytest.mark.parametrize("share", [0.0, 25.0, 100.0])
def test_an_answer_ends_where_the_next_character_needs_more_tokens_than_are_left(share):
    async def main(limit):
        async with open_state(sampling=Sampling(max_new_tokens=limit)) as state, asyncio.timeout(30):
            context = state.context("respond", GO)
            models, options = spelling(SMILES, SMILES), Options(decision_proportion=share)
            writing = await Writing.open(models, GO, options, False, context)
            return reply_of(await writing.run(verifier_of(options, None)), models)

    for limit in range(1, 34):
        reply = asyncio.run(main(limit))
        assert SMILES.startswith(reply.text) and reply.finish_reason == "length", limit
        assert reply.text or limit < 4, limit


def test_segments_that_read_the_same_are_not_weighed():
    """Cut inside a character, two segments of other bytes look alike: which is better would be rounding noise."""
    models = spelling("\U0001f600", "\U0001f480", capabilities=STEPPING)
    reply, calls = written(models, True, limit=3, question=GO, decision_proportion=100.0)
    assert not calls and reply.meta["disagreements"] == 0 and {s.model for s in reply.spans} <= {"m0"}


@pytest.mark.parametrize(
    ("lead", "margin", "mentor"), [(4.8e-7, 0.0, False), (1e-3, 0.0, True), (0.5, 0.5 - TIE / 2, False)]
)
def test_a_lead_of_rounding_noise_is_no_lead(lead, margin, mentor):
    class Judge:
        def mark(self):
            return None

        def append_text(self, text):
            self.asked = text

        def rollback(self, to):
            pass

        async def choice(self, labels):
            swapped = self.asked.index(b" two") < self.asked.index(b" one")
            return [0.0, -lead / 2] if swapped else [0.0, lead / 2]

    a, b = Segment((1,), b" one", False), Segment((2,), b" two", False)
    verifier = verifier_of(Options(debias=True, margin=margin), None)
    assert asyncio.run(verifier(Judge(), a, b)) is mentor
