"""The examples that the generic dataset's README gives for every metric, run as they stand in an empty folder."""

import re
from pathlib import Path

import pytest
import yaml
from own_programs import isolation

from moco_core import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "plugins" / "datasets" / "custom" / "README.md"
JUDGES = ROOT / "tests" / "helpers" / "scripted_judges.py"
BLOCKS = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_runs_as_it_stands(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    config = yaml.safe_load(block)
    rows = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    Path(config["dataset"]["path"]).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    Path("run.yaml").write_text(block)
    options = ["-p", "parrots", "--plugin", str(JUDGES)]
    metric = config.get("metric", {}).get("name")
    if metric:  # a judge that is here, in place of the one to download or to train
        options += ["-o", "metric.pool={name: judges}"]
    if config["dataset"].get("kind") == "code":
        options += ["-o", f"metric.isolation={isolation()}"]
    code = cli._run(["run", "run.yaml", *options])
    told = capsys.readouterr().err
    if metric == "reward_model":  # the judges write text: the example is right up to its pool
        assert code == 2 and "metric.pool: model 'verifier' cannot score a conversation" in told
    else:
        assert code == 0, told
        assert list(Path("runs").iterdir())
