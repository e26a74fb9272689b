"""The four methods that need text alone, run unchanged on whatever engine a pool has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from moco_core.catalogue import Catalogue
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Sampling
from moco_toolkit_authoring import example_questions, examples, run_method

METHODS = ("majority_vote", "cascade", "multiagent_refine", "prompt_routing")


def check_methods(
    source: Any, cache: Cache, options: Mapping[str, Any] | None = None, questions: int = 2
) -> dict[str, dict[str, str]]:
    """Run each method twice over one cache: all questions answered, the second time by the cache alone, equally.

    ``options`` are a method's, by its name. Returns the replies by method and question.
    """
    catalogue = Catalogue(os.environ)
    out = {}
    for name in METHODS:
        cls = catalogue.load("method", name)

        def run(cls: Any = cls, name: str = name) -> Any:
            return run_method(
                cls(build(cls.Options, (options or {}).get(name, {}))),
                source,
                dev=examples(2),
                questions=example_questions(questions),
                sampling=Sampling(max_new_tokens=8),
                cache=cache,
            )

        first = run()
        assert not first.errors, (name, first.errors)
        assert len(first.replies) == questions, name
        before = cache.count
        assert run().texts == first.texts, name
        assert cache.count == before, f"{name}: something was asked again"
        out[name] = dict(first.texts)
    return out
