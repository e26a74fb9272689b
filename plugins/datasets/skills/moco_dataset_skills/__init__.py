"""A generated dataset of four small skills: arithmetic, letters, facts of an invented village, and order."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from moco_core import Dataset, DatasetFacts, Example, Question, Split, hookimpl, option
from moco_toolkit_skills import SKILLS, Item, generate

__all__ = ["Options", "Skills", "moco_dataset"]


def _unknown(names: tuple[str, ...]) -> str | None:
    unknown = [name for name in names if name not in SKILLS]
    return f"expected some of {', '.join(SKILLS)}; got {', '.join(unknown) or 'none'}" if unknown or not names else None


@attrs.frozen(kw_only=True)
class Options:
    """What to generate."""

    dev_size: int = option(200, ge=0, help="dev questions")
    test_size: int = option(400, ge=0, help="test questions")
    seed: int = option(0, help="seed of the sample; which split a question belongs to does not depend on it")
    skills: tuple[str, ...] = option(
        tuple(SKILLS), check=_unknown, help="which skills, in the order in which they take turns"
    )


class Skills(Dataset[Options]):
    """Questions of four skills with four sub-skills each, generated from a seed without files or network."""

    Options = Options
    facts = DatasetFacts(
        title="Skills",
        metric="exact_match",
        licence="Apache-2.0",
        source="generated",
        sizes=(200, 400),
        notes="The facts are invented: only a model trained on the train split can know them.",
    )

    def examples(self, split: Split) -> Iterator[Example]:
        """Yield the examples of `split`, skills taking turns; every question states its answer format."""
        size = self.options.dev_size if split == "dev" else self.options.test_size
        for item in generate(split, size, self.options.seed, self.options.skills):
            yield to_example(item)


def to_example(item: Item) -> Example:
    """The item as the core knows it: what a method may see in the question, the reference beside it."""
    question = Question(
        id=item.id,
        prompt=item.prompt,
        choices=item.choices or (),
        answer_kind=item.answer_kind,
        answer_format=item.answer_format,
        subset=item.skill,
        meta={"sub_skill": item.sub_skill},
    )
    if isinstance(item.gold, int):
        return Example(question=question, answer=item.gold)
    return Example(question=question, references=(item.gold,))


@hookimpl
def moco_dataset() -> type[Skills]:
    return Skills
