"""Describing a checkpoint: from its files to a :class:`moco_core.models.Model`, without weights and without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.errors import ConfigError
from moco_core.models import Engine, Model
from moco_core.runtime.cache import default_cache_path
from moco_core.types import digest
from moco_pool_transformers.placement import Held, devices, replicate, rooms, spread
from moco_pool_transformers.pool import Entry, Options
from moco_toolkit_checkpoints.adapters import FACTOR, changes_base, unusable
from moco_toolkit_checkpoints.fingerprints import (
    HashStore,
    architecture_fingerprint,
    read_header,
    read_json,
    tokenizer_fingerprint,
    tokenizer_settings,
)
from moco_toolkit_checkpoints.hub import fetch, remote
from moco_toolkit_checkpoints.specs import Spec, weight_files

__all__ = ["Described", "describe", "place"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STORED = {"F64": "float32", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_RECURRENT = ("mamba", "rwkv", "recurrent", "linear_attention", "xlstm", "conv")

GENERATIVE = frozenset({"generate", "logprobs", "score", "step", "hidden", "embed", "weights", "train"})
CLASSIFYING = frozenset({"reward", "hidden", "embed", "weights"})


@attrs.frozen(kw_only=True)
class Described:
    """A model without its place: everything that does not depend on the other models of the pool."""

    name: tuple[str, bool]
    fingerprint: str
    entry: Entry
    spec: Spec
    capabilities: frozenset[str]
    tokenizer: str
    architecture: str
    base: str
    parameters: int
    context: int | None
    memory: int

    def model(self, name: str, engine: Engine, device: str, copy: int, replicas: tuple[str, ...] = ()) -> Model:
        spec = attrs.evolve(self.spec, device=device, base_key=(*self.spec.base_key, device))
        return Model(
            name=name,
            fingerprint=self.fingerprint,
            capabilities=self.capabilities,
            engine=engine,
            description=self.entry.description,
            tokenizer=self.tokenizer,
            architecture=self.architecture,
            base=self.base,
            adapter=bool(self.entry.adapter),
            parameters=self.parameters,
            context_length=self.context,
            memory=self.memory,
            lane=device,
            copy=copy,
            prices=self.entry.prices,
            info={"spec": spec, "replicas": replicas} if replicas else {"spec": spec},
        )


def describe(entry: Entry, options: Options, where: str) -> Described:
    """Describe one entry. Raises ConfigError."""
    hashes = HashStore(Path(options.cache) if options.cache else _user_cache())
    folder, repo = _find(entry.model, entry.revision, where)
    adapter_revision = None
    if not entry.adapter and _is_adapter(folder):
        adapter_revision, entry = entry.revision, _on_its_base(entry, folder, where)
        folder, repo = _find(entry.model, entry.revision, f"{where}: the base of {entry.adapter}")
    if not (folder / "config.json").exists():
        raise ConfigError(f"{where}: {entry.model}: no config.json; give the folder or Hub id of a checkpoint")
    config = read_json(folder / "config.json")
    classes = config.get("architectures") or []
    classifier = any(c.endswith("ForSequenceClassification") for c in classes)
    if not classifier and not any(
        c.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for c in classes
    ):
        raise ConfigError(
            f"{where}: {entry.model}: architecture {', '.join(classes) or 'unknown'} is neither a causal language model nor "
            "a sequence classifier"
        )
    if config.get("is_encoder_decoder"):
        raise ConfigError(f"{where}: {entry.model}: encoder-decoder models are not causal language models")
    if config.get("auto_map") and not options.trust_remote_code:
        from transformers import CONFIG_MAPPING

        if config.get("model_type") not in CONFIG_MAPPING:
            raise ConfigError(
                f"{where}: {entry.model} brings its own code; set trust_remote_code: true if you trust its authors"
            )
    files = weight_files(folder)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    commit = entry.revision
    if repo and not files:  # not here yet: the Hub tells what a file's hash and header are
        there = remote(repo, entry.revision)
        tensors, weights, commit = there.tensors, there.files, there.commit
    else:
        repo = ""
        if not files:
            raise ConfigError(
                f"{where}: {folder}: no safetensors weights; convert the checkpoint (pickled weights are not read)"
            )
        for path in files:
            tensors |= read_header(path)
        weights = [(p.name, hashes.sha256(p)) for p in files]

    adapter = ""
    alone = False  # an adapter that changes its base gets a module of its own
    adapter_facts: Any = None
    adapter_tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    tokenizer_folder = folder
    if entry.adapter:
        adapter_folder, _ = _find(entry.adapter, adapter_revision, f"{where}.adapter", adapter=True)
        adapter = str(adapter_folder)
        adapter_config = read_json(adapter_folder / "adapter_config.json")
        kind = adapter_config.get("peft_type")
        if kind != "LORA":
            raise ConfigError(f"{where}.adapter: {adapter}: expected a LoRA adapter, got {kind}")
        path = adapter_folder / "adapter_model.safetensors"
        if not path.exists():
            raise ConfigError(f"{where}.adapter: {adapter}: no adapter_model.safetensors")
        adapter_tensors = read_header(path)
        if problem := _misfit(adapter_tensors, tensors):
            raise ConfigError(f"{where}.adapter: {adapter} was trained on another base than {entry.model}: {problem}")
        if problem := unusable(adapter_config):
            raise ConfigError(f"{where}.adapter: {adapter} cannot be opened: {problem}")
        alone = bool(changes_base(adapter_config, adapter_tensors))
        settings = {
            k: v for k, v in adapter_config.items() if k not in ("base_model_name_or_path", "revision", "auto_mapping")
        }
        adapter_facts = [settings, hashes.sha256(path)]
        if (adapter_folder / "tokenizer_config.json").exists():
            tokenizer_folder = adapter_folder  # trained with its own template or added tokens

    template = (
        _template(tokenizer_folder) if tokenizer_folder == folder else _template(tokenizer_folder) or _template(folder)
    )
    if entry.template == "chat" and not template:
        raise ConfigError(f"{where}: {entry.model} has no chat template; use template: plain")
    style = "chat" if template and entry.template != "plain" else "plain"
    dtype = _dtype(entry, options, config, tensors)
    tokenizer = tokenizer_fingerprint(tokenizer_folder, hashes)
    prompting = [tokenizer_settings(tokenizer_folder), template if style == "chat" else "", style]
    ends = _ends(folder, config)
    tags = options.reasoning_tags
    base_print = digest("transformers", _settled(config), weights, dtype)
    fingerprint = digest(
        base_print, adapter_facts, tokenizer, prompting, list(ends), options.overlong, [list(t) for t in tags]
    )
    parameters = sum(math.prod(shape) for _, shape in {**tensors, **adapter_tensors}.values())
    size = DTYPE_BYTES[dtype]
    base_bytes = sum(math.prod(s) for _, s in tensors.values()) * size
    given = entry.name or ""
    source = entry.adapter or entry.model
    return Described(
        name=(given or Path(source.rstrip("/")).name, bool(given)),
        fingerprint=fingerprint,
        entry=entry,
        spec=Spec(
            folder=str(folder),
            base_key=(digest(base_print, adapter_facts) if alone else base_print,),
            base_print=base_print,
            config_print=digest(_settled(config)),
            ends=ends,
            base_bytes=base_bytes,
            dtype=dtype,
            device=entry.device,
            repo=repo,
            revision=commit,
            style=style,
            overlong=options.overlong,
            tags=tuple((a, b) for a, b in tags),
            tokenizer_folder=str(tokenizer_folder),
            classifier=classifier,
            adapter=adapter,
            adapter_key=digest(adapter_facts) if adapter else "",
            template_text=template if tokenizer_folder != folder and not _template(tokenizer_folder) else None,
            entry=attrs.asdict(entry),
        ),
        capabilities=_capabilities(config, classifier),
        tokenizer=tokenizer,
        architecture=architecture_fingerprint(config, tensors),
        base=base_print if adapter else "",
        parameters=parameters,
        context=_context(config),
        memory=base_bytes + sum(math.prod(s) for _, s in adapter_tensors.values()) * size,
    )


def _misfit(adapter: Mapping[str, tuple[str, tuple[int, ...]]], base: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Return why LoRA factors cannot belong to a base, from shapes alone; empty if they can.

    Modules are looked up by the names in the base's files. Some architectures name them otherwise in memory, so a module
    that is not found says nothing, unless no module of the base is called anything like those of the adapter.
    """
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, (_, shape) in adapter.items():
        match = FACTOR.match(key.removesuffix(".weight"))
        if match is not None and len(shape) == 2:
            pairs.setdefault(match[1], {})[match[2]] = shape
    leaves = {name.removesuffix(".weight").rpartition(".")[2] for name in base}
    if pairs and not any(module.rpartition(".")[2] in leaves for module in pairs):
        return f"that has nothing like {min(pairs)!r}"
    for module, pair in pairs.items():
        weight = base.get(f"{module}.weight")
        if weight is None or len(weight[1]) != 2 or set(pair) != {"A", "B"}:
            continue
        inner, outer = pair["A"][1], pair["B"][0]
        if weight[1] not in ((outer, inner), (inner, outer)):  # some layers keep their weight transposed
            return f"{module!r} is {weight[1][0]}x{weight[1][1]} there, the adapter changes {outer}x{inner}"
    return ""


