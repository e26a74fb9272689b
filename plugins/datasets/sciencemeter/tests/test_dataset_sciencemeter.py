"""ScienceMeter from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import ConfigError, DatasetError, Example
from moco_core.options import build
from moco_dataset_sciencemeter import ScienceMeter
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("sciencemeter")


def read(**options: Any) -> dict[str, Example]:
    data = ScienceMeter(build(ScienceMeter.Options, {"path": str(ScienceMeter.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_a_paper_gives_one_supported_and_one_refuted_claim_once() -> None:
    found = {e.id: e for e in read().values()}
    assert {i: (e.answer, e.question.subset) for i, e in found.items()} == {
        f"fixture-{paper}/{side}": (answer, domain)
        for paper, domain in (("a", "biology"), ("b", "biology"), ("d", "medicine"), ("e", "medicine"))
        for answer, side in enumerate(("support", "refute"))
    }
    assert found["fixture-b/refute"].question.prompt == (
        "You are given a claim about a scientific paper. Please determine whether the claim is supported or refuted by the "
        "paper. Paper: Moss survived two years without {light}.\nClaim: Moss dies after a day in the dark.\n\n"
        "Is the claim supported or refuted by the paper?"
    )
    assert found["fixture-b/refute"].question.choices == ("support", "refute")


@pytest.mark.parametrize("seed", range(4))
def test_the_claims_of_a_paper_stay_in_one_split(seed: int) -> None:
    data = ScienceMeter(ScienceMeter.Options(**ScienceMeter.sample(), seed=seed))
    dev, test = ({e.meta["paper"] for e in data.examples(s)} for s in ("dev", "test"))
    assert dev and test and not dev & test


def test_the_papers_of_a_row_can_be_chosen() -> None:
    assert {e.meta["paper"] for e in read(papers=["new_paper"]).values()} == {"fixture-b", "fixture-d"}
    with pytest.raises(ConfigError, match="papers: expected some of prior_paper, new_paper, future_paper, got old"):
        read(papers=["old"])


def test_a_missing_claim_is_an_error_with_its_paper(tmp_path: Path) -> None:
    paper = {"paperId": "p", "abstract": "x", "synthetic_support_claim": "y"}
    (tmp_path / "biology.jsonl").write_text(json.dumps({"prior_paper": paper}))
    with pytest.raises(DatasetError, match=r"row 1, field 'prior_paper\.synthetic_refute_claim': missing"):
        read(path=str(tmp_path), papers=["prior_paper"])
