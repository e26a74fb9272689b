"""Checkpoints of the Hugging Face Hub: found in the local cache, or fetched."""

from __future__ import annotations

from pathlib import Path

from moco_core.errors import ConfigError

__all__ = ["fetch"]

_SMALL = ["*.json", "*.jinja", "tokenizer*", "*.model", "vocab*", "merges*", "*.tiktoken", "chat_templates/*"]
_WEIGHTS = ["*.safetensors"]


def fetch(repo: str, revision: str | None, *, weights: bool) -> str:
    """Return the local folder of a repository snapshot, from the cache if it is complete there, else downloaded.

    Without ``weights`` only configuration and tokenizer files are fetched. Weights are safetensors, never pickles.
    Raises ConfigError with one line.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = _SMALL + (_WEIGHTS if weights else [])
    try:
        return str(Path(snapshot_download(repo, revision=revision, allow_patterns=patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        at = f" at revision {revision}" if revision else ""
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model {repo!r}{at}: not a local folder and not available from the Hub ({text}); check the name, log in for "
            "gated models, or give a local path"
        ) from None
