"""mergekit as a method, on tiny random models: its own tensors bit for bit, transformers' replies, errors in one line."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
import shutil
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from moco_core import ConfigError, Example, ModelCallError, NoOptions, Question, Sampling, Score
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_mergekit import method as method_module
from moco_method_mergekit.configuration import Configuration
from moco_method_mergekit.method import Mergekit
from moco_method_mergekit.options import Options
from moco_method_mergekit.searching import maximise
from moco_pool_transformers.pool import Options as PoolOptions
from moco_pool_transformers.pool import TransformersPool
from moco_toolkit_authoring import ScriptedPool, method_checks, open_session, run_method
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_checkpoints.local import local_engine

torch.set_num_threads(1)
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
QUESTION = Question(id="q", prompt="abc")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def tokenizer(*more: str) -> PreTrainedTokenizerFast:
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *more]
    raw = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE)


def module(seed, near=None, vocab=258):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, bos_token_id=vocab - 2, eos_token_id=vocab - 1, **shape))
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.mul_(10.0 if p.ndim > 1 else 1.0)
            if near is not None:
                p.copy_(list(near.parameters())[i] + 0.3 * p)
    return made.eval()


CONFORMANCE = []
"""The folder of the models, for checks that are given no fixtures."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three models near a base, one with a token more, and a LoRA adapter on the base."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("models")
    base = module(0)
    made = {"base": base, "ann": module(1, base), "bob": module(2, base), "wide": module(3, vocab=259)}
    for name, each in made.items():
        each.save_pretrained(root / name)
        tokenizer(*(["@@"] if name == "wide" else [])).save_pretrained(root / name)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(root / "lora")
    return root


@pytest.fixture(scope="module", autouse=True)
def here(folder):
    """Merging in this process, which has mergekit loaded; starting another takes seconds. Gives what starts another."""
    with pytest.MonkeyPatch.context() as patch:
        CONFORMANCE.append(folder)
        there = method_module.apart

        async def perform_here(task, out):
            from moco_method_mergekit import merging  # mergekit takes seconds to import: not while tests are collected

            merging.perform(json.loads(json.dumps(task)), out)

        patch.setattr(method_module, "apart", perform_here)
        yield there


def pool_of(folder, *names):
    entries = [{"model": str(folder / n), "name": n} for n in names or ("base", "ann", "bob", "wide")]
    lora = {"model": str(folder / "base"), "adapter": str(folder / "lora"), "name": "lora"}
    options = {"models": [*entries, *([] if names else [lora])], "device": "cpu", "cache": str(folder / ".hashes")}
    return TransformersPool(build(PoolOptions, options))


def config(method, base="base", models=("ann", "bob"), each=None, **parameters):
    """A configuration of two models, each with further parameters of its own."""
    listed = [{"model": m, **({"parameters": each} if each else {})} for m in models]
    based = {"base_model": base} if base else {}
    return {"merge_method": method, "models": listed, "parameters": parameters, "dtype": "float32", **based}


STACK = {
    "merge_method": "passthrough",
    "slices": [{"sources": [{"model": m, "layer_range": r}]} for m, r in (("ann", [0, 2]), ("bob", [1, 2]))],
    "dtype": "float32",
}
UNION = {**config("linear", "ann", ("ann", "wide"), weight=0.5), "tokenizer_source": "union", "chat_template": TEMPLATE}
MERGES = {
    "slerp": config("slerp", "ann", t=[0, 0.3, 1]),
    "ties": config("ties", each={"density": 0.5, "weight": 0.7}),
    "dare_ties": config("dare_ties", each={"density": 0.5, "weight": 0.7}),
    "della": config("della", each={"density": 0.5, "weight": 0.7}),
    "breadcrumbs": config("breadcrumbs", each={"density": 0.8, "weight": 0.7}, gamma=0.05),
    "model_stock": config("model_stock"),
    "nearswap": config("nearswap", "ann", t=0.01),
    "passthrough": STACK,
    "union of tokenizers": UNION,
    "adapter": config("linear", None, ("lora", "bob"), weight=0.5),
}


def fit(given, pool, check, run_seed=0, **options):
    """Fit, save and restore; ``check`` is given the restored system before it answers."""
    method = Mergekit(build(Options, {"config": given, **options}))
    return run_method(
        method,
        pool,
        questions=[QUESTION],
        sampling=GREEDY,
        seed=run_seed,
        reload_with=method,
        after_fit=check,
    )


