"""Measure the pool: `python plugins/pools/tiny/training/measure.py [FOLDER] [--n 1000]` prints the README's tables.

Plain transformers and a few lines per method, independent of the framework's own code paths, so that it also serves as
a second opinion on them. Needs the skills dataset and, like training, the prompt texts of methods.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from protocols import question_of
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from moco_method_cascade.prompts import FALSE, TRUE, p_true
from moco_method_prompt_routing.prompts import default_labels
from moco_pool_tiny.pool import WEIGHTS
from moco_pool_tiny.profiles import DEFAULT_POOL, PROFILES, SKILLS
from moco_toolkit_discussion import refine, summarise
from moco_toolkit_routing import route_prompt
from moco_toolkit_skills import Item, generate

_BATCH = 100
PARTS = ("refinement", "models")


@dataclass(frozen=True, slots=True)
class Asked:
    """Replies, and the mean log-probability of each one's tokens."""

    texts: list[str]
    confidence: list[float]


class Bot:
    """One model with its tokenizer; all calls are batched and left-padded."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Bot":
        return cls(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
        )

    def _encode(self, prompts: list[str]) -> Any:
        turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self.tokenizer(
            texts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False
        )

    @torch.inference_mode()
    def ask(self, prompts: list[str], temperature: float = 0.0) -> Asked:
        """Answer each prompt; greedy at temperature 0."""
        out = Asked([], [])
        for start in range(0, len(prompts), _BATCH):
            batch = self._encode(prompts[start : start + _BATCH])
            sampling = (
                {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
            )
            result = self.model.generate(
                **batch, **sampling, max_new_tokens=48, output_logits=True, return_dict_in_generate=True
            )
            new = result.sequences[:, batch["input_ids"].shape[1] :]
            chosen = torch.stack(result.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]
            # Count the end of the turn, but not the padding behind it.
            ends = (new == self.tokenizer.eos_token_id).cumsum(1)
            real = (ends == 0) | ((ends == 1) & (new == self.tokenizer.eos_token_id))
            out.confidence.extend(((chosen * real).sum(1) / real.sum(1)).tolist())
            out.texts.extend(self.tokenizer.batch_decode(new, skip_special_tokens=True))
        return out

    @torch.inference_mode()
    def next_logits(self, prompts: list[str]) -> torch.Tensor:
        """Logits of the first reply token, [prompts, vocabulary]."""
        rows = []
        for start in range(0, len(prompts), _BATCH):
            rows.append(self.model(**self._encode(prompts[start : start + _BATCH]), logits_to_keep=1).logits[:, -1])
        return torch.cat(rows)


def answer(text: str) -> str | None:
    """What the last answer sentence of a reply says, or None."""
    found = re.findall(r"The answer is (.+?)\.", text)
    return found[-1] if found else None


def right(item: Item, text: str) -> bool:
    """Whether a reply answers the question."""
    gold = item.gold if isinstance(item.gold, str) else (item.choices or ())[item.gold]
    return answer(text) == gold


def score(items: list[Item], texts: list[str]) -> dict[str, float]:
    """Accuracy per skill and over all."""
    hits = [right(item, text) for item, text in zip(items, texts, strict=True)]
    rows = {
        skill: sum(h for i, h in zip(items, hits, strict=True) if i.skill == skill)
        / max(1, sum(i.skill == skill for i in items))
        for skill in SKILLS
    }
    return {**rows, "all": sum(hits) / len(hits)}


def vote(replies: list[str], order: list[int]) -> str:
    """The reply with the most supported answer; ties go to the model that comes first in `order`."""
    counts = Counter(a for a in map(answer, replies) if a is not None)
    best = max(counts.values(), default=0)
    return next((replies[i] for i in order if counts.get(answer(replies[i]) or "", -1) == best), replies[order[0]])


def fuse(bots: list[Bot], prompts: list[str]) -> list[str]:
    """Greedy decoding from the mean of the models' log-probabilities (they share one tokenizer), without a cache."""
    texts: list[str] = []
    tokenizer = bots[0].tokenizer
    for start in range(0, len(prompts), _BATCH):
        batch = bots[0]._encode(prompts[start : start + _BATCH])
        ids, mask = batch["input_ids"], batch["attention_mask"]
        length, done = ids.shape[1], torch.zeros(len(ids), dtype=torch.bool)
        with torch.inference_mode():
            for _ in range(40):
                logits = sum(
                    bot.model(input_ids=ids, attention_mask=mask, logits_to_keep=1).logits[:, -1].log_softmax(-1)
                    for bot in bots
                )
                token = logits.argmax(-1).masked_fill(done, tokenizer.pad_token_id)
                done |= token == tokenizer.eos_token_id
                ids = torch.cat([ids, token[:, None]], 1)
                mask = torch.cat([mask, torch.ones_like(token[:, None])], 1)
                if done.all():
                    break
        texts.extend(tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True))
    return texts


