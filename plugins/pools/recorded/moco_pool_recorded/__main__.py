"""``python -m moco_pool_recorded TABLE... --questions FILE``: the questions of a recording, as a file of a dataset."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from moco_core import ConfigError
from moco_pool_recorded.reading import read

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Write one line of JSON per question: id, question, answer (the recorded reference) and subset. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m moco_pool_recorded", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("tables", nargs="+", help="files and folders, as the pool takes them")
    parser.add_argument("--questions", required=True, type=Path, help="file to write")
    given = parser.parse_args(args)
    seen: dict[str, dict[str, str]] = {}
    try:
        for path in given.tables:
            for row in read(path, {}, ()):
                if row.prompt:
                    line = {"id": row.id, "question": row.prompt, "answer": row.reference, "subset": row.subset}
                    seen.setdefault(row.prompt, line)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    given.questions.write_text("".join(json.dumps(q, ensure_ascii=False) + "\n" for q in seen.values()), "utf-8")
    print(f"{given.questions}: {len(seen)} questions", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