def theirs(given, folder, out, seed=0):
    """What mergekit itself writes, given paths where the configuration has names."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    paths = {n: str(folder / n) for n in ("base", "ann", "bob", "wide")} | {
        "lora": f"{folder / 'base'}+{folder / 'lora'}"
    }

    def placed(node):
        if isinstance(node, dict):
            return {k: placed(v) for k, v in node.items()}
        return (
            [placed(v) for v in node]
            if isinstance(node, list)
            else paths.get(node, node)
            if isinstance(node, str)
            else node
        )

    shutil.rmtree(out, ignore_errors=True)
    options = MergeOptions(quiet=True, write_model_card=False, lora_merge_cache=str(out) + "-lora")
    torch.manual_seed(seed)
    run_merge(MergeConfiguration.model_validate(placed(given)), str(out), options)
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("name", MERGES)
def test_tensors_are_mergekits_own_bit_for_bit_and_replies_those_of_transformers(folder, tmp_path, name, monkeypatch):
    given, pool, seeds = MERGES[name], pool_of(folder).pool, []
    drawn = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (seeds.append(seed), drawn(seed))[1])
    exported = tmp_path / "exported"

    def export(system):
        assert system.model.capabilities == pool[0].capabilities > {"generate", "score", "step", "weights"}
        local_engine(system.model).export(system.model, exported)

    outcome = fit(given, pool, export)
    expected = theirs(given, folder, tmp_path / "theirs", seeds[0])
    found = load_file(exported / "model.safetensors")
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)
    names = load_file(folder / "ann" / "model.safetensors")
    assert any(k not in names or not torch.equal(v, names[k]) for k, v in expected.items())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    reader = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    reply = outcome.replies["q"]
    text = reader.apply_chat_template([{"role": "user", "content": QUESTION.prompt}], tokenize=False)
    prompt = torch.tensor([reader(text, add_special_tokens=False).input_ids])
    with torch.no_grad():
        ids = plain.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, prompt.shape[1] :]
    assert reply.text == reader.decode(ids, skip_special_tokens=True)


def refusal(given, pool):
    """The one sentence by which a pool is refused, or the one line by which fitting ends."""
    method = Mergekit(build(Options, {"config": given}))
    if problems := method.needs().problems(list(pool)):
        return problems
    with pytest.raises(ConfigError) as caught:
        run_method(method, pool)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("", "option config: missing; give a mergekit configuration, a YAML file or a mapping"),
        (config("slerp", "ann", models=("ann", "bop"), t=1), "option config: models[1].model: no model 'bop' in the pool "
         "(base, ann, bob, wide, lora) and no folder of that path, did you mean 'bob'?"),
        (config("ties", models=("ann", {"path": "x"})), "option config: models[1].model: expected a model of the pool or "
         "a folder, as text"),
        ({"merge_method": "linear"}, "option config: names no model; give mergekit's 'models', 'slices' or 'modules'"),
        ({"models": [{"model": "ann"}]}, "option config: mergekit: 'merge_method' is missing"),
        (config("sleep"), "option config: merge_method: mergekit: Unimplemented merge method sleep"),
        (config("slerp", "ann"), "option config: merge_method: mergekit: Missing required parameter t for "
         "model.embed_tokens.weight"),
        (config("linear", None, each={"weight": {"x": 1}}), "option config: models[0].parameters.weight: mergekit: "
         "'value' is missing"),
        (config("linear", weight="much"), "option config: parameters.weight: mergekit: Input should be a valid number, "
         "unable to parse string as a number, got 'much'"),
        (config("linear", weight=1) | {"dtype": "int3"}, 'option config: dtype: mergekit: Unimplemented dtype "int3"'),
        (config("linear", weight=1) | {"tokenizer_source": "bop"}, "option config: tokenizer_source: no model 'bop' in the "
         "pool (base, ann, bob, wide, lora) and no folder of that path, did you mean 'bob'?"),
        (config("linear", weight=1) | {"tokenizer_source": "union", "tokenizer": {"source": "base"}},
         "option config: tokenizer_source: mergekit: Cannot specify both tokenizer_source and tokenizer"),
        (config("linear", weight=1) | {"chat_template": "none"}, "option config: chat_template: mergekit could not write a "
         "tokenizer for the merge; name one with 'tokenizer_source', and check 'chat_template'"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_in_one_line_with_the_place(folder, given, line):
    assert refusal(given, pool_of(folder).pool) == [line]


def test_an_error_of_mergekits_names_file_line_and_the_model_as_the_file_calls_it(folder, tmp_path):
    file = tmp_path / "merge.yml"
    file.write_text(yaml.safe_dump({**STACK, "slices": [{"sources": [{"model": "ann", "layer_range": [0, 9]}]}]}))
    [line] = refusal(str(file), pool_of(folder).pool)
    assert re.fullmatch(
        rf"{file}, line 8: slices\[0\].sources\[0\].model: mergekit: Tensor model.layers.2.\S+ required but not present in "
        r"model ann", line
    ), line  # fmt: skip
    assert file.read_text().splitlines()[7].strip() == "model: ann"
    file.write_text("models: [\n  - a: b")
    [line] = refusal(str(file), pool_of(folder).pool)
    assert line.startswith(f"option config: {file}, line 2: not YAML: ") and "\n" not in line
    assert refusal(str(tmp_path / "no.yml"), pool_of(folder).pool) == [
        f"option config: {tmp_path / 'no.yml'}: cannot be read: No such file or directory"
    ]


def test_models_that_lend_no_weights_are_refused_before_any_work():
    problems = (
        Mergekit(build(Options, {"config": config("ties")}))
        .needs()
        .problems(ScriptedPool({"base": "x", "ann": "y"}).models())
    )
    assert len(problems) == 2 and all("capability 'weights'" in p for p in problems)


def test_names_paths_and_what_the_pools_entries_say_give_one_merge(folder, tmp_path):
    given = config("linear", None, weight=0.5)
    by_path = config("linear", None, [str(folder / "ann"), str(folder / "bob")], weight=0.5)
    file = folder / "merge.yml"  # paths start from its folder
    file.write_text(yaml.safe_dump(config("linear", None, ["ann", "bob"], weight=0.5)))
    systems = []
    for each, pool in ((given, pool_of(folder)), (by_path, pool_of(folder)), (str(file), pool_of(folder, "wide"))):
        fit(each, pool.pool, systems.append)
    prints = [s.model.recipe.fingerprint for s in systems]
    assert prints[0] == prints[1] != prints[2]  # a folder that is no model of the pool is known by its files
    assert [s.model.fingerprint for s in systems] == [systems[0].model.fingerprint] * 3


# ---------------------------------------------------------------- numbers found on dev


class Killed(Exception):
    """Stands for the end of a process."""


def begun(text, reference):
    """Return how much of the reference a text begins with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, reference, strict=False))
    return len(list(same)) / len(reference)


