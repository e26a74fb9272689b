"""Results as tables for other programs."""

import csv
import io

import pytest

import moco_core
from moco_core.catalogue import installed
from moco_core.cli.tables import csv_text, html_text, latex_text


@pytest.fixture
def results(moco, toys):
    installed().register_file(toys)
    return moco_core.run(pool="toy_pool", methods=["toy_vote"], dataset={"name": "toys", "size": 9}, seeds=[0, 1])


def test_a_row_for_each_system_and_seed(results):
    rows = results.rows()
    assert [(r["system"], r["seed"]) for r in rows] == [
        (label, seed) for label in (r.label for r in results.reports[0].rows) for seed in (0, 1)
    ]
    vote = next(r for r in rows if r["system"] == "toy_vote")
    run = results["toy_vote", 0]
    assert vote["n"] == 9 and vote["score"] == sum(u.score for u in run.units) / 9 and vote["folder"] == str(run.folder)
    assert vote["difference"] is not None and next(r for r in rows if r["best_single"])["difference"] is None


def test_csv_reads_back(results, tmp_path):
    text = results.to_csv(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == text
    read = list(csv.DictReader(io.StringIO(text)))
    assert [r["system"] for r in read] == [r["system"] for r in results.rows()]
    assert float(read[-1]["score"]) == results.rows()[-1]["score"]
    frame = pytest.importorskip("pandas").read_csv(tmp_path / "t.csv")
    assert list(results.to_pandas().columns) == list(frame.columns) and len(frame) == 8


def test_latex_and_notebooks_take_names_as_text(results):
    rows = [{**results.rows()[0], "system": "a_b & 100% <b>\\x"}]
    latex = latex_text(rows)
    assert r"a\_b \& 100\% $<$b$>$\textbackslash{}x" in latex
    assert latex.startswith("\\begin{tabular}{llrrrrr}\n\\toprule\ndataset & system") and latex.endswith("\\end{tabular}\n")
    assert "<td>a_b &amp; 100% &lt;b&gt;\\x</td>" in html_text(rows)
    assert results.to_latex().count(r" \\") == 9 and results._repr_html_().count("<tr>") == 9


def test_no_rows_are_an_empty_table():
    assert csv_text([]) == "\n" and html_text([]).count("<tr>") == 1 and latex_text([]).count(r"\\") == 1
