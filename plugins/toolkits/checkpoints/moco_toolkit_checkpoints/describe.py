"""Describing a checkpoint: from its files to plain facts, without weights and without torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.errors import ConfigError
from moco_core.types import digest
from moco_toolkit_checkpoints.adapters import changes_base, misfit, unusable
from moco_toolkit_checkpoints.devices import devices
from moco_toolkit_checkpoints.finding import base_of, find, is_adapter
from moco_toolkit_checkpoints.fingerprints import (
    HashStore,
    architecture_fingerprint,
    read_header,
    read_json,
    tokenizer_fingerprint,
    tokenizer_settings,
)
from moco_toolkit_checkpoints.hub import remote
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS
from moco_toolkit_checkpoints.rendering import TODAY
from moco_toolkit_checkpoints.specs import Spec, Task, weight_files

__all__ = ["TRAINING", "Checkpoint", "Described", "describe", "unique_names"]

Headers = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> (dtype, shape) of tensors in files."""

TRAINING = "moco_training.json"
"""Beside an adapter: how it was trained, and the fingerprint of the weights it was trained on."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STORED = {"F64": "float32", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@attrs.frozen(kw_only=True)
class Checkpoint:
    """A checkpoint to describe, and how it is to be used: what any pool of checkpoints lets its users say of one.

    ``template`` is ``auto``, ``chat``, ``plain``, or arguments of the chat template. ``device`` decides the numeric type
    where ``dtype`` is ``auto``. ``hashes`` is the folder that remembers files' hashes.
    """

    model: str
    hashes: Path
    name: str = ""
    adapter: str = ""
    revision: str | None = None
    adapter_revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    template: str | Mapping[str, Any] = "auto"
    overlong: str = "error"
    tags: Sequence[tuple[str, str]] = DEFAULT_TAGS
    trust_remote_code: bool = False


@attrs.frozen(kw_only=True)
class Described:
    """A model without its place: everything that does not depend on the other models of the pool.

    ``name`` says whether it was given; ``config`` is the content of config.json; ``context`` counts positions, and
    ``first_context`` those of the first of two rotary tables; ``memory`` is in bytes.
    """

    name: tuple[str, bool]
    fingerprint: str
    config: Mapping[str, Any]
    spec: Spec
    tokenizer: str
    architecture: str
    base: str
    parameters: int
    context: int | None
    first_context: int | None
    memory: int


def describe(checkpoint: Checkpoint, where: str) -> Described:
    """Describe one checkpoint; ``where`` opens every message. Raises ConfigError."""
    try:
        return _described(checkpoint, where)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{where}: {checkpoint.model}: cannot be read: {error}") from None
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # JSON of another shape than any library writes
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: {checkpoint.model}: its configuration or tokenizer is damaged ({said})") from error


def _described(checkpoint: Checkpoint, where: str) -> Described:
    hashes = HashStore(checkpoint.hashes)
    folder, repo = find(checkpoint.model, checkpoint.revision, where)
    if not checkpoint.adapter and is_adapter(folder):
        base, revision = base_of(folder, checkpoint.model, where)
        checkpoint = attrs.evolve(
            checkpoint, model=base, adapter=checkpoint.model, revision=revision, adapter_revision=checkpoint.revision
        )
        folder, repo = find(base, revision, f"{where}: the base of {checkpoint.adapter}")
    config, task = _config(folder, checkpoint, where)
    if files := weight_files(folder):
        repo, commit = "", checkpoint.revision
        tensors: Headers = {k: v for path in files for k, v in read_header(path).items()}
        weights = [(p.name, hashes.sha256(p)) for p in files]
    elif repo:  # not here yet: the Hub tells what a file's hash and header are
        there = remote(repo, checkpoint.revision)
        tensors, weights, commit = there.tensors, there.files, there.commit
    else:
        raise ConfigError(
            f"{where}: {folder}: no safetensors weights; convert the checkpoint (pickled weights are not read)"
        )
    adapter = _Adapter()
    if checkpoint.adapter:
        adapter = _adapter(checkpoint, tensors, digest(weights), hashes, f"{where}.adapter")
    # an adapter may have been trained with its own template or added tokens
    own = adapter.folder if adapter.folder and (adapter.folder / "tokenizer_config.json").exists() else None
    template = (_template(own) if own else "") or _template(folder)
    text = template if own and not _template(own) else None
    if not template:
        template = text = _processors_template(folder)
    style, arguments = _style(checkpoint, template, where)
    dtype = _dtype(checkpoint, config, tensors)
    tokenizer_folder = own or folder
    tokenizer = tokenizer_fingerprint(tokenizer_folder, hashes)
    prompting = [tokenizer_settings(tokenizer_folder), template if style == "chat" else "", style, *arguments.items()]
    if style == "chat" and "strftime_now" in template:
        prompting.append(str(TODAY))
    ends = _ends(folder, config)
    tags = tuple((a, b) for a, b in checkpoint.tags)
    # a checkpoint's own code decides its numbers as its weights do
    code = [[p.name, hashes.sha256(p)] for p in sorted(folder.glob("*.py"))] if checkpoint.trust_remote_code else []
    base_print = digest("transformers", _settled(config), weights, dtype, *code)
    size = DTYPE_BYTES[dtype]
    base_bytes = sum(math.prod(s) for _, s in tensors.values()) * size
    source = checkpoint.adapter or checkpoint.model
    return Described(
        name=(checkpoint.name or Path(source.rstrip("/")).name, bool(checkpoint.name)),
        fingerprint=digest(
            base_print, adapter.facts, tokenizer, prompting, list(ends), checkpoint.overlong, [list(t) for t in tags]
        ),
        config=config,
        spec=Spec(
            folder=str(folder),
            base_key=(digest(base_print, adapter.facts) if adapter.alone else base_print,),
            base_print=base_print,
            config_print=digest(_settled(config)),
            ends=ends,
            base_bytes=base_bytes,
            weights_print=digest(weights),
            dtype=dtype,
            device="",
            repo=repo,
            revision=commit,
            style=style,
            overlong=checkpoint.overlong,
            tags=tags,
            tokenizer_folder=str(tokenizer_folder),
            task=task,
            adapter=str(adapter.folder or ""),
            adapter_key=digest(adapter.facts) if adapter.folder else "",
            template_text=text or None,
            template_options=arguments,
        ),
        tokenizer=tokenizer,
        architecture=architecture_fingerprint(config, tensors),
        base=base_print if adapter.folder else "",
        parameters=sum(math.prod(shape) for _, shape in {**tensors, **adapter.tensors}.values()),
        context=_context(config),
        first_context=_first_context(config),
        memory=base_bytes + sum(math.prod(s) for _, s in adapter.tensors.values()) * size,
    )


_CLASSES: Mapping[Task, tuple[str, ...]] = {
    "generate": ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"),
    "reward": ("ForSequenceClassification",),
    "embed": ("Model", "ForMaskedLM", "ForPreTraining"),
}
"""How transformers' classes for each task end; the first task that fits counts."""


