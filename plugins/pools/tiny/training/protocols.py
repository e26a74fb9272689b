"""The prompts in which models meet each other, written by the methods that send them, with replies to train on.

Every protocol takes a scene, what one model meets of an item: what it is shown, and the reply that it holds to be right. No
reply depends on anything else, so that a model that does not know the answer learns to read a prompt and nothing beyond.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moco_core import Message, Question
from moco_method_agglm import prompts as agglm
from moco_method_bbmas import prompts as bbmas
from moco_method_bbmas.board import Board
from moco_method_cascade import prompts as cascade
from moco_method_knowledge_card import prompts as knowledge_card
from moco_method_llm_blender import prompts as llm_blender
from moco_method_mixture_of_agents import prompts as mixture_of_agents
from moco_method_multiagent_feedback import prompts as multiagent_feedback
from moco_method_multiagent_finetuning import prompts as multiagent_finetuning
from moco_method_prompt_routing.prompts import default_labels
from moco_method_switch_generation import prompts as switch_generation
from moco_pool_tiny.profiles import PROFILES, experts
from moco_toolkit_discussion import prompts as discussion
from moco_toolkit_duels import judging
from moco_toolkit_routing import route_prompt
from moco_toolkit_skills import Item


@dataclass(frozen=True, slots=True)
class Text:
    """One training text; the loss is on `reply` alone. Without `chat` there is no markup around the prompt.

    `turns` is the conversation before the prompt.
    """

    prompt: str
    reply: str
    chat: bool = True
    system: str | None = None
    turns: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """What one model meets: replies of others to a question, and the reply it holds to be right itself.

    Who `knows` holds the right one, whatever is shown. Who does not holds the one that most of `shown` give, whichever that
    is; where no two can agree, any.
    """

    item: Item
    knows: bool
    wanted: str
    shown: tuple[str, ...]

    @property
    def question(self) -> Question:
        return question_of(self.item)

    @property
    def wrong(self) -> list[str]:
        """The replies that this model holds to be wrong."""
        return [reply for reply in (self.item.worked, *self.item.mistakes) if reply != self.wanted]


Protocol = Callable[[Scene, random.Random], Text]


def question_of(item: Item) -> Question:
    """The question as methods get it, of which `item.question` is the whole text."""
    return Question(
        id=item.id,
        prompt=item.prompt,
        choices=item.choices or (),
        answer_kind=item.answer_kind,
        answer_format=item.answer_format,
    )


def scene(item: Item, knows: bool, rng: random.Random, least: int, most: int, alone: bool = False) -> Scene:
    """Draw what is shown, `least` to `most` replies; `alone`: a single reply shown does not persuade who does not know."""
    replies = [item.worked, *item.mistakes]
    wanted = item.worked if knows else rng.choice(replies)
    wrong = [reply for reply in replies if reply != wanted]
    count = rng.randint(least, most)
    support = rng.randint(0 if knows or (alone and count < 2) else min(2, count), count)
    # Without knowledge the wanted reply must be the best supported one; with it, any will do.
    others = wrong * (count if knows or not support else support - 1)
    shown = [wanted] * support + rng.sample(others, min(count - support, len(others)))
    rng.shuffle(shown)
    return Scene(item, knows, wanted, tuple(shown))


def work(reply: str) -> str:
    """What a reply says before it gives the answer."""
    return reply.rpartition(" The answer is ")[0]


def answer(reply: str) -> str:
    """The answer that a reply gives."""
    return reply.rpartition(" The answer is ")[2].removesuffix(".")


def reviewed(reply: str, own: str) -> str:
    """A review of a reply by who holds `own` to be right: the question worked out again, and a verdict."""
    return f"{own} So this answer is {'correct' if answer(reply) == answer(own) else 'wrong'}."


def _judged(case: Scene, rng: random.Random) -> str:
    """A reply to judge: half the time the one that is held to be right."""
    return case.wanted if rng.random() < 0.5 else rng.choice(case.wrong)


def _says(case: Scene, holds: bool, rng: random.Random) -> bool:
    """A verdict that is given at once, with nothing to read it from: a guess of who does not know."""
    return holds if case.knows else rng.random() < 0.5


# --- refinement and summary, also of multiagent_finetuning, structured_interaction and heterogeneous_swarms ------------


def refine(case: Scene, rng: random.Random) -> Text:
    shown = list(case.shown)
    own = None if len(shown) == 1 or rng.random() < 0.2 else shown.pop()
    # Graphs number their nodes, of which one reads some.
    numbers = sorted(rng.sample(range(1, len(shown) + 3), len(shown))) if rng.random() < 0.4 else None
    return Text(discussion.refine(case.question, own, shown, numbers).whole, case.wanted)


def summarise(case: Scene, rng: random.Random) -> Text:
    return Text(discussion.summarise(case.question, case.shown).whole, case.wanted)


def update(case: Scene, rng: random.Random) -> Text:
    """A critic, who remembers its own answer as a turn and reads the others' or a summary of them."""
    own, *others = case.shown
    turns = (Message("user", case.question.text()), Message("assistant", own))
    if rng.random() < 0.5:
        sheet = multiagent_finetuning.update(case.question, others)
    else:
        sheet = multiagent_finetuning.update_from_summary(case.question, digest(others))
    return Text(sheet.whole, case.wanted, turns=turns)


