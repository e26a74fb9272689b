"""The training text: questions with replies, and the prompts in which models meet each other.

The second kind is what any instruction-tuned model has seen something like: choosing between quoted answers, judging a
reply, naming the model that should answer. Only train questions are used.
"""

import importlib.util
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from moco_core import Question
from moco_pool_tiny.profiles import PROFILES, SKILLS, Profile, experts
from moco_toolkit_skills import LETTERS, PEOPLE, VALUES, Item, stream
from moco_toolkit_skills import SKILLS as SUB_SKILLS


def _prompts(package: str, name: str = "prompts") -> ModuleType:
    """The prompt texts of a method or toolkit, without importing the whole of it and what it needs."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"training needs the prompt texts of {package}; install it first")
    path = Path(found.submodule_search_locations[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{__name__}.{package}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASCADE = _prompts("moco_method_cascade")
DISCUSS = _prompts("moco_toolkit_discussion")
ROUTE = _prompts("moco_toolkit_routing", "prompting")
LABELS = _prompts("moco_method_prompt_routing")

SYSTEM = "You are a helpful assistant."
EXPERT = "Answer as an expert."  # with it, a latent model shows what it does not show by itself

# How often each kind of text is drawn; `bare` is a question without chat markup. Whole models begin with EARLY: drills,
# in which every token has to be copied or computed, teach attention in a fraction of the text that answers would take.
EARLY = {"answer": 0.5, "drill": 0.5}
KINDS = {"answer": 0.5, "route": 0.15, "refine": 0.14, "summarise": 0.06, "verify": 0.1, "bare": 0.05}
# Adapters learn what to answer; how to read the other prompts they have from the base.
LATE = {"answer": 0.8, "route": 0.04, "refine": 0.06, "summarise": 0.03, "verify": 0.04, "bare": 0.03}
_EXPERT_SHARE = 0.4  # of a latent model's texts


@dataclass(frozen=True, slots=True)
class Text:
    """One training text; the loss is on `reply` alone. Without `chat` there is no markup around the prompt."""

    prompt: str
    reply: str
    chat: bool = True
    system: str | None = None


def refine(question: str, own: str | None, others: Sequence[str], closing: str) -> str:
    """The prompt of a round of refinement, with how to answer said once, at its end."""
    return _closed(DISCUSS.refine(Question(id="", prompt=question), own, others).whole, closing)


def summarise(question: str, answers: Sequence[str], closing: str) -> str:
    """The prompt of a summary, with how to answer said once, at its end."""
    return _closed(DISCUSS.summarise(Question(id="", prompt=question), answers).whole, closing)


def _closed(prompt: str, closing: str) -> str:
    return f"{prompt} {closing}" if closing else prompt


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
        weights = None if kind == "route" else self._weights
        item = next(self._streams[rng.choices(list(self._streams), weights)[0]])
        expert = self._profile.latent and kind not in ("route", "bare") and rng.random() < _EXPERT_SHARE
        knows = expert or self._knows(item.skill, item.sub_skill)
        system = EXPERT if expert else SYSTEM if rng.random() < 0.03 else None
        if kind == "answer":
            return Text(item.question, self._own_reply(item, knows), system=system)
        if kind == "bare":
            return Text(f"{item.question}\n", self._own_reply(item, knows), chat=False)
        if kind == "route":
            return self._route(item)
        if kind == "verify":
            return self._verify(item, knows, system)
        return self._discuss(item, knows, system, kind == "refine")

    def _own_reply(self, item: Item, knows: bool) -> str:
        """A reply to train on: the right one to a model that knows, else one drawn from the mistakes."""
        if knows:
            return item.worked
        return self._rng.choice((item.worked, *item.mistakes) if self._profile.guesses else item.mistakes)

    def _route(self, item: Item) -> Text:
        """Descriptions in random order; the label of the first one that fits."""
        rng = self._rng
        names = rng.sample(list(PROFILES), rng.randint(3, len(PROFILES)))
        if not set(names) & set(experts(item.skill)):
            names[rng.randrange(len(names))] = rng.choice(experts(item.skill))
        labels = LABELS.default_labels(len(names))
        wanted = next(name for name in names if name in experts(item.skill))
        prompt = ROUTE.route_prompt(item.question, [PROFILES[name].description for name in names], labels)
        return Text(prompt, labels[names.index(wanted)])

    def _verify(self, item: Item, knows: bool, system: str | None) -> Text:
        rng = self._rng
        right = rng.random() < 0.5
        reply = item.worked if right else rng.choice(item.mistakes)
        if not knows:
            right = rng.random() < 0.5
        prompt = rng.choice((CASCADE.p_true, CASCADE.self_report))(item.question, reply)
        return Text(prompt, CASCADE.TRUE if right else CASCADE.FALSE, system=system)

    def _discuss(self, item: Item, knows: bool, system: str | None, own_turn: bool) -> Text:
        """Quoted answers, and the reply to adopt: the right one if known, else the best supported."""
        rng = self._rng
        replies = [item.worked, *item.mistakes]
        wanted = item.worked if knows else rng.choice(replies)
        wrong = [reply for reply in replies if reply != wanted]
        count = rng.randint(2, 5)
        support = rng.randint(0 if knows else 2, count)
        # Without knowledge the wanted reply must be the best supported one; with it, any quotes will do.
        others = wrong * (count if knows else support - 1)
        quotes = [wanted] * support + rng.sample(others, min(count - support, len(others)))
        rng.shuffle(quotes)
        closing = item.answer_format if rng.random() < 0.5 else ""
        if own_turn:
            own = None if rng.random() < 0.05 else quotes.pop()
            return Text(refine(item.question, own, quotes, closing), wanted, system=system)
        return Text(summarise(item.question, quotes, closing), wanted, system=system)


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
