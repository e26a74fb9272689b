"""Metrics that score with models, end to end through the command line: exact with scripted judges, real with small ones."""

import json
from pathlib import Path

import pytest

from moco_core import cli
from moco_core.runs.records import read_records, read_run

JUDGES = Path(__file__).parent / "helpers" / "scripted_judges.py"
SAID = ["42", "forty-two", "It must be forty-two, I am sorry.", "seven", "sorry, no"]


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    """Run the command line in a folder of its own; returns exit code, reports and what was told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setenv("JUDGE_LOG", str(tmp_path / "served.log"))
    rows = [{"id": f"q{i}", "question": f"Say: {s}", "number": "42", "split": "test"} for i, s in enumerate(SAID)]
    rows += [{**rows[0], "id": "d0", "split": "dev"}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    def run(*args):
        code = cli._run([*args, "--plugin", str(JUDGES), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out.strip() else [], err

    return run


ITEMS = ("-d", "custom", "-o", "dataset.path=items.jsonl", "-o", "dataset.answer=number")


def ask(moco, *args, pool="parrots"):
    """Run a single model on the items; return its row, its records by id, and its run.json."""
    code, reports, err = moco("run", "majority_vote", "-p", pool, *ITEMS, *args)
    assert code == 0, err
    (row,) = (r for r in reports[0]["rows"] if r["role"] == "baseline")
    folder = Path(row["folder"])
    return row, {r["id"]: r for r in read_records(folder)}, read_run(folder)


def served(tmp_path):
    return [line.split("\t") for line in (tmp_path / "served.log").read_text().splitlines()]


# scripted judges -----------------------------------------------------------------------------------------------------


def test_a_verifier_is_asked_only_what_rules_do_not_decide(moco, tmp_path):
    options = ("-m", "answer_verifier", "-o", "metric.pool.name=judges", "-o", "dataset.kind=integer")
    row, records, head = ask(moco, *options)
    assert [records[f"q{i}"]["score"] for i in range(5)] == [1, 1, 1, 0, 0]
    assert [records[f"q{i}"]["score_meta"]["judge"] for i in range(5)] == [
        "not asked: equal by rule", "yes", "yes", "no", "no",
    ]  # fmt: skip
    assert row["score"]["mean"] == pytest.approx(3 / 5)
    assert row["extra_metrics"] == head["extra_metrics"] == {"judged": 0.8, "no_verdict": 0.0}
    # four calls of the judge, in fewer batches, all counted in the metric's phase
    judge = head["tokens"]["metric"]["verifier"]
    assert judge["calls"] + judge["cached"] == 4 and judge["completion"] == 4 * 3
    batches = [int(n) for name, n in served(tmp_path) if name == "verifier"]
    assert sum(batches) == 4 and len(batches) < 4
    # a second run asks nobody
    again, _, head = ask(moco, *options)
    assert again["score"] == row["score"] and again["calls"] == again["cached_calls"] > 0
    assert head["tokens"]["metric"]["verifier"]["calls"] == 0
    assert [int(n) for name, n in served(tmp_path) if name == "verifier"] == batches


def test_a_silent_judge_is_told_and_scores_nothing(moco):
    options = ("-m", "answer_verifier", "-o", "metric.pool.name=judges", "-o", "metric.judge=silent")
    row, records, _ = ask(moco, *options, "-o", "metric.rules_first=false")
    assert row["score"]["mean"] == 0 and row["extra_metrics"] == {"judged": 0.0, "no_verdict": 1.0}
    assert {r["score_meta"]["judge"] for r in records.values()} == {"no verdict"}


def test_noncompliance_by_a_judge(moco, tmp_path):
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"subcategory": "underspecified", "comply": row["id"] in ("q2", "q3")}
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    row, records, _ = ask(
        moco, "-m", "noncompliance", "-o", "metric.pool.name=judges", "-o", "metric.model=compliance",
        "-o", "dataset.kind=open", "-o", "dataset.meta={subcategory: subcategory, comply: comply}",
    )  # fmt: skip
    # noncompliance is demanded of q0, q1, q4 and found in q4; compliance is demanded of q2, q3 and found in q3
    assert [records[f"q{i}"]["score"] for i in range(5)] == [0, 0, 0, 1, 1]
    assert row["extra_metrics"] == {"noncompliance": pytest.approx(1 / 3), "compliance": 0.5, "no_verdict": 0.0}


def test_a_method_that_learns_from_dev_is_judged_in_ask_too(moco, tmp_path):
    judged = ("-o", "metric={name: answer_verifier, rules_first: false, pool: {name: judges}}")
    code, asked, err = moco("ask", "prompt_routing", "Say: yes", "-p", "talkers", *ITEMS, *judged)
    assert code == 0 and asked["text"] in (
        "",
        "Yes.",
        ("That depends on many things, and I can name every one. " * 40),
    ), err
    # mute's empty reply is never shown to a judge, the two others' are
    assert sum(int(n) for name, n in served(tmp_path) if name == "verifier") == 2
    # the dataset's metric needs a judge here, which is told when a method wants a score, and only then
    unjudged = ("-o", "metric={name: answer_verifier, rules_first: false}")
    code, _, err = moco("ask", "prompt_routing", "Say: yes", "-p", "talkers", *ITEMS, *unjudged)
    assert code == 1 and [line for line in err.splitlines() if line.startswith("error: ")] == [
        "error: metric.pool: missing; answer_verifier scores with a model, name its pool: "
        "-m answer_verifier -o 'metric.pool={name: POOL, models: [MODEL]}'"
    ]
    code, asked, err = moco("ask", "majority_vote", "Say: yes", "-p", "parrots", *ITEMS, *unjudged)
    assert code == 0 and asked["text"] == "yes", err


def test_options_of_a_metric_without_its_name_are_those_of_the_datasets_own(moco):
    _, _, head = ask(moco, "-o", "dataset.kind=integer", "-o", "metric.tolerance=0.5")
    assert head["config"]["metric"] == {**head["config"]["metric"], "name": "exact_match", "tolerance": 0.5}
    code, _, err = moco("run", "majority_vote", "-p", "parrots", *ITEMS, "-o", "metric.toleranc=0.5")
    assert code == 2 and err.strip() == "error: metric.toleranc: unknown key, did you mean 'tolerance'?"
    two = "datasets=[{name: custom, path: items.jsonl, answer: number}, {name: custom, path: items.jsonl, kind: open}]"
    code, _, err = moco("run", "majority_vote", "-p", "parrots", "-o", two, "-o", "metric.pool.name=judges")
    assert code == 2 and err.strip() == (
        "error: metric: name missing; the datasets have different default metrics: exact_match, reward_model"
    )


# real models ---------------------------------------------------------------------------------------------------------


def test_rewards_are_those_of_the_checkpoint(moco, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("moco_pool_transformers")
    import random_checkpoints

    folder = random_checkpoints.write(tmp_path / "reward", classifier=True, num_labels=1)
    pool = ("-m", "reward_model", "-o", f"metric.pool={{name: transformers, models: [{folder}]}}")
    row, records, head = ask(moco, *pool, "-o", "dataset.kind=open")
    # one at a time, unpadded, by the library itself
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for i, said in enumerate(SAID):
        talk = [*records[f"q{i}"]["calls"][0]["seen"]["messages"], ["assistant", said]]
        text = tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in talk], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
            wanted = float(model.score(hidden))
        assert records[f"q{i}"]["score"] == pytest.approx(wanted, abs=1e-4)
    assert len({round(r["score"], 6) for r in records.values()}) == 5
    assert row["extra_metrics"] == {"characters": sum(map(len, SAID)) / 5}
    (counted,) = head["tokens"]["metric"].values()
    assert (counted["calls"], counted["cached"]) == (5, 1)  # the dev question got the reply of q0
    again, _, head = ask(moco, *pool, "-o", "dataset.kind=open")
    assert again["score"] == row["score"] and again["calls"] == again["cached_calls"]


def test_the_embedded_models_can_judge(moco):
    pytest.importorskip("moco_pool_tiny")
    pytest.importorskip("torch")
    tiny = ("-o", "metric.pool={name: tiny, models: [facts]}")
    row, records, head = ask(moco, "-m", "answer_verifier", *tiny, "-o", "metric.max_new_tokens=8")
    asked = [r for r in records.values() if not r["score_meta"]["judge"].startswith("not asked")]
    # such small models give no verdict, which is told and not taken for a no
    assert {r["score_meta"]["judge"] for r in asked} <= {"yes", "no", "no verdict"}
    assert row["extra_metrics"]["judged"] + row["extra_metrics"]["no_verdict"] == pytest.approx(len(asked) / 5)
    facts = head["tokens"]["metric"]["facts"]
    assert facts["calls"] + facts["cached"] == len(asked) == 4
    embed = ("-m", "generation_diversity", "-o", "metric.measure=reference_distance", *tiny)
    row, records, _ = ask(moco, *embed, "-o", "dataset.kind=open")
    assert records["q0"]["score"] == pytest.approx(0, abs=1e-6)  # the reply is the reference
    assert all(0 < records[f"q{i}"]["score"] < 2 for i in range(1, 5))


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["answer_verifier", "reward_model"])
def test_a_missing_pool_is_one_line_before_any_question(moco, tmp_path, metric):
    code, _, err = moco("run", "majority_vote", "-p", "parrots", *ITEMS, "-m", metric)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: metric.pool: missing; {metric} scores with a model, name its pool: -m {metric} -o")
    assert not (tmp_path / "served.log").exists() and not (tmp_path / "runs").exists()
    # what the line says to write is what works
    written = line.partition("-o '")[2].rstrip("'").replace("{name: POOL, models: [MODEL]}", "{name: judges}")
    if metric == "answer_verifier":
        assert moco("run", "majority_vote", "-p", "parrots", *ITEMS, "-m", metric, "-o", written)[0] == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-m", "noncompliance", "-o", "metric.judge=model"), "metric.pool: missing; judge: model needs"),
        (("-m", "generation_diversity", "-o", "metric.measure=vendi"), "metric.pool: missing; measure: vendi needs"),
        (("-m", "reward_model", "-o", "metric.pool.name=judges"), "metric.pool: model 'verifier' cannot score a conv"),
        (("-m", "answer_verifier", "-o", "metric.pool.name=jugdes"), "no pool 'jugdes'"),
        (
            ("-m", "answer_verifier", "-o", "metric.pool.name=judges", "-o", "metric.judge=jugde"),
            "metric.judge: no model 'jugde'",
        ),
    ],
)
def test_a_pool_that_cannot_judge_is_one_line_before_any_question(moco, tmp_path, options, told):
    code, _, err = moco("run", "majority_vote", "-p", "parrots", *ITEMS, *options)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ") and told in line
    assert not (tmp_path / "served.log").exists() and not (tmp_path / "runs").exists()


def test_the_default_metric_of_a_dataset_tells_its_pool_too(moco):
    cls = pytest.importorskip("moco_dataset_alpacaeval").AlpacaEval
    code, _, err = moco("run", "majority_vote", "-d", "alpacaeval", "-o", f"dataset.path={cls.fixture_path()}")
    assert code == 2 and err.startswith("error: metric.pool: missing; reward_model scores with a model")