def digest(replies: Sequence[str]) -> str:
    """A summary of replies, which takes no knowledge: the one that most give, the first of several, and other answers."""
    counts = Counter(map(answer, replies))
    first, *others = sorted(counts, key=lambda given: -counts[given])
    lead = next(reply for reply in replies if answer(reply) == first)
    return f"{lead} Others say {'; '.join(others)}." if others else lead


def debate_summary(case: Scene, rng: random.Random) -> Text:
    return Text(multiagent_finetuning.summary(case.question, case.shown).whole, digest(case.shown))


# --- verification, comparison and rating ----------------------------------------------------------------------------


def verify(case: Scene, rng: random.Random) -> Text:
    reply = _judged(case, rng)
    says = _says(case, reply == case.wanted, rng)
    prompt = rng.choice((cascade.p_true, cascade.self_report))(case.item.question, reply)
    return Text(prompt, cascade.TRUE if says else cascade.FALSE)


def compare(case: Scene, rng: random.Random) -> Text:
    pair = [case.wanted, rng.choice(case.wrong)]
    rng.shuffle(pair)
    first = _says(case, pair[0] == case.wanted, rng)
    return Text(llm_blender.comparison(case.question.text(), *pair).whole, llm_blender.LABELS[0 if first else 1])


def rate(case: Scene, rng: random.Random) -> Text:
    reply = _judged(case, rng)
    says = _says(case, reply == case.wanted, rng)
    return Text(judging.judge_sheet(case.question, reply).whole, f'{{"score": {9 if says else 2}}}')


# --- multiagent_feedback --------------------------------------------------------------------------------------------


def review(case: Scene, rng: random.Random) -> Text:
    reply = _judged(case, rng)
    return Text(multiagent_feedback.review(case.question, reply).whole, reviewed(reply, case.wanted))


def revise(case: Scene, rng: random.Random) -> Text:
    own, *others = case.shown
    reviews = [reviewed(own, other) for other in others]
    return Text(multiagent_feedback.revise(case.question, own, reviews).whole, case.wanted)


def verdict(case: Scene, rng: random.Random) -> Text:
    """The area chair: who does not know goes by what most reviews hold to be right."""
    reply, labels = _judged(case, rng), rng.choice(multiagent_feedback.VERDICTS)
    reviews = [reviewed(reply, other) for other in case.shown]
    wanted = "true" if reply == case.wanted else "false"
    return Text(multiagent_feedback.verdict(case.question, reply, reviews, labels).whole, "AB"[labels.index(wanted)])


# --- knowledge_card, agglm, llm_blender, mixture_of_agents ----------------------------------------------------------


def background(case: Scene, rng: random.Random) -> Text:
    return Text(knowledge_card.knowledge(case.question), work(case.wanted))


def informed(case: Scene, rng: random.Random) -> Text:
    """An answer after passages, each shown once: who does not know believes any of them."""
    passages = list(dict.fromkeys(map(work, case.shown)))
    wanted = case.wanted if case.knows else rng.choice(case.shown)
    return Text(knowledge_card.answer(case.question, passages).whole, wanted)


def aggregate(case: Scene, rng: random.Random) -> Text:
    return Text(agglm.sheet(case.question, case.shown).whole, case.wanted)


def fuse(case: Scene, rng: random.Random) -> Text:
    """Three at most, best first, which says something to who does not know where all differ."""
    shown, wanted = case.shown[:3], case.wanted
    if not case.knows and len(set(shown)) == len(shown):
        wanted = shown[0]
    return Text(llm_blender.fusion(case.question, shown).whole, wanted)


def mixture(case: Scene, rng: random.Random) -> Text:
    """What others said as a system message, the question as it is."""
    told, asked = mixture_of_agents.arrange(case.question, mixture_of_agents.sheet(case.shown).whole, "system")
    return Text(asked.content, case.wanted, system=told.content)


# --- bbmas ----------------------------------------------------------------------------------------------------------


def _board(case: Scene, rng: random.Random) -> str:
    """A blackboard with what is shown, later entries being steps, or critiques of the one before."""
    board = Board()
    for number, reply in enumerate(case.shown):
        critique = number > 0 and reply != case.shown[number - 1] and rng.random() < 0.5
        text = reviewed(case.shown[number - 1], reply) if critique else reply
        board.post(_agent(rng), "", number + 1, "critique" if critique else "step", text)
    written: str = board.write()
    return written


def _agent(rng: random.Random) -> str:
    return f"agent {rng.randint(1, 5)}"


