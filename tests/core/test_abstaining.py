"""A system that declines to answer is counted for what it answers, and what it declines."""

import json

import moco_core
from moco_core import Method, NoOptions, Reply, System
from moco_core.catalogue import installed
from moco_core.runs.records import read_records


class ShySystem(System):
    async def respond(self, question, context):
        reply = await context.generate(self.pool[0], question)
        # toy0 is wrong where the sum, 1000 + 2 i, is divisible by 3: it declines there, and once more
        wrong = sum(int(w) for w in question.prompt.split() if w.isdigit()) % 3 == 0
        return Reply(text=reply.text, abstained=wrong or question.id == "t1000")


class Shy(Method[NoOptions]):
    """Declines what it does not know."""

    system = ShySystem

    async def fit(self, pool, dev, context):
        return ShySystem(pool, self.options)


def test_coverage_and_selective_risk_stand_beside_the_score(moco, toys, monkeypatch):
    installed().register_file(toys)
    monkeypatch.setitem(installed()._registered, ("method", "shy"), Shy)
    results = moco_core.run(pool="toy_pool", method="shy", dataset={"name": "toys", "size": 9}, baselines=True)
    extra = results["shy"].extra_metrics
    # i = 1, 4, 7 are wrong: of nine questions five are answered, all of them right
    assert extra["coverage"] == 5 / 9 and extra["selective_risk"] == 0.0
    assert results.reports[0].rows[-1].estimate.mean == 6 / 9  # the score is of all, whatever the system thinks of them
    assert "coverage" not in results["toy0"].extra_metrics
    declined = [r["id"] for r in read_records(results["shy"].folder) if r["reply"]["abstained"]]
    assert declined == ["t1000", "t1001", "t1004", "t1007"]
    assert json.loads((results["shy"].folder / "run.json").read_text())["extra_metrics"] == extra
