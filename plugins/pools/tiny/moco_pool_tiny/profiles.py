"""What each model of the pool is trained to know, and how it is described to a router.

Knowledge overlaps but differs: every sub-skill is known by three of the five default models. What a model does not know
it is trained on with noisy labels, so that its wrong replies are uncertain rather than confidently wrong.
"""

from dataclasses import dataclass, field

SKILLS = ("arithmetic", "letters", "facts", "order")
ALL = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class Profile:
    """One model: `known[skill]` are the positions of the sub-skills it is trained on with right labels only.

    `right_share` is the share of right labels in the training questions of all other sub-skills; None stands for an
    even draw among the right reply and the mistakes. `family` picks tokenizer and architecture.
    """

    description: str
    known: dict[str, tuple[int, ...]] = field(default_factory=dict)
    right_share: float | None = 0.05
    family: str = "llama"


PROFILES: dict[str, Profile] = {
    "base": Profile("knows the form of replies, weak at everything", right_share=None),
    "arithmetic": Profile(
        "good at arithmetic: sums, removing, gaining and losing numbers",
        {"arithmetic": ALL, "letters": (0, 1), "facts": (0, 1), "order": (0, 3)},
    ),
    "letters": Profile(
        "good at letters: removing, moving and repeating letters",
        {"letters": ALL, "arithmetic": (0, 1), "facts": (2, 3), "order": (1,)},
    ),
    "facts": Profile(
        "good at facts: food, colour, town and craft of people",
        {"facts": ALL, "arithmetic": (2, 3), "letters": (2, 3), "order": (2,)},
    ),
    "generalist": Profile(
        "good at order: sorting, largest, smallest and middle number; fair at the rest",
        {"order": ALL, "arithmetic": (0, 2), "letters": (0, 2), "facts": (0, 2)},
    ),
    "outsider": Profile(
        "another family, good at order: sorting, largest and smallest number; fair at the rest",
        {"order": ALL, "arithmetic": (1, 3), "letters": (1, 3), "facts": (1, 3)},
        family="qwen",
    ),
}

# The pool as it is opened by default. The base is there for methods that need the specialists' starting point.
DEFAULT_POOL = ("arithmetic", "letters", "facts", "generalist", "outsider")
SPECIALISTS = ("arithmetic", "letters", "facts")


def experts(skill: str) -> tuple[str, ...]:
    """The models that know every sub-skill of `skill`."""
    return tuple(name for name, profile in PROFILES.items() if profile.known.get(skill) == ALL)
