"""A budget ends a benchmark at its limit, keeps what was answered, and lets it go on."""

import json
from pathlib import Path

import pytest

from moco_core.errors import BudgetReached, ConfigError
from moco_core.models import Engine, Model
from moco_core.runtime.budget import Budget
from moco_core.types import Generation, Usage

ARGS = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "-o", "pool.batch=4", "-o", "pool.delay=0.02")
TABLE = "toy0: [1000, 1000]\ntoy1: [1000, 1000]\ntoy2: {prompt: 1, completion: 1}\n"


def test_a_limit_of_tokens_stops_cleanly_and_a_further_one_goes_on(moco, served):
    got = moco(*ARGS, "--budget", "400 tokens")
    assert got.code == 1 and len(got.errors) == 1
    assert got.errors[0].startswith("error: the budget of 400 tokens is used up (400 tokens); what was answered is kept")
    made = len(served())
    assert 50 <= made < 240  # 8 tokens a call: 50 calls, and what was under way
    for head in map(json.loads, (p.read_text() for p in Path("runs").glob("*/run.json"))):
        assert head["status"] == "interrupted"
    got = moco(*ARGS, "--budget", "1M tokens")
    assert got.code == 0, got.err
    assert len(served()) == len(set(served())) == 240  # what was paid is not paid again
    assert moco(*ARGS, "--budget", "0 tokens").code == 0  # all of it is in the cache, and free


def test_money_is_counted_at_the_prices_of_a_file(moco, served):
    Path("prices.yaml").write_text(TABLE.replace("{prompt: 1, completion: 1}", "[1, 1]"))
    got = moco(*ARGS, "--prices", "prices.yaml", "--budget", "0.08")
    assert got.code == 1 and "the budget of 0.08 is used up (0.08" in got.errors[0] and len(served()) < 240
    got = moco(*ARGS, "--prices", "prices.yaml")
    assert got.code == 0
    (head,) = (json.loads(p.read_text()) for p in Path("runs").glob("*toy_vote*/run.json"))
    spent = {model: row["money"] for model, row in head["tokens"]["respond"].items()}
    assert spent == pytest.approx({"toy0": 40 * 8e-3, "toy1": 40 * 8e-3, "toy2": 40 * 8e-6})


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--budget", "2.5"), "error: budget: toy0, toy1, toy2 has no price; name it under prices, or limit tokens"),
        (("--budget", "lots"), "error: budget: expected money or tokens, such as 2.50 or '500k tokens', got 'lots'"),
        (("--budget", "5k"), "error: budget: expected money or tokens"),
        (("-o", "prices={toy9: [1, 1]}"), "error: prices: no model 'toy9' in the pool (toy0, toy1, toy2)"),
        (("-o", "prices={toy0: [1, -1]}"), "error: prices: toy0: expected prices >= 0"),
        (("-o", "prices={toy0: 1}"), "error: prices.toy0: expected a list, got"),
        (("--prices", "nowhere.yaml"), "error: nowhere.yaml: no such file"),
    ],
)
def test_what_is_no_budget_and_no_price_is_one_line(moco, served, more, line):
    got = moco(*ARGS, *more)
    assert got.code == 2 and got.errors and got.errors[0].startswith(line) and served() == []


def test_what_a_budget_is():
    assert (Budget("2.50").limit, Budget("2.50").tokens) == (2.5, False)
    assert [Budget(t).limit for t in ("7 tokens", "500k tokens", "2Mtokens", "1.5k tokens")] == [7, 5e5, 2e6, 1500]
    for text in ("", "-1", "1e9", "٣", "k tokens", "5k"):
        with pytest.raises(ConfigError):
            Budget(text)
    model = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Engine(), prices=(1.0, 2.0))
    budget = Budget("0.00002")
    budget.pay(model, Usage(5, 5), Generation(text=""))
    budget.pay(model, Usage(0, 0), Generation(text="", meta={"cost": None}))  # unknown
    with pytest.raises(BudgetReached, match=r"used up \(2\.5e-05\)"):
        budget.pay(model, Usage(5, 5), Generation(text="", meta={"cost": 1e-5}))
