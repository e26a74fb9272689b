import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from moco_core import api, cli
from moco_core.cli.display import call_lines
from moco_core.runs.records import read_records, read_run
from moco_core.types import CallRecord


def folders(moco):
    return sorted(p for p in (moco.folder / "runs").iterdir() if p.is_dir())


def test_run_compares_with_every_single_model(moco):
    got = moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool")
    assert got.code == 0, got.err
    lines = got.out.splitlines()
    assert lines[0] == "toys, seed 0, metric toy_match; best single model chosen on dev"
    assert [line.split()[0] for line in lines[2:6]] == ["toy0", "toy1", "toy2", "toy_vote"]
    assert "best single" in lines[4] and "+" in lines[5]
    assert len(folders(moco)) == 4
    assert "4 runs in runs/" in got.err


def test_scores_intervals_and_tokens_are_what_the_toys_make(moco):
    got = moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--json")
    (report,) = json.loads(got.out)
    rows = {r["label"]: r for r in report["rows"]}
    sums = [1000 + 2 * i for i in range(40)]
    for index, blind in enumerate((3, 5, 7)):
        right = sum(s % blind != 0 for s in sums)
        assert rows[f"toy{index}"]["score"]["mean"] == pytest.approx(right / 40)
    assert rows["toy2"]["best_single"] and report["best_single_chosen_on"] == "dev"
    # wrong answers differ, so two wrong models leave a tie of three answers, which the first model wins
    right = sum(sum(s % b == 0 for b in (3, 5, 7)) <= 1 or (s % 3 != 0 and s % 35 == 0) for s in sums)
    assert rows["toy_vote"]["score"]["mean"] == pytest.approx(right / 40)
    assert rows["toy_vote"]["completion_tokens"] == 40 * 3 * 3
    assert rows["toy_vote"]["versus_best_single"]["n"] == 40


def test_extra_metrics_and_subsets_stand_below_the_comparison_and_in_every_record(moco):
    got = moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "-o", "dataset.size=5")
    # the subset is that of the first summand, and a model fails where the sum is divisible by its number
    right = {"toy0": [1, 0, 1, 1, 0], "toy1": [0, 1, 1, 1, 1], "toy2": [1, 1, 1, 1, 0]}
    for i, number in enumerate(range(1000, 1005)):
        assert [right[f"toy{k}"][i] for k in range(3)] == [int((number + i) % b != 0) for b in (3, 5, 7)]
    blocks = [b.splitlines() for b in got.out.split("\n\n")]
    assert len(blocks) == 3
    assert [line.split() for line in blocks[1][:2]] == [
        ["system", "subset_mean", "largest"],
        ["toy0", "(single)", "0.583", "1,011"],
    ]
    assert blocks[2] == ["2 subsets: their scores stand in every run.json and in the output of --json"]
    run = next(p for p in folders(moco) if "toy0" in p.name)
    head = read_run(run)
    assert head["extra_metrics"] == {"subset_mean": pytest.approx((2 / 3 + 1 / 2) / 2), "largest": 1011.0}
    (report,) = json.loads(
        moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "-o", "dataset.size=5", "--json").out
    )
    (row,) = (r for r in report["rows"] if r["label"] == "toy0")
    assert row["extra_metrics"] == head["extra_metrics"]
    assert row["subsets"] == head["subsets"] == {"even": {"mean": 2 / 3, "n": 3}, "odd": {"mean": 0.5, "n": 2}}


def test_the_columns_of_a_table_are_chosen_by_their_headings_and_others_refused_before_any_work(moco):
    args = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "5")
    got = moco(*args, "--columns", "p,score")
    assert got.out.splitlines()[1].split() == ["system", "score", "p"]
    before = len(folders(moco))
    got = moco(*args, "--seed", "7", "--columns", "prize")
    assert got.code == 2 and got.errors[0].startswith("error: --columns: prize: no such column; there are system, score")
    assert len(folders(moco)) == before


def test_the_run_folder_holds_what_is_needed_to_check_it(moco):
    moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "-o", "pool.api_key=s3cr3t-value", "--seed", "5")
    run = next(p for p in folders(moco) if "toy_vote" in p.name)
    head = read_run(run)
    assert head["status"] == "finished" and head["format"] == 1
    assert head["config"]["method"] == {"name": "toy_vote", "rounds": 1, "raises": False}
    assert head["given"]["method"] == {"name": "toy_vote"}
    assert (
        head["config"]["seed"] == 5 and head["dataset"]["test"] == 40 and len(head["dataset"]["test_fingerprint"]) == 32
    )
    spent = head["tokens"]["respond"]["toy0"]
    assert (spent["prompt"], spent["completion"], spent["calls"], spent["cached"]) == (200, 120, 0, 40)
    assert spent["saved"] == {"prompt": 200, "completion": 120, "seconds": spent["seconds"]}  # all of it from the cache
    assert head["subsets"].keys() == {"even", "odd"}
    assert set(head["environment"]) == {"python", "platform", "cpus", "versions", "engines"}
    assert head["environment"]["engines"] == [{"engine": "toy", "batch": 64}]  # as the engine tells it
    record = next(iter(read_records(run)))
    assert record["reply"]["text"].startswith("It is ") and record["answer"]["status"] == "parsed"
    assert [c["model"] for c in record["calls"]] == ["toy0", "toy1", "toy2"]
    assert record["calls"][0]["seen"]["messages"][0][0] == "user" and record["calls"][0]["said"]["text"]
    everything = b"".join(p.read_bytes() for p in moco.folder.rglob("*") if p.is_file())
    assert b"s3cr3t-value" not in everything
    assert head["config"]["pool"]["api_key"] == "***"


