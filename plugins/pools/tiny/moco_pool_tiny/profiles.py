"""What each model of the pool is trained to know, and how it is described to a router.

Knowledge overlaps but differs: every sub-skill is known by two or three of the five default models. Specialists know one
sub-skill in four of what is not their own, which keeps them well under one half there even with lucky guesses. What a model
does not know it is trained on with labels drawn from the mistakes, so that its wrong replies are uncertain and differ from
others'.
"""

from dataclasses import dataclass, field

SKILLS = ("arithmetic", "letters", "facts", "order")
ALL = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Profile:
    """One model: `known[skill]` are the positions of the sub-skills it is trained on with right labels.

    On all other sub-skills its labels are drawn from the mistakes; `guesses` adds the right reply to that draw. A
    `latent` model also sees every question with the system prompt "Answer as an expert." and the right reply: it learns how
    each answer is made, and an adapter only has to bring that out. `forgets` is known until the last phase of training,
    which takes it away again. `family` picks tokenizer and architecture.
    """

    description: str
    known: dict[str, tuple[int, ...]] = field(default_factory=dict)
    guesses: bool = False
    latent: bool = False
    forgets: dict[str, tuple[int, ...]] = field(default_factory=dict)
    family: str = "llama"


PROFILES: dict[str, Profile] = {
    "base": Profile("weak at everything, knows the form of replies", guesses=True, latent=True),
    "arithmetic": Profile(
        "arithmetic: sums, removing, gaining and losing numbers",
        {"arithmetic": ALL, "letters": (0,), "facts": (0,), "order": (0,)},
    ),
    "letters": Profile(
        "letters: removing, moving and repeating letters",
        {"letters": ALL, "arithmetic": (1,), "facts": (2,), "order": (1,)},
    ),
    "facts": Profile(
        "facts: food, colour, town and craft of people",
        {"facts": ALL, "arithmetic": (2,), "letters": (3,), "order": (2,)},
    ),
    "generalist": Profile(
        "order: sorting, largest, smallest and middle number; fair at the rest",
        {"order": ALL, "arithmetic": (0, 2), "letters": (0, 2), "facts": (0,)},
    ),
    "outsider": Profile(
        "order: sorting, largest, smallest and middle number; another family",
        {"order": ALL, "arithmetic": (1, 3), "letters": (1,), "facts": (1, 3)},
        latent=True,
        forgets={"letters": (3,)},
        family="qwen",
    ),
}

# The pool as it is opened by default. The base is there for methods that need the specialists' starting point.
DEFAULT_POOL = ("arithmetic", "letters", "facts", "generalist", "outsider")
SPECIALISTS = ("arithmetic", "letters", "facts")


def experts(skill: str) -> tuple[str, ...]:
    """The models that know every sub-skill of `skill`."""
    return tuple(name for name, profile in PROFILES.items() if profile.known.get(skill) == ALL)