def place(found: Sequence[Described], names: Sequence[str], options: Options) -> list[tuple[str, ...]]:
    """Return the devices of each model, its home first: given ones are kept, the others are spread over what there is by size,
    and models get replicas where room is left. Raises ConfigError for numbers of replicas that cannot be.
    """
    wanted = [d.entry.device or ("" if options.device == "auto" else options.device) for d in found]
    available = devices() if "" in wanted or "cuda" in wanted else []
    homes = spread([(d.spec.base_key[0], d.fingerprint, d.memory) for d in found], wanted, available)
    pool = None if options.replicas == "auto" else options.replicas
    held = [
        Held(
            label=f"model {name!r}",
            base=d.spec.base_key[0],
            bytes=d.spec.base_bytes,
            adapter=d.spec.adapter_key,
            adapter_bytes=d.memory - d.spec.base_bytes,
            # where a device was named there is one
            replicas=d.entry.replicas or (1 if d.entry.device or (device and pool is None) else pool),
        )
        for d, name, device in zip(found, names, wanted, strict=True)
    ]
    if all(h.replicas == 1 for h in held) or (len(available) < 2 and not any(h.replicas for h in held)):
        return [(home,) for home in homes]
    for h, device in zip(held, wanted, strict=True):
        if device and h.replicas not in (None, 1):
            raise ConfigError(
                f"{h.label}: replicas: {h.replicas}, but device: {device} names one; leave one of them out"
            )
    if len(available) < 2:
        h = next(h for h in held if h.replicas not in (None, 1))
        there = ", ".join(available) or "no other device"
        raise ConfigError(f"{h.label}: replicas: {h.replicas}, but this machine has {there} alone; set replicas: auto")
    more, problems = replicate(held, homes, rooms(available, options.memory))
    if problems:
        raise ConfigError(problems)
    return [(home, *further) for home, further in zip(homes, more, strict=True)]


