"""Time to score 100,000 multiple-choice and 100,000 exact-match replies on one core.

    python tests/benchmarks/bench_scoring.py [--replies N]

The replies are a mix of short letters, declared answers, boxes, long chains of thought with a declared or no answer, and
reasoning blocks, each made different by its number so that nothing is remembered between replies. Afterwards: how much
longer ten times the text takes to read, for texts made to send patterns astray (10 is linear).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from moco_core import Example, Metric, NoOptions, Question, Reply
from moco_metric_exact_match import ExactMatch, Options
from moco_metric_multiple_choice import MultipleChoice
from moco_toolkit_answers import read

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from hard_texts import HARD

TEXT = (
    "the ray is deflected by a magnetic field because its charge moves and the force grows with speed so we add both "
    "sides and find that total energy rises while mass remains nearly constant in this step which gives a new value"
)
WORDS = TEXT.split()


def prose(rng: random.Random, words: int) -> str:
    """Return lines of running text with numbers in it."""
    lines = []
    for start in range(0, words, 15):
        line = " ".join(rng.choice(WORDS) for _ in range(min(15, words - start)))
        lines.append(f"{line.capitalize()} {rng.randint(1, 999)}.")
    return "\n".join(lines)


def choice_replies(n: int, rng: random.Random) -> list[str]:
    """Return replies to a four-option question."""
    shapes = (
        lambda x: x,
        lambda x: f"{x}) option text",
        lambda x: f"The answer is **{x}**.",
        lambda x: f"{prose(rng, 120)}\nThe final answer is: $\\boxed{{\\text{{{x}}}}}$",
        lambda x: f"{prose(rng, 200)}\n\nTherefore, the correct option is ({x}), not (A).",
        lambda x: f"<think>{prose(rng, 200)} So it is A</think>\n**Answer:** {x}",
        lambda x: f"{prose(rng, 120)}\nIt must be the gamma ray.",
        lambda x: f"{prose(rng, 60)}",
    )
    return [rng.choice(shapes)(rng.choice("ABCD")) for _ in range(n)]


def number_replies(n: int, rng: random.Random) -> list[str]:
    """Return replies to a word problem."""
    shapes = (
        lambda x: str(x),
        lambda x: f"{prose(rng, 120)}\n#### {x}",
        lambda x: f"The answer is {x} dollars.",
        lambda x: f"{prose(rng, 150)}\nThe final answer is $\\boxed{{{x}}}$",
        lambda x: f"{prose(rng, 150)}\nShe makes ${x:,} every day.",
        lambda x: f"<think>{prose(rng, 150)}</think>**Final Answer:** {x}",
    )
    return [rng.choice(shapes)(rng.randint(1, 99999)) for _ in range(n)]


def measure(metric: Metric, example: Example, replies: list[str]) -> float:
    """Return the seconds that scoring takes."""
    wrapped = [Reply(text=r) for r in replies]
    start = time.process_time()
    for reply in wrapped:
        metric.score(example, reply, None)  # type: ignore[arg-type]
    return time.process_time() - start


def growth(kind: str, piece: str) -> float:
    """Return how much longer reading takes of ten times the text."""
    asked = Question(
        id="q",
        prompt="What is it?",
        answer_kind=kind,
        choices=("alpha ray", "8 lb", "a", "1,234") if kind == "choice" else (),
        meta={"entry_point": "f"},
    )
    times = []
    for count in (10_000, 100_000):
        start = time.process_time()
        read(asked, piece * count)
        times.append(time.process_time() - start)
    return times[1] / times[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=100_000)
    count = parser.parse_args().replies
    rng = random.Random(0)
    choices = ("alpha ray", "beta ray", "gamma ray", "X-ray")
    asked = Question(id="q", prompt="Which ray is not deflected?", choices=choices, answer_kind="choice")
    sum_asked = Question(id="q", prompt="How much does she make?", answer_kind="integer")
    seconds = {
        "multiple_choice": measure(
            MultipleChoice(NoOptions()), Example(question=asked, answer=2), choice_replies(count, rng)
        ),
        "exact_match": measure(
            ExactMatch(Options()), Example(question=sum_asked, references=("18",)), number_replies(count, rng)
        ),
    }
    for name, value in seconds.items():
        print(f"{name:16} {count} replies in {value:6.2f} s of one core ({1e6 * value / count:.0f} us each)")
    print(f"both             {sum(seconds.values()):6.2f} s")
    for kind in ("choice", "math", "code"):
        ratio, piece = max((growth(kind, piece), piece) for piece in HARD)
        print(f"ten times the text, read as {kind:8} at most {ratio:5.1f} times as long ({piece!r})")


if __name__ == "__main__":
    main()
