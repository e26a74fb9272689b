"""Prompts that begin alike are read from where they part: the same bits, within the bound, nothing shared between models."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transformers_derived import adapter
from transformers_tiny import Mean, ask, checkpoint, pool, serve

from moco_core.errors import EngineOutOfMemory
from moco_core.models import Model, Pool
from moco_pool_transformers.batch import Batch
from moco_toolkit_decoding.prefixes import BLOCK, PrefixStore, read_blocks

TEXT = "the quick brown fox jumps over lazy dog what is capital of France numbers 0 1 2 3 answer"
WORDS = TEXT.split(" ")
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "gpt2": ("gpt2", {"n_positions": 600}),
    "mistral": ("mistral", {"sliding_window": 6}),
    "granite": ("granite", {"logits_scaling": 3.0}),  # its head cannot be run by itself
    "mixed": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 70,
            "layer_types": ["full_attention", "sliding_attention"],
        },
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("prefixes")
    longer = {"max_position_embeddings": 600}
    return {
        name: checkpoint(root / name, kind, **({} if kind == "gpt2" else longer), **changes)
        for name, (kind, changes) in KINDS.items()
    }


def opened(folder: str, tmp_path: Path, **options: Any) -> Model:
    return pool(folder, cache=tmp_path, **{"prefix_memory": 0.5, **options}).models()[0]


def words(seed: int, count: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(count))


def rounds(questions: int = 7, turns: int = 3) -> list[list[str]]:
    """Ragged prompts as a discussion makes them: those of a round continue those of the round before."""
    rng = random.Random(5)
    texts = [words(q, rng.randint(1, 130)) for q in range(questions)]
    out = []
    for turn in range(turns):
        out.append(list(texts))
        texts = [f"{text} {words(100 * turn + q, rng.randint(1, 40))}" for q, text in enumerate(texts)]
    return out


def talk(model: Model, *, forget: bool, **sampling: Any) -> list[Any]:
    """Ask round by round; with ``forget`` nothing is known from the round before."""
    out = []
    for number, texts in enumerate(rounds()):
        for store in model.engine._stores.values() if forget else ():
            store.clear()
        calls = [ask(model, text, seed=31 * number + q, max_new_tokens=6, **sampling) for q, text in enumerate(texts)]
        out += serve(model, calls)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_replies_have_the_same_bits_with_and_without_what_is_known(
    folders: dict[str, str], kind: str, tmp_path: Path
) -> None:
    for sampling in ({}, {"temperature": 0.8, "top_p": 0.9}):
        fresh, known, off = (
            opened(folders[kind], tmp_path),
            opened(folders[kind], tmp_path),
            opened(folders[kind], tmp_path, prefix_memory=0.0),
        )
        anew, reused, plain = (
            talk(fresh, forget=True, **sampling),
            talk(known, forget=False, **sampling),
            talk(off, forget=False, **sampling),
        )
        saved = [reply.meta.get("cached_tokens", 0) for reply in reused]
        assert sum(saved) > 0.3 * sum(reply.usage.prompt_tokens for reply in reused)
        assert not any("cached_tokens" in reply.meta for reply in anew + plain)
        for one, other, third in zip(anew, reused, plain, strict=True):
            assert one.token_logprobs == other.token_logprobs  # every bit
            assert (one.token_ids, one.text, one.finish_reason, one.usage) == (
                other.token_ids,
                other.text,
                other.finish_reason,
                other.usage,
            )
            # in one piece a prompt is rounded differently, as it is in another batch
            assert one.token_ids == third.token_ids and one.token_logprobs == pytest.approx(
                third.token_logprobs, abs=1e-4
            )


@pytest.mark.parametrize("kind", ["llama", "mixed"])
def test_a_prompt_has_one_state_however_it_is_read(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    """Alone, among ragged others, continued from any block, and from the blocks of a longer or shorter prompt."""
    model = opened(folders[kind], tmp_path)
    rng = random.Random(1)
    prompt = [rng.randrange(6, 300) for _ in range(3 * BLOCK + 21)]
    with model.engine.use(model) as (loaded,):
        runner = loaded.runner

        def read(prompts: list[list[int]], store: PrefixStore | None = None, row: int = 0) -> torch.Tensor:
            cache = runner.cache()
            span = cache.append(len(prompts))
            if store is not None:
                store.load("m", cache, row, prompts[row])
            states = read_blocks(runner, cache, span, prompts)
            assert states is not None and cache.lengths == [len(ids) for ids in prompts]
            kept = PrefixStore(1 << 30) if store is None else store
            for index, ids in enumerate(prompts):
                kept.save("m", cache, index, ids)
            stored.append(kept)
            return torch.cat([states[row], *(t.flatten() for pair in cache.extract(row, 0, len(prompt)) for t in pair)])

        stored: list[PrefixStore] = []
        alone = read([prompt])
        others = [[rng.randrange(6, 300) for _ in range(n)] for n in (1, 15, 16, 17, 64, 65, 128, 230, 290)]
        assert torch.equal(read([*others[:4], prompt, *others[4:]], row=4), alone)
        for length in (BLOCK, 2 * BLOCK, 2 * BLOCK + 9, 3 * BLOCK, len(prompt) - 1, len(prompt), len(prompt) + 70):
            first = [*prompt, *([7] * 70)][:length]
            store = PrefixStore(1 << 30)
            read([first], store)
            before = store.found
            assert torch.equal(read([*others[5:], prompt, *others[:5]], store, row=4), alone)
            assert store.found - before == min(length, len(prompt) - 1) // BLOCK * BLOCK


def test_what_is_kept_stays_within_the_bound_and_the_longest_unused_leaves(
    folders: dict[str, str], tmp_path: Path
) -> None:
    model = opened(folders["llama"], tmp_path)
    with model.engine.use(model) as (loaded,):
        cache = loaded.runner.cache()
        block = cache.bytes_per_token * BLOCK
        store = PrefixStore(3 * block + block // 2)
        prompts = [[10 + p] * (2 * BLOCK + 1) for p in range(3)]
        read_blocks(loaded.runner, cache, cache.append(3), prompts)
        store.save("m", cache, 0, prompts[0])
        assert (len(store), store.size, store.saved) == (2, 2 * block, 2 * BLOCK)
        store.save("m", cache, 1, prompts[1])  # the first block of prompt 0 leaves
        assert (len(store), store.size) == (3, 3 * block)
        row = cache.append(1)[0]
        assert store.load("m", cache, row, prompts[0]) == 0 and store.load("m", cache, row, prompts[1]) == 2 * BLOCK
        cache.rollback(row, 0)
        store.save("m", cache, 0, prompts[0])  # its first block is new; the second, kept alone so far, is used again
        assert store.load("m", cache, row, prompts[0]) == 2 * BLOCK and store.size <= store.limit
        assert PrefixStore(block - 1).save("m", cache, 0, prompts[0]) is None  # a bound below one block keeps nothing
    bounded = opened(folders["llama"], tmp_path, prefix_memory=3.5 * block / 2**30)
    free = opened(folders["llama"], tmp_path)
    assert [r.token_logprobs for r in talk(bounded, forget=False)] == [
        r.token_logprobs for r in talk(free, forget=False)
    ]
    (store,) = bounded.engine._stores.values()
    assert 0 < store.size <= store.limit


def test_a_row_that_is_rolled_back_leaves_what_is_kept_alone(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    prompt, other = [11] * (2 * BLOCK + 5), [*([11] * BLOCK), *([12] * (BLOCK + 9))]
    with model.engine.use(model) as (loaded,):
        runner, store = loaded.runner, PrefixStore(1 << 30)
        cache = runner.cache()
        (row,) = cache.append(1)
        first = read_blocks(runner, cache, [row], [prompt])
        store.save("m", cache, row, prompt)
        cache.rollback(row, BLOCK)  # keeps the block that both begin with
        assert read_blocks(runner, cache, [row], [other]) is not None
        fresh = runner.cache()
        wanted = read_blocks(runner, fresh, fresh.append(1), [other])
        for kept, new in zip(cache.extract(row, 0, len(other)), fresh.extract(0, 0, len(other)), strict=True):
            assert torch.equal(kept[0], new[0]) and torch.equal(kept[1], new[1])
        cache.rollback(row, 0)
        assert store.load("m", cache, row, prompt) == 2 * BLOCK  # as it was, though its row was overwritten
        again = read_blocks(runner, cache, [row], [prompt])
        assert first is not None and again is not None and wanted is not None and torch.equal(first, again)


def test_tokens_are_counted_as_read_or_as_known(folders: dict[str, str], tmp_path: Path) -> None:
    """A prompt of 3 blocks and 5 tokens after one that shares 2 blocks: 128 known, 69 read, all of them in the usage."""
    model = opened(folders["llama"], tmp_path)
    with model.engine.use(model) as (loaded,):
        runner, store = loaded.runner, PrefixStore(1 << 30)
        prompt = [9] * (3 * BLOCK + 5)
        cache = runner.cache()
        read_blocks(runner, cache, cache.append(1), [prompt[: 2 * BLOCK]])
        assert cache.tokens == 2 * BLOCK
        store.save("m", cache, 0, prompt[: 2 * BLOCK])
        (row,) = cache.append(1)
        assert store.load("m", cache, row, prompt) == 2 * BLOCK and cache.tokens == 2 * BLOCK
        read_blocks(runner, cache, [row], [prompt])
        assert cache.tokens == 2 * BLOCK + BLOCK + 5 and (store.saved, store.found) == (2 * BLOCK, 2 * BLOCK)
    text = words(0, 90)
    one, two = (serve(model, [ask(model, t)])[0] for t in (text, text))
    assert "cached_tokens" not in one.meta and one.usage == two.usage
    assert two.meta["cached_tokens"] == (one.usage.prompt_tokens - 1) // BLOCK * BLOCK > 0


@pytest.mark.parametrize("kind", ["llama", "granite"])
def test_what_prompts_that_arrive_together_begin_with_is_read_once(
    folders: dict[str, str], kind: str, tmp_path: Path
) -> None:
    """Five continuations of one text, two of them of another continuation, and a text of its own."""
    text = words(4, 60)
    longer = f"{text} {words(5, 40)}"
    texts = [f"{text} one", f"{longer} two", f"{longer} three", f"{text} four", text, words(6, 50)]
    known, nothing = opened(folders[kind], tmp_path), opened(folders[kind], tmp_path, prefix_memory=1e-9)
    together = serve(known, [ask(known, t, max_new_tokens=5) for t in texts])
    anew = serve(nothing, [ask(nothing, t, max_new_tokens=5) for t in texts])
    assert [r.token_logprobs for r in together] == [r.token_logprobs for r in anew]
    assert not any("cached_tokens" in reply.meta for reply in anew)
    saved = [reply.meta.get("cached_tokens", 0) for reply in together]
    shared = (together[4].usage.prompt_tokens - 2) // BLOCK * BLOCK  # the end of a text may join with what follows
    assert saved.count(0) == 2 and saved[5] == 0  # the longest of those that begin alike, and the text of its own
    assert sorted(saved)[2:5] >= [shared - BLOCK] * 3 and max(saved) > 1.3 * shared


def test_models_that_differ_in_anything_share_nothing(folders: dict[str, str], tmp_path: Path) -> None:
    base = folders["llama"]
    loras = [adapter(base, tmp_path / f"lora{i}", i) for i in range(2)]
    twin = checkpoint(tmp_path / "twin", seed=3, max_position_embeddings=600)
    entries = [base, twin, *({"model": base, "adapter": path} for path in loras)]
    source = pool(*entries, cache=tmp_path, prefix_memory=0.5)
    models = list(source.models())
    models.append(Pool(models).derive("mean", Mean(tuple(models[:2])), models[:2]))
    text = words(1, 90)
    alone = [serve(model, [ask(model, text)])[0] for model in models]
    assert not any("cached_tokens" in reply.meta for reply in alone)
    again = [serve(model, [ask(model, text)])[0] for model in models]
    assert all(reply.meta["cached_tokens"] > 0 for reply in again)
    assert [r.token_logprobs for r in alone] == [r.token_logprobs for r in again]
    assert len({r.token_ids for r in alone}) == len(models)


def test_a_batch_that_ran_out_of_memory_gives_back_what_was_kept(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    serve(model, [ask(model, words(2, 90))])
    (store,) = model.engine._stores.values()
    assert len(store)

    def full(self: Any, rows: Any) -> Any:
        raise EngineOutOfMemory("full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "admit", full)
        with pytest.raises(EngineOutOfMemory):
            serve(model, [ask(model, "a")])
    assert len(store) == store.size == 0
