"""The training text: questions with replies, and the prompts in which models meet each other.

The second kind is what any instruction-tuned model has seen something like: choosing between quoted answers, judging a
reply, naming the model that should answer. Only train questions are used.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

from protocols import PROTOCOLS, Text, scene

from moco_pool_tiny.profiles import PROFILES, SKILLS, Profile, experts
from moco_toolkit_skills import LETTERS, PEOPLE, VALUES, Item, stream
from moco_toolkit_skills import SKILLS as SUB_SKILLS

SYSTEM = "You are a helpful assistant."
EXPERT = "Answer as an expert."  # with it, a latent model shows what it does not show by itself

# How often each kind of text is drawn; `bare` is a question without chat markup. Whole models begin with EARLY: drills,
# in which every token has to be copied or computed, teach attention in a fraction of the text that answers would take.
EARLY = {"answer": 0.5, "drill": 0.5}
KINDS = {"answer": 0.435, "bare": 0.03, **{name: kind.share for name, kind in PROTOCOLS.items()}}
# Adapters learn what to answer; how to read the other prompts they have from the base.
LATE = {"answer": 0.64, "bare": 0.03, **{name: kind.late for name, kind in PROTOCOLS.items()}}
# What takes no knowledge is learnt late: a label for a description, the place of a reply among others.
READING = {k: v * (6 if k in ("route", "switch", "digest", "select", "elect") else 1) for k, v in KINDS.items()}
_EXPERT_SHARE = 0.4  # of a latent model's texts
_NO_KNOWLEDGE = ("route", "switch", "digest", "bare")  # kinds in which nobody is asked as an expert


class Corpus:
    """An endless seeded stream of training texts for one model; without `latent`, those of its last phase of training."""

    def __init__(self, name: str, seed: int, latent: bool = True) -> None:
        self.kinds = dict(KINDS)
        self._profile: Profile = PROFILES[name] if latent else replace(PROFILES[name], latent=False)
        self._rng = random.Random(f"moco-tiny corpus {name} {seed}")
        self._streams: dict[tuple[str, str], Iterator[Item]] = {
            (skill, sub): stream("train", seed, skill, sub) for skill in SKILLS for sub in SUB_SKILLS[skill]
        }
        self._weights = [self._weight(name, skill, sub) for skill, sub in self._streams]

    def _weight(self, name: str, skill: str, sub_skill: str) -> float:
        """How often a sub-skill is drawn: what a model does not know takes less of its time, memorising takes more."""
        effort = 2.0 if skill == "facts" else 1.0
        if not self._knows(skill, sub_skill) and not self._profile.latent:
            return 1.5 * effort
        return (5.0 if name in experts(skill) else 2.0) * effort

    def __iter__(self) -> Iterator[Text]:
        while True:
            yield self._draw(self._rng.choices(list(self.kinds), list(self.kinds.values()))[0])

    def _knows(self, skill: str, sub_skill: str) -> bool:
        known = self._profile.known.get(skill, ()) + (
            self._profile.forgets.get(skill, ()) if self._profile.latent else ()
        )
        return SUB_SKILLS[skill].index(sub_skill) in known

    def _draw(self, kind: str) -> Text:
        rng = self._rng
        if kind == "drill":
            return rng.choice((_echo, _sums, _sorts))(rng)
        weights = None if kind in ("route", "switch") else self._weights
        item = next(self._streams[rng.choices(list(self._streams), weights)[0]])
        expert = self._profile.latent and kind not in _NO_KNOWLEDGE and rng.random() < _EXPERT_SHARE
        knows = expert or self._knows(item.skill, item.sub_skill)
        system = EXPERT if expert else SYSTEM if rng.random() < 0.03 else None
        if kind == "answer":
            return Text(item.question, self._own_reply(item, knows), system=system)
        if kind == "bare":
            return Text(f"{item.question}\n", self._own_reply(item, knows), chat=False)
        shape = PROTOCOLS[kind]
        case = scene(item, knows, rng, shape.least, shape.most, shape.alone)
        text = shape.write(case, rng)
        return replace(text, system="\n\n".join(part for part in (system, text.system) if part) or None)

    def _own_reply(self, item: Item, knows: bool) -> str:
        """A reply to train on: the right one to a model that knows, else one drawn from the mistakes."""
        if knows:
            return item.worked
        return self._rng.choice((item.worked, *item.mistakes) if self._profile.guesses else item.mistakes)


def _echo(rng: random.Random) -> Text:
    words = rng.choice((LETTERS, "0123456789", (*PEOPLE, *(word for group in VALUES.values() for word in group))))
    shown = " ".join(rng.choices(words, k=rng.randint(4, 24)))
    return Text(f"Repeat: {shown}", shown)


def _sums(rng: random.Random) -> Text:
    terms = []
    for _ in range(rng.randint(2, 8)):
        a, sign, b = rng.randint(18, 91), rng.choice((1, -1)), rng.randint(1, 8)
        terms.append((f"{a} {'+' if sign > 0 else '-'} {b}", a + sign * b))
    shown = ", ".join(term for term, _ in terms)
    return Text(f"Compute: {shown}", ", ".join(f"{term} = {value}" for term, value in terms))


def _sorts(rng: random.Random) -> Text:
    groups = [rng.sample(range(1, 10), 3) for _ in range(rng.randint(2, 6))]
    shown = "; ".join(", ".join(map(str, group)) for group in groups)
    return Text(f"In order: {shown}", "; ".join(", ".join(map(str, sorted(group))) for group in groups))
