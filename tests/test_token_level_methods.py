"""The methods that work token by token, through the command line: who wrote what, and bad input."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import command_line
import pytest
from command_line import stored

from moco_core.runs.records import read_records

pytest.importorskip("torch")

METHODS = ("nudging", "switch_generation", "mentor_collab", "co_llm", "logit_fusion", "logit_contrastive")
TWO = ["-o", "pool.models=[letters, facts]"]
SHORT = ["-o", "sampling.max_new_tokens=12"]
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    return command_line.here(tmp_path, monkeypatch, capsys, columns=200)


def on_a_terminal(*args):
    """Run the command line on a pseudo-terminal; return the exit code and what it showed."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "200"}
    code = "from moco_core.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *args], stdout=theirs, stderr=subprocess.PIPE, env=env)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return shown.decode().replace("\r\n", "\n")


def test_a_shared_answer_is_coloured_on_a_terminal_and_marked_elsewhere(moco):
    question = ["ask", "logit_fusion", "What is the sum of 47, 3 and 6?", "--messages", *TWO, *SHORT]
    code, out, err = moco(*question, "--json")
    assert code == 0, err
    told = json.loads(out)
    spans = told["spans"]
    assert "".join(text for _, text, _ in spans) == told["text"]
    total = sum(tokens for _, _, tokens in spans)
    names = list(dict.fromkeys(name for name, _, _ in spans))
    shares = {n: sum(tokens for name, _, tokens in spans if name == n) / total for n in names}
    assert {n: s for n, s in told["meta"]["share"].items() if s} == pytest.approx(shares, abs=1e-5)

    code, plain, err = moco(*question)
    assert code == 0, err
    assert "\x1b" not in plain
    answer = plain.split("--- answer\n", 1)[1]
    assert answer.startswith(told["text"])
    for name, text, _ in spans:
        assert f"[{name}] {text!r}" in answer

    shown = on_a_terminal(*question)
    coloured = shown.split("--- answer\n", 1)[1]
    assert ESCAPE.sub("", coloured).startswith(told["text"])
    pieces = re.findall(r"\x1b\[([0-9;]+)m(.*?)\x1b\[0m", coloured, flags=re.DOTALL)
    assert "".join(text for _, text in pieces).startswith(told["text"])
    colours = {}
    written = iter(pieces)
    for name, text, _ in spans:  # one piece per span, every writer always in one colour
        seen = ""
        while len(seen) < len(text):
            colour, part = next(written)
            assert colours.setdefault(name, colour) == colour
            seen += part
        assert seen == text
    assert len(set(colours.values())) == len(names)
    for where in (answer, ESCAPE.sub("", coloured)):
        for name in names:
            assert re.search(rf"^{name} \(.+\): \d+ tokens, {shares[name]:.0%}$", where, flags=re.MULTILINE)


def test_every_record_tells_who_wrote_what(moco):
    args = ["-d", "skills", "--dev", "2", "--test", "3", *SHORT, "--no-baselines", "--json"]
    for method in METHODS:
        dev = ["-o", "method.deferral_threshold=0.5", "-o", "method.epochs=2"] if method == "co_llm" else []
        code, out, err = moco("run", method, *args, *TWO, *dev)
        assert code == 0, (method, err)
        (row,) = [r for r in json.loads(out)[0]["rows"] if r["label"] == method]
        records = list(read_records(Path(row["folder"])))
        assert len(records) == 3
        for record in records:
            reply = record["reply"]
            assert "".join(text for _, text, _ in reply["spans"]) == reply["text"]
            if reply["text"]:
                assert sum(reply["meta"]["share"].values()) == pytest.approx(1, abs=1e-4)
                assert {name for name, _, _ in reply["spans"]} <= {"letters", "facts"}


