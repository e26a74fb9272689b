"""Datasets without references: what a reward model says is the score, the empty reply's too; or nothing is scored at all."""

import json
from pathlib import Path

import pytest
from scripted_judges import TALKERS

from moco_core import cli
from moco_core.catalogue import installed
from moco_core.runs.records import read_records
from moco_toolkit_authoring import run_checks

JUDGES = Path(__file__).parent / "helpers" / "scripted_judges.py"
JUDGED = ("-m", "reward_model", "-o", "metric.pool={name: rewards}")
NAMES = ["alpacaeval", "human_interest", "wildchat"]
LENGTHS = {name: float(len(said.strip())) for name, said in TALKERS.items()}


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Run three models that talk differently much on a dataset's own rows; return the mean score of each, and its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))

    def run(name, *args):
        path = installed().load("dataset", name).fixture_path()
        command = ["run", "majority_vote", "-d", name, "-p", "talkers", "-o", f"dataset.path={path}", *args]
        code = cli._run([*command, "--plugin", str(JUDGES), "--json"])
        out, err = capsys.readouterr()
        if code:
            return code, err
        (report,) = json.loads(out)
        rows = {r["label"]: r for r in report["rows"] if r["role"] == "baseline"}
        return {n: r["score"] and r["score"]["mean"] for n, r in rows.items()}, rows

    return run


@pytest.mark.parametrize("name", NAMES)
def test_the_checks_say_why_no_reply_is_known_to_be_best_or_worst(name):
    told = {r.name: r for r in run_checks("dataset", name)}
    for check in ("gold_scores_highest", "empty_reply_scores_lowest"):
        assert told[check].status == "skipped" and "\n" not in told[check].message
        assert told[check].message.startswith("the metric 'reward_model' cannot score by itself")


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_the_reward_whatever_the_reward_model_likes(name, ask):
    means, rows = ask(name, *JUDGED)
    assert means == pytest.approx(LENGTHS)
    assert means["mute"] < means["brief"] < means["chatty"]
    # the empty reply is shown to the reward model like any other, as the reference study does: no floor is put under it
    assert all(r["score"] == 0.0 for r in read_records(Path(rows["mute"]["folder"])))
    means, _ = ask(name, *JUDGED, "-o", "metric.model=likes_short")
    assert means == pytest.approx({n: -size for n, size in LENGTHS.items()})


# one of the two conversations of wildchat's rows got no reply: there the empty one ties
@pytest.mark.parametrize(("name", "lowest"), [("alpacaeval", 0), ("wildchat", 0.25)])
def test_wins_against_the_replies_that_the_dataset_brings_have_a_range(name, lowest, ask):
    options = (*JUDGED, "-o", "metric.report=win_rate", "-o", "metric.baseline=dataset")
    means, _ = ask(name, *options)
    assert means["mute"] == lowest and means["chatty"] == 1 and lowest <= means["brief"] <= 1


def test_a_dataset_without_replies_to_compare_with_says_so(ask):
    options = (*JUDGED, "-o", "metric.report=win_rate", "-o", "metric.baseline=dataset")
    code, told = ask("human_interest", *options)
    assert code and "the dataset brings no baseline reply (meta['baseline']); give a file as metric.baseline" in told


@pytest.mark.parametrize("name", NAMES)
def test_generating_without_scoring_needs_no_judge_and_gives_no_number(name, ask):
    means, rows = ask(name, "-m", "none")
    assert means == dict.fromkeys(TALKERS)  # null, not 0
    for model, said in TALKERS.items():
        records = list(read_records(Path(rows[model]["folder"])))
        assert records and {r["score"] for r in records} == {None}
        assert {r["reply"]["text"] for r in records} == {said}
