"""mergekit as a method, on tiny random models: its own tensors bit for bit, transformers' replies, errors in one line."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest
import torch
import yaml
from mergekit_models import CONFORMANCE, GREEDY, QUESTION, TEMPLATE, config, fit, pool_of, theirs
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from moco_core import ConfigError, ModelCallError
from moco_core.options import build
from moco_method_mergekit.configuration import Configuration
from moco_method_mergekit.method import Mergekit
from moco_method_mergekit.options import Options
from moco_toolkit_authoring import ScriptedPool, method_checks, run_method
from moco_toolkit_checkpoints.local import local_engine

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