_SHAPES: Mapping[str, type] = {
    "architectures": list,
    "layer_types": list,
    "model_type": str,
    "rope_parameters": dict,
    "rope_scaling": dict,
    "text_config": dict,
}


def _config(folder: Path, checkpoint: Checkpoint, where: str) -> tuple[dict[str, Any], Task]:
    """Return config.json, and what a checkpoint of these classes is for."""
    if not (folder / "config.json").exists():
        raise ConfigError(f"{where}: {checkpoint.model}: no config.json; give the folder or Hub id of a checkpoint")
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    for data in (config, text if isinstance(text, dict) else {}):
        for key, kind in _SHAPES.items():
            if data.get(key) is not None and not isinstance(data[key], kind):
                raise ConfigError(
                    f"{where}: {folder / 'config.json'}: {key}: expected a {kind.__name__}, got {data[key]!r}"
                )
    classes = [str(c) for c in config.get("architectures") or []]
    task = next((task for task, ends in _CLASSES.items() if any(c.endswith(ends) for c in classes)), None)
    if task is None:
        raise ConfigError(
            f"{where}: {checkpoint.model}: architecture {', '.join(classes) or 'unknown'} is neither a causal language model "
            "nor a sequence classifier nor an encoder"
        )
    if config.get("is_encoder_decoder"):
        raise ConfigError(f"{where}: {checkpoint.model}: encoder-decoder models are not causal language models")
    if config.get("auto_map") and not checkpoint.trust_remote_code:
        from moco_toolkit_checkpoints.transformers import CONFIG_MAPPING

        if config.get("model_type") not in CONFIG_MAPPING:
            raise ConfigError(
                f"{where}: {checkpoint.model} brings its own code; set trust_remote_code: true if you trust its authors"
            )
    return config, task


@attrs.frozen(kw_only=True)
class _Adapter:
    """An adapter's folder, what identifies it, its headers, and whether it must not share its base."""

    folder: Path | None = None
    facts: Any = None
    tensors: Headers = attrs.field(factory=dict)
    alone: bool = False