def merge(base: Bot, others: list[Bot], weight: float) -> Bot:
    """The base plus `weight` times the sum of the others' differences from it."""
    start = base.model.state_dict()
    states = [bot.model.state_dict() for bot in others]
    mixed = {name: value + weight * sum(state[name] - value for state in states) for name, value in start.items()}
    model = AutoModelForCausalLM.from_config(base.model.config, dtype=torch.float32)
    model.load_state_dict(mixed)
    model.generation_config = base.model.generation_config
    return Bot(model, base.tokenizer)


def show(name: str, row: dict[str, float]) -> None:
    """One line of a Markdown table."""
    print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |", flush=True)


def singles(bots: dict[str, Bot], items: list[Item]) -> dict[str, Asked]:
    """Print and return what every model says alone."""
    replies = {name: bot.ask([item.question for item in items]) for name, bot in bots.items()}
    for name, asked in replies.items():
        show(name, score(items, asked.texts))
    oracle = [
        next((replies[n].texts[k] for n in DEFAULT_POOL if right(item, replies[n].texts[k])), "")
        for k, item in enumerate(items)
    ]
    show("oracle of the default pool", score(items, oracle))
    return replies


def collaborations(bots: dict[str, Bot], items: list[Item], dev: list[Item], skip: Sequence[str]) -> None:
    """Print what simple forms of the methods score on `items`; `dev` chooses the router and the summariser."""
    pool = [bots[name] for name in DEFAULT_POOL]
    questions = [item.question for item in items]
    dev_scores = [score(dev, bot.ask([item.question for item in dev]).texts)["all"] for bot in pool]
    order = sorted(range(len(pool)), key=lambda i: -dev_scores[i])
    first = [bot.ask(questions) for bot in pool]
    for bot, asked in zip(DEFAULT_POOL, first, strict=True):
        show(bot, score(items, asked.texts))

    show(
        "majority vote, greedy",
        score(items, [vote(list(r), order) for r in zip(*(a.texts for a in first), strict=True)]),
    )
    torch.manual_seed(0)
    sampled = [bot.ask(questions, 0.7).texts for bot in pool]
    show("majority vote, temperature 0.7", score(items, [vote(list(r), order) for r in zip(*sampled, strict=True)]))

    labels = default_labels(len(pool))
    descriptions = [PROFILES[name].description for name in DEFAULT_POOL]
    prompts = [route_prompt(question, descriptions, labels) for question in questions]
    for index, router in enumerate(pool):
        ids = [router.tokenizer(label, add_special_tokens=False)["input_ids"][0] for label in labels]
        choice = router.next_logits(prompts)[:, ids].argmax(-1).tolist()
        mark = " (best on dev)" if index == order[0] else ""
        show(f"routing by {DEFAULT_POOL[index]}{mark}", score(items, [first[c].texts[k] for k, c in enumerate(choice)]))

    cascade(items, first)
    if "refinement" not in skip:
        refinement(pool, items, first, order)
    if "models" not in skip:
        within(bots, items)


