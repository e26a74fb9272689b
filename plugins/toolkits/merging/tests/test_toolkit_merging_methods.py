"""The weight-level methods on real weights: fitted, asked, resumed, exported, and against what can be computed by hand."""

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM

from moco_core import Example, Question
from moco_core.models import Pool
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_core.types import Sampling, Score, digest
from moco_toolkit_authoring import LastWord, examples, run_method
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_merging import Merge

GREEDY = Sampling(temperature=0.0, max_new_tokens=12)


class Lottery(LastWord):
    """Scores a reply by a digest of its text: something that random models differ in."""

    binary = False

    def score(self, example, reply, context):
        value = int(digest("lottery", reply.text)[:6], 16) / 16**6
        return Score(value=value, answer=self.read(example.question, reply.text))


def cases():
    yield "greedy_soup", {}, False
    yield "greedy_soup", {"recipe": "learned", "population": 3, "max_iterations": 1}, True
    yield "dare_ties", {"base": "base", "weights": "search", "population": 2, "max_iterations": 1}, False
    yield "dare_ties", {"sparsify": "ties"}, True
    yield "model_swarms", {"max_iterations": 2}, False
    yield "model_swarms", {"max_iterations": 2, "ensemble_top_k": 2}, True
    yield "lorahub", {"max_inference_step": 6, "dev_samples": 3}, True
    yield "expo", {"alpha_grid": [0.0, 0.5]}, False
    yield "expo", {"target": "one", "alpha_grid": [0.0, 0.5]}, True


def method_class(name):
    return pytest.importorskip(f"moco_method_{name}").moco_method()


@pytest.mark.parametrize(("name", "options", "adapters"), list(cases()))
def test_methods_fit_answer_resume_and_export(factory, name, options, adapters, tmp_path):
    cls = method_class(name)
    if adapters:
        base = factory.model("base", 7)
        source = factory.pool(*[factory.adapter(n, base, i) for i, n in enumerate(("one", "two", "three"))])
    else:
        parent = factory.module(0)
        entries = [
            {"model": factory.checkpoint(f"m{i}", factory.module(i, near=parent, step=0.3)), "name": f"m{i}"}
            for i in (1, 2, 3)
        ]
        if options.get("base"):
            entries.append({"model": factory.checkpoint("base", parent), "name": "base"})
        source = factory.pool(*entries)
    out = tmp_path / "out"
    method = cls(build(cls.Options, {**options, "export": str(out)}))
    assert not method.needs().problems(source.models())
    cache = Cache(None)
    settings = {
        "dev": examples(3, prefix="d"),
        "questions": [e.question for e in examples(3, prefix="t")],
        "metric": Lottery(NoOptions()),
        "sampling": GREEDY,
        "reload_with": method,
    }
    first = run_method(method, source, cache=cache, **settings)
    assert len(first.replies) == 3 and not first.errors and not first.files
    again = run_method(method, source, cache=cache, **settings)
    assert again.state == first.state and again.texts == first.texts
    singles = len(source.models())
    trace = first.state["facts"].get("trace", [])
    if trace and name != "lorahub":
        assert trace[-1]["best"] >= max(t["score"] for t in trace[:singles] if "alpha" not in t)
    assert (out / ("adapter_config.json" if (out / "adapter_config.json").exists() else "model.safetensors")).exists()
    if name != "model_swarms" or not options.get("ensemble_top_k"):
        entry = {"model": str(out)} if (out / "model.safetensors").exists() else {"model": base, "adapter": str(out)}
        exported = factory.pool({**entry, "name": "out"})
        alone = run_method(Single(), exported, **{**settings, "dev": [], "reload_with": None})
        assert alone.texts == first.texts


class Single:
    """Asks the only model of a pool."""

    async def fit(self, pool, dev, context):
        from moco_toolkit_merging import MergedSystem

        return MergedSystem(pool, None, name="single", merge=Merge.of_one(pool[0]))


# ---------------------------------------------------------------- what can be computed by hand


class Scripted(LastWord):
    """Scores replies by a list of numbers, in the order in which they are judged."""

    binary = False

    def __init__(self, *scores):
        super().__init__(NoOptions())
        self.left = itertools.chain(scores, itertools.repeat(0.0))

    def score(self, example, reply, context):
        return Score(value=next(self.left), answer=self.read(example.question, reply.text))


