"""Searches for a graph of scripted models, and questions on which they are fitted."""

from __future__ import annotations

import attrs

from moco_core import Example, Question, Sampling
from moco_core.options import build
from moco_method_heterogeneous_swarms.method import HeterogeneousSwarms
from moco_method_heterogeneous_swarms.options import Options
from moco_toolkit_authoring import ScriptedPool, examples, run_method

WANTED = {"a": 0.6, "b": 0.3, "c": 0.3, "d": -0.2}


def near(m):
    return -sum((m.share(n) - w) ** 2 for n, w in WANTED.items())


GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
QUESTION = Question(id="q", prompt="Which letter?", answer_format="End with: The answer is X.")


def fit(
    pool, *, dev=None, metric=None, questions=(QUESTION,), seed=0, cache=None, after_fit=None, in_flight=256, **options
):
    method = HeterogeneousSwarms(build(Options, options))
    return run_method(
        method,
        pool,
        dev=examples(4, prefix="d") if dev is None else dev,
        questions=list(questions),
        metric=metric,
        sampling=GREEDY,
        reload_with=method,
        seed=seed,
        cache=cache,
        after_fit=after_fit,
        in_flight=in_flight,
    )


def expert(call):
    return "the answer is E"


def checker(call):
    return "the answer is R" if "the answer is E" in call.prompt else "the answer is W"


def right_if_checked(size=2, *, order=("checker", "expert")):
    """Only the checker after the expert answers right."""
    dev = [
        Example(question=attrs.evolve(QUESTION, id=f"d{i}", prompt=f"Letter {i}?"), references=("r",)) for i in range(3)
    ]
    return dev, ScriptedPool({name: {"expert": expert, "checker": checker}[name] for name in order})