def _action(case: Scene) -> str:
    """Conclude what two entries say that one holds to be right oneself, criticise a newest entry that is not, else go on."""
    if case.shown.count(case.wanted) >= 2:
        return "finalize"
    return "critique" if case.shown and case.shown[-1] != case.wanted else "step"


def _reasons(case: Scene) -> str:
    return f"{case.wanted}\nACTION: {_action(case)}"


def select(case: Scene, rng: random.Random) -> Text:
    return Text(bbmas.select(case.question.text(), _board(case, rng), _agent(rng)), _reasons(case))


def execute(case: Scene, rng: random.Random) -> Text:
    action = _action(case)
    given = (case.question.text(), _board(case, rng), _agent(rng), action, _reasons(case), case.item.answer_format)
    reply = reviewed(case.shown[-1], case.wanted) if action == "critique" else case.wanted
    return Text(bbmas.execute(*given), reply)


def conclude(case: Scene, rng: random.Random) -> Text:
    given = (case.question.text(), _board(case, rng), _agent(rng), case.item.answer_format)
    return Text(bbmas.finalize(*given), case.wanted)


def elect(case: Scene, rng: random.Random) -> Text:
    """A vote on conclusions of which one at least is held to be right, and one is not."""
    shown = [*case.shown, *({case.wanted} - set(case.shown))]
    if len(set(shown)) == 1:
        shown[-1] = rng.choice(case.wrong)
    rng.shuffle(shown)
    return Text(bbmas.vote(case.question.text(), shown), f"{case.wanted} Conclusion #{shown.index(case.wanted) + 1}.")


# --- choosing who answers -------------------------------------------------------------------------------------------


def route(case: Scene, rng: random.Random) -> Text:
    """Descriptions in random order; the label of the first one that fits."""
    names, wanted = _team(case.item, rng)
    labels = default_labels(len(names))
    prompt = route_prompt(case.item.question, [PROFILES[name].description for name in names], labels)
    return Text(prompt, labels[wanted])


def switch(case: Scene, rng: random.Random) -> Text:
    """The same, while a reply is being written: `shown` has one, of which a beginning stands there in parts."""
    names, wanted = _team(case.item, rng)
    words = case.shown[0].split(" ")
    patches, start = [], 0
    for end in sorted(rng.sample(range(1, len(words)), min(rng.randint(0, 3), len(words) - 1))):
        patches.append((rng.randrange(len(names)), " ".join(words[start:end])))
        start = end
    descriptions = [PROFILES[name].description for name in names]
    (asked,) = switch_generation.conversation(case.question, descriptions, patches, tags=False)
    return Text(asked.content, switch_generation.labels_of(len(names))[wanted])


def _team(item: Item, rng: random.Random) -> tuple[list[str], int]:
    """Some models in random order, and the place of the first that knows the item's skill."""
    names = rng.sample(list(PROFILES), rng.randint(3, len(PROFILES)))
    if not set(names) & set(experts(item.skill)):
        names[rng.randrange(len(names))] = rng.choice(experts(item.skill))
    return names, next(place for place, name in enumerate(names) if name in experts(item.skill))


@dataclass(frozen=True, slots=True)
class Kind:
    """A protocol, and how many replies are shown at least and at most; `alone`: a single one persuades nobody.

    `share` and `late` are the shares of the text that whole models, and adapters, are trained on.
    """

    write: Protocol
    least: int
    most: int
    share: float
    late: float
    alone: bool = False


PROTOCOLS: dict[str, Kind] = {
    "route": Kind(route, 1, 1, 0.065, 0.07),
    "switch": Kind(switch, 1, 1, 0.01, 0.02),
    "refine": Kind(refine, 1, 5, 0.07, 0.04),
    "summarise": Kind(summarise, 1, 5, 0.04, 0.02),
    "update": Kind(update, 2, 5, 0.03, 0.02),
    "digest": Kind(debate_summary, 2, 5, 0.015, 0.005),
    "verify": Kind(verify, 1, 1, 0.03, 0.02),
    "compare": Kind(compare, 1, 1, 0.01, 0.005),
    "rate": Kind(rate, 1, 1, 0.01, 0.005),
    "review": Kind(review, 1, 1, 0.04, 0.02),
    "revise": Kind(revise, 2, 5, 0.04, 0.015),
    "verdict": Kind(verdict, 2, 4, 0.025, 0.01),
    "background": Kind(background, 1, 1, 0.025, 0.015),
    "informed": Kind(informed, 1, 4, 0.03, 0.015),
    "aggregate": Kind(aggregate, 2, 5, 0.02, 0.01),
    "fuse": Kind(fuse, 2, 3, 0.015, 0.01),
    "mixture": Kind(mixture, 2, 5, 0.02, 0.01),
    "select": Kind(select, 0, 3, 0.01, 0.005, alone=True),
    "execute": Kind(execute, 0, 3, 0.01, 0.005, alone=True),
    "conclude": Kind(conclude, 1, 4, 0.01, 0.005),
    "elect": Kind(elect, 2, 5, 0.01, 0.005),
}