class Alike(LastWord):
    """How much of the reference a reply begins with."""

    def score(self, example, reply, context):
        return Score(value=begun(reply.text, example.references[0]))


def weighing(ann, bob):
    """A linear merge of two models, each with its own weight."""
    listed = [{"model": n, "parameters": {"weight": w}} for n, w in (("ann", ann), ("bob", bob))]
    return {"merge_method": "linear", "models": listed, "dtype": "float32"}


PATHS = ("models.0.parameters.weight", "models.1.parameters.weight")


def searched(folder, dev, cache=None, run_seed=0, given=None, after_fit=None, **options):
    options = {"config": given or weighing(1, 0.25), "search": list(PATHS), **options}
    method = Mergekit(build(Options, options))
    keywords = {"metric": Alike(NoOptions()), "sampling": GREEDY, "seed": run_seed, "questions": [QUESTION]}
    pool = pool_of(folder, "base", "ann", "bob").pool
    outcome = run_method(method, pool, dev=dev, cache=cache, reload_with=method, after_fit=after_fit, **keywords)
    assert outcome.calls["fit"] <= method.cost(3, len(dev)).fit
    return outcome


def test_a_grid_finds_what_separate_configurations_score_and_goes_on_where_it_was_killed(folder, tmp_path, monkeypatch):
    """References are what the merge of 1/2 and 1 writes, which is then the best; weights of 0 and 0 have no mean."""
    prompts = ["abc", "hello", "12 + 7"]
    questions = [Question(id=f"d{i}", prompt=p) for i, p in enumerate(prompts)]

    def written(ann, bob):
        method = Mergekit(build(Options, {"config": weighing(ann, bob)}))
        pool = pool_of(folder, "base", "ann", "bob").pool
        return run_method(method, pool, questions=questions, sampling=GREEDY)

    best = written(0.5, 1).texts
    dev = [Example(question=q, references=(best[q.id],)) for q in questions]
    merged, there, deaths = [], method_module.apart, [2]

    async def counted(task, out):
        if deaths == [len(merged)]:
            deaths.clear()
            raise Killed
        merged.append(task["data"])
        await there(task, out)

    monkeypatch.setattr(method_module, "apart", counted)
    theirs(weighing(0.5, 1), folder, tmp_path / "theirs")
    cache, systems = Cache(tmp_path / "calls.sqlite"), []
    grid = [{"path": p, "values": [0, v]} for p, v in zip(PATHS, (0.5, 1), strict=True)]

    def keep(system):
        systems.append(system)
        local_engine(system.model).export(system.model, tmp_path / "exported")

    with pytest.raises(Killed):
        searched(folder, dev, cache, search=grid)
    first = searched(folder, dev, cache, search=grid, after_fit=keep)
    assert merged == [weighing(a, b) for a in (0, 0.5) for b in (0, 1)]  # each once, the death in between
    tensors, expected = (load_file(p / "model.safetensors") for p in (tmp_path / "exported", tmp_path / "theirs"))
    assert expected.keys() == tensors.keys() and all(torch.equal(tensors[k], expected[k]) for k in expected)
    found = first.state["found"]
    assert found["numbers"] == dict(zip(PATHS, (0.5, 1), strict=True)) and found["score"] == 1.0
    assert found["config"] == weighing(0.5, 1)
    (failed,) = found["failed"]
    assert failed["numbers"] == dict.fromkeys(PATHS, 0) and failed["failed"] == first.noted("failed")
    assert [list(t["numbers"].values()) for t in found["trace"]] == [[0, 1], [0.5, 0], [0.5, 1]]
    for told in found["trace"]:
        texts = written(*told["numbers"].values()).texts
        assert told["score"] == pytest.approx(sum(begun(texts[k], best[k]) for k in best) / len(best))
    assert {t["score"] < 1 for t in found["trace"][:2]} == {True}
    alone = []
    fit(weighing(0.5, 1), pool_of(folder, "base", "ann", "bob").pool, alone.append)
    assert systems[0].model.fingerprint == alone[0].model.fingerprint and systems[0].state() == first.state
    stored, done = cache.count, len(merged)
    again = searched(folder, dev, cache, search=grid)
    # nothing is asked or merged again but what could not answer, which leaves nothing to keep
    assert again.state == first.state and cache.count == stored and len(merged) == done


