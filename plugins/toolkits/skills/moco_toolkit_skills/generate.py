"""Items of a split from a seed: no files, no network, any size.

A hash of its content alone assigns a question to train, dev or test, so the splits are disjoint whatever the seeds.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moco_toolkit_skills.skills import SKILLS, answer_format, draw

SPLITS = ("train", "dev", "test")

# Draws without a new question after which a split counts as exhausted.
_PATIENCE = 10_000


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its reference.

    `choices` are option texts (None for a free answer); `gold` is the index of the right one, or the answer's text.
    `answer_kind` is "choice", "integer", "text" or "tokens", and `answer_format` the sentence that goes with it.
    `worked` is a right reply, `mistakes` are wrong ones.
    """

    id: str
    split: str
    skill: str
    sub_skill: str
    prompt: str
    choices: tuple[str, ...] | None
    gold: int | str
    answer_kind: str
    answer_format: str
    worked: str
    mistakes: tuple[str, ...]

    @property
    def question(self) -> str:
        """The whole user message: prompt, lettered options, answer format."""
        options = (f"{letter}) {text}" for letter, text in zip("ABCD", self.choices or (), strict=False))
        return "\n".join([self.prompt, *options, self.answer_format])


def split_of(key: str) -> str:
    """The split that the question with this content key belongs to: 15 % test, 10 % dev, the rest train."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    return "test" if bucket < 15 else "dev" if bucket < 25 else "train"


def generate(split: str, n: int, seed: int = 0, skills: Sequence[str] = tuple(SKILLS)) -> Iterator[Item]:
    """Yield `n` different items of `split`, cycling through `skills` and through the sub-skills of each.

    A larger `n` with the same seed begins with the same items. Raises ValueError for an unknown split or skill,
    a negative `n`, or a split that holds fewer than `n` questions.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is none of {', '.join(SPLITS)}")
    unknown = [skill for skill in skills if skill not in SKILLS]
    if unknown or not skills:
        raise ValueError(f"skills must be some of {', '.join(SKILLS)}; got {list(skills)}")
    if n < 0:
        raise ValueError(f"n must not be negative; got {n}")
    rng = random.Random(f"moco-skills {split} {seed}")
    seen: set[str] = set()
    for index in range(n):
        skill = skills[index % len(skills)]
        sub_skills = SKILLS[skill]
        yield _next(split, skill, sub_skills[index // len(skills) % len(sub_skills)], rng, seen)


def stream(split: str, seed: int, skill: str, sub_skill: str) -> Iterator[Item]:
    """Endless items of one sub-skill, with repetitions; this is what models are trained on."""
    rng = random.Random(f"moco-skills stream {split} {seed} {skill} {sub_skill}")
    while True:
        yield _next(split, skill, sub_skill, rng, None)


def _next(split: str, skill: str, sub_skill: str, rng: random.Random, seen: set[str] | None) -> Item:
    for _ in range(_PATIENCE):
        draft = draw(skill, sub_skill, rng)
        key = f"{skill}|{draft.key}"
        if split_of(key) != split or (seen is not None and key in seen):
            continue
        if seen is not None:
            seen.add(key)
        name = hashlib.sha256(key.encode()).hexdigest()[:12]
        return Item(
            id=f"skills/{skill}/{sub_skill}/{name}",
            split=split,
            skill=skill,
            sub_skill=sub_skill,
            prompt=draft.prompt,
            choices=draft.choices,
            gold=draft.gold,
            answer_kind=draft.answer_kind,
            answer_format=answer_format(draft.answer_kind),
            worked=draft.worked,
            mistakes=draft.mistakes,
        )
    raise ValueError(f"no further {split} question of {skill}/{sub_skill} was found; ask for fewer")
