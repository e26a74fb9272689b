"""``moco convert``: a configuration of modelco as YAML of ours."""

from __future__ import annotations

from pathlib import Path

import click

from moco_core import ConfigError

__all__ = ["convert_command"]


@click.command("convert")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), help="New YAML file  [default: stdout]")
def convert_command(file: Path, target: Path | None) -> None:
    """Write the modelco configuration FILE (JSON) as one of MoCo (YAML).

    Its keys that are ignored stand at the top, each with the reason. `moco bench FILE` runs it without being converted.

    \b
    moco convert api_cascade.json --to cascade.yaml
    """
    import yaml

    from moco_command_convert.reading import read
    from moco_core.cli.reading import load_yaml

    found = read(load_yaml(file)[0], file)
    if found is None:
        raise ConfigError(f"{file}: no configuration of modelco: it has no model_names and no task")
    settings, remarks = found
    head = "".join(f"# {remark}\n" for remark in remarks)
    text = head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    if target is None:
        click.echo(text, nl=False)
    elif target.exists():
        raise ConfigError(f"--to {target}: is there already; give a new file")
    else:
        target.write_text(text, encoding="utf-8")
        click.echo(f"{target}: written; moco plan {target}, then moco bench {target}", err=True)
