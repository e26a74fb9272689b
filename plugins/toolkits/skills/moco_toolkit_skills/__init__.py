"""Generated questions of four small skills, with right and wrong replies: what a dataset asks and a pool is trained on."""

from moco_toolkit_skills.generate import SPLITS, Item, generate, split_of, stream
from moco_toolkit_skills.skills import LETTERS, SKILLS, answer_format
from moco_toolkit_skills.world import PEOPLE, VALUES, fact

__all__ = [
    "LETTERS",
    "PEOPLE",
    "SKILLS",
    "SPLITS",
    "VALUES",
    "Item",
    "answer_format",
    "fact",
    "generate",
    "split_of",
    "stream",
]
