"""The methods that work token by token: who wrote what and bad input, through the command line; fits and saved systems."""

import importlib
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import command_line
import pytest
from command_line import stored

from moco_core import Sampling
from moco_core.catalogue import Catalogue
from moco_core.options import build
from moco_core.runs.records import read_records
from moco_core.runtime.cache import Cache

torch = pytest.importorskip("torch")

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
    ("switch_generation", [*SERVER, "-o", "method.switcher=train"], "cannot be trained"),
    ("switch_generation", ["-o", "method.switcher_writes=false"], "three models"),
    ("mentor_collab", ["-o", "method.decision_proportion=101"], "decision_proportion"),
    ("mentor_collab", ["-o", "method.mentor=generator"], "generator"),
    ("mentor_collab", [*SERVER, "-o", "method.verifier=mlp"], "'one'"),
    ("co_llm", ["-o", "method.deferral_threshold=2"], "deferral_threshold"),
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


def test_a_plan_predicts_sessions_and_names_what_a_pool_lacks_like_a_run(moco):
    code, out, err = moco("plan", "mentor_collab", "-d", "skills", *TWO, *SHORT, "--json")
    assert code == 0, err
    assert [row["calls_per_question"] for row in json.loads(out)["runs"]] == [2]
    code, out, err = moco("plan", "mentor_collab", "-d", "skills", *TWO, "-o", "method.mentor=9", "--json")
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert code == 2 and len(errors) == 1 and "method 'mentor_collab': mentor: model index 9" in errors[0]
    assert json.loads(out)["problems"]


@pytest.mark.parametrize("method", ["co_llm", "logit_fusion", "logit_contrastive"])
def test_a_server_that_only_writes_text_is_refused_by_name_with_what_would_help(moco, method):
    same = ["-o", "method.alignment=same"] if method == "logit_fusion" else []
    code, out, err = moco("run", method, "-d", "skills", *SERVER, *same)
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert code == 2 and out == "" and errors
    for text in errors:  # one line for each model and each thing that it cannot do
        assert re.match(rf"error: method '{method}': model '(one|two)' cannot .*moco list pool --can", text), text


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


# -------------------------------------------------------------------- one layout, one way to fit and to come back


def small_pool(count=3):
    from moco_toolkit_decoding.testing import LocalEngine, bpe_tokenizer, tiny_llama

    tokenizer, engine = bpe_tokenizer(), LocalEngine()
    return [engine.add(f"m{i}", tiny_llama(tokenizer, i), tokenizer) for i in range(count)]


def method_of(name, options):
    cls = Catalogue({}).load("method", name)
    return cls(build(cls.Options, options))


def run(name, options, models, **settings):
    from moco_toolkit_authoring import example_questions, run_method

    questions = example_questions(2)
    return run_method(
        method_of(name, options), models, questions=questions, sampling=Sampling(max_new_tokens=5), **settings
    )


FITS = {
    "nudging": {"tune": True, "gamma_grid": [0.02, 0.4]},
    "switch_generation": {"patch_size": 2},
    "mentor_collab": {"verifier": "mlp", "decision_proportion": 100.0},
    "co_llm": {"targets": "gold", "epochs": 2, "quantiles": 2},
    "logit_fusion": {"weights": "nll"},
    "logit_contrastive": {"alpha": "search", "grid": [0.5]},
}


@pytest.mark.parametrize("name", METHODS)
def test_fitting_twice_on_one_cache_makes_no_new_call_and_no_new_forward(tmp_path, name):
    from moco_toolkit_authoring import examples

    def work(in_flight):
        models, cache = small_pool(), Cache(tmp_path / "calls.sqlite")
        outcome = run(name, FITS[name], models, dev=examples(4, prefix="d"), cache=cache, in_flight=in_flight)
        assert not outcome.errors
        engine = models[0].engine
        return outcome, sum(engine.calls.values()) + sum(one.forwards for one in engine.loaded.values())

    first, made = work(8)
    again, more = work(1)
    assert made > 0 and more == 0
    assert (again.state, again.texts) == (first.state, first.texts)
    assert again.calls == first.calls  # and yet nobody's work looks free


MATHS = {
    "co_llm": ("fitting", "train_head"),
    "mentor_collab": ("fitting", "train_probe"),
    "logit_fusion": ("likelihood", "fit_weights"),
}
"""The function of a fit that computes and waits for nobody."""


@pytest.mark.parametrize("name", MATHS)
def test_what_a_fit_computes_leaves_the_loop_free(monkeypatch, name):
    from moco_core import Score
    from moco_core.options import NoOptions
    from moco_toolkit_authoring import examples
    from moco_toolkit_authoring.toy import LastWord

    class Chance(LastWord):
        def score(self, example, reply, context):  # of any two texts one may be the better, so that there is what to learn
            return Score(value=float(context.rng(reply.text).random()))

    module_name, function = MATHS[name]
    module = importlib.import_module(f"moco_method_{name}.{module_name}")
    cls = Catalogue({}).load("method", name)
    maths, fit, threads, loops = getattr(module, function), cls.fit, set(), set()

    def watched(*args, **given):
        threads.add(threading.current_thread())
        return maths(*args, **given)

    async def fit_watched(*args):
        loops.add(threading.current_thread())
        return await fit(*args)

    monkeypatch.setattr(module, function, watched)
    monkeypatch.setattr(cls, "fit", fit_watched)
    dev = examples(8, prefix="d")
    more = {"min_labels": 2, "epochs": 2} if name == "mentor_collab" else {}
    outcome = run(name, FITS[name] | more, small_pool(), dev=dev, metric=Chance(NoOptions()))
    assert not outcome.errors and threads and loops and threads.isdisjoint(loops)


