"""Code in replies: which block is the solution, and how it becomes a runnable program."""

from __future__ import annotations

import ast
import builtins
import hashlib
import html
import json
import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import NamedTuple

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import strip_reasoning

__all__ = ["Block", "blocks", "called_name", "defines", "extract_code", "parses", "read_code"]

_FENCE = re.compile(r"^(?P<indent>[ \t]{0,12})(?P<mark>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`]*)[^\n`]*$")
_PYTHON = {"python", "py", "python3", "py3", "python2", "ipython", "{python}", "{.python}", "pycon"}
_LONGEST = 100_000


class Block(NamedTuple):
    """A fenced block: its tag (lower case, empty if none), its text, and whether its end was there."""

    tag: str
    code: str
    closed: bool = True


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a reply, paired line by line as CommonMark does.

    The indentation of the opening fence is taken from the lines of the block; an unclosed last fence runs to the end.
    A fence inside a Python docstring ends nothing, and a tagged one ends a block that the model forgot to close.
    """
    found = _paired(text.split("\n"), docstrings=True)
    return found if not found or found[-1].closed else _paired(text.split("\n"), docstrings=False)


def _paired(lines: Sequence[str], *, docstrings: bool) -> list[Block]:
    out: list[Block] = []
    opening: re.Match[str] | None = None
    inside: list[str] = []
    quotes = 0

    def close(closed: bool) -> None:
        if opening is not None:
            out.append(Block(opening["tag"].lower().strip(":,"), "\n".join(inside), closed))

    for line in lines:
        fence = _FENCE.match(line)
        if opening is None:
            if fence:
                opening, inside, quotes = fence, [], 0
            continue
        indent = len(opening["indent"].expandtabs(4))
        ends = fence is not None and fence["mark"][0] == opening["mark"][0] and not (docstrings and quotes % 2)
        if fence and ends and len(fence["indent"].expandtabs(4)) <= indent + 3:
            if fence["tag"]:
                close(True)
                opening, inside, quotes = fence, [], 0
                continue
            if len(fence["mark"]) >= len(opening["mark"]):
                close(True)
                opening = None
                continue
        inside.append(line[min(indent, len(line) - len(line.lstrip(" "))) :])
        quotes += line.count('"""') + line.count("'''")
    close(False)
    return out


def parses(code: str) -> bool:
    """Whether ``code`` is a Python program (syntax only)."""
    return _tree(code) is not None


def _tree(code: str) -> ast.Module | None:
    if not code.strip() or len(code) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def defines(code: str, name: str) -> bool:
    """Whether a program binds ``name`` at its top level: def, class, assignment or import."""
    tree = _tree(code)
    return tree is not None and any(name in _bound(node) for node in _top(tree.body))


def _top(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    out: list[ast.stmt] = []
    for node in body:
        out.append(node)
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            out += _top(node.body)
            out += _top(getattr(node, "orelse", []))
    return out


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).split(".")[0] for a in node.names}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}


_DOCTEST = re.compile(r"^\s*>>> ?", re.M)


