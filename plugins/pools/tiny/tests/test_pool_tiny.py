"""The shipped models: they load, keep their promises of form, and are what the README says they are."""

import json
import re
from pathlib import Path

import measure
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from moco_core import ConfigError
from moco_core.catalogue import installed
from moco_core.options import build
from moco_pool_tiny.pool import WEIGHTS
from moco_pool_tiny.profiles import ALL, DEFAULT_POOL, PROFILES, SKILLS, experts
from moco_toolkit_skills import generate

SPECIALISTS = ("arithmetic", "letters", "facts")
ADAPTERS = [name for name in PROFILES if (WEIGHTS / f"{name}-lora").is_dir()]
TEXTS = [
    "plain words",
    "  spaces\tand\n\nlines \r\n",
    "\u00fcml\u00e4ute, \u4e2d\u6587, \u0627\u0644",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "0123456789 x\x00y \ufffd \u2581",
]


def load(name: str) -> AutoModelForCausalLM:
    return AutoModelForCausalLM.from_pretrained(WEIGHTS / name, dtype=torch.float32)


def test_size_and_kinds_of_files() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25 * 2**20
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".md"}


def test_adapters_exist_for_the_specialists() -> None:
    assert set(SPECIALISTS) <= set(ADAPTERS)


def test_no_machine_paths_in_the_configurations() -> None:
    for path in WEIGHTS.rglob("*.json"):
        if path.name != "tokenizer.json":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r'"/\w+/', text), path
    for name in ADAPTERS:
        config = json.loads((WEIGHTS / f"{name}-lora" / "adapter_config.json").read_text(encoding="utf-8"))
        assert not Path(config["base_model_name_or_path"]).is_absolute()


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_on_the_base_equals_the_full_model(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "base")
    ids = tokenizer("Reverse the letters a b c d.", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        full = load(name)(ids).logits
        merged = PeftModel.from_pretrained(load("base"), WEIGHTS / f"{name}-lora")(ids).logits
        base = load("base")(ids).logits
    assert torch.allclose(full, merged, atol=1e-4)
    assert not torch.allclose(full, base, atol=1e-1)


@pytest.mark.parametrize("name", PROFILES)
def test_tokenizers_return_any_text_unchanged(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / name)
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("name", PROFILES)
def test_chat_template_renders_once(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / name)
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text)["input_ids"]
    assert text.count("Q") == 1 and text.count("S") == 1
    if tokenizer.bos_token:
        assert ids.count(tokenizer.bos_token_id) == 1 == text.count(tokenizer.bos_token)
    longer = [*turns, {"role": "assistant", "content": "A"}]
    assert tokenizer.apply_chat_template(longer, tokenize=False).startswith(text + "A")


def test_letters_and_digits_are_single_tokens() -> None:
    for name in ("base", "outsider"):
        tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / name)
        assert len(tokenizer(" a b c d", add_special_tokens=False)["input_ids"]) == 4
        digits = tokenizer.convert_ids_to_tokens(tokenizer(" 47", add_special_tokens=False)["input_ids"])
        # the second family's architecture brings a pre-tokenizer that keeps the space apart
        assert digits == (["\u0120", "4", "7"] if name == "outsider" else ["\u01204", "7"])


def test_two_tokenizers_and_two_architectures() -> None:
    base, outsider = (AutoTokenizer.from_pretrained(WEIGHTS / name) for name in ("base", "outsider"))
    assert base.get_vocab() != outsider.get_vocab()
    vocabularies = [
        AutoTokenizer.from_pretrained(WEIGHTS / name).get_vocab() for name in PROFILES if name != "outsider"
    ]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    kinds = {name: json.loads((WEIGHTS / name / "config.json").read_text())["model_type"] for name in PROFILES}
    assert kinds.pop("outsider") == "qwen2"
    assert set(kinds.values()) == {"llama"}
    for name in PROFILES:
        assert json.loads((WEIGHTS / name / "config.json").read_text())["max_position_embeddings"] >= 1024


def test_profiles_overlap_so_that_every_sub_skill_is_known_twice_or_three_times() -> None:
    for skill in SKILLS:
        assert experts(skill)
        for sub_skill in ALL:
            knowing = [name for name in DEFAULT_POOL if sub_skill in PROFILES[name].known.get(skill, ())]
            assert len(knowing) in (2, 3), (skill, sub_skill)


@pytest.mark.parametrize("name", DEFAULT_POOL)
def test_models_know_their_own_skill_and_at_most_half_of_the_others(name: str) -> None:
    """The promises of the README, on the questions of its table."""
    torch.set_num_threads(1)
    bot = measure.Bot.load(WEIGHTS / name)
    items = list(generate("test", 1000, 0))
    scores = measure.score(items, bot.ask([item.question for item in items]).texts)
    assert scores.pop("all") <= 0.65
    for skill, value in scores.items():
        if name in experts(skill):
            assert value >= 0.9, skill
        elif name in SPECIALISTS:
            assert value <= 0.5, skill


def test_plugin_describes_the_models() -> None:
    pool = pytest.importorskip("moco_pool_tiny.pool")
    models = pool.TinyPool(pool.Options()).models()
    assert [model.name for model in models] == list(DEFAULT_POOL)
    assert all(model.description for model in models)
    assert len({model.tokenizer for model in models}) == 2
    adapters = pool.TinyPool(pool.Options(models=("letters",), form="adapter")).models()
    assert adapters[0].adapter


def test_the_pool_that_opens_them_is_an_option() -> None:
    """With options of its own, but not those that the tiny pool sets; which one is there is the catalogue's to say."""
    pool = pytest.importorskip("moco_pool_tiny.pool")
    given = {"models": ["base", "letters"], "engine": {"name": "transformers", "overlong": "truncate_left"}}
    models = pool.TinyPool(build(pool.Options, given, plugins=installed())).models()
    plain = pool.TinyPool(pool.Options(models=("base", "letters"))).models()
    assert [m.name for m in models] == ["base", "letters"]
    assert models[0].engine is models[1].engine and models[0].engine.options.overlong == "truncate_left"
    assert {m.fingerprint for m in models}.isdisjoint(m.fingerprint for m in plain)  # what is cut off decides replies
    with pytest.raises(ConfigError, match=r"engine\.device: is set by the options around it"):
        build(pool.Options, {"engine": {"name": "transformers", "device": "cuda"}}, plugins=installed())
