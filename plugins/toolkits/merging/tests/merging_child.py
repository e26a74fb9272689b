"""Run one method on scripted models, log every call that a model serves, and die without warning at a given one.

python merging_child.py METHOD OPTIONS CACHE LOG KILL_AT
"""

import json
import os
import signal
import sys
from pathlib import Path

from moco_core.catalogue import Catalogue
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_toolkit_authoring import examples, run_method
from moco_toolkit_merging.testing import MergeablePool, Utility

WANTED = {"a": 0.6, "b": 0.3, "c": 0.3, "d": -0.2}


def main(name, options, cache, log, kill_at):
    source = MergeablePool(
        "abcd" if name != "dare_ties" else "abz",
        lambda m: -sum((m.share(n) - w) ** 2 for n, w in WANTED.items()),
        **({"adapter": True, "base": "root"} if name == "lorahub" else {}),
    )
    engine, served = source.engine, 0
    real = engine.answer

    def answer(call):
        nonlocal served
        served += 1
        if served == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        with open(log, "a") as file:
            file.write(json.dumps([call.model.fingerprint, call.kind, call.input], sort_keys=True) + "\n")
        return real(call)

    engine.answer = answer
    cls = Catalogue(os.environ).load("method", name)
    method = cls(build(cls.Options, json.loads(options)))
    questions = [e.question for e in examples(2, prefix="t")]
    store = Cache(Path(cache))
    outcome = run_method(
        method,
        source,
        dev=examples(3, prefix="d"),
        questions=questions,
        metric=Utility(NoOptions()),
        cache=store,
        in_flight=1,
    )
    store.close()
    print(json.dumps([outcome.state, outcome.texts], sort_keys=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
