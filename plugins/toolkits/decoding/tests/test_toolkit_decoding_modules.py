"""The toolkit's own imports."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import moco_toolkit_decoding


def test_no_module_imports_another_in_a_circle_however_late_or_for_types_alone():
    folder = Path(moco_toolkit_decoding.__file__).parent
    imports = {}
    for file in folder.rglob("*.py"):
        name = ".".join(["moco_toolkit_decoding", *file.relative_to(folder).with_suffix("").parts])
        imports[name] = {
            n.module
            for n in ast.walk(ast.parse(file.read_text()))
            if isinstance(n, ast.ImportFrom) and n.module and n.module.startswith("moco_toolkit_decoding.")
        }
    order = list(graphlib.TopologicalSorter(imports).static_order())  # raises CycleError, which names the circle
    assert order.index("moco_toolkit_decoding.session") < order.index("moco_toolkit_decoding.text_session")
