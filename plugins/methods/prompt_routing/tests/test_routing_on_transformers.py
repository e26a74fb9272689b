"""The scored choice on a real (tiny, random) language model, against teacher forcing by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from random_checkpoints import write

from moco_core import Question, Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_prompt_routing.method import PromptRouting
from moco_method_prompt_routing.options import Options
from moco_toolkit_authoring import run_method
from moco_toolkit_routing import route_prompt, scoring_labels

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
engine = pytest.importorskip("moco_pool_transformers")

COUNT = 12
SAMPLING = Sampling(temperature=0.0, max_new_tokens=4)
QUESTIONS = [Question(id=f"q{i}", prompt="word " * (1 + 5 * i) + f"{i}?") for i in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama without a chat template."""
    torch.set_num_threads(1)
    return write(tmp_path_factory.mktemp("tiny"), 1, template=None, max_position_embeddings=2048)


def routed(folder: str, tmp_path: Path, questions: list[Question], in_flight: int) -> dict[str, dict[str, float]]:
    cls = engine.moco_pool()
    entries = [{"model": folder, "name": f"m{i}", "description": f"good at {i}"} for i in range(COUNT)]
    options = build(cls.Options, {"models": entries, "device": "cpu", "dtype": "float32", "cache": str(tmp_path)})
    method = PromptRouting(Options(router=0, decode="constrained"))
    outcome = run_method(
        method, Pool(cls(options).models()), questions=questions, sampling=SAMPLING, in_flight=in_flight
    )
    assert not outcome.errors
    for reply in outcome.replies.values():
        assert reply.meta["model"] == max(reply.meta["shares"], key=reply.meta["shares"].__getitem__)
    return {key: reply.meta["shares"] for key, reply in outcome.replies.items()}


def test_the_choice_is_the_argmax_of_teacher_forced_labels(folder: str, tmp_path: Path) -> None:
    """Also the same one at a time and eight at once, in either order."""
    shares = routed(folder, tmp_path, QUESTIONS, 1)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    labels = scoring_labels(COUNT)
    for question in QUESTIONS:
        prompt = tokenizer(route_prompt(question.text(), [f"good at {i}" for i in range(COUNT)], labels))["input_ids"]
        sums = []
        for label in labels:
            ids = torch.tensor([prompt + tokenizer(label, add_special_tokens=False)["input_ids"]])
            with torch.inference_mode():
                logs = module(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            sums.append(logs.gather(1, ids[0, len(prompt) :, None]).sum())
        wanted = torch.stack(sums).softmax(0).tolist()
        assert list(shares[question.id].values()) == pytest.approx(wanted, abs=1e-4)
    together = routed(folder, tmp_path, QUESTIONS[::-1], 8)
    for question in QUESTIONS:
        assert together[question.id] == pytest.approx(shares[question.id], abs=1e-5)
