"""A price table reaches the models that a metric scores with."""

import json
from pathlib import Path

import attrs
import pytest

import moco_core as moco
from moco_core import Answer, ConfigError, Metric, Plugin, PoolSource, Score, plugin_option
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool


class Writers(PoolSource):
    """One writer."""

    def models(self):
        return ScriptedPool({"writer": "7"}, fields={"writer": {"prices": None}}).models()


class Judges(PoolSource):
    """One judge."""

    def models(self):
        return ScriptedPool({"judge": "1"}, fields={"judge": {"prices": None}}).models()


@attrs.frozen(kw_only=True)
class JudgedOptions:
    pool: Plugin = plugin_option("pool", "judges")


class Judged(Metric[JudgedOptions]):
    """What the judge says."""

    Options = JudgedOptions

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")

    async def score(self, example, reply, context):
        said = await context.generate(self.options.pool.instance.pool[0], f"How good is {reply.text}?")
        return Score(value=float(said.text), answer=self.read(example.question, reply.text))


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    for cls, name in ((Writers, "writers"), (Judges, "judges"), (Judged, "judged")):
        moco.register(cls, name)


def test_judges_are_priced_by_name_as_the_pool_is():
    prices = {"writer": [1, 2], "judge": [10, 20]}
    run = moco.run(pool="writers", dataset="skills", metric="judged", dev=0, test=3, prices=prices).runs[0]
    for phase, model in (("respond", "writer"), ("metric", "judge")):
        row = run.costs[phase][model]
        low, high = prices[model]
        assert row["money"] == pytest.approx((row["prompt"] * low + row["completion"] * high) / 1e6) and row["money"] > 0
    assert json.loads((Path(run.folder) / "run.json").read_text())["score"]["mean"] == 1.0


def test_a_name_that_nobody_has_is_refused():
    with pytest.raises(ConfigError, match="prices: no model 'jugde' in the pool"):
        moco.run(pool="writers", dataset="skills", metric="judged", dev=0, test=3, prices={"jugde": [1, 1]})