def _find(name: str, revision: str | None, where: str, *, adapter: bool = False) -> tuple[Path, str]:
    """Return (local folder, Hub repository or "")."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve(), ""
    looks_local = name.startswith(("/", ".", "~")) or name.count("/") > 1 or path.exists()
    if looks_local:
        what = "is not a folder" if path.exists() else "does not exist"
        raise ConfigError(f"{where}: {name} {what}; give the folder of a checkpoint or a Hub id")
    try:
        return Path(fetch(name, revision, weights=adapter)), name
    except ConfigError as error:
        raise ConfigError([f"{where}: {p}" for p in error.problems]) from None


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def _on_its_base(entry: Entry, folder: Path, where: str) -> Entry:
    """Return the entry for an adapter that was given as a model: on the base that its configuration names.

    A relative name is looked for beside the adapter first. Raises ConfigError if there is none.
    """
    config = read_json(folder / "adapter_config.json")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"{where}: {entry.model} is an adapter that names no base; give the base as model, and this as its adapter"
        )
    beside = folder.parent / base
    return attrs.evolve(
        entry,
        model=str(beside) if beside.is_dir() else base,
        adapter=entry.model,
        revision=config.get("revision"),
    )


def _template(folder: Path) -> str:
    """Return the chat template's text (for several named ones: all of them), or the empty string."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    config = folder / "tokenizer_config.json"
    value = read_json(config).get("chat_template") if config.exists() else None
    return value if isinstance(value, str) else "" if not value else str(value)


_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")


def _settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what changes no number."""
    kept = {k: v for k, v in config.items() if k not in _VOLATILE}
    return {**kept, "architectures": config.get("architectures")}


def _ends(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a reply by the generation configuration, or by the model's where that names none."""
    generation = folder / "generation_config.json"
    text = config.get("text_config") or {}
    for data in (read_json(generation) if generation.exists() else {}, config, text):
        value = data.get("eos_token_id")
        if value is not None:
            return tuple(sorted({int(i) for i in (value if isinstance(value, list) else [value])}))
    return ()


def _dtype(
    entry: Entry, options: Options, config: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> str:
    wanted = entry.dtype or options.dtype
    if wanted != "auto":
        return wanted
    device = entry.device or options.device
    if device == "cpu" or (device == "auto" and devices() == ["cpu"]):
        return "float32"  # half precision is slow and order-dependent on most CPUs
    stored = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    if stored in DTYPE_BYTES:
        return stored
    kinds = [_STORED[d] for d, _ in tensors.values() if d in _STORED]
    return max(set(kinds), key=kinds.count) if kinds else "float32"


def _capabilities(config: Mapping[str, Any], classifier: bool) -> frozenset[str]:
    if classifier:
        return CLASSIFYING
    text = config.get("text_config") or config
    kinds = [str(k) for k in text.get("layer_types") or []] + [str(config.get("model_type", ""))]
    if any(r in k for k in kinds for r in _RECURRENT):
        return GENERATIVE - {"step"}  # recurrent states cannot be rolled back
    return GENERATIVE


def _context(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config") or config
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"):
        value = text.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _user_cache() -> Path:
    # beside the call cache, wherever the user put that
    return default_cache_path(os.environ).parent / "hashes"
