"""When not to answer: the area chair's verdict (Cooperate), a challenge (Compete), and what abstaining is worth on dev.

Feng et al., "Don't Hallucinate, Abstain: Identifying LLM Knowledge Gaps via Multi-LLM Collaboration", arXiv 2402.00367.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import ContinuationScore, Generation, Message, ModelCallError, Question
from moco_method_multiagent_feedback.options import Options
from moco_method_multiagent_feedback.prompts import VERDICTS, challenge, challenged, verdict
from moco_method_multiagent_feedback.reviewing import text_of
from moco_toolkit_answers import canonical_choice, read_choice
from moco_toolkit_discussion import Talk
from moco_toolkit_quoting import Sheet, send

__all__ = ["NEVER", "Counts", "Verdict", "choose_threshold", "compete", "judge"]

NEVER = 2.0
"""A threshold that no probability reaches."""

_LETTERS = ("A", "B")


@attrs.frozen
class Counts:
    """Answered & right, abstained & right, answered & wrong, abstained & wrong: A, B, C, D of the paper.

    Counts of questions, or of scores between 0 and 1 where a metric gives part marks. Rates without anything to count
    are None.
    """

    right: float
    right_abstained: float
    wrong: float
    wrong_abstained: float

    @classmethod
    def of(cls, scores: Sequence[float], abstained: Sequence[bool]) -> Counts:
        """Count what answers would have scored."""
        pairs = list(zip(scores, abstained, strict=True))
        return cls(
            math.fsum(s for s, a in pairs if not a),
            math.fsum(s for s, a in pairs if a),
            math.fsum(1 - s for s, a in pairs if not a),
            math.fsum(1 - s for s, a in pairs if a),
        )

    @property
    def all(self) -> float:
        return math.fsum((self.right, self.right_abstained, self.wrong, self.wrong_abstained))

    def figures(self) -> dict[str, float | None]:
        """Return the paper's figures, and the share of questions that are not answered."""
        answered, declined = self.right + self.wrong, self.right_abstained + self.wrong_abstained
        return {
            "abstain_rate": _share(declined, self.all),
            "abstain_precision": _share(self.wrong_abstained, declined),
            "abstain_recall": _share(self.wrong_abstained, self.wrong + self.wrong_abstained),
            "abstain_accuracy": _share(self.right + self.wrong_abstained, self.all),
            "reliable_accuracy": _share(self.right, answered),
            "effective_reliability": _share(self.right - self.wrong, self.all),
        }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def choose_threshold(scores: Sequence[float], chances: Sequence[float]) -> float:
    """Return the threshold on the probability of being wrong with the best abstain accuracy; ties to the largest.

    Candidates are the probabilities that occur, and one that none reaches.
    """

    def accuracy(threshold: float) -> float:
        counts = Counts.of(scores, [chance >= threshold for chance in chances])
        return counts.right + counts.wrong_abstained

    return max(sorted({*chances, NEVER} - {0.0}), key=lambda t: (round(accuracy(t), 9), t))


@attrs.frozen
class Verdict:
    """The probability that an answer is wrong, and what each order of the labels said of it (None: unreadable)."""

    chance: float
    orders: tuple[float | None, ...]


async def judge(talk: Talk, chair: int, author: int, reviews: Sequence[str], options: Options) -> Verdict:
    """Return the area chair's verdict on an author's answer: P(false), averaged over both orders of the labels.

    Scored where the chair can and may be; else it writes a label, which counts as 0 or 1. What cannot be read is 0.5.
    Raises ModelCallError if both calls fail.
    """
    scored = scores_labels(talk, chair, options)

    async def one(labels: tuple[str, str]) -> float | None:
        sheet = verdict(talk.question, talk.said[author], reviews, labels)
        if scored:
            return await _scored(talk, chair, sheet, labels)
        # greedy, and long enough for a word before the letter
        sampling = attrs.evolve(talk.sampling, temperature=0.0, max_new_tokens=options.feedback_max_new_tokens)
        reply, _ = await talk.ask(chair, sheet, sampling, sample=0, role="chair")
        return read_verdict(text_of(reply), labels)

    found = await talk.context.gather((one(labels) for labels in VERDICTS), tolerate=ModelCallError)
    errors = [value for value in found if isinstance(value, ModelCallError)]
    if len(errors) == len(found):
        raise errors[0]
    orders = tuple(None if isinstance(value, ModelCallError) else value for value in found)
    return Verdict(math.fsum(0.5 if value is None else value for value in orders) / len(orders), orders)


def scores_labels(talk: Talk, chair: int, options: Options) -> bool:
    """Whether the area chair's labels are scored."""
    return options.verdict != "write" and talk.members[chair].can("score")


async def _scored(talk: Talk, chair: int, sheet: Sheet, labels: tuple[str, str]) -> float:
    """Return P(false) of one order, normalised over the two labels."""
    model = talk.members[chair]

    async def call(messages: Sequence[Message]) -> Sequence[ContinuationScore]:
        return await talk.context.role("chair").score(model, messages, _LETTERS)

    asked = await send(call, model, sheet, 1, before=talk.question.messages()[:-1], ratio=talk.ratios[chair])
    a, b = (score.logprob for score in asked.reply)
    gap = a - b if labels[0] == "false" else b - a  # log P(false) - log P(true)
    return 0.5 if math.isnan(gap) else 1 / (1 + math.exp(-gap)) if gap > -700 else 0.0


def read_verdict(text: str, labels: tuple[str, str]) -> float | None:
    """Return 1 for a written verdict of false, 0 for true, None for neither: by letter, else by word."""
    asked = Question(id="", prompt="", choices=labels)
    found = read_choice(asked, text)
    return None if found.key is None else float(labels[int(found.key)] == "false")


@attrs.frozen
class Challenge:
    """What came of a challenge: the proposer's new reply and whether its answer changed; None where there was none."""

    changed: bool
    reply: Generation | None = None
    choice: int | None = None
    challenger: str = ""
    why_not: str = ""


async def compete(talk: Talk, proposer: int, options: Options) -> Challenge:
    """Challenge the proposer's answer with a passage for another choice, drawn at random, by another model.

    The answer has changed if another one, or none, can be read afterwards.
    """
    question, context = talk.question, talk.context
    if not question.choices:
        context.warn(
            "multiagent_feedback: final=compete challenges choices; questions without choices are simply answered"
        )
        return Challenge(False, why_not="no choices")
    said = read_choice(question, talk.said[proposer])
    others = [i for i in range(len(question.choices)) if canonical_choice(question, i) == i and str(i) != said.key]
    if said.key is None or not others:
        return Challenge(False, why_not="no choice was read" if said.key is None else "there is no other choice")
    rng = context.rng("multiagent_feedback", "challenge", options.seed)
    choice = rng.choice(others)
    by = rng.choice(sorted((i for i in range(len(talk.members)) if i != proposer), key=talk.who) or [proposer])
    request = [*question.messages()[:-1], Message("user", challenge(question, choice))]
    sampling = options.feedback(context.sampling)
    passage = text_of(await context.role("challenger").generate(talk.members[by], request, sampling, sample=0))
    name = talk.members[by].name
    if not passage:
        return Challenge(False, choice=choice, challenger=name, why_not="the passage is empty")
    reply, _ = await talk.ask(proposer, challenged(question, passage), talk.sampling, sample=0)
    return Challenge(read_choice(question, text_of(reply)).key != said.key, reply, choice, name)
