"""Fitted merges as systems: saved and restored, in the form they had from the first version on."""

import json

import pytest

from moco_core import ConfigError
from moco_core.models import Pool
from moco_toolkit_merging import Linear, Merge, MergedSystem
from moco_toolkit_merging.testing import MergeablePool

SAVED = """{
  "format": 1,
  "name": "soup",
  "merge": {
    "sources": [
      {"model": "a", "base": false, "fingerprint": "fa"},
      {"model": "b", "base": false, "fingerprint": "fb"}
    ],
    "operation": {"kind": "linear", "coefficients": [0.25, 0.75]}
  },
  "facts": {"recipe": "learned", "trace": [{"step": 0, "label": "a", "score": 0.5, "best": 0.5}]}
}"""


def pool(**changes):
    prints = {name: {"fingerprint": f"f{name}"} for name in "ab"} | changes
    return MergeablePool("ab", lambda m: m.share("b"), prints).pool


def test_a_system_that_an_earlier_version_saved_is_read_and_saved_alike():
    state = json.loads(SAVED)
    system = MergedSystem(pool(), None, **state)
    assert system.merge == Merge.weights(Linear(coefficients=(0.25, 0.75)), list(system.pool))
    assert json.loads(json.dumps(system.state())) == state
    assert system.model.name == "soup" and system.model is system.model  # one derived model, however many questions


def test_another_format_and_a_changed_source_are_refused_in_one_line():
    state = json.loads(SAVED)
    with pytest.raises(ConfigError, match="saved system of format 2, this version reads 1; fit again"):
        MergedSystem(pool(), None, **{**state, "format": 2})
    with pytest.raises(ConfigError, match="model 'b' has changed since the system was fitted"):
        MergedSystem(pool(b={"fingerprint": "other"}), None, **state)
    with pytest.raises(ConfigError, match="sources: no model 'b' in the pool"):
        MergedSystem(Pool(list(pool())[:1]), None, **state)


def test_a_merge_that_equals_a_model_of_the_pool_is_answered_by_that_model():
    models = pool()
    system = MergedSystem(models, None, name="x", merge=Merge.of_one(models[1]))
    assert system.model is models[1]
