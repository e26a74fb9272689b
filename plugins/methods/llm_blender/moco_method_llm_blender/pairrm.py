"""PairRM, the published ranker: DeBERTa-v3 reads a question and two replies, a head on the states of their marks scores both.

Jiang, Ren and Lin 2023, arXiv 2306.02561, section 3.2. A checkpoint has the form of ``llm-blender/PairRM-hf``: the encoder lies
below ``pretrained_model``, the head below ``head_layer``, and the configuration has the ids of the marks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import ConfigError, Engine, EngineOutOfMemory, Inbox, Model, digest
from moco_core.config import default_cache_path
from moco_toolkit_checkpoints.finding import find
from moco_toolkit_checkpoints.fingerprints import HashStore, read_header, read_json, tokenizer_fingerprint
from moco_toolkit_checkpoints.specs import weight_files

__all__ = ["PairRmEngine", "pairrm"]

_MARKS = {"source_prefix_id": "<|source|>", "cand1_prefix_id": "<|candidate1|>", "cand2_prefix_id": "<|candidate2|>"}
_HEAD = ("head_layer.1.weight", "head_layer.1.bias", "head_layer.4.weight", "head_layer.4.bias")
_AT_ONCE = 16


def pairrm(name: str, source: int, candidate: int) -> Model:
    """Return the ranker in a folder or Hub repository; questions are cut to ``source`` tokens, replies to ``candidate`` or what
    the question leaves. No weights are loaded yet.

    Raises ConfigError for anything but a PairRM checkpoint.
    """
    folder, _ = find(name, None, "pairrm", weights=True)
    config, files = read_json(folder / "config.json"), weight_files(folder)
    tensors = {key for path in files for key in read_header(path)}
    missing = [key for key in _MARKS if key not in config] + [key for key in _HEAD if key not in tensors]
    if config.get("model_type") != "deberta-v2" or missing:
        raise ConfigError(
            f"pairrm: {name} is no PairRM checkpoint in safetensors ({', '.join(missing) or 'its encoder is no DeBERTa'}: "
            "missing); give one like llm-blender/PairRM-hf"
        )
    hashes = HashStore(default_cache_path(os.environ).parent / "hashes")
    weights = [(path.name, hashes.sha256(path)) for path in files]
    return Model(
        name=Path(name.rstrip("/")).name,
        fingerprint=digest("pairrm", config, weights, tokenizer_fingerprint(folder, hashes), source, candidate),
        capabilities={"reward"},
        engine=PairRmEngine(folder, source, candidate),
        device_group="pairrm",
    )


class PairRmEngine(Engine):
    """Runs a PairRM on the first CUDA device, else on the CPU, in float32.

    Answers calls of kind ``reward`` whose input is ``{"pair": [question, first reply, second reply]}``, with the scores of both
    replies; several tasks of a head are averaged.
    """

    def __init__(self, folder: Path, source: int, candidate: int) -> None:
        self.folder, self.source, self.candidate = folder, source, candidate
        self._loaded: _Loaded | None = None

    def ready(self, model: Model) -> bool:
        return self._loaded is not None

    def serve(self, model: Model, inbox: Inbox) -> None:
        import torch

        self._loaded = self._loaded or _load(self.folder)
        while calls := inbox.take(min(inbox.limit, _AT_ONCE)):
            rows = [self._loaded.row(call.input["pair"], self.source, self.candidate) for call in calls]
            try:
                inbox.resolve(list(zip(calls, self._loaded.scores(rows), strict=True)))
            except torch.OutOfMemoryError as error:
                raise EngineOutOfMemory(f"{model.name}: out of device memory") from error

    async def close(self) -> None:
        self._loaded = None


@attrs.frozen(kw_only=True, eq=False)
class _Loaded:
    """A ranker in memory: the tokenizer, the encoder, the head, and the ids of the three marks."""

    tokenizer: Any
    encoder: Any
    head: Any
    marks: Sequence[int]

    def row(self, pair: Sequence[str], source: int, candidate: int) -> tuple[list[int], list[int]]:
        """Return the tokens of a question and two replies, and the places of their marks. Texts lose their ends."""
        ids: list[int] = []
        places: list[int] = []
        whole, room = source + 2 * candidate, source
        for mark, text in zip(self.marks, pair, strict=True):
            part = self.tokenizer.encode(
                self.tokenizer.convert_ids_to_tokens(mark) + text, max_length=room, truncation=True
            )
            places.append(len(ids) + part.index(mark))
            ids += part
            room = room if len(places) > 1 else (whole - len(part)) // 2
        return ids, places

    def scores(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, float]]:
        """Return the scores of the first and the second reply of every row."""
        import torch

        width, pad = max(len(ids) for ids, _ in rows), self.encoder.config.pad_token_id or 0
        device = self.encoder.device
        ids = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids, _ in rows], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows], device=device)
        with torch.inference_mode():
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            each = torch.arange(len(rows), device=device)
            query, first, second = (states[each, [places[k] for _, places in rows]] for k in range(3))
            found = [self.head(torch.cat([query, reply], dim=-1)).mean(dim=-1).tolist() for reply in (first, second)]
        return list(zip(*found, strict=True))


def _load(folder: Path) -> _Loaded:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model

    config = DebertaV2Config.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    marks = [int(getattr(config, key)) for key in _MARKS]
    if tokenizer.convert_tokens_to_ids(list(_MARKS.values())) != marks:
        raise ConfigError(
            f"pairrm: {folder}: its tokenizer does not know {', '.join(_MARKS.values())} by the ids of config.json"
        )
    tensors = {key: value for path in weight_files(folder) for key, value in load_file(path).items()}
    width, tasks = tensors["head_layer.1.weight"].shape[0], tensors["head_layer.4.weight"].shape[0]
    nn = torch.nn
    # dropout keeps its places: they number the layers in the names of the weights
    head = nn.Sequential(nn.Dropout(), nn.Linear(2 * width, width), nn.Tanh(), nn.Dropout(), nn.Linear(width, tasks))
    whole = nn.ModuleDict({"pretrained_model": DebertaV2Model(config), "head_layer": head})
    try:
        whole.load_state_dict(tensors, assign=True)  # their numbers, whatever type is the default while others load
    except RuntimeError as error:
        raise ConfigError(f"pairrm: {folder}: {' '.join(str(error).split())[:300]}") from None
    whole.eval().float().to("cuda" if torch.cuda.is_available() else "cpu")
    return _Loaded(tokenizer=tokenizer, encoder=whole["pretrained_model"], head=head, marks=marks)
