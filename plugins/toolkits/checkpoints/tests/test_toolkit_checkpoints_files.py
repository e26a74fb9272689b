"""The files that lie beside weights: which ones a copy of a checkpoint takes along, and as whose."""

import os

from moco_toolkit_checkpoints.files import copy_files

KINDS_OF_TOKENIZERS = (
    ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    ("vocab.json", "merges.txt"),  # GPT-2
    ("vocab.txt",),  # BERT
    ("spiece.model", "tokenizer.model"),  # SentencePiece
    ("qwen.tiktoken",),
)


def test_a_copy_takes_every_kind_of_tokenizer_along_and_leaves_the_rest(tmp_path):
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    copy.mkdir()
    kept = {name for names in KINDS_OF_TOKENIZERS for name in names}
    for name in (*kept, "model.safetensors", "config.json", "README.md", "training_args.bin"):
        (source / name).write_text(name)
    (source / "tokenizer_of_before").mkdir()
    copy_files(source, copy)
    assert {path.name: path.read_text() for path in copy.iterdir()} == {name: name for name in kept}


def test_a_copy_of_a_read_only_checkpoint_can_be_changed(tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer.json").chmod(0o444)
    copy_files(tmp_path, tmp_path / "copy")
    assert (tmp_path / "copy" / "tokenizer.json").stat().st_mode & os.W_OK << 6