@pytest.mark.parametrize(
    ("options", "scores", "value"),
    [({"recipe": "uniform"}, (), 3.0), ({"recipe": "greedy"}, (0.7, 0.6, 0.5, 0.8, 0.1), 1.5)],
)
def test_a_soup_of_constants_is_the_mean_of_what_was_accepted(factory, options, scores, value):
    folders = []
    for constant in (1.0, 2.0, 6.0):
        module = factory.module(0, tied=False)
        with torch.no_grad():
            for p in module.parameters():
                p.fill_(constant)
        folders.append(factory.checkpoint(f"c{constant:g}", module))
    source = factory.pool(*folders)
    cls = method_class("greedy_soup")
    outcome = run_method(
        cls(build(cls.Options, options)), source, dev=examples(1), metric=Scripted(*scores), sampling=GREEDY
    )
    pool = Pool(source.models())
    soup = Merge.load(outcome.state["merge"]).model(pool, "soup")
    weights = local_engine(soup).weights(soup)
    assert all(bool((weights.get(n) == value).all()) for n in weights.names)


@pytest.mark.parametrize("adapters", [False, True])
def test_a_swarm_of_copies_never_leaves_the_model(factory, adapters):
    base = factory.model("base", 7)
    entry = factory.adapter("one", base, 1) if adapters else {"model": base}
    source = factory.pool(*[{**entry, "name": f"m{i}"} for i in range(4)])
    cls = method_class("model_swarms")
    settings = {"dev": examples(2, prefix="d"), "metric": Lottery(NoOptions()), "sampling": GREEDY}
    settings["questions"] = [e.question for e in examples(3, prefix="t")]
    outcome = run_method(cls(build(cls.Options, {"max_iterations": 3, "patience": 9})), source, **settings)
    trace = outcome.state["facts"]["trace"]
    assert len(trace) == 16 and len({t["score"] for t in trace}) == 1
    pool = Pool(source.models())
    assert outcome.texts == run_method(Single(), source, **settings).texts
    alone = local_engine(pool[0]).weights(pool[0])
    for step in trace[4:]:
        make = Merge.adapters if adapters else None
        merge = make(step["coefficients"], list(pool), "factors") if make else linear(step["coefficients"], pool)
        model = merge.model(pool, f"step {step['step']}")
        weights = local_engine(model).weights(model)
        assert max(float((weights.get(n) - alone.get(n)).abs().max()) for n in alone.names) <= 1e-5


def linear(coefficients, pool):
    from moco_toolkit_merging import Linear

    return Merge.weights(Linear(coefficients=tuple(coefficients)), list(pool))


def test_the_loss_of_lorahub_is_the_masked_cross_entropy_of_the_reference(factory):
    from peft import PeftModel

    base = factory.model("base", 7, vocab=258)  # no padding rows: the engine's replies never draw from those
    entries = [factory.adapter(n, base, i) for i, n in enumerate(("one", "two"))]
    example = Example(question=Question(id="d", prompt="What is blue?"), references=("The sky.",))
    cls = method_class("lorahub")
    options = {"dev_samples": 1, "max_inference_step": 4, "regular_coef": 0.0, "suggest": True}
    outcome = run_method(cls(build(cls.Options, options)), factory.pool(*entries), dev=[example], sampling=GREEDY)
    found = {tuple(t["weights"]): t["objective"] for t in outcome.state["facts"]["trace"]}

    tokenizer = factory.tokenizer()
    turns = [{"role": "user", "content": "What is blue?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    start, whole = tokenizer(prompt).input_ids, torch.tensor([tokenizer(prompt + "The sky.").input_ids])
    labels = whole.clone()
    labels[0, : len(start)] = -100
    for weights, folder in (
        ((0.0, 0.0), None),
        ((1.0, 0.0), entries[0]["adapter"]),
        ((0.0, 1.0), entries[1]["adapter"]),
    ):
        module = AutoModelForCausalLM.from_pretrained(base)
        module = (PeftModel.from_pretrained(module, folder) if folder else module).eval()
        with torch.no_grad():
            out = module(whole, labels=labels)
        by_hand = -out.logits[0, :-1].log_softmax(-1).gather(1, whole[0, 1:, None])[len(start) - 1 :].mean()
        assert found[weights] == pytest.approx(float(out.loss), abs=1e-5) == pytest.approx(float(by_hand), abs=1e-5)
