"""Stand-ins for an engine: any module and tokenizer as a model, tiny random models, and scripted ones.

For tests of methods that work token by token. A :class:`LocalEngine` answers through the core's real scheduler::

    engine = LocalEngine()
    pool = Pool([engine.add("a", tiny_llama(tokenizer, seed=1), tokenizer), ...])
    outcome = run_method(MyMethod(options), pool, questions=[question])

A :class:`ScriptedModule` computes its next-token scores from the token ids by a function of the test; it keeps the ids in the
key/value cache, so that a wrong cache shows.
"""

from __future__ import annotations

from moco_toolkit_decoding.testing.engine import LocalEngine, LocalLoaded
from moco_toolkit_decoding.testing.modules import ScriptedModule, tiny_gpt2, tiny_llama, tiny_mistral
from moco_toolkit_decoding.testing.tokenizers import bpe_tokenizer, spaced_tokenizer, word_tokenizer

__all__ = [
    "LocalEngine",
    "LocalLoaded",
    "ScriptedModule",
    "bpe_tokenizer",
    "spaced_tokenizer",
    "tiny_gpt2",
    "tiny_llama",
    "tiny_mistral",
    "word_tokenizer",
]