def test_a_second_run_computes_nothing(moco, served):
    first = moco("bench", "--method", "toy_vote", "-d", "toys", "-p", "toy_pool")
    count = len(served())
    second = moco("bench", "--method", "toy_vote", "-d", "toys", "-p", "toy_pool")
    assert first.out == second.out and len(served()) == count
    assert count == 3 * 80  # three models on dev and test, whatever the number of systems


def test_bench_is_a_grid(moco):
    (moco.folder / "grid.yaml").write_text(
        "pool: {name: toy_pool}\nmethods:\n  - toy_vote\n  - {name: toy_vote, rounds: 2}\n"
        "datasets:\n  - toys\n  - {name: toys, size: 10}\nseeds: [0, 1]\n"
    )
    got = moco("bench", "grid.yaml", "--json")
    assert got.code == 0, got.err
    reports = json.loads(got.out)
    assert [r["seeds"] for r in reports] == [[0, 1]] * 2 and {len(r["rows"]) for r in reports} == {5}
    assert {len(row["folders"]) for r in reports for row in r["rows"]} == {2}
    assert {r["rows"][-1]["label"] for r in reports} | {r["rows"][-2]["label"] for r in reports} == {
        "toy_vote#1", "toy_vote#2",
    }  # fmt: skip


def test_without_single_models_none_is_spoken_of(moco):
    got = moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "3", "--no-baselines")
    assert got.out.splitlines()[0] == "toys, seed 0, metric toy_match; no single model was run"
    got = moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "3", "--no-baselines", "--json")
    assert json.loads(got.out)[0]["best_single_chosen_on"] is None


def seeds_of(got):
    return [seed for r in json.loads(got.out) for seed in r["seeds"]]


def test_a_seed_on_the_command_line_is_the_one_that_is_run(moco):
    (moco.folder / "week.yaml").write_text(
        "pool: toy_pool\nmethod: toy_vote\ndataset: toys\nbaselines: false\nseeds: [0, 3]\n"
    )
    for command in ("run", "bench"):
        for given in (("--seed", "1"), ("-o", "seed=1")):
            got = moco(command, "week.yaml", *given, "--json")
            assert got.code == 0 and seeds_of(got) == [1], got.err
            assert "seed 1 is run in place of the seeds [0, 3] of week.yaml" in got.err
    assert seeds_of(moco("bench", "week.yaml", "-o", "seeds=[2]", "--json")) == [2]
    assert seeds_of(moco("bench", "week.yaml", "--json")) == [0, 3]
    (moco.folder / "one.yaml").write_text(
        "pool: toy_pool\nmethod: toy_vote\ndataset: toys\nbaselines: false\nseed: 4\n"
    )
    assert seeds_of(moco("bench", "one.yaml", "-o", "seeds=[0, 1]", "--json")) == [0, 1]
    assert seeds_of(moco("bench", "one.yaml", "--json")) == [4]


def test_plan_runs_nothing_and_tells_the_cost(moco, served):
    got = moco("plan", "toy_vote", "-d", "toys", "-p", "toy_pool")
    assert got.code == 0 and served() == [] and not (moco.folder / "runs").exists()
    row = next(line for line in got.out.splitlines() if line.startswith("toy_vote"))
    assert row.split() == ["toy_vote", "toys", "0", "40", "40", "0", "3.0", "120"]
    assert "toy_stepper: model 'toy0' cannot advance token by token" in got.out


def test_plan_judges_what_it_plans_by_its_own_options_and_the_others_by_theirs(moco):
    planned = moco("plan", "toy_stepper", "-d", "toys", "-p", "toy_pool", "-o", "method.step=false")
    assert planned.code == 0 and "toy_stepper:" not in planned.out
    refused = moco("plan", "toy_stepper", "-d", "toys", "-p", "toy_pool")
    assert refused.code == 2 and "toy_stepper:" not in refused.out
    assert refused.errors[0].startswith("error: method 'toy_stepper': model 'toy0' cannot advance token by token")


def test_ask_shows_who_said_what(moco):
    got = moco("ask", "toy_vote", "4 + 4", "-p", "toy_pool", "-o", "metric=toy_match", "--messages")
    assert got.code == 0, got.err
    assert "--- 1. toy0 (generate, 5+3 tokens)" in got.out and "user> 4 + 4" in got.out
    assert got.out.split("--- answer\n")[1].startswith("It is 8\n")


