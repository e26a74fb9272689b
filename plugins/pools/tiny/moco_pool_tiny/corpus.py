"""The training text: questions with replies, and the prompts in which models meet each other.

The second kind is what any instruction-tuned model has seen something like: choosing between quoted answers, judging a
reply, naming the model that should answer. Only train questions are used.
"""

import importlib.util
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from moco_dataset_skills import SKILLS as SUB_SKILLS
from moco_dataset_skills import Item, stream
from moco_pool_tiny.profiles import PROFILES, SKILLS, Profile, experts


def _prompts(package: str) -> ModuleType:
    """The prompt texts of a method, without importing the method itself and what it needs."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"training needs the prompt texts of {package}; install it first")
    path = Path(found.submodule_search_locations[0]) / "prompts.py"
    spec = importlib.util.spec_from_file_location(f"{__name__}.{package}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASCADE = _prompts("moco_method_cascade")
REFINE = _prompts("moco_method_multiagent_refine")
ROUTE = _prompts("moco_method_prompt_routing")

SYSTEM = "You are a helpful assistant."

# How often each kind of text is drawn; `bare` is a question without chat markup.
KINDS = {"answer": 0.76, "route": 0.08, "refine": 0.05, "summarise": 0.03, "verify": 0.05, "bare": 0.03}


@dataclass(frozen=True, slots=True)
class Text:
    """One training text; the loss is on `reply` alone. Without `chat` there is no markup around the prompt."""

    prompt: str
    reply: str
    chat: bool = True
    system: str | None = None


class Corpus:
    """An endless seeded stream of training texts for one model."""

    def __init__(self, name: str, seed: int) -> None:
        self.kinds = dict(KINDS)
        self._profile: Profile = PROFILES[name]
        self._rng = random.Random(f"moco-tiny corpus {name} {seed}")
        self._streams: dict[tuple[str, str], Iterator[Item]] = {
            (skill, sub): stream("train", seed, skill, sub) for skill in SKILLS for sub in SUB_SKILLS[skill]
        }
        self._weights = [self._weight(name, skill, sub) for skill, sub in self._streams]

    def _weight(self, name: str, skill: str, sub_skill: str) -> float:
        """How often a sub-skill is drawn: what a model does not know takes less of its time, memorising takes more."""
        if not self._knows(skill, sub_skill):
            return 1.0
        return (5.0 if name in experts(skill) else 2.0) * (2.5 if skill == "facts" else 1.0)

    def __iter__(self) -> Iterator[Text]:
        while True:
            yield self._draw(self._rng.choices(list(self.kinds), list(self.kinds.values()))[0])

    def _knows(self, skill: str, sub_skill: str) -> bool:
        return SUB_SKILLS[skill].index(sub_skill) in self._profile.known.get(skill, ())

    def _draw(self, kind: str) -> Text:
        rng = self._rng
        weights = None if kind == "route" else self._weights
        item = next(self._streams[rng.choices(list(self._streams), weights)[0]])
        if kind == "answer":
            return Text(item.question, self._own_reply(item), system=SYSTEM if rng.random() < 0.03 else None)
        if kind == "bare":
            return Text(f"{item.question}\n", self._own_reply(item), chat=False)
        if kind == "route":
            return self._route(item)
        if kind == "verify":
            return self._verify(item)
        return self._discuss(item, kind == "refine")

    def _own_reply(self, item: Item) -> str:
        """A reply to train on: right where this model knows the sub-skill, else drawn with the profile's noise."""
        share = self._profile.right_share
        if self._knows(item.skill, item.sub_skill):
            return item.worked
        if share is None:
            return self._rng.choice((item.worked, *item.mistakes))
        return item.worked if self._rng.random() < share else self._rng.choice(item.mistakes)

    def _route(self, item: Item) -> Text:
        rng = self._rng
        names = rng.sample(list(PROFILES), rng.randint(3, len(PROFILES)))
        labels = ROUTE.default_labels(len(names)) if rng.random() < 0.8 else tuple("ABCDEF"[: len(names)])
        able = [name for name in names if name in experts(item.skill)] or [
            name for name in names if name in ("generalist", "outsider")
        ]
        wanted = rng.choice(able or names)
        prompt = ROUTE.route(item.question, [PROFILES[name].description for name in names], labels)
        return Text(prompt, labels[names.index(wanted)])

    def _verify(self, item: Item) -> Text:
        rng = self._rng
        right = rng.random() < 0.5
        reply = item.worked if right else rng.choice(item.mistakes)
        if not self._knows(item.skill, item.sub_skill):
            right = rng.random() < 0.5
        return Text(
            rng.choice((CASCADE.p_true, CASCADE.self_report))(item.question, reply),
            CASCADE.TRUE if right else CASCADE.FALSE,
        )

    def _discuss(self, item: Item, own_turn: bool) -> Text:
        """Quoted answers, and the reply to adopt: the right one if known, else the best supported."""
        rng = self._rng
        knows = self._knows(item.skill, item.sub_skill)
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
            return Text(REFINE.refine(item.question, own, quotes, closing), wanted)
        return Text(REFINE.summarise(item.question, quotes, closing), wanted)
