"""Any task of lm-evaluation-harness that is answered by a choice or a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import attrs

from moco_core import Dataset, DatasetFacts, Example, Split, hookimpl, option
from moco_toolkit_harness import SAMPLE, Place, example_of, load_tasks, prompts

__all__ = ["LmEval", "Options", "moco_dataset"]


@attrs.frozen(kw_only=True)
class Options:
    """Which task, and how it is asked."""

    task: str = option(help="a task, group or tag of lm-eval; `lm-eval ls tasks` lists them")
    include_path: str = option("", holds="path", help="a folder with task configurations of your own")
    num_fewshot: int | None = option(None, ge=0, help="examples in a prompt; none takes the task's own number")
    fewshot_seed: int = option(1234, help="seed by which they are drawn; lm-eval's own default")


class LmEval(Dataset[Options]):
    """The documents of a task with its own prompts, few-shot examples included. A group's tasks are subsets."""

    Options = Options
    facts = DatasetFacts(
        title="lm-evaluation-harness",
        metric="lm_eval",
        licence="the task's own",
        source="https://github.com/EleutherAI/lm-evaluation-harness",
        notes="Test is the split that lm-eval scores; dev is the validation split where that is another one, else training.",
    )

    def examples(self, split: Split) -> Iterator[Example]:
        """Yield a split's documents task by task, in lm-eval's order."""
        o = self.options
        for name, task in load_tasks(o.task, o.include_path).items():
            for index, doc, prompt in prompts(task, split, o.num_fewshot, o.fewshot_seed):
                place = Place(task=name, include_path=o.include_path, split=split, index=index)
                yield example_of(task, place, doc, prompt)

    def notes(self) -> Mapping[str, Any]:
        """Return the versions of the library and of the tasks: scores of different ones are not compared."""
        tasks = load_tasks(self.options.task, self.options.include_path)
        versions = {
            name: str((task.config.metadata or {}).get("version", task.VERSION)) for name, task in tasks.items()
        }
        return {"lm_eval": metadata.version("lm_eval"), "task_versions": versions}

    @classmethod
    def sample(cls) -> Mapping[str, Any]:
        return {"task": "moco_sample_sums", "include_path": str(SAMPLE)}


@hookimpl
def moco_dataset() -> type[LmEval]:
    return LmEval
