"""Read rows from the Hugging Face Hub through ``datasets``, which is imported when the first row is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs

from moco_core import DatasetError
from moco_toolkit_data.rows import Row

__all__ = ["Hub", "asked_once", "full_commit", "hub_rows"]

_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_WHOLE = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")


@attrs.frozen
class Hub:
    """One configuration of one Hub repository. ``subset`` is the subset of ours that all its rows belong to, if any."""

    repo: str
    config: str = ""
    subset: str = ""
    file: str = ""
    """Read this one file of the repository: for repositories whose loading script ``datasets`` no longer runs."""
    revision: str = ""
    """This repository's own commit, where a dataset is spread over several repositories."""

    @property
    def name(self) -> str:
        return f"{self.repo}/{self.config}" if self.config else self.repo


@contextmanager
def asked_once() -> Iterator[None]:
    """Ask the Hub once whether it is there, and nothing more where it is not: only what lies in its cache is found then.

    Its client would ask for each file six times, for half a minute, before it looks there or gives up.
    """
    from huggingface_hub import constants, get_session

    away = False
    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=5)  # whatever it answers
        except Exception:  # of whichever library the client asks with
            away = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if away:
            constants.HF_HUB_OFFLINE = False


def hub_rows(
    hub: Hub,
    split: str,
    *,
    revision: str,
    streaming: bool,
    access_hint: str = "",
    commits: dict[str, str] | None = None,
) -> Iterator[Row]:
    """Yield the rows of one split, in the source's order.

    Without ``streaming`` the split is downloaded once and then read from disk by memory map; with it nothing is kept.
    A ``revision`` may be the first seven digits of a commit or more, as the Hub's pages show it. ``commits`` gets the commit
    that the repository was read at: from the addresses of the files, else (streaming) as the Hub tells it; nothing if neither
    does.

    Raises DatasetError if the source is gated (``access_hint`` says what to do), missing or out of reach, or if
    ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise DatasetError(f"{hub.repo}: reading from the Hub needs: pip install datasets") from None
    source = f"{hub.name}, {split}"
    try:
        with nullcontext() if Path(hub.repo).exists() else asked_once():
            known = (commits or {}).get(hub.repo, "")  # from what was read before
            revision = known if revision and known.startswith(revision) else full_commit(hub.repo, revision)
            if hub.file:
                address = f"hf://datasets/{hub.repo}@{revision or 'main'}/{hub.file}"
                kind = hub.file.removesuffix(".gz").rpartition(".")[2].replace("jsonl", "json")
                found = datasets.load_dataset(kind, data_files=address, split="train", streaming=streaming)
            else:
                found = datasets.load_dataset(
                    hub.repo, hub.config or None, split=split, revision=revision or None, streaming=streaming
                )
            rows = iter(_without_media(found))
    except Exception as error:  # datasets and the Hub client raise many unrelated classes
        raise DatasetError(_why(hub, split, revision, error, access_hint)) from error
    if commits is not None and hub.repo not in commits:
        commit = _commit(found) or _asked_commit(hub.repo, revision)
        if commit:
            commits[hub.repo] = commit
    number = 0
    while True:
        try:
            data = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise DatasetError(f"{source}, row {number + 1}: {_first_line(error)}") from error
        number += 1
        yield Row(data, source, number, split=split, subset=hub.subset)


def full_commit(repo: str, revision: str) -> str:
    """Return the commit that a short hash begins, from the local cache of the Hub or its list of commits.

    The Hub loads whole hashes, branches and tags only; whatever is no beginning of a commit is returned as it is. Raises what
    the Hub's client raises if the list is needed and out of reach.
    """
    if not _SHORT.fullmatch(revision) or Path(repo).exists():
        return revision
    from huggingface_hub import HfApi, constants

    kept = Path(constants.HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}" / "snapshots"
    found = [p.name for p in kept.glob(f"{revision}*")]
    if len(found) != 1:
        listed = HfApi().list_repo_commits(repo, repo_type="dataset")
        found = [c.commit_id for c in listed if c.commit_id.startswith(revision)]
    return found[0] if len(found) == 1 else revision


def _without_media(found: Any) -> Any:
    """Leave pictures and sound as bytes: decoding them needs libraries and time, and no prompt shows them."""
    for name, feature in (found.features or {}).items():
        if type(feature).__name__ in ("Image", "Audio", "Video"):
            found = found.cast_column(name, type(feature)(decode=False))
    return found


def _commit(found: Any) -> str:
    """The commit in the addresses of the files that were downloaded."""
    for address in getattr(getattr(found, "info", None), "download_checksums", None) or ():
        told = _COMMIT.search(str(address))
        if told:
            return told[1]
    return ""


def _asked_commit(repo: str, revision: str) -> str:
    """The commit that the Hub says a revision is now; empty for a local folder, or if the Hub does not answer."""
    if Path(repo).exists():
        return ""
    if _WHOLE.fullmatch(revision):
        return revision
    try:
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(repo, revision=revision or None, timeout=10).sha or "")
    except Exception:  # rows were read all the same; the record then says which branch was asked for
        return ""


def _why(hub: Hub, split: str, revision: str, error: Exception, access_hint: str) -> str:
    page = f"https://huggingface.co/datasets/{hub.repo}"
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {type(e).__name__ for e in chain}
    texts = " ".join(str(e).lower() for e in chain)
    if "GatedRepoError" in names or "gated" in texts:
        return f"{hub.repo} is gated: accept its terms at {page}, then run: hf auth login"
    advice = access_hint or f"see {page}"
    if names & {"OfflineModeIsEnabled", "ConnectionError", "LocalEntryNotFoundError", "ConnectTimeout", "ConnectError"}:
        return (
            f"{hub.repo}: the Hub is out of reach and nothing is cached; go online once, or give a local copy with the "
            f"option path ({advice})"
        )
    if "RepositoryNotFoundError" in names or "DatasetNotFoundError" in names:
        return f"{hub.repo}: no such dataset at revision {revision or 'main'}, or it is private; {advice}"
    return f"{hub.name}, {split}: cannot be loaded: {_first_line(error)}; {advice}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
