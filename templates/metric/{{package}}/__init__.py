"""{{summary}}

The answer is the last line of a reply, compared without regard to case, spaces and closing punctuation. Replace reading
and comparing with yours; reading may use the question, never the reference.
"""

from __future__ import annotations

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, hookimpl, option

__all__ = ["{{Class}}", "Options", "moco_metric"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of {{name}}."""

    ignore_case: bool = option(True, help="compare without regard to upper and lower case")


class {{Class}}(Metric[Options]):
    """{{summary}}"""

    Options = Options
    binary = True

    def read(self, question: Question, text: str) -> Answer:
        lines = [line for line in (self._normal(part) for part in text.splitlines()) if line]
        if not lines:
            return Answer(status="unparsed")
        return Answer(key=lines[-1], text=lines[-1], status="parsed")

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        answer = self.read(example.question, reply.text)
        right = answer.key in {self._normal(r) for r in example.references}
        return Score(value=float(answer.parsed and right), answer=answer)

    def _normal(self, text: str) -> str:
        text = " ".join(text.split()).rstrip(".!")
        return text.casefold() if self.options.ignore_case else text


@hookimpl
def moco_metric() -> type[{{Class}}]:
    return {{Class}}