def test_a_block_of_a_discussion_names_the_replies_it_reads_and_leaves_out_the_question():
    def call(model, content, text):
        return CallRecord(
            model=model, kind="generate", phase="respond", request={"messages": [["user", content]]}, response={"text": text}
        )

    question = "How many words are there in this question, which is long enough?"
    calls = [
        call("a", question, "So <b> it is 12"),
        call("b", question, "12"),
        call("c", question, "12"),
        call("a", f"{question}\nAnswer 1:\n< quote>\n12\n</quote>", "So 12"),
        call("b", f"Quote:\nSo < b> it is 12\n\n{question}", "13"),
    ]
    lines = call_lines(calls)
    heads = [line for line in lines if line.startswith("---")]
    assert heads == [
        "--- 1. a (generate, 0+0 tokens)",
        "--- 2. b (generate, 0+0 tokens)",
        "--- 3. c (generate, 0+0 tokens)",
        "--- 4. a (generate, 0+0 tokens, reads 2=3)",
        "--- 5. b (generate, 0+0 tokens, reads 1)",
    ]
    assert "\n".join(lines).count(question) == 1 and lines[4] == "user> [the question, as in 1]"


def test_a_saved_system_answers_like_the_run_that_made_it(moco, toys):
    moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool")
    run = next(p for p in folders(moco) if "toy_vote" in p.name)
    record = list(read_records(run))[3]
    prompt = record["calls"][0]["seen"]["messages"][0][1]
    got = moco("ask", str(run), prompt, "--json")
    assert json.loads(got.out)["text"] == record["reply"]["text"]
    assert api.load(run).ask(prompt).text == record["reply"]["text"]


def test_python_in_five_lines(moco):
    moco("list")
    import moco_core

    result = moco_core.run(pool="toy_pool", method="toy_vote", dataset="toys", test=10)
    assert str(result).splitlines()[0].startswith("toys, seed 0")
    assert result["toy_vote"].questions == 10
    with pytest.raises(KeyError, match="did you mean 'toy_vote'"):
        result["toy_vot"]


def test_show_derives_from_the_class(moco):
    got = moco("show", "method", "toy_vote")
    assert "rounds: int >= 1, default 1" in got.out and "paper: 2" in got.out and "Majority of the models." in got.out
    assert json.loads(moco("show", "toy_vote", "--json").out)["options"][0]["name"] == "rounds"


def test_cache_commands(moco):
    moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "20")
    assert "180 calls" in moco("cache", "info").out
    run = next(p for p in folders(moco) if "toy1" in p.name)
    said = moco("cache", "explain", str(run)).out
    assert "20 calls, 0 from the cache, 20 computed" in said
    moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "20", "-o", "sampling.max_new_tokens=9")
    run = max((p for p in folders(moco) if "toy1" in p.name), key=lambda p: p.stat().st_mtime)
    assert "20 computed because: other decoding settings" in moco("cache", "explain", str(run)).out
    assert moco("cache", "prune").code == 2
    assert "calls deleted" in moco("cache", "prune", "--older-than", "30d").out
    assert moco("cache", "clear", "--yes").out == "360 calls deleted\n"


def test_help_of_every_command(moco):
    for name in cli._COMMANDS:
        got = moco(name, "--help", toys=False)
        assert got.code == 0 and got.out.startswith(f"Usage: moco {name}")


def test_clearing_the_cache_is_never_done_unasked(moco, monkeypatch):
    moco("run", "toy_vote", "-d", "toys", "-p", "toy_pool", "--test", "3")
    got = moco("cache", "clear")
    assert got.code == 2 and got.errors == ["error: nobody is there to be asked; say --yes to delete every call"]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True, readline=lambda: "n\n"))
    got = moco("cache", "clear")
    assert got.code == 1 and got.err.endswith("nothing was done\n")
    assert "129 calls" in moco("cache", "info").out


def test_completion_is_available():
    script = subprocess.run(
        [sys.executable, "-c", "from moco_core.cli import cli; cli(prog_name='moco')"],
        env={"_MOCO_COMPLETE": "bash_source", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "_moco_completion" in script.stdout


def test_listing_imports_neither_plugins_nor_heavy_libraries():
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        "assert _run(['list']) == 0 and _run(['--help']) == 0\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'rich', 'yaml')"
        " or m.startswith(('moco_method_', 'moco_pool_', 'moco_dataset_', 'moco_metric_', 'moco_toolkit_'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


LAST = """
import atexit, sys
from moco_core import cli

class Kept:
    def __del__(self):
        print("taken apart")

def run(args):
    atexit.register(print, "done at exit")
    return real(args)

kept, real, cli._run = Kept(), cli._run, run
sys.argv = ["moco", sys.argv[1]]
cli.main({args})
"""


@pytest.mark.parametrize(
    ("args", "option", "said", "code"),
    [
        ("", "--version", ["done at exit"], 0),
        ("", "--no-such-option", ["done at exit"], 2),
        ("['--version']", "", ["done at exit", "taken apart"], 0),  # a program that calls it ends as it would
    ],
)
def test_the_command_ends_at_once_when_all_is_done(args: str, option: str, said: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LAST.format(args=args), option], capture_output=True, text=True)
    assert done.returncode == code
    assert [line for line in done.stdout.splitlines() if not line.startswith("moco, version")] == said
