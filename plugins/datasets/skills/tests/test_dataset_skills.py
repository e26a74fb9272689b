"""The dataset skills: the generated items as examples."""

import pytest

from moco_core.errors import ConfigError
from moco_dataset_skills import Options, Skills
from moco_toolkit_authoring import dataset_checks
from moco_toolkit_skills import generate

test_conformance = dataset_checks("skills")


def test_plugin_yields_the_generated_items() -> None:
    data = Skills(Options(dev_size=8, test_size=40, seed=2))
    examples = list(data.examples("test"))
    items = list(generate("test", 40, seed=2))
    assert [e.question.text() for e in examples] == [i.question for i in items]
    assert [e.references[0] if e.references else e.answer for e in examples] == [i.gold for i in items]
    assert len(list(data.examples("dev"))) == 8
    with pytest.raises(ConfigError, match="skills"):
        Options(skills=("cooking",))
