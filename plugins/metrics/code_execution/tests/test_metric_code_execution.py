"""Code execution: which code is taken from a reply, how programs are put together, and what their outcome scores."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_programs import isolation

from moco_core import DatasetError, Example, Question, Reply, Score, Scored
from moco_core.runtime.cache import Cache
from moco_metric_code_execution import CodeExecution, Options, pass_at_k
from moco_metric_code_execution.program import candidate
from moco_toolkit_authoring import metric_checks, open_state
from moco_toolkit_sandbox import Outcome, Sandbox, SandboxUnavailable

test_conformance = metric_checks("code_execution", settings=[{"isolation": "limits"}])


OPTIONS = Options(isolation=isolation(), seconds=30)  # type: ignore[arg-type]

PREFIX = '''from typing import List


def helper(x: int) -> int:
    """Double."""
    return 2 * x


def total(values: List[int]) -> int:
    """ Add the doubles.
    >>> total([1, 2])
    6
    """
'''
TEST = "def check(candidate):\n    assert candidate([1, 2]) == 6\n    assert candidate([]) == 0\ncheck(total)\n"
RIGHT = "def total(values):\n    return sum(2 * v for v in values)"
WRONG = "def total(values):\n    return 1"


def example(prefix: str = "", test: str = TEST) -> Example:
    meta: dict[str, Any] = {"entry_point": "total", **({"prefix": prefix} if prefix else {})}
    question = Question(id="q", prompt="Write total.", answer_kind="code", meta=meta)
    return Example(question=question, meta={"setup": "", "test": test, "entry_point": "total"})


def scored(
    reply: Reply | str, item: Example | None = None, options: Options = OPTIONS, cache: Cache | None = None
) -> Score:
    item = item or example()

    async def work() -> Score:
        metric = CodeExecution(options)
        async with open_state(metric=metric, cache=cache) as state:
            context = state.context("metric", item.question)
            return await metric.score(item, Reply(text=reply) if isinstance(reply, str) else reply, context)

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (f"```python\ndef twice(x):\n    return 2 * x\n\n{RIGHT}\n```", 1),
        (f"```python\n{WRONG}\nimport os\nos._exit(0)\n```", 0),
        (f"```python\n{WRONG}\nimport sys\nsys.exit(0)\n```", 0),
        (f"Install it:\n```bash\npip install total\n```\nThen:\n```python\n{RIGHT}\n```", 1),
        (f"```py\n{RIGHT}\n```", 1),
        (f"```Python3 \r\n{RIGHT}\r\n```", 1),
        (f"Here it is:\n```python\n{RIGHT}", 1),
        (f"Used like this:\n```python\nprint(total([1]))\n```\nThe solution:\n```python\n{RIGHT}\n```", 1),
        (f"```python\n{RIGHT}\n```\nUsed like this:\n```python\nprint(total([1]))\n```", 1),
        (f"```python\n{RIGHT}\nimport sys\nprint('AssertionError', file=sys.stderr)\n```", 1),
        (f"<think>```python\n{RIGHT}\n```</think>\n```python\n{WRONG}\n```", 0),
        (f"<think>```python\n{RIGHT}\n```", 0),
        (RIGHT, 1),
        (f"Sure! Here you go.\n\n{RIGHT}\n\nThis adds the doubles of all values.", 1),
        ("```python\ntotal = lambda values: sum(2 * v for v in values)\n```", 1),
        (f"```python\n{RIGHT}\nif __name__ == '__main__':\n    print(total([3]))\n```", 1),
        (f"```python\n{WRONG}\n```", 0),
        ("I do not know.", 0),
        ("", 0),
    ],
)
def test_replies(reply: str, value: float) -> None:
    assert scored(reply).value == value


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["{}", "```python\n{}\n```", "~~~py\n{}\n~~~", "Here it is:\n\n```\n{}\n```\nDone."]),
    st.sampled_from(["", "\n", "\n\n", " \n", "\t\n", "\r\n"]),
)
def test_space_and_fences_around_a_program_change_nothing(frame: str, space: str) -> None:
    metric, question = CodeExecution(OPTIONS), example().question
    answer = metric.read(question, space + frame.format(RIGHT) + space)
    assert (answer.text.strip(), answer.key) == (RIGHT, metric.read(question, RIGHT).key)


@pytest.mark.parametrize(
    "body",
    [
        "    return sum(helper(v) for v in values)",
        "return sum(helper(v) for v in values)",
        "result = 0\n    for v in values:\n        result += helper(v)\n    return result",
        "```python\n    return sum(helper(v) for v in values)\n```",
        f"```python\n{RIGHT}\n```",
        "```python\ndef total(values: List[int]) -> int:\n    return sum(helper(v) for v in values)\n```",
    ],
)
def test_a_reply_may_continue_the_prompt_or_replace_it(body: str) -> None:
    assert scored(body, example(PREFIX)).value == 1


def test_outcome_and_unparsed_replies_are_told() -> None:
    assert scored(f"```python\n{WRONG}\n```").meta == {"outcome": "failed", "detail": "AssertionError:  (line 4)"}
    score = scored("<think>cut")
    assert (score.answer.status, score.meta["outcome"]) == ("cut", "cut")


def test_an_example_without_tests_is_not_scored() -> None:
    assert scored(RIGHT, example(test="")).value is None


def test_pass_at_k_is_the_probability_over_all_draws() -> None:
    for n, c, k in itertools.product(range(1, 7), range(7), range(1, 7)):
        if c > n or k > n:
            continue
        draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(any(d) for d in draws) / len(draws))
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(2, 1, 3)


def test_samples_give_pass_at_k() -> None:
    code = [f"```python\n{text}\n```" for text in (RIGHT, WRONG, WRONG, WRONG)]
    options = Options(isolation=OPTIONS.isolation, seconds=30, k=2)
    score = scored(Reply(text=code[0], meta={"samples": code}), options=options)
    assert score.value == pytest.approx(0.5)  # 1 - C(3,2)/C(4,2)
    with pytest.raises(DatasetError, match="pass@2 needs at least 2 samples"):
        scored(Reply(text=code[0]), options=options)


def test_a_program_is_run_once_for_all_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    async def run(self: Sandbox, program: str, limits: object = None, **rest: str) -> Outcome:
        runs.append(program)
        return Outcome(status="passed")

    monkeypatch.setattr(Sandbox, "run", run)
    cache = Cache(None)
    try:
        assert [scored(RIGHT, cache=cache).value for _ in range(3)] == [1, 1, 1]
        assert scored(WRONG, cache=cache).value == 1
    finally:
        cache.close()
    assert len(runs) == 2


def test_no_isolation_means_no_score(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="bubblewrap"):
        scored(RIGHT, options=Options(isolation="bubblewrap"))


def test_a_missing_sandbox_is_told_before_anything_is_scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert CodeExecution(Options(isolation="limits")).check() == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    metric = CodeExecution(Options(isolation="bubblewrap"))
    assert ["bubblewrap" in sentence and "install" in sentence for sentence in metric.check()] == [True]

    async def inside() -> Any:
        return metric.check()

    assert asyncio.run(inside()) == metric.check()  # a runner asks from its loop


@pytest.mark.parametrize(
    "reply",
    [
        "class Any:\n    def __eq__(self, other):\n        return True\n\ndef total(values):\n    return Any()",
        "def total(values):\n    return 1\n\ndef check(candidate):\n    pass",
        "import builtins\nbuiltins.AssertionError = None\n\ndef total(values):\n    return 1",
        "import sys\nsys.exit = lambda *a: None\n\ndef total(values):\n    raise SystemExit(0)",
    ],
)
def test_a_program_that_tampers_with_its_tests_fails(reply: str) -> None:
    assert scored(f"```python\n{reply}\n```").value == 0


def test_helpers_of_the_prompt_stay_and_the_function_is_replaced() -> None:
    program = candidate(code=RIGHT, name="total", prefix=PREFIX)
    assert program.count("def total") == 1
    assert "def helper" in program
    assert "from typing import List" in program


def test_how_programs_ended_stands_in_the_extra_metrics() -> None:
    metric = CodeExecution(OPTIONS)
    item = Example(question=Question(id="q", prompt="?", answer_kind="code"), meta={"test": "assert True"})
    ends = ["passed", "failed", "timeout", "timeout", "unparsed"]
    rows = [Scored(example=item, reply=Reply(text=""), score=Score(value=0.0, meta={"outcome": e})) for e in ends]
    assert metric.extra_metrics(rows) == {"failed": 0.2, "timeout": 0.4, "unparsed": 0.2}
