"""What the engine makes of an architecture: two tiny random models of it, compared with transformers itself.

``python transformers_matrix.py [NAME ...]`` examines all kinds of ``architectures.yaml``, or some, and writes what it found
into ``architectures.json`` and into the table of the pool's README.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers_tiny import Mean, ask, pool, serve, tokenizer

from moco_core.errors import CapabilityError, ConfigError, ModelCallError
from moco_core.models import Call, Model, Needs, Pool
from moco_core.runtime.cache import Cache
from moco_pool_transformers.architectures import loader
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_authoring.tables import markdown_table, replace_marked
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_checkpoints.specs import weight_files
from moco_toolkit_decoding import JointRecipe, Mix, open_session
from moco_toolkit_decoding.two_tables import switch_of

__all__ = ["KINDS", "README", "RESULTS", "SAMPLE", "SERVED", "examine", "synced", "table"]

HERE = Path(__file__).parent
RESULTS = HERE / "architectures.json"
SERVED = HERE / "architectures_vllm.json"
README = HERE.parent / "README.md"
_DATA = yaml.safe_load((HERE / "architectures.yaml").read_text("utf-8"))
KINDS: Mapping[str, Mapping[str, Any]] = _DATA["architectures"]
SAMPLE = ("llama", "mistral", "gpt_neo", "mixtral", "mamba", "qwen3_next", "t5")
"""One of each family: dense, sliding window, windows of its own, experts, recurrent, hybrid, encoder-decoder."""

TOLERANCE = 2e-3
PROMPTS = (
    "a",
    "the quick brown fox",
    "what is the capital of France?",
    "numbers 0 1 2 3 4 5 6 7 8 9",
    "jumps over the lazy dog and runs away from the quick brown fox",
    "let me think about it",
    "Stop here. The capital is Paris. What is the capital of France? numbers 9 8 7",
    "ten eleven",
)


class Wrong(AssertionError):
    """The engine gives something else than the reference."""


# ---------------------------------------------------------------- models


def config_of(name: str, **sizes: int) -> Any:
    """Return a small configuration of a kind, with other ``sizes`` where given."""
    given = dict(KINDS[name])
    kind = CONFIG_MAPPING[given.pop("type", name)]
    known = {*inspect.signature(kind.__init__).parameters, *getattr(kind, "__dataclass_fields__", ())}
    sizes = {**_DATA["sizes"], "vocab_size": len(tokenizer()), **sizes}
    return kind(**{**{k: v for k, v in sizes.items() if k in known}, **given})


def write(kind: str, folder: Path, seed: int, **sizes: int) -> None:
    """Write a random checkpoint of a kind. Its weights are scaled up: distributions are peaked, and replies vary."""
    config = config_of(kind, **sizes)
    torch.manual_seed(seed)
    if config.is_encoder_decoder:
        module = AutoModelForSeq2SeqLM.from_config(config)
    else:
        module = getattr(transformers, loader(config.to_dict(), "generate") or "").from_config(config)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.mul_(4.0 if re.search("head|embed|wte|tok", name) else 2.5)
            elif p.is_floating_point():
                p.add_(0.1 * torch.randn_like(p))
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@attrs.define(eq=False)
class Reference:
    """A checkpoint as the library opens it: the module, and the tokenizer that it makes of the files."""

    module: Any
    tokenizer: Any

    @classmethod
    def of(cls, folder: Path) -> Reference:
        data = json.loads((folder / "config.json").read_text())
        opener = getattr(transformers, loader(data, "generate") or "")
        module = opener.from_pretrained(folder, dtype=torch.float32).eval()
        return cls(module, AutoTokenizer.from_pretrained(folder))

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text)["input_ids"]
        return found

    @torch.inference_mode()
    def plain(self, ids: Sequence[int]) -> Tensor:
        """Return a forward's logits without any cache: (len(ids), V)."""
        row = torch.tensor([list(ids)])
        logits: Tensor = self.module(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits[0]
        return logits.float()


def close(got: Tensor, want: Tensor) -> bool:
    got, want = got[..., : want.shape[-1]], want[..., : got.shape[-1]]
    return bool((got - want).abs().max() <= TOLERANCE * max(1.0, float(want.abs().max())))


# ---------------------------------------------------------------- what is examined


def text(models: Sequence[Model], references: Sequence[Reference], new: int) -> None:
    """Replies and scores, alone and in a batch, against the library's own."""
    model, reference = models[0], references[0]
    module = reference.module
    with local_engine(model).use(model) as (loaded,):
        ends = sorted(loaded.end_ids)
    want = []
    for prompt in PROMPTS:
        ids = torch.tensor([reference.ids(prompt)])
        module.generation_config.update(do_sample=False, max_new_tokens=new, eos_token_id=ends, pad_token_id=0)
        # with a cache, the library forgets the text where a second rotary table begins (transformers 5.19)
        cached = switch_of(module.config) is None
        out = module.generate(ids, attention_mask=torch.ones_like(ids), use_cache=cached)
        want.append(out[0, ids.shape[1] :].tolist())
    calls = [ask(model, prompt, max_new_tokens=new) for prompt in PROMPTS]
    for batch in ([[c] for c in calls], [calls]):
        got = [list(r.token_ids) if not isinstance(r, Exception) else _raise(r) for b in batch for r in serve(model, b)]
        if wrong := sum(a != b for a, b in zip(got, want, strict=True)):
            raise Wrong(f"{wrong} of {len(want)} replies differ in batches of {len(batch[0])}")
    calls = [Call(model, "score", {"text": p, "continuations": [" fox jumps", "x"]}, {}) for p in PROMPTS[:4]]
    for prompt, scores in zip(PROMPTS, serve(model, calls), strict=False):
        for tail, score in zip((" fox jumps", "x"), _raise(scores), strict=True):
            ids = reference.ids(prompt + tail)
            n = len(score.token_ids)
            logp = reference.plain(ids).log_softmax(-1)[-n - 1 : -1].gather(-1, torch.tensor(ids[-n:])[:, None])[:, 0]
            if not close(torch.tensor(score.token_logprobs), logp):
                raise Wrong("scores differ")


def step(models: Sequence[Model], references: Sequence[Reference], new: int) -> None:
    """Two models fused against stateless forwards; a session that goes on, back, and on otherwise."""
    fused = Pool(models).derive("fused", JointRecipe.of(Mix(weights=(0.5, 0.5)), models), models)
    with local_engine(models[0]).use(models[0]) as (loaded,):
        ends = loaded.end_ids
    for prompt, reply in zip(PROMPTS, serve(fused, [ask(fused, p, max_new_tokens=new) for p in PROMPTS]), strict=True):
        ids = list(references[0].ids(prompt))
        n = len(ids)
        while len(ids) - n < new and (len(ids) == n or ids[-1] not in ends):
            mean = sum(r.plain(ids)[-1, : len(r.tokenizer)].log_softmax(-1) for r in references)
            ids.append(int(mean.argmax()))
        if list(_raise(reply).token_ids) != ids[n:]:
            raise Wrong("a fused reply is not that of stateless forwards")
    asyncio.run(_session(models[0], references[0]))


async def _session(model: Model, reference: Reference) -> None:
    async with open_state(cache=Cache(None)) as run:
        session = await open_session(run.context(phase="respond"), model, PROMPTS[4], raw=True)

        async def agrees(after: str) -> None:
            seen = await session.peek(0, full=True)
            ids = [*session.opened.prompt, *session.ids]  # type: ignore[attr-defined]
            want = reference.plain(ids)[-1, : len(reference.tokenizer)]
            if not close(seen.full.float(), want.log_softmax(-1)):
                raise Wrong(f"a session's scores differ after {after}")

        await agrees("its prompt")
        first = await session.draft(5, ends=frozenset())
        here = session.mark()
        session.append_tokens(first.ids)
        await agrees("a draft")
        session.append_text(" and somebody else's words 1 2 3 4 5 6 7 8 9")
        await agrees("text")
        session.rollback(here)
        await agrees("rolling back")
        if (await session.draft(5, ends=frozenset())).ids != first.ids:
            raise Wrong("a session drafts otherwise after rolling back")


def weights(models: Sequence[Model], references: Sequence[Reference], folder: Path) -> None:
    """The mean of two against averaged tensors, in memory, in files, and in what the library makes of the files."""
    soup = Pool(models).derive("soup", Mean(tuple(models)), models)
    ids = references[0].ids(PROMPTS[4])
    state = [r.module.state_dict() for r in references]
    with torch.no_grad():
        references[0].module.load_state_dict(
            {k: (state[0][k] + state[1][k]) / 2 if v.is_floating_point() else v for k, v in state[0].items()}
        )
    want = references[0].plain(ids)
    with local_engine(soup).use(soup) as (loaded,):
        row = torch.tensor([ids])
        got = loaded.forward(row, torch.ones_like(row), torch.arange(len(ids))[None], None, keep=0).logits[0]
    if not close(got, want):
        raise Wrong("a soup is not the average")
    local_engine(soup).export(soup, folder / "soup")
    names = [{k for p in weight_files(folder / f) for k in load_file(p)} for f in ("0", "soup")]
    if names[0] != names[1]:
        raise Wrong(f"exported under other names: {min(names[0] ^ names[1])}")
    if not close(Reference.of(folder / "soup").plain(ids), want):
        raise Wrong("the export says something else")


def _raise(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


# ---------------------------------------------------------------- the matrix


def examine(name: str, folder: Path, *, new: int = 12) -> dict[str, str]:
    """Return the class of a kind and, for text, step and merge: ``yes``, ``no``, the refusal, or what is wrong."""
    for seed in (0, 1):
        write(name, folder / str(seed), seed)
    row = {"class": json.loads((folder / "0/config.json").read_text())["architectures"][0]}
    folders = [str(folder / "0"), str(folder / "1")]
    try:
        pool(folders[0], cache=folder / "cache").models()
    except ConfigError as error:
        return {**row, "text": _refusal(error, folder), "step": "no", "merge": "no"}
    models = pool(*folders, cache=folder / "cache").models()
    references = [Reference.of(folder / str(i)) for i in (0, 1)]
    checks: dict[str, tuple[str, Callable[[], None]]] = {
        "text": ("generate", lambda: text(models, references, new)),
        "step": ("step", lambda: step(models, references, new)),
        "merge": ("weights", lambda: weights(models, references, folder)),
    }
    for column, (capability, check) in checks.items():
        if not all(m.can(capability) for m in models):
            (problem, *_) = Needs(capabilities=frozenset({capability})).problems(models)
            row[column] = "no" if "\n" not in problem else "wrong: refused in several lines"
            continue
        try:
            check()
            row[column] = "yes"
        except Wrong as error:
            row[column] = f"wrong: {error}"
        except (CapabilityError, ModelCallError, ConfigError) as error:
            row[column] = "wrong: refused at work: " + " ".join(str(error).split())[:200]
        except Exception as error:
            row[column] = f"wrong: {type(error).__name__}: " + " ".join(str(error).split())[:200]
    return row


def _refusal(error: ConfigError, folder: Path) -> str:
    said = str(error).replace(str(folder / "0"), "...")
    return f"refused: {said.split(': ', 2)[-1]}" if "\n" not in said else "wrong: refused in several lines"


def table(results: Mapping[str, Mapping[str, str]]) -> str:
    """Return the matrix as a table of Markdown: architectures with one outcome share a line."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for name, row in results.items():
        lines.setdefault((row["text"], row["step"], row["merge"]), []).append(f"`{name}`")
    return markdown_table(["text", "step", "merge", "architectures"], [[*k, ", ".join(v)] for k, v in lines.items()])


def synced(readme: str, results: Mapping[str, Mapping[str, str]]) -> str:
    """Return the README with its matrix, and what vLLM was found to open, as they should be."""
    readme = replace_marked(readme, "architectures", table(results), str(README))
    agreed = ", ".join(f"`{name}`" for name, found in json.loads(SERVED.read_text("utf-8")).items() if found == "yes")
    return replace_marked(readme, "architectures-vllm", agreed + ".", str(README))


def main(names: Sequence[str]) -> None:
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, str]] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for name in names or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[name] = examine(name, Path(folder))
            except Exception as error:
                found[name] = {"class": "", "text": f"wrong: {error}", "step": "", "merge": ""}
        print(name, found[name], flush=True)
        found = {n: found[n] for n in KINDS if n in found}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        README.write_text(synced(README.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
