"""Models that follow scripts, token by token, and how one question is asked of them."""

from __future__ import annotations

import math

import torch

from moco_core import Question, Sampling
from moco_core.models import Pool
from moco_method_nudging.method import Nudging, NudgingSystem
from moco_method_nudging.options import Options
from moco_toolkit_authoring import run_method
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, bpe_tokenizer, word_tokenizer

torch.set_num_threads(1)
GREEDY = Sampling(max_new_tokens=20)
TOKENIZER = bpe_tokenizer()
QUESTION = Question(id="q", prompt="go")
WORDS = word_tokenizer(["a", "b", " c", " d", " e", " f", " g"])
IDS = WORDS.get_vocab()
END = WORDS.eos_token_id


def tok(text):
    return END if text == "<end>" else WORDS.encode(text, add_special_tokens=False)[0]


def script(answers, *, marker="go"):
    """Answer with a table: text so far -> (next token, its probability)."""

    def scores(ids):
        text = WORDS.decode([i for i in ids if i != END])
        said = text[text.rindex(marker) + len(marker) :] if marker in text else text
        token, p = answers(said)
        # all other tokens together have 1 - p: two rivals are enough when p is above a third
        rest = math.log(max(1e-9, (1 - p) / 2))
        rivals = [i for i in (tok("a"), tok("b"), tok(" g")) if i != tok(token)][:2]
        return {tok(token): math.log(p), rivals[0]: rest, rivals[1]: rest}

    return scores


def scripted(base, nudge, *, text=False):
    """A pool of two scripted models; ``text``: as behind a server, which writes text and gives log-probabilities."""
    engine = LocalEngine()
    models = []
    for name, answers in (("base", base), ("nudge", nudge)):
        module = ScriptedModule(len(WORDS), script(answers))
        module.script = _quiet(module.script)
        kinds = {"generate", "logprobs"} if name == "base" else {"generate"}
        models.append(engine.add(name, module, WORDS, **({"capabilities": kinds} if text else {})))
    return Pool(models)


def _quiet(inner):
    def scores(ids):
        return {**dict.fromkeys(range(len(WORDS)), -60.0), **inner(ids)}

    return scores


def along(path, probability):
    """Follow a fixed text token by token with a probability for each place; anything else ends."""

    def answers(said):
        for n in range(len(path) + 1):
            if "".join(path[:n]) == said:
                return (path[n], probability[n]) if n < len(path) else ("<end>", 0.99)
        return "<end>", 0.99

    return answers


def ask(pool, question=QUESTION, sampling=GREEDY, gamma=None, **options):
    options = {"plain_template": "{question}", **options}
    return run_method(_Fixed(Options(**options), gamma), pool, questions=[question], sampling=sampling).reply


class _Fixed(Nudging):
    """The method with a gamma that its options refuse (0, or above 1)."""

    def __init__(self, options, gamma):
        super().__init__(options)
        self.gamma = gamma

    async def fit(self, pool, dev, context):
        system = await super().fit(pool, dev, context)
        return (
            system if self.gamma is None else NudgingSystem(pool, self.options, system.base, system.nudging, self.gamma)
        )


def _path(*words, p=0.9):
    return along(list(words), [p] * len(words))


TRACES = {
    "confident": (along(["a", " f", " g"], [0.3, 0.9, 0.35]), _path("a", " c", " d", " e"), {"agreement_rule": False}),
    "agreement": (along(["a", " c", " g"], [0.3, 0.36, 0.34]), _path("a", " c", " d", " e", " f"), {}),
    "unsure": (lambda said: (" g", 0.34), _path("a", " c", " d", " e", " f"), {"agreement_rule": False}),
    "long": (_path("a", " c", " d", " e", " f", " g"), _path("a", " c"), {"base_chunk": 2}),
    "base stops": (lambda said: ("<end>", 0.9) if said else ("a", 0.9), _path("a", " c"), {"base_eos": "stop"}),
    "repeats": (lambda said: (" g", 0.34), lambda said: (" c", 0.9), {}),
}
