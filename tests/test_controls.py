"""Controls of whole runs: configured, planned, run, resumed, judged and shown."""

import json
from pathlib import Path

import pytest

from moco_core import cli
from moco_core.runs.results import read_results

TOYS = Path(__file__).parent / "core" / "toy_plugins.py"
ARGS = ("toy_vote", "-d", "toys", "-p", "toy_pool", "--plugin", str(TOYS))


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "served.log"))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args):
        code = cli._run(list(args))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def served():
    return Path("served.log").read_text().splitlines()


def test_controls_are_runs_like_others_and_ask_nothing_twice(moco):
    code, out, err = moco("run", *ARGS, "--controls", "self,equal_budget,placebo", "--json")
    assert code == 0, err
    (report,) = json.loads(out)
    rows = {r["label"]: r for r in report["rows"]}
    # a vote learns nothing from dev: it has no placebo
    assert {r["label"] for r in rows.values() if r["role"] == "control"} == {"toy_vote equal budget", "toy_vote self"}
    assert rows["toy_vote equal budget"]["control"] == "equal budget"
    assert rows["toy_vote equal budget"]["control_of"] == rows["toy_vote self"]["control_of"] == "toy_vote"
    # three models used 3 x 8 tokens per question: three replies of the best one
    assert rows["toy_vote equal budget"]["cost_per_question"]["tokens"]["value"] == 24
    assert rows["toy_vote"]["verdict"]["decision"] == "UNDECIDED" and report["rule"] == {"level": 0.95, "gain": 0.0}
    # 3 models on dev and test; self: 3 copies at 0.7 on test; equal budget: 2 further samples, shared with the copies' first
    calls = len(served())
    assert calls <= 3 * 80 + 3 * 40 + 2 * 40
    code, again, _ = moco("run", *ARGS, "--controls", "self,equal_budget,placebo", "--json")
    assert len(served()) == calls
    assert {r["label"]: r["score"] for r in json.loads(again)[0]["rows"]} == {k: r["score"] for k, r in rows.items()}


def test_the_rule_is_fixed_in_the_configuration_and_recorded_before_the_first_question(moco):
    Path("c.yaml").write_text(
        "pool: toy_pool\nmethod: toy_vote\ndataset: toys\ncontrols: [equal_budget]\nverdict: {level: 0.9, gain: 0.5}\n"
    )
    _, out, _ = moco("bench", "c.yaml", "--plugin", str(TOYS), "--json")
    (report,) = json.loads(out)
    row = next(r for r in report["rows"] if r["label"] == "toy_vote")
    assert row["verdict"]["decision"] == "DROP" and report["rule"] == {"level": 0.9, "gain": 0.5}
    assert {json.loads(p.read_text())["rule"]["gain"] for p in Path("runs").glob("*/run.json")} == {0.5}


def test_a_control_runs_again_from_its_folder(moco):
    moco("run", *ARGS, "--controls", "self", "--no-baselines")
    (folder,) = Path("runs").glob("*self*")
    before = json.loads((folder / "run.json").read_text())
    code, _, err = moco("run", str(folder), "--no-baselines", "--plugin", str(TOYS))
    after = json.loads((folder / "run.json").read_text())
    assert code == 0 and after["role"] == before["role"] == "control" and after["started"] > before["started"], err
    assert sorted(r.role for r in read_results("runs")) == ["control", "method"]


def test_a_plan_names_the_controls_and_what_they_would_cost(moco):
    code, out, _ = moco("plan", *ARGS)
    assert code == 0 and "  toy_vote self on toys, seed 0: at most 240 calls" in out.splitlines()
    assert "  toy_vote equal budget on toys, seed 0: at most 360 calls" in out.splitlines()
    assert not Path("runs").exists() and not Path("served.log").exists()
    code, out, _ = moco("plan", *ARGS, "--controls", "self", "--json")
    body = json.loads(out)
    assert [r["method"] for r in body["runs"]] == ["toy_vote", "toy_vote self"]
    assert [r["method"] for r in body["controls"]] == ["toy_vote equal budget"]


def test_an_unknown_control_is_one_line(moco):
    code, _, err = moco("run", *ARGS, "--controls", "selfish")
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("error")] == [
        "error: controls.kind: expected one of self, equal_budget, placebo, got 'selfish', did you mean 'self'?"
    ]