SERVER = ["-p", "openai", "-o", "pool.base_url=http://127.0.0.1:9/v1", "-o", "pool.models=[one, two]"]
OTHERS = ["-o", "pool.models=[letters, outsider]"]
BAD = [
    ("nudging", ["-o", "method.gamma=1.5"], "gamma"),
    ("nudging", ["-o", "method.gamma=0"], "gamma"),
    ("nudging", ["-o", "method.nudging=9"], "model index 9 is out of range"),
    ("nudging", ["-o", "method.base=nobody"], "nobody"),
    ("nudging", ["-o", "method.nudging=letters"], "base model too"),
    ("nudging", SERVER, "'one'"),
    ("switch_generation", ["-o", "method.patch_size=0"], "patch_size"),
    ("switch_generation", ["-o", "method.switcher=9"], "switcher"),
    ("switch_generation", ["-o", "method.switcher=train"], "moco-toolkit-training"),
    ("switch_generation", ["-o", "method.switcher_writes=false"], "three models"),
    ("mentor_collab", ["-o", "method.decision_proportion=101"], "decision_proportion"),
    ("mentor_collab", ["-o", "method.mentor=generator"], "generator"),
    ("mentor_collab", [*SERVER, "-o", "method.verifier=mlp"], "'one'"),
    ("co_llm", ["-o", "method.deferral_threshold=2"], "deferral_threshold"),
    ("co_llm", ["-o", "method.train=lora"], "moco-toolkit-training"),
    ("co_llm", OTHERS, "tokenizers of 'letters' and 'outsider' differ: id"),
    ("logit_fusion", ["-o", "method.weights=[0.5, 0.3, 0.2]"], "3 entries, the pool has 2 models"),
    ("logit_fusion", ["-o", "method.weights=[-1, 2]"], "weights"),
    ("logit_fusion", ["-o", "method.combine=sum"], "combine"),
    ("logit_fusion", [*OTHERS, "-o", "method.alignment=same"], "tokenizers of 'letters' and 'outsider' differ: id"),
    ("logit_contrastive", ["-o", "method.k=2"], "at least 4 models"),
    ("logit_contrastive", ["-o", "method.alpha=-1"], "alpha"),
    ("logit_contrastive", ["-o", "method.roles=explicit"], "experts"),
    ("logit_contrastive", OTHERS, "tokenizers of 'letters' and 'outsider' differ: id"),
]


@pytest.mark.parametrize(("method", "args", "line"), BAD, ids=[f"{m}-{' '.join(a)}" for m, a, _ in BAD])
def test_bad_input_is_one_line_before_any_call(moco, tmp_path, method, args, line):
    code, out, err = moco("run", method, "-d", "skills", *TWO, *args)
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert code == 2 and out == "" and len(errors) == 1 and line in errors[0], err
    assert "Traceback" not in err and not (tmp_path / "runs").exists()
    assert stored(tmp_path / "calls.sqlite") == 0


@pytest.mark.parametrize("method", ["co_llm", "logit_fusion", "logit_contrastive"])
def test_a_server_that_only_writes_text_is_refused_by_name_with_what_would_help(moco, method):
    same = ["-o", "method.alignment=same"] if method == "logit_fusion" else []
    code, out, err = moco("run", method, "-d", "skills", *SERVER, *same)
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert code == 2 and out == "" and errors
    for text in errors:  # one line for each model and each thing that it cannot do
        assert re.match(rf"error: method '{method}': model '(one|two)' cannot .*moco-pool-transformers", text), text


def test_a_mistake_in_the_middle_of_a_bench_loses_nothing(moco, tmp_path):
    grid = "pool: {name: tiny, models: [letters, facts]}\ndatasets: [{name: skills}]\nmethods:\n"
    settings = "dev: 2\ntest: 3\nsampling: {max_new_tokens: 8}\n"
    good = tmp_path / "good.yaml"
    good.write_text(grid + "  - logit_fusion\n" + settings)
    assert moco("bench", str(good), "--json")[0] == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text(grid + "  - logit_fusion\n  - {name: logit_fusion, weights: [1, 2, 3]}\n" + settings)
    before = sorted(p.name for p in (tmp_path / "runs").iterdir())
    code, out, err = moco("bench", str(bad), "--json")
    assert code == 2 and out == "" and "3 entries" in err
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == before
    code, out, _ = moco("bench", str(good), "--json")  # what was computed is all there
    assert code == 0 and all(r["calls"] == r["cached_calls"] for r in json.loads(out)[0]["rows"])
