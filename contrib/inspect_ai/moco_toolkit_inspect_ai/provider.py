"""The provider ``moco`` of inspect_ai: a model is the system of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from moco_core import CapabilityError, ConfigError, Message, Question, Sampling, api
from moco_core.catalogue import installed
from moco_core.types import Usage

__all__ = ["MocoAPI"]

_SETTINGS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_new_tokens",
    "stop_seqs": "stop",
}
"""Settings of a request, and the setting of a system that each is."""

_REFUSED = (
    *("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "response_schema"),
    *("best_of", "num_choices"),
)
"""Settings that no system honours."""


@modelapi(name="moco")
class MocoAPI(ModelAPI):
    """Answers with a fitted system; requests at the same time are batched by its engines.

    ``plugin`` (``-M plugin=FILE``) is a Python file with plugins of one's own.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        plugin: str = "",
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if plugin:
            installed().register_file(Path(plugin))
        # what is wrong with it is told here; it has a loop of its own, which outlives an evaluation
        self._system = api.load(model_name, plugins=installed())

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer a conversation. Raises CapabilityError for tools, images and settings that a system cannot honour."""
        if tools:
            raise CapabilityError(f"moco/{self.model_name}: a system calls no tools")
        question, sampling = _question(input), _sampling(config, self._system.parts.sampling)
        asked = await anyio.to_thread.run_sync(
            lambda: self._system.ask(question, sampling=sampling, seed=config.seed),
            limiter=anyio.CapacityLimiter(1),  # a thread for each request that is under way
        )
        usage = sum((call.usage for call in asked.calls), Usage())
        reason: Any = "max_tokens" if asked.reply.finish_reason == "length" else "stop"
        message = ChatMessageAssistant(content=asked.text, model=self.model_name, source="generate")
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=reason)],
            usage=ModelUsage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                total_tokens=usage.prompt_tokens + usage.completion_tokens,
            ),
            metadata={"calls": len(asked.calls), **({"model": m} if (m := asked.reply.meta.get("model")) else {})},
        )

    def close(self) -> None:
        self._system.close()

    def max_connections(self) -> int:
        return 256  # the engines batch what comes at once

    def connection_key(self) -> str:
        return f"moco/{self.model_name}"


def _question(messages: list[ChatMessage]) -> Question:
    for message in messages:
        if message.role == "tool":
            raise CapabilityError("moco: a system reads no replies of tools")
        if not isinstance(message.content, str) and any(
            part.type not in ("text", "reasoning") for part in message.content
        ):
            raise CapabilityError("moco: a system reads text alone, no images and no sound")
    system = "\n\n".join(m.text for m in messages if m.role == "system")
    turns = [Message(m.role, m.text) for m in messages if m.role != "system"]
    if not turns or turns[-1].role != "user":
        raise CapabilityError("moco: a conversation ends with a message of the user")
    return Question(id="inspect", prompt=turns[-1].content, system=system, history=tuple(turns[:-1]))


def _sampling(config: GenerateConfig, own: Sampling) -> Sampling:
    """Return how to decode: as the system does, but for what was given. Raises CapabilityError or ConfigError."""
    for name in _REFUSED:
        value = getattr(config, name, None)
        if value and not (name in ("best_of", "num_choices") and value == 1):
            raise CapabilityError(f"moco: {name}: a system cannot honour it")
    given = {ours: value for theirs, ours in _SETTINGS.items() if (value := getattr(config, theirs)) is not None}
    if "stop" in given:
        given["stop"] = tuple(given["stop"])
    try:
        return attrs.evolve(own, **given)
    except ConfigError as error:
        raise ConfigError(f"moco: {error}") from None
