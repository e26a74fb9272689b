"""IFEval: prompts with instructions that a program can check (Zhou et al., 2023, arXiv 2311.07911)."""

from __future__ import annotations

from moco_core import DatasetFacts, Example, hookimpl
from moco_toolkit_data import Hub, Row, SourceDataset, SourceOptions

__all__ = ["IFEval"]

_REPO = "google/IFEval"


class IFEval(SourceDataset[SourceOptions]):
    """541 prompts of one to three instructions each, cut in two by seed."""

    name = "ifeval"
    facts = DatasetFacts(
        title="IFEval",
        metric="instructions",
        paper="arXiv 2311.07911",
        licence="Apache-2.0",
        source=_REPO,
        revision="",
        sizes=(250, 250),
        fields="key, prompt, instruction_id_list, kwargs",
        notes="Published numbers are over all 541 prompts; here a part of them is dev.",
    )
    hub = (Hub(_REPO),)
    dev_from = test_from = ("train",)

    def record(self, row: Row) -> Example:
        """Read a row of the source (``key``, ``prompt``) or of the study (``id``, ``input``)."""
        study = "input" in row
        names, given = row.texts("instruction_id_list"), row["kwargs"]
        if not isinstance(given, list) or len(given) != len(names) or not all(isinstance(g, dict) for g in given):
            row.fail("kwargs", f"expected a list of {len(names)} mappings, one per instruction")
        # the source lists every argument of every instruction, null where it has no meaning
        instructions = [
            [name, {key: value for key, value in arguments.items() if value is not None}]
            for name, arguments in zip(names, given, strict=True)
        ]
        prompt = row.text("input" if study else "prompt")
        return self.text(row.key("id" if study else "key"), prompt, [], "open", meta={"instructions": instructions})


@hookimpl
def moco_dataset() -> type[IFEval]:
    return IFEval
