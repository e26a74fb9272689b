"""Putting the program under test together."""

from __future__ import annotations

import ast

from moco_toolkit_answers import defines, parses

__all__ = ["candidate"]


def candidate(*, code: str, name: str, prefix: str) -> str:
    """Return the program under test.

    Code that defines ``name`` runs after the imports and helpers of ``prefix``; other code continues ``prefix``, which
    ends in the head of the function. Without ``prefix`` the code stands alone.
    """
    if prefix.strip():
        code = f"{_helpers(prefix, name)}\n{code}" if not name or defines(code, name) else _continued(prefix, code)
    return code.rstrip() + "\n"


def _helpers(prefix: str, name: str) -> str:
    """Return the prefix without the function to be written."""
    try:
        tree = ast.parse(prefix)
    except SyntaxError:
        head = prefix.rfind(f"def {name}")
        return prefix[:head] if head >= 0 else ""
    lines = prefix.split("\n")
    kept = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        kept.append("\n".join(lines[first - 1 : node.end_lineno]))
    return "\n".join(kept)


def _continued(prefix: str, code: str) -> str:
    """Return prefix plus body; a body that lost its indentation, wholly or in its first line, gets it back."""
    start = prefix if prefix.endswith("\n") else prefix + "\n"
    first, newline, rest = code.partition("\n")
    indented = "\n".join("    " + line if line.strip() else line for line in code.split("\n"))
    tries = [code] if first[:1] in " \t" else ["    " + first + newline + rest, indented, code]
    for body in tries:
        if parses(start + body):
            return start + body
    return start + tries[0]