def test_the_swarm_starts_from_what_is_given_and_stays_in_range_and_the_seed_moves_it(folder):
    questions = [Question(id="d0", prompt="abc")]
    dev = [Example(question=q, references=("x",)) for q in questions]
    swarm = {"optimizer": "swarm", "population": 2, "max_iterations": 1, "search": [PATHS[0], {"path": PATHS[1], "low": 0.1}]}
    runs = [searched(folder, dev, run_seed=s, **swarm).state["found"] for s in (0, 0, 1)]
    numbers = [[tuple(t["numbers"].values()) for t in found["trace"]] for found in runs]
    assert numbers[0] == numbers[1] != numbers[2] and [n[0] for n in numbers] == [(1.0, 0.25)] * 3
    assert len(numbers[0]) == 4 and all(0 <= a <= 1 and 0.1 <= b <= 1 for n in numbers for a, b in n)


@pytest.mark.parametrize("optimizer", ["grid", "swarm"])
def test_a_known_optimum_is_found(optimizer):
    """A bowl with its top at (0.3, 2): the grid's nearest point, and by the swarm a point nearer than any it started from."""
    options = build(Options, {"search": [{"path": "a", "steps": 11}, {"path": "b", "low": 1, "high": 3}],
                              "optimizer": optimizer, "population": 8, "max_iterations": 12})  # fmt: skip
    tried = []

    async def score(numbers, label):
        tried.append(-((numbers[0] - 0.3) ** 2) - (numbers[1] - 2) ** 2 if numbers[0] < 0.9 else -math.inf)
        return tried[-1]

    async def search():
        async with open_session() as session:
            return await maximise(options, (0.95, 1.0), score, session.context("fit"))

    found = asyncio.run(search())
    assert len(tried) == options.candidates == (55 if optimizer == "grid" else 104)
    if optimizer == "grid":
        assert found == (0.3, 2.0)
    else:
        assert max(tried) > max(tried[:8]) and found == pytest.approx((0.3, 2.0), abs=0.1)


