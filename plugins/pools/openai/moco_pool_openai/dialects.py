"""What servers take and give beyond the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = ["DIALECTS", "HOSTS", "Dialect"]


@attrs.frozen(kw_only=True)
class Dialect:
    """One server's ways.

    ``filters``: it takes top_k, min_p and repetition_penalty. They are always sent then, since a server may fill in a
    checkpoint's own defaults for what is missing. ``continues``: how it is asked to go on with an assistant message
    (``flag``: fields of the request; ``mark``: a field of the message; ``prefill``: it does so whenever the last message is
    the assistant's; ``no``). ``echoes``: its reply then begins with the message that it continued.
    ``token_ids``: it names the ids of emitted tokens. ``stops``: how many stop strings it takes, None if any number.
    ``template``: it takes arguments of the chat template. ``seed``: the field that holds the seed.
    """

    filters: bool = False
    continues: Literal["no", "flag", "mark", "prefill"] = "no"
    echoes: bool = False
    token_ids: bool = False
    stops: int | None = 4
    template: bool = False
    seed: str = "seed"


DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(),
    "vllm": Dialect(filters=True, continues="flag", token_ids=True, stops=None, template=True),
    "sglang": Dialect(filters=True, continues="flag", stops=None, template=True),
    "llamacpp": Dialect(filters=True, continues="prefill", echoes=True, stops=None, template=True),
    "mistral": Dialect(continues="mark", echoes=True, seed="random_seed"),
}
"""By the name that a server puts into ``owned_by`` of its list of models, or that stands for its host."""

HOSTS: Mapping[str, str] = {"api.mistral.ai": "mistral", "codestral.mistral.ai": "mistral"}
"""Services whose dialect is told by where they are."""