_ODD = str.maketrans(
    {
        "\u00a0": " ",
        "\u3000": " ",
        "\u2028": "\n",
        "\u201c": '"',
        "\u201d": '"',
        "\u2018": "'",
        "\u2019": "'",
        "\u2212": "-",
    }
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\x00")
    | {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
)
_FRAME_LINE = re.compile(r"(?m)^\s*\[/?(?:PYTHON|CODE|BEGIN|DONE|END|SOLUTION)\]\s*$")


def _clean(code: str) -> str:
    """Drop doctest prompts of a session transcript, and what stands in no program; keep indentation."""
    if _tree(code) is None:
        head, fence, _ = code.partition("```")  # the closing fence at the end of a line of code
        if fence and head.strip() and parses(head):
            return _clean(head)
        if (not code.isascii() or "\x00" in code) and parses(plain := code.translate(_ODD)):
            code = plain
    code = code.replace("\t", "    ") if "\t" in code and _tree(code) is None else code
    if _DOCTEST.match(code.lstrip("\n")) and _tree(code) is None:
        kept = []
        for line in code.split("\n"):
            stripped = line.lstrip()
            if stripped.startswith((">>> ", "... ")):
                kept.append(stripped[4:])
            elif stripped in (">>>", "..."):
                kept.append("")
        code = "\n".join(kept)
    if code[:1] in " \t" and _defining(less := textwrap.dedent(code)):
        code = less
    return code.strip("\n")


def _defining(code: str) -> bool:
    """Whether code is a program that defines something, and no body of a function to be completed."""
    tree = _tree(code)
    return tree is not None and any(
        isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for n in tree.body
    )


def extract_code(text: str, name: str = "") -> tuple[str, str]:
    """Return (code, how) of a reply without reasoning; ``how`` is ``block``, ``joined``, ``bare``, ``body`` or ``""``.

    Of several Python blocks the last one that parses and defines ``name``; if none does, those that parse, joined.
    Without a fence the longest span of lines that parses. Otherwise the text as it is: it may continue a prompt.
    """
    if "[" in text:
        text = _FRAME_LINE.sub("", text)
    if headless := _headless(text, name):
        return headless
    found = blocks(text)
    python = [_clean(b.code) for b in found if b.tag in _PYTHON]
    other = [_clean(b.code) for b in found if b.tag not in _PYTHON]
    untagged = [_clean(b.code) for b in found if b.tag == ""]
    for group in (python, untagged, other):
        good = [code for code in group if code and parses(code)]
        if name:
            for code in reversed(good):
                if defines(code, name):
                    return _with_helpers(code, good), "block"
    if name and (odd := _odd_form(text, name)):
        return odd, "block"
    if found and not found[-1].closed and (cut := _longest_parsing(_clean(found[-1].code), name)):
        return cut, "block"
    for group in (python, untagged):
        good = [code for code in group if code and parses(code)]
        if good:
            joined = "\n\n".join(good)
            return (joined, "joined" if len(good) > 1 else "block") if parses(joined) else (good[-1], "block")
        indented = [code for code in group if code.strip() and _continues(code)]
        if indented:
            return indented[-1], "body"
        if group and any(g.strip() for g in group):
            return [g for g in group if g.strip()][-1], "block"
    bare = _longest_parsing(text, name) or _odd_form(text, name)
    if bare:
        return bare, "bare"
    body = text.strip("\n").rstrip()
    return (body, "body") if body.strip() and _continues(body) else ("", "")


def _with_helpers(code: str, good: Sequence[str]) -> str:
    """Return a block behind those before it that bind names which it uses and does not bind itself."""
    tree = ast.parse(code)
    names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    own = {n.id for n in names if not isinstance(n.ctx, ast.Load)} | {
        a.arg for a in ast.walk(tree) if isinstance(a, ast.arg)
    }
    own |= {x for n in ast.walk(tree) if isinstance(n, ast.stmt) for x in _bound(n)} | set(dir(builtins))
    missing = {n.id for n in names} - own
    before = good[: good.index(code)] if missing else ()
    return "\n\n".join([*(b for b in before if any(defines(b, x) for x in missing)), code])


_TAGS = re.compile(r"</?(?:pre|code)\b[^>]*>", re.I)
_INLINE = re.compile(r"`{1,3}(?:python3?\s+)?((?:def|class|import|from)\s[^`]+)`{1,3}")


def _odd_form(text: str, name: str) -> str:
    """Return the program of a reply that quotes, indents or encodes it in a way that is no fence; empty if there is none."""
    tries = []
    if _TAGS.search(text):
        tries.append(html.unescape(_TAGS.sub("\n", text)))
    if re.search(r"(?m)^>(?!>)", text):
        tries.append(re.sub(r"(?m)^>(?!>) ?", "", text))
    if "{" in text and (start := text.find("{")) < text.rfind("}"):
        try:
            data = json.loads(text[start : text.rfind("}") + 1], strict=False)
        except ValueError:
            data = None
        if isinstance(data, dict):
            tries += [value for value in data.values() if isinstance(value, str)]
    tries += [m[1] for m in _INLINE.finditer(text)][::-1]
    if "```" not in text and not _CLASS.search(text) and (indented := _INDENTED.search(text)):
        tries.append(textwrap.dedent(indented[0]))
    for one in tries:
        code, how = extract_code(one, name) if one != text else ("", "")
        if how in ("block", "joined", "bare") and (not name or defines(code, name)):
            return code
    return ""


_CLASS = re.compile(r"(?m)^class\s")
_INDENTED = re.compile(r"(?m)^([ \t]+)(?:def|class|import|from|@).*(?:\n(?:\1.*|[ \t]*))*")


def _headless(text: str, name: str) -> tuple[str, str] | None:
    """Return the code before a closing fence whose opening one was in the prompt."""
    lines = text.split("\n")
    fences = [(i, m) for i, line in enumerate(lines) if (m := _FENCE.match(line))]
    if len(fences) % 2 == 0 or fences[0][1]["tag"]:
        return None
    head = _clean("\n".join(lines[: fences[0][0]]))
    if defines(head, name) if name else (_CODE_START.match(head) and parses(head)):
        return head, "block"
    return (head, "body") if head[:1] in " \t" and _continues(head) else None


def _continues(code: str) -> bool:
    """Whether code could be the rest of a function body."""
    first = next((line for line in code.split("\n") if line.strip()), "")
    tries = [code] if first[:1] in " \t" else ["    " + code, "    " + code.replace("\n", "\n    ")]
    return any(parses("def f():\n" + body) for body in tries)


_CODE_START = re.compile(r"^(?:def |class |import |from \w|@|async def |[A-Za-z_]\w*(?:\s*:\s*[\w\[\], ]+)?\s*=[^=])")


def _longest_parsing(text: str, name: str) -> str:
    """Return the longest span that starts at the first line of code that leads anywhere, trimmed behind until it parses."""
    lines = text.split("\n")
    room = 20 * _LONGEST  # characters given to the parser in all: a long reply of prose must not take long
    for start in [i for i, line in enumerate(lines) if _CODE_START.match(line)][:40]:
        end = len(lines)
        while end > start:
            code = "\n".join(lines[start:end])
            room -= len(code) + 200
            if room < 0:
                return ""
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ast.parse(code)
            except SyntaxError as error:
                at = start + (error.lineno or end - start) - 1
                end = at if start < at < end else end - 1
                continue
            except (ValueError, RecursionError, MemoryError, OverflowError):
                break
            if not name or defines(code, name):
                return code.strip("\n").rstrip()
            if end == len(lines):
                return ""  # all the rest parses and does not define it: no part of it does
            break
    return ""


def called_name(tests: Sequence[str] | str) -> str:
    """Return the function that assertions call: the innermost called name that no assertion helper explains."""
    source = tests if isinstance(tests, str) else "\n".join(tests)
    tree = _tree(source)
    if tree is None:
        return ""
    helpers = set(dir(__import__("builtins"))) | {"isclose", "math", "np", "numpy", "Counter"}
    counts: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in helpers:
            counts[node.func.id] = counts.get(node.func.id, 0) + 1
    return max(counts, key=lambda n: counts[n]) if counts else ""


def read_code(question: Question, text: str) -> Answer:
    """Read a program out of a reply; ``text`` is the code, the key its digest.

    The name it must define may stand in ``question.meta["entry_point"]``.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    body = strip_reasoning(text.encode("utf-8", "replace").decode("utf-8"))
    if body is None:
        return Answer(status="cut")
    code, how = extract_code(body, str(question.meta.get("entry_point", "")))
    if not code.strip():
        return Answer()
    key = hashlib.sha256(code.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Answer(key=key, text=code, status="parsed", meta={"how": how})
