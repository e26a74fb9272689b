"""Checkpoint folders merged on disk: equal to memory bit for bit, to mergekit, bounded, atomic, and refused in time."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from moco_core import CapabilityError, ConfigError
from moco_core.models import Pool
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_merging import Consensus, Extrapolate, Linear, Mean, Merge
from moco_toolkit_merging import files as files_module
from moco_toolkit_merging.export import ExportFailed
from moco_toolkit_merging.files import merge_folders
from moco_toolkit_merging.folders import FolderWeights
from moco_toolkit_merging.vocabulary import tokens_of

OPERATIONS = [
    Mean(),
    Linear(coefficients=(0.3, 0.5, 0.2)),
    Extrapolate(alpha=0.7, targets=2),
    Consensus(weights=(1.0, 0.5), density=(0.5, 0.4), sparsify="dare", seed=3),
    Consensus(weights=(1.0, 0.5), density=(0.3, 0.3), sparsify="ties", rescale="none"),
]


def stored(folder):
    out = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        out |= load_file(str(path))
    return out


@pytest.fixture
def family(factory):
    def make(tied=True, dtype=torch.float32, shards="5GB"):
        parent = factory.module(0, tied=tied)
        folders = []
        for i in (1, 2, 3):
            folder = factory.root / f"m{i}-{tied}"
            factory.module(i, tied=tied, near=parent, dtype=dtype).save_pretrained(folder, max_shard_size=shards)
            factory.tokenizer().save_pretrained(folder)
            folders.append(str(folder))
        return folders

    return make


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.kind}-{getattr(o, 'sparsify', '')}")
@pytest.mark.parametrize("tied", [True, False])
def test_streaming_equals_memory_bit_for_bit_for_any_shard_size(
    family, factory, operation, tied, tmp_path, monkeypatch
):
    folders = family(tied, shards="20KB")
    pool = Pool(factory.pool(*folders).models())
    weights = local_engine(pool[0]).weights(Merge.weights(operation, list(pool)).model(pool, "merged"))
    for size, block in ((1 << 40, 1 << 24), (20_000, 1 << 24), (1, 64)):
        monkeypatch.setattr(files_module, "_BLOCK", block)
        out = tmp_path / f"out-{size}"
        merge_folders(operation, folders, out, shard_size=size)
        found = stored(out)
        assert set(found) == set(weights.names)
        assert all(torch.equal(found[n], weights.get(n)) for n in found)
        loaded = AutoModelForCausalLM.from_pretrained(out)
        assert (loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()) is tied
        assert AutoTokenizer.from_pretrained(out)("abc").input_ids == factory.tokenizer()("abc").input_ids
    assert len(list((tmp_path / "out-20000").glob("*.safetensors"))) > 3


def test_it_equals_mergekits_own_run(family, tmp_path):
    config_module = pytest.importorskip("mergekit.config")
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    folders = family(dtype=torch.bfloat16)
    entries = [{"model": f, "parameters": {"weight": w}} for f, w in zip(folders, (0.3, 0.5, 0.2), strict=True)]
    config = config_module.MergeConfiguration.model_validate(
        {"merge_method": "linear", "models": entries, "parameters": {"normalize": False}, "dtype": "float32"}
    )
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(quiet=True, write_model_card=False))
    merge_folders(OPERATIONS[1], folders, tmp_path / "ours", dtype="float32")
    ours, theirs = stored(tmp_path / "ours"), stored(tmp_path / "theirs")
    assert set(ours) == set(theirs)
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) <= 1e-6


def test_a_merge_can_be_merged_again_by_mergekit(family, tmp_path):
    pytest.importorskip("mergekit")
    from mergekit.common import ModelReference

    folders = family()
    merge_folders(Mean(), folders, tmp_path / "out")
    loader = ModelReference.model_validate(str(tmp_path / "out")).lazy_loader()
    assert set(loader.index.tensor_paths) == set(stored(tmp_path / "out"))


def test_bfloat16_is_cast_once(family, tmp_path):
    folders = family(dtype=torch.bfloat16)
    merge_folders(Mean(), folders, tmp_path / "out")
    parts, found = [stored(f) for f in folders], stored(tmp_path / "out")
    for name, tensor in found.items():
        exact = sum(p[name].double() for p in parts) / 3
        assert tensor.dtype == torch.bfloat16
        assert ((tensor.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-12).all()


def test_tied_and_untied_sources_give_an_untied_result(factory, tmp_path):
    tied, untied = factory.module(1, tied=True), factory.module(2, tied=False)
    folders = [factory.checkpoint("tied", tied), factory.checkpoint("untied", untied)]
    merge_folders(Mean(), folders, tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.config.tie_word_embeddings is False
    expected = (tied.lm_head.weight + untied.lm_head.weight) / 2
    assert torch.allclose(found.lm_head.weight, expected, atol=1e-6)
    assert not torch.equal(found.lm_head.weight, found.model.embed_tokens.weight)


@pytest.mark.parametrize("operation", [Mean(), Consensus(weights=(1.0,), density=(0.5,), sparsify="ties")])
def test_padding_rows_of_the_vocabulary_come_from_the_first(factory, operation, tmp_path):
    wide, narrow = factory.module(1, vocab=288), factory.module(2, vocab=260)
    folders = [factory.checkpoint("wide", wide), factory.checkpoint("narrow", narrow)]
    merge_folders(operation, folders, tmp_path / "out")
    rows = stored(tmp_path / "out")["model.embed_tokens.weight"]
    assert torch.equal(rows[260:], wide.model.embed_tokens.weight[260:])
    if isinstance(operation, Mean):
        both = (wide.model.embed_tokens.weight[:260] + narrow.model.embed_tokens.weight) / 2
        assert torch.allclose(rows[:260], both, atol=1e-6)


def edit_vocabulary(folder, edit):
    path = Path(folder) / "tokenizer.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def test_an_id_that_means_two_tokens_is_refused_by_name(factory, tmp_path):
    folders = [factory.model("a", 1), factory.model("b", 2)]

    def exchange(data):
        vocabulary = data["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit_vocabulary(folders[1], exchange)
    with pytest.raises(CapabilityError, match=r"id \d+ is '[ab]' in 'a' and '[ab]' in 'b'; align the vocabularies"):
        merge_folders(Mean(), folders, tmp_path / "out")
    assert not leftovers(tmp_path)


def test_an_added_token_that_another_tokenizer_gives_to_other_text_is_refused(factory, tmp_path):
    folders = [factory.model("a", 1), factory.model("b", 2)]
    for folder, content in zip(folders, ("<|extra|>", "[PAD2]"), strict=True):
        edit_vocabulary(folder, lambda data, c=content: data["added_tokens"].append({"id": 258, "content": c}))
    with pytest.raises(CapabilityError, match=r"id 258 is '<\|extra\|>' in 'a' and '\[PAD2\]' in 'b'"):
        merge_folders(Mean(), folders, tmp_path / "out")


def test_a_token_that_one_tokenizer_alone_knows_is_a_warning(factory, tmp_path):
    folders = [factory.model("a", 1), factory.model("b", 2)]
    edit_vocabulary(folders[1], lambda data: data["added_tokens"].append({"id": 258, "content": "<|im_start|>"}))
    (warning,) = merge_folders(Mean(), folders, tmp_path / "out")
    assert warning == "'b' has 1 tokens that 'a' does not know (first '<|im_start|>', id 258)"


@pytest.mark.parametrize(("content", "count"), [(b"same", 0), (b"other", 1)])
def test_tokenizers_without_a_vocabulary_file_are_compared_as_files(factory, tmp_path, content, count):
    folders = [factory.model("a", 1), factory.model("b", 2)]
    for folder, data in zip(folders, (b"same", content), strict=True):
        (Path(folder) / "tokenizer.json").unlink()
        (Path(folder) / "tokenizer.model").write_bytes(data)
    warnings = merge_folders(Mean(), folders, tmp_path / "out")
    assert len(warnings) == count and all("cannot be compared token by token" in w for w in warnings)


def test_a_vocabulary_that_is_a_list_is_read_by_position(tmp_path):
    model = {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]]}
    data = {"model": model, "added_tokens": [{"id": 2, "content": "</s>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert tokens_of(tmp_path) == {0: "<unk>", 1: "a", 2: "</s>"}


def leftovers(folder):
    return [p.name for p in folder.iterdir() if "out" in p.name]


def test_what_cannot_be_merged_is_refused_before_anything_is_written(factory, family, tmp_path):
    folders = family()
    other = factory.model("other", 5, intermediate_size=64)
    with pytest.raises(CapabilityError, match=r"tensor 'model.layers.0.mlp.*' is .* in 'm1-True' and .* in 'other'"):
        merge_folders(Mean(), [folders[0], other], tmp_path / "out")
    with pytest.raises(ConfigError, match="3 numbers for 2 models"):
        merge_folders(OPERATIONS[1], folders[:2], tmp_path / "out")
    with pytest.raises(ConfigError, match=r"nowhere/config.json: file not found"):
        merge_folders(Mean(), [tmp_path / "nowhere"], tmp_path / "out")
    broken = tmp_path / "broken"
    shutil.copytree(folders[0], broken)
    (broken / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        merge_folders(Mean(), [broken], tmp_path / "out")
    assert not leftovers(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(family, tmp_path, monkeypatch):
    folders = family()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"no permission|is a file"):
        merge_folders(Mean(), folders, tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ConfigError, match="not empty; give a new folder"):
        merge_folders(Mean(), folders, tmp_path / "full")
    monkeypatch.setattr("moco_toolkit_merging.export.os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="no permission in"):
        merge_folders(Mean(), folders, tmp_path / "out")
    monkeypatch.undo()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("moco_toolkit_merging.export.shutil.disk_usage", lambda _p: usage._replace(free=1000))
    with pytest.raises(ConfigError, match="are free on that disk"):
        merge_folders(Mean(), folders, tmp_path / "out")
    assert not leftovers(tmp_path)


def test_a_disk_that_fills_up_leaves_nothing_behind(family, tmp_path, monkeypatch):
    folders = family()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(files_module, "_pieces", full)
    with pytest.raises(ExportFailed, match="No space left on device; nothing was left behind"):
        merge_folders(Mean(), folders, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()
    assert not leftovers(tmp_path)


def test_nan_names_its_folder_and_leaves_nothing_behind(factory, family, tmp_path):
    folders = family()
    bad = factory.module(9)
    with torch.no_grad():
        bad.model.norm.weight[0] = float("inf")
    folders[1] = factory.checkpoint("bad", bad)
    with pytest.raises(CapabilityError, match=r"model.norm.weight: source 'bad' holds NaN or infinite"):
        merge_folders(Mean(), folders, tmp_path / "out")
    assert not leftovers(tmp_path)


def test_the_same_merge_is_not_written_twice_and_a_quantised_source_is_refused(family, tmp_path):
    folders = family()
    merge_folders(Mean(), folders, tmp_path / "out")
    stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    merge_folders(Mean(), folders, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
    config = Path(folders[2]) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {"bits": 4}}))
    with pytest.raises(CapabilityError, match="quantised"):
        merge_folders(Mean(), folders, tmp_path / "again")


def test_one_shard_of_a_source_is_open_at_a_time(family):
    weights = FolderWeights(Path(family(shards="20KB")[0]))
    opened = set()
    for name in weights.names:
        weights.get(name)
        opened.add(weights._open[0])
    assert len(opened) > 3
    weights.close()
    assert weights._open is None
