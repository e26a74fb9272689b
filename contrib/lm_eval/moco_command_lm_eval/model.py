"""A fitted system as a model of lm-eval."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry

from moco_core import CapabilityError, ConfigError, Context, Message, Model, OpenSystem, Question, Sampling, api
from moco_core.catalogue import installed
from moco_core.cli.common import warn
from moco_core.runtime.portal import Portal

__all__ = ["MocoLM", "register"]

_CHAT = "moco-chat:"
"""What a conversation begins with that was rendered for this model: it is read again, never sent."""


def register() -> None:
    """Make lm-eval know the model ``moco``; it finds models in a table of its own alone."""
    if "moco" not in model_registry:
        model_registry.register("moco", target=MocoLM)


class MocoLM(LM):  # type: ignore[misc]
    """The system of a run folder. All requests of a task are asked at once; the engines batch them.

    ``plugin`` is a Python file with plugins of one's own. Requests for likelihoods need a system that is one model.
    """

    def __init__(self, system: str, plugin: str = "", **ignored: Any) -> None:
        super().__init__()
        if plugin:
            installed().register_file(Path(plugin))
        self.name = system
        self._open = api.open(system, plugins=installed())
        self._portal = Portal()
        self._portal.call(self._open.__aenter__())
        warn(self._open.runtime.cache.warnings)
        closing = weakref.finalize(self, _close, self._portal, self._open)  # lm-eval closes no model
        closing.atexit = False  # nothing can be waited for then

    # ---------------------------------------------------------------- answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        questions = [_question(index, *request.args[:1]) for index, request in enumerate(requests)]
        settings = [self._sampling(request.args[1]) for request in requests]

        async def ask_all() -> list[str]:
            root = self._context(questions[0]) if questions else None
            if root is None:
                return []
            how = {question.id: sampling for question, sampling in zip(questions, settings, strict=True)}
            asked = await root.each(questions, lambda question, _: self._open.ask(question, sampling=how[question.id]))
            return [_stopped(a.text, s.stop) for a, s in zip(asked, settings, strict=True)]

        out = self._portal.call(ask_all())
        for request, text in zip(requests, out, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return out

    def _sampling(self, given: Mapping[str, Any]) -> Sampling:
        """Return how the system decodes, but for what a task says. Raises ConfigError for a setting that is unknown."""
        keys = dict(given)
        until = keys.pop("until", None) or ()
        new: dict[str, Any] = {"stop": (until,) if isinstance(until, str) else tuple(s for s in until if s)}
        if "do_sample" in keys and not keys.pop("do_sample"):
            keys.pop("temperature", None)
            new["temperature"] = 0.0
        names = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_gen_toks": "max_new_tokens"}
        for key, name in names.items():
            if keys.get(key) is not None:
                new[name] = keys.pop(key)
        for length in ("max_tokens", "max_new_tokens"):
            if keys.get(length) is not None:
                new["max_new_tokens"] = keys.pop(length)
        if unknown := [key for key, value in keys.items() if value is not None]:
            raise ConfigError(f"moco: a system cannot honour the generation settings {', '.join(sorted(unknown))}")
        return attrs.evolve(self._open.parts.sampling, **new)

    # ---------------------------------------------------------------- likelihoods

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        model = self._model("the likelihoods of given texts (multiple_choice and loglikelihood)")

        async def score(request: Any, context: Context) -> tuple[float, bool]:
            before, after = request.args
            (found,) = await context.score(model, before, [after], raw=True)
            budget = Sampling(temperature=0.0, max_new_tokens=max(1, len(found.token_ids)))
            said = await context.generate(model, before, budget, raw=True)
            return found.logprob, said.text.strip() == after.strip()

        async def score_all() -> list[tuple[float, bool]]:
            context = self._context(Question(id="lm-eval", prompt="?"), "score")
            return list(await context.gather([score(request, context) for request in requests]))

        return self._portal.call(score_all())

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise CapabilityError(
            f"moco: {self.name} has no perplexity; answers and likelihoods of choices can be measured"
        )

    def _model(self, what: str) -> Model:
        model = self._open.system.model
        if model is None or not model.can("score"):
            why = "is no single model" if model is None else f"is {model.name}, which gives no log-probabilities"
            raise CapabilityError(
                f"moco: {self.name} {why}: it has not {what}; tasks with output_type generate_until work, and "
                "`moco run -d lm_eval` asks multiple-choice tasks in words"
            )
        return model

    # ---------------------------------------------------------------- conversations

    @property
    def tokenizer_name(self) -> str:
        return f"moco-{self.name}".replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return _CHAT + json.dumps(chat_history)

    def _context(self, question: Question, *more: str) -> Context:
        parts = self._open.parts
        state = self._open.runtime.state(parts.metric, seed=parts.seed, sampling=parts.sampling)
        return state.context("respond", question, allowed=parts.allowed | set(more))


def _close(portal: Portal, opened: OpenSystem) -> None:
    portal.call(opened.__aexit__())
    portal.close()


def _question(index: int, text: str) -> Question:
    """Return a request as a question; one rendered by :meth:`MocoLM.apply_chat_template` with its history."""
    if not text.startswith(_CHAT):
        return Question(id=f"lm-eval-{index}", prompt=text)
    turns = json.loads(text.removeprefix(_CHAT))
    system = "\n\n".join(t["content"] for t in turns if t["role"] == "system")
    rest: Sequence[Message] = [Message(t["role"], t["content"]) for t in turns if t["role"] != "system"]
    return Question(id=f"lm-eval-{index}", prompt=rest[-1].content, system=system, history=tuple(rest[:-1]))


def _stopped(text: str, stops: Sequence[str]) -> str:
    """Return the text before the first stop string: not every method stops where its models are told to."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