def test_a_search_where_nothing_can_be_merged_ends_with_mergekits_own_line(folder):
    given = config("slerp", "ann", t=0.5) | {"models": [{"model": "ann"}, {"model": "bob"}, {"model": "base"}]}
    dev = [Example(question=QUESTION, references=("x",))]
    with pytest.raises(ConfigError, match=r"^option config: merge_method: mergekit: Merge method requires exactly 2 inputs"):
        searched(folder, dev, given=given, search=[{"path": "parameters.t", "values": [0.25]}])
    with pytest.raises(ConfigError, match="dev split is empty"):
        searched(folder, [])


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("models.2.parameters.weight", "'2' is not there (option config: models; it has 2 entries, counted from 0)"),
        ("models.1.parameters.wieght", "'wieght' is not there, did you mean 'weight'? (option config: "
         "models[1].parameters)"),
        ("parameters.t", "'parameters' is not there (option config)"),
        ("models.0.model", "no number, but 'ann' (option config: models[0].model)"),
        ("models.one.model", "'one' is not there (option config: models; it has 2 entries, counted from 0)"),
        ("models.0.parameters.weight.0", "'0' is not there (option config: models[0].parameters.weight)"),
    ],
)  # fmt: skip
def test_a_path_to_no_number_is_refused_with_its_place_before_any_work(folder, path, line):
    method = Mergekit(build(Options, {"config": weighing(1, 1), "search": [path]}))
    assert method.needs().problems(list(pool_of(folder).pool)) == [f"option search: {path}: {line}"]


def test_a_path_into_a_file_is_told_with_its_line(folder, tmp_path):
    (tmp_path / "merge.yml").write_text("merge_method: linear\nmodels:\n- model: ann\n- model: bob\n")
    method = Mergekit(build(Options, {"config": str(tmp_path / "merge.yml"), "search": ["models.1.model"]}))
    assert method.needs().problems(list(pool_of(folder).pool)) == [
        f"option search: models.1.model: no number, but 'bob' ({tmp_path / 'merge.yml'}, line 4: models[1].model)"
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"search": ["a.b", {"path": "a.b"}]}, "search: a.b is named twice"),
        ({"search": [{"path": "a", "values": [1]}], "optimizer": "swarm"}, "search: a: a swarm moves between low and high"),
        ({"search": [{"path": "a", "low": 1}]}, "a: low must be below high, got 1 and 1"),
        ({"search": [{"path": "a", "steps": 1}]}, "search[0].steps: expected int >= 2, got 1"),
        ({"search": [{"low": 1}]}, "path"),
    ],
)
def test_searches_that_cannot_be_are_refused(options, line):
    with pytest.raises(ConfigError, match=re.escape(line)):
        build(Options, options)


def test_the_seed_decides_random_methods_alone(folder):
    def prints(name):
        systems = []
        for seed, more in ((0, 0), (0, 0), (1, 0), (0, 1)):
            fit(MERGES[name], pool_of(folder).pool, systems.append, run_seed=seed, seed=more)
        return [s.model.fingerprint for s in systems]

    same, again, other, further = prints("dare_ties")
    assert same == again and len({same, other, further}) == 3
    assert len(set(prints("ties"))) == 1


def test_keys_that_mergekit_does_not_read_are_told(folder):
    outcome = fit({**config("ties", weight=1), "dtipe": "x"}, pool_of(folder).pool, None)
    assert outcome.warnings == ["mergekit: option config: mergekit does not read dtipe"]


def test_without_a_base_configuration_and_tokenizer_are_those_of_the_first_model_named(folder):
    from moco_method_mergekit import merging

    for names in (("wide", "ann", "bob"), ("bob", "wide", "ann"), ("ann", "bob", "wide")):
        configuration = Configuration.read(config("linear", None, names, weight=1))
        merge = merging.Merge(configuration, {n: (str(folder / n), "") for n in names})
        assert [m.model.path for m in merge.parsed().referenced_models()] == [str(folder / n) for n in names]


@pytest.mark.slow  # another process imports mergekit
def test_a_process_of_its_own_merges_alike_and_leaves_this_one_alone(folder, here, tmp_path):
    state, given = torch.random.get_rng_state(), MERGES["dare_ties"]
    task = {"data": given, "file": "", "lines": {}, "paths": {n: [str(folder / n), ""] for n in ("base", "ann", "bob")}}
    asyncio.run(here({**task, "seed": 7}, tmp_path))
    assert torch.equal(state, torch.random.get_rng_state())
    found, expected = load_file(tmp_path / "model" / "model.safetensors"), theirs(given, folder, tmp_path / "theirs", 7)
    assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


def test_a_process_that_dies_is_told_in_one_line(here, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelCallError, match=r"^mergekit: merging ended with exit code 1: no message$"):
        asyncio.run(here({}, tmp_path))


test_conformance = method_checks(
    "mergekit",
    settings=[
        {
            "config": config("dare_ties", each={"density": 0.5, "weight": 0.7}),
            "search": [{"path": "models.0.parameters.weight", "values": [0.2, 0.9]}],
            "dev_limit": 2,
        }
    ],
    pool=lambda: pool_of(CONFORMANCE[0], "base", "ann", "bob"),
    sampling=GREEDY,
    expected_failures={"smallest_pool_works": "the configuration names the models it needs"},
)