def _adapter(checkpoint: Checkpoint, base: Headers, weights_print: str, hashes: HashStore, where: str) -> _Adapter:
    folder, _ = find(checkpoint.adapter, checkpoint.adapter_revision, where, weights=True)
    config = read_json(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        raise ConfigError(f"{where}: {folder}: expected a LoRA adapter, got {config.get('peft_type')}")
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise ConfigError(f"{where}: {folder}: no adapter_model.safetensors")
    tensors = read_header(path)
    if problem := misfit({k: s for k, (_, s) in tensors.items()}, {k: s for k, (_, s) in base.items()}):
        raise ConfigError(f"{where}: {folder} was trained on another base than {checkpoint.model}: {problem}")
    record = read_json(folder / TRAINING) if (folder / TRAINING).exists() else {}
    if record.get("weights", weights_print) != weights_print:
        raise ConfigError(
            f"{where}: {folder} was trained on other weights than those of {checkpoint.model}; give the base that it was "
            f"trained on ({record.get('base', 'unknown')})"
        )
    if problem := unusable(config):
        raise ConfigError(f"{where}: {folder} cannot be opened: {problem}")
    settings = {k: v for k, v in config.items() if k not in ("base_model_name_or_path", "revision", "auto_mapping")}
    return _Adapter(
        folder=folder,
        facts=[settings, hashes.sha256(path)],
        tensors=tensors,
        alone=bool(changes_base(config, tensors)),
    )


def _template(folder: Path) -> str:
    """Return the chat template's text (for several named ones: all of them), or the empty string."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    config = folder / "tokenizer_config.json"
    value = read_json(config).get("chat_template") if config.exists() else None
    return value if isinstance(value, str) else "" if not value else str(value)


def _processors_template(folder: Path) -> str:
    """Return the chat template that older image models have for their processor alone; the tokenizer does not look there."""
    path = folder / "chat_template.json"
    value = read_json(path).get("chat_template") if path.exists() else None
    return value if isinstance(value, str) else ""


_OURS = ("messages", "add_generation_prompt", "continue_final_message", "tools", "documents", "strftime_now")


def _style(checkpoint: Checkpoint, template: str, where: str) -> tuple[str, dict[str, Any]]:
    """Return ``chat`` or ``plain``, and the arguments of the template. Raises ConfigError."""
    wanted = checkpoint.template
    arguments = {} if isinstance(wanted, str) else dict(sorted(wanted.items()))
    if not template and (arguments or wanted == "chat"):
        raise ConfigError(f"{where}: {checkpoint.model} has no chat template; use template: plain")
    for name in arguments:
        # a template ignores what it does not know: nobody would notice a misspelt argument
        if name in _OURS or not re.search(rf"\b{re.escape(name)}\b", template):
            known = "is not for the user to set" if name in _OURS else "is no argument of its chat template"
            raise ConfigError(f"{where}.template: {checkpoint.model}: {name!r} {known}")
    return "chat" if template and wanted != "plain" else "plain", arguments


_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")


def _settled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what changes no number."""
    return {k: v for k, v in config.items() if k not in _VOLATILE}


def _ends(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a reply by the generation configuration, or by the model's where that names none."""
    generation = folder / "generation_config.json"
    text = config.get("text_config") or {}
    for data in (read_json(generation) if generation.exists() else {}, config, text):
        value = data.get("eos_token_id")
        if value is not None:
            ids = {int(i) for i in (value if isinstance(value, list) else [value]) if i is not None}
            return tuple(sorted(i for i in ids if i >= 0))  # -1 is how some say that there is none
    return ()


def _dtype(checkpoint: Checkpoint, config: Mapping[str, Any], tensors: Headers) -> str:
    if checkpoint.dtype != "auto":
        return checkpoint.dtype
    if checkpoint.device == "cpu" or (checkpoint.device == "auto" and devices() == ["cpu"]):
        return "float32"  # half precision is slow and order-dependent on most CPUs
    stored = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    if stored in DTYPE_BYTES:
        return stored
    kinds = [_STORED[d] for d, _ in tensors.values() if d in _STORED]
    return max(set(kinds), key=kinds.count) if kinds else "float32"


def _context(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config") or config
    for key in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx"):
        value = text.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _first_context(config: Mapping[str, Any]) -> int | None:
    """Return how many positions turn by the first of two rotary tables (longrope), where there are two."""
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    first = rope.get("original_max_position_embeddings") or text.get("original_max_position_embeddings")
    return int(first) if "longrope" in (rope.get("rope_type"), rope.get("type")) and first else None


def unique_names(wanted: Sequence[tuple[str, bool]]) -> list[str]:
    """Make names unique: given names are kept (the pool refuses equal ones), default names are numbered."""
    given = {name for name, explicit in wanted if explicit}
    counts = Counter(name for name, _ in wanted)
    used: set[str] = set(given)
    out = []
    for name, explicit in wanted:
        if explicit:
            out.append(name)
            continue
        candidate, number = name, 1
        while candidate in used or (counts[name] > 1 and number == 1):
            candidate = f"{name}-{number}"
            number += 1
        used.add(candidate)
        out.append(candidate)
    return out