THINKING = {
    "nudging": {"base_prompt": "chat", "gamma": 0.02},
    "switch_generation": {"patch_size": 2},
    "mentor_collab": {"decision_proportion": 100.0},
    "co_llm": {"targets": "gold", "epochs": 2, "deferral_threshold": 0.5},
    "logit_fusion": {},
    "logit_contrastive": {"roles": "explicit", "experts": [1], "anti_experts": [2], "base": 0},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("limit", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_copies_of_a_model_that_thinks_say_what_the_model_says(name, limit):
    """The prompt opens a block of reasoning; what is not closed within the budget is no answer."""
    from moco_toolkit_authoring import example_questions, examples, run_method
    from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, word_tokenizer

    tokenizer = word_tokenizer(["so", " 3", "</think>", " The", " answer", " is", "<think>"])
    tokenizer.chat_template = "{{ messages[-1].content }}!<think>"
    ids = [
        tokenizer.get_vocab()[w.replace(" ", "\u0120")]
        for w in ("so", " 3", "</think>", " The", " answer", " is", " 3")
    ]

    def script(read):
        said = read[
            -next((n for n, i in enumerate(reversed(read)) if i == tokenizer.get_vocab()["!"]), 0) or len(read) :
        ]
        said = said[len(tokenizer.encode("<think>", add_special_tokens=False)) :]
        return {ids[len(said)] if len(said) < len(ids) else tokenizer.eos_token_id: 10.0}

    engine = LocalEngine()
    models = [engine.add(f"m{i}", ScriptedModule(len(tokenizer), script), tokenizer) for i in range(3)]
    for one in engine.loaded.values():
        one.tags = (("<think>", "</think>"),)
    outcome = run_method(
        method_of(name, THINKING[name]),
        models,
        dev=examples(4, prefix="d"),
        questions=example_questions(1),
        sampling=Sampling(max_new_tokens=limit),
    )
    (reply,) = outcome.replies.values()
    assert reply.text == ("The answer is 3" if limit == 30 else "") and not outcome.errors
    assert "".join(span.text for span in reply.spans) == reply.text


SAVED = {
    "nudging": {"base": 0, "nudging": 2, "gamma": 0.3},
    "switch_generation": {},
    "mentor_collab": {"generator": 0, "mentor": 1, "probe": True},
    "co_llm": {"base": 0, "assistant": 1, "threshold": 0.25},
    "logit_fusion": {"weights": [0.5, 0.25, 0.25], "unite": False},
    "logit_contrastive": {"base": 0, "experts": [0], "antis": [2], "strength": 1.0},
}
"""What version 0.1 saved; the tensors of two of them lie beside it."""


@pytest.mark.parametrize("name", METHODS)
def test_a_system_saved_by_version_0_1_comes_back(tmp_path, name):
    import asyncio

    from safetensors.torch import save_file

    from moco_core import Pool
    from moco_toolkit_authoring import example_questions
    from moco_toolkit_authoring.harness import open_state

    save_file({"head": torch.full((32,), 0.123456)}, tmp_path / "head.safetensors")
    widths = {0: (64, 32), 1: (64,), 4: (32, 64), 5: (32,), 8: (16, 32), 11: (1, 16)}
    probe = {f"layers.{i}.weight": torch.full(shape, 0.01) for i, shape in widths.items()}
    probe |= {f"layers.{i}.bias": torch.zeros(shape[0]) for i, shape in widths.items()}
    for i, width in ((1, 64), (5, 32)):
        probe |= {f"layers.{i}.running_mean": torch.zeros(width), f"layers.{i}.running_var": torch.ones(width)}
        probe[f"layers.{i}.num_batches_tracked"] = torch.tensor(3)
    save_file(
        {**probe, "mean": torch.zeros(32), "deviation": torch.ones(32)}, tmp_path / "probe.safetensors", {"width": "32"}
    )
    system = method_of(name, {}).restore(Pool(small_pool()), SAVED[name], tmp_path)
    assert dict(system.state()) == SAVED[name]

    async def ask(question):
        async with open_state(sampling=Sampling(max_new_tokens=4)) as state:
            return await system.respond(question, state.context("respond", question))

    assert asyncio.run(ask(example_questions(1)[0])).meta["share"]


def test_importing_a_method_imports_neither_torch_nor_its_own_modules():
    code = "import sys; " + "; ".join(f"import moco_method_{name}" for name in METHODS)
    code += "; print([m for m in sys.modules if m == 'torch' or m.startswith('moco_method_') and '.' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
