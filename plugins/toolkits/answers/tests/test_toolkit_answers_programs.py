"""Programs in odd forms: fences at the end of a line, quotations, HTML, JSON, signs that no program has, earlier blocks."""

from __future__ import annotations

import pytest

from moco_core import Question
from moco_toolkit_answers import extract_code, read

ADD = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    "reply",
    [
        f"```python\n{ADD}```",
        f"```python\n{ADD}``` This adds.",
        "```python\ndef add(a, b):\n\u00a0\u00a0\u00a0\u00a0return a + b\n```",
        "```python\n\u200bdef add（a, b）：\n    return a + b\x00\n```",
        "> ```python\n> def add(a, b):\n>     return a + b\n> ```",
        "> def add(a, b):\n>     return a + b",
        "Here:\n\n    def add(a, b):\n        return a + b\n\nDone.",
        f'<pre><code class="language-python">{ADD}\n</code></pre>',
        f"[BEGIN]\n{ADD}\n[DONE]",
        '```json\n{"code": "def add(a, b):\\n    return a + b"}\n```',
        f"\ufeff{ADD}",
    ],
)
def test_a_program_is_found_in_odd_forms(reply: str) -> None:
    found = read(Question(id="q", prompt="?", answer_kind="code", meta={"entry_point": "add"}), reply)
    assert found.text.strip() == ADD


def test_a_program_in_one_line_is_found() -> None:
    for reply in ("`def add(a, b): return a + b`", "```python def add(a, b): return a + b```"):
        assert extract_code(reply, "add")[0] == "def add(a, b): return a + b"


def test_helpers_of_an_earlier_block_come_along_if_they_are_used() -> None:
    floor = "def add(a, b):\n    return math.floor(a) + b"
    reply = f"```python\nimport math\n```\n```python\ndef unused(): ...\n```\n```python\n{floor}\n```"
    assert extract_code(reply, "add")[0] == f"import math\n\n{floor}"
    assert "class" in extract_code("```python\nclass S:\n    def add(self, a, b):\n        return a + b\n```", "add")[0]
