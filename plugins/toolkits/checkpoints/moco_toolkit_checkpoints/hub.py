"""Checkpoints of the Hugging Face Hub: found in the local cache, or fetched."""

from __future__ import annotations

from pathlib import Path

import attrs

from moco_core.errors import ConfigError
from moco_toolkit_checkpoints.files import TOKENIZER

__all__ = ["Remote", "fetch", "remote"]

_SMALL = ["*.json", "*.py", *TOKENIZER]  # code is run for those who trust its authors alone
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


@attrs.frozen
class Remote:
    """Weights that lie on the Hub: their commit, (file, SHA-256) pairs, and name -> (dtype, shape) from their headers."""

    commit: str
    files: list[tuple[str, str]]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def remote(repo: str, revision: str | None) -> Remote:
    """Describe a repository's weights without downloading them: the Hub knows every large file by its SHA-256, and
    headers are read by range requests. Raises ConfigError.
    """
    from huggingface_hub import HfApi, get_safetensors_metadata
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError, SafetensorsParsingError

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
        commit = str(info.sha)
        found = get_safetensors_metadata(repo, revision=commit)
    except (NotASafetensorsRepoError, SafetensorsParsingError):
        raise ConfigError(
            f"model {repo!r}: no safetensors weights; convert the checkpoint (pickled weights are not read)"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model {repo!r}: its weights cannot be described ({text}); connect, or give a local path"
        ) from None
    hashes = {s.rfilename: s.lfs.sha256 for s in info.siblings or [] if s.lfs is not None}
    files = [(name, hashes.get(name) or f"commit {commit}") for name in sorted(found.files_metadata)]
    tensors = {
        name: (str(tensor.dtype), tuple(tensor.shape))
        for metadata in found.files_metadata.values()
        for name, tensor in metadata.tensors.items()
    }
    return Remote(commit, files, tensors)