def within(bots: dict[str, Bot], items: list[Item]) -> None:
    """Print what fusing next-token distributions and adding task vectors give, over the models of one family."""
    questions = [item.question for item in items]
    same = [bots[name] for name in PROFILES if PROFILES[name].family == "llama" and name != "base"]
    show("logit fusion without base", score(items, fuse(same, questions)))
    show("logit fusion with base", score(items, fuse([bots["base"], *same], questions)))
    for weight in (0.25, 0.5, 0.75, 1.0):
        show(
            f"base + {weight} x sum of 4 task vectors",
            score(items, merge(bots["base"], same, weight).ask(questions).texts),
        )


def cascade(items: list[Item], first: list[Asked]) -> None:
    """Chow-Average in pool order; at each level the upper half of the questions that reach it stays."""
    kept: dict[int, str] = {}
    left = list(range(len(items)))
    for level, asked in enumerate(first):
        ranked = sorted(left, key=lambda k: -asked.confidence[k])
        stay = len(ranked) if level == len(first) - 1 else len(ranked) // 2
        kept.update({k: asked.texts[k] for k in ranked[:stay]})
        left = ranked[stay:]
    show("cascade, half stays at each level", score(items, [kept[k] for k in range(len(items))]))
    # The same with one threshold on the confidence for all levels.
    for threshold in (-0.01, -0.02, -0.04):
        texts = [
            next((a.texts[k] for a in first[:-1] if a.confidence[k] >= threshold), first[-1].texts[k])
            for k in range(len(items))
        ]
        show(f"cascade, threshold {threshold}", score(items, texts))


def refinement(pool: list[Bot], items: list[Item], first: list[Asked], order: list[int]) -> None:
    """Two rounds at temperature 0, closed by a vote or by the summary of the best model on dev."""
    rng = random.Random(0)
    current = [asked.texts for asked in first]
    for number in (1, 2):
        following = []
        for index, bot in enumerate(pool):
            prompts = []
            for k, item in enumerate(items):
                others = [current[j][k] for j in range(len(pool)) if j != index]
                rng.shuffle(others)
                prompts.append(refine(question_of(item), current[index][k], others).whole)
            following.append(bot.ask(prompts).texts)
        current = following
        for name, texts in zip(DEFAULT_POOL, current, strict=True):
            show(f"refinement round {number}: {name}", score(items, texts))
        show(
            f"refinement, {number} rounds, vote",
            score(items, [vote(list(r), order) for r in zip(*current, strict=True)]),
        )
        prompts = []
        for k, item in enumerate(items):
            answers = [texts[k] for texts in current]
            rng.shuffle(answers)
            prompts.append(summarise(question_of(item), answers).whole)
        show(
            f"refinement, {number} rounds, summary by {DEFAULT_POOL[order[0]]}",
            score(items, pool[order[0]].ask(prompts).texts),
        )


def verification(bots: dict[str, Bot], items: list[Item]) -> None:
    """How often P(True) > P(False) matches the truth, on the models' own skills (half right, half wrong replies)."""
    for name, bot in bots.items():
        known = [
            item
            for item in items
            if any(len(subs) == 4 and skill == item.skill for skill, subs in PROFILES[name].known.items())
        ]
        if not known:
            continue
        replies = [item.worked if k % 2 else item.mistakes[0] for k, item in enumerate(known)]
        logits = bot.next_logits([p_true(i.question, r) for i, r in zip(known, replies, strict=True)])
        yes, no = (bot.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in (TRUE, FALSE))
        said = (logits[:, yes] > logits[:, no]).tolist()
        print(f"p_true of {name} on its own skill: {sum(s == bool(k % 2) for k, s in enumerate(said)) / len(said):.3f}")


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=WEIGHTS)
    parser.add_argument("--n", type=int, default=1000, help="test questions for the single models")
    parser.add_argument("--together", type=int, default=400, help="test questions for the collaborations; 0 skips them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS, help="parts to leave out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bots = {name: Bot.load(options.folder / name) for name in PROFILES if (options.folder / name).exists()}
    print("| model | " + " | ".join((*SKILLS, "all")) + " |\n|---|" + "---|" * 5)
    singles(bots, list(generate("test", options.n, options.seed)))
    if options.together:
        items = list(generate("test", options.together, options.seed))
        collaborations(bots, items, list(generate("dev", 200, options.seed)), options.skip)
        verification(bots, items)


if __name__ == "__main__":
    main()
