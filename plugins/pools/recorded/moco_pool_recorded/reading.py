"""Reading recordings: run folders of MoCo, LLMRouterBench's result files, RouterBench's wide table, and plain tables."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_core import ConfigError, Message, MocoError, Question, Usage, read_records
from moco_core.errors import suggest
from moco_core.types import canonical
from moco_pool_recorded.rows import Row, as_seen
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS, split

__all__ = ["FIELDS", "declared", "read"]

FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "question_id", "sample_id", "index"),
    "prompt": ("prompt", "question", "query", "input"),
    "model": ("model", "model_name"),
    "reply": ("reply", "response", "model_response", "output", "raw_output"),
    "prompt_tokens": ("prompt_tokens", "input_tokens"),
    "completion_tokens": ("completion_tokens", "output_tokens"),
    "cost": ("cost", "total_cost"),
    "score": ("score", "performance"),
    "finish": ("finish", "finish_reason"),
    "reference": ("reference", "ground_truth", "answer"),
    "subset": ("subset", "dataset", "dataset_name", "eval_name"),
    "settings": ("settings", "sampling"),
}
"""What a table may say, and the columns that are taken for it where ``fields`` does not name one."""

_FINISH = {"eos": "eos", "stop": "eos", "length": "length", "max_tokens": "length", "": "eos"}
_RESPONSE, _COST = "|model_response", "|total_cost"


def read(path: str, fields: Mapping[str, str], columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a recording, whatever its form. Raises ConfigError with file and line."""
    place = Path(path)
    if place.is_dir():
        yield from _folder(place)
    elif not place.is_file():
        raise ConfigError(f"{path}: no such file or folder")
    elif place.suffix in (".pkl", ".pickle"):
        raise ConfigError(
            f"{path}: a pickle may run any program when it is read; where you trust it, write it as a table first: "
            "pandas.read_pickle(...).to_parquet(...)"
        )
    else:
        found = list(_records(place))
        if len(found) == 1 and "records" in found[0][1] and "model_name" in found[0][1]:
            yield from _llm_router_bench(place, found[0][1])
        elif any(key.endswith(_RESPONSE) for _, row in found[:1] for key in row):
            yield from _router_bench(place, found)
        else:
            yield from _plain(place, found, fields, columns)


def declared(path: str) -> Iterator[tuple[str, str]]:
    """Yield the models of the runs in a folder in their pool's order, each with its fingerprint."""
    for run in _runs(Path(path)):
        for _, head in _records(run / "run.json"):
            for model in head.get("models", ()):
                yield str(model["name"]), str(model["fingerprint"])


def _runs(place: Path) -> list[Path]:
    return sorted(file.parent for file in place.glob("**/run.json")) if place.is_dir() else []


def _folder(place: Path) -> Iterator[Row]:
    if runs := _runs(place):
        for run in runs:
            yield from _run(run)
        return
    files = sorted(place.glob("**/*.json"))
    if not files:
        raise ConfigError(f"{place}: neither a run folder nor a folder of result files (*.json)")
    latest: dict[tuple[str, str, str], tuple[Path, Mapping[str, Any]]] = {}
    for file in files:
        for _, body in _records(file):
            if "records" in body and not body.get("demo"):  # names end with a time: the last one counts
                latest[str(body.get("dataset_name")), str(body.get("split")), str(body.get("model_name"))] = (
                    file,
                    body,
                )
    if not latest:
        raise ConfigError(f"{place}: no file here holds results (records, model_name, dataset_name)")
    for file, body in latest.values():
        yield from _llm_router_bench(file, body)


# ---------------------------------------------------------------- forms


def _run(folder: Path) -> Iterator[Row]:
    """Yield what every model of a run was asked and said: on the test split, and for a single model on the dev split."""
    try:
        records = list(read_records(folder))
    except MocoError as error:
        raise ConfigError(str(error)) from None
    for record in records:
        for call in record.get("calls", ()):
            if call["kind"] == "generate":
                yield _call(call, f"{folder.name}, question {record['id']}", str(record["id"]))
    dev = folder / "dev.jsonl"
    if dev.is_file():
        for number, row in _records(dev):
            yield _call(row, f"{folder.name}/dev.jsonl, line {number}", str(row["id"]))


def _call(call: Mapping[str, Any], where: str, name: str) -> Row:
    seen, said = call["seen"], call["said"]
    if "question" in seen:
        fields = dict(seen["question"])
        turns = Question(**{**fields, "history": tuple(Message(**turn) for turn in fields["history"])}).messages()
        read = as_seen(turns)
    elif "messages" in seen:
        read = as_seen(Message(role, content) for role, content in seen["messages"])
    else:
        read = canonical(seen)
    return Row(
        model=call["model"],
        reply=said["text"],
        reasoning=said.get("reasoning", ""),
        finish=said["finish"],
        where=where,
        key=call.get("key", ""),
        id=name,
        seen=read,
        usage=Usage(call["prompt_tokens"], call["completion_tokens"]),
    )


def _llm_router_bench(place: Path, body: Mapping[str, Any]) -> Iterator[Row]:
    """Yield one model's answers on one dataset (LLMRouterBench, arXiv 2601.07206)."""
    dataset, split = str(body.get("dataset_name", "")), str(body.get("split", ""))
    for record in body["records"]:
        where = f"{place.name}, index {record.get('index')}"
        said = record.get("raw_output")
        if not isinstance(said, str):  # some hold the service's whole reply, or the runs of a tool
            said = str(record.get("prediction") or "")
        yield Row(
            model=str(body["model_name"]),
            **_said(said),
            where=where,
            id="/".join((dataset, split, str(record.get("index")))),
            prompt=_text(record.get("prompt") or record.get("origin_query")),
            usage=_usage(record.get("prompt_tokens"), record.get("completion_tokens"), where),
            cost=_number(record.get("cost"), where),
            score=_number(record.get("score"), where),
            reference=_text(record.get("ground_truth")),
            subset=dataset,
        )


def _router_bench(place: Path, found: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[Row]:
    """Yield RouterBench's wide table (arXiv 2403.12031): a score, a reply and a cost for every model in every row."""
    for number, row in found:
        where = f"{place.name}, row {number}"
        for column in row:
            if not column.endswith(_RESPONSE):
                continue
            model = column.removesuffix(_RESPONSE)
            yield Row(
                model=model,
                **_said(_one(row[column])),
                where=where,
                id=_text(row.get("sample_id")),
                prompt=_one(row.get("prompt")),
                cost=_number(row.get(model + _COST), where),
                score=_number(row.get(model), where),
                subset=_text(row.get("eval_name")),
            )


def _plain(
    place: Path, found: Sequence[tuple[int, Mapping[str, Any]]], fields: Mapping[str, str], columns: Sequence[str]
) -> Iterator[Row]:
    if not found:
        raise ConfigError(f"{place}: empty")
    have = list(dict.fromkeys(key for _, row in found for key in row))
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise ConfigError(f"fields.{unknown[0]}: unknown{suggest(unknown[0], FIELDS)}; known: {', '.join(FIELDS)}")
    missing = [c for c in (*fields.values(), *columns) if c not in have]
    if missing:
        raise ConfigError(
            f"{place}: no column {missing[0]!r}{suggest(missing[0], have)} (there are: {', '.join(have)})"
        )
    named = {name: fields.get(name) or next((c for c in known if c in have), None) for name, known in FIELDS.items()}
    if not named["id"] and not named["prompt"]:
        raise ConfigError(f"{place}: neither a question's id nor its prompt; say which column is what with fields")
    if not columns and (not named["model"] or not named["reply"]):
        what = "model" if not named["model"] else "reply"
        raise ConfigError(
            f"{place}: no column for {what} (there are: {', '.join(have)}); say which with fields.{what}, or name the "
            "columns that hold the models' replies with columns"
        )
    for number, row in found:
        where = f"{place.name}, line {number}"

        def cell(name: str, row: Mapping[str, Any] = row) -> Any:
            return row.get(named[name] or "")

        base: dict[str, Any] = {name: _text(cell(name)) for name in ("id", "prompt", "reference", "subset", "settings")}
        if columns:
            for column in columns:
                if row.get(column) is not None:
                    yield Row(model=column, **_said(_text(row[column])), where=where, **base)
            continue
        model = _text(cell("model"))
        if not model:
            raise ConfigError(f"{place}: line {number}: {named['model']} is empty")
        finish = _text(cell("finish")).lower()
        if finish not in _FINISH:
            raise ConfigError(f"{place}: line {number}: {named['finish']}: expected stop or length, got {finish!r}")
        yield Row(
            model=model,
            **_said(_text(cell("reply"))),
            where=where,
            finish=_FINISH[finish],
            usage=_usage(cell("prompt_tokens"), cell("completion_tokens"), f"{place}: line {number}"),
            cost=_number(cell("cost"), f"{place}: line {number}"),
            score=_number(cell("score"), f"{place}: line {number}"),
            **base,
        )


# ---------------------------------------------------------------- files


def _records(place: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the records of a file with their lines (rows of parquet are numbered from 1)."""
    name = place.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from enumerate(_parquet(place), 1)
        return
    try:
        raw = place.read_bytes()
        text = (gzip.decompress(raw) if place.name.endswith(".gz") else raw).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {error}") from None
    if name.endswith((".csv", ".tsv")):
        csv.field_size_limit(1 << 30)
        reader = csv.DictReader(
            io.StringIO(text, newline=""), dialect="excel-tab" if name.endswith(".tsv") else "excel"
        )
        for row in reader:
            yield reader.line_num, {k: v for k, v in row.items() if k is not None}
        return
    if name.endswith(".json"):
        body = _json(text, f"{place}")
        for number, row in enumerate(body if isinstance(body, list) else [body], 1):
            yield number, _mapping(row, f"{place}: entry {number}")
        return
    for number, line in enumerate(text.split("\n"), 1):  # other line ends may stand within texts
        if line.strip():
            yield number, _mapping(_json(line, f"{place}: line {number}"), f"{place}: line {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from None


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object with a question, a model and a reply")
    return value


def _parquet(place: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(f"{place}: parquet needs pyarrow; pip install 'moco-pool-recorded[parquet]'") from None
    try:
        for batch in pyarrow.parquet.ParquetFile(place).iter_batches():
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{place}: cannot be read: {error}") from None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(text: str) -> dict[str, Any]:
    """Return a reply in two, as every engine gives it: a table may hold what a model thought in one text with its answer."""
    reasoning, answer = split(text, DEFAULT_TAGS)
    return {"reply": answer, "reasoning": reasoning}


def _one(value: Any) -> str:
    """RouterBench keeps prompts and replies as lists of one, written out."""
    if isinstance(value, str) and value[:2] in ("['", '["') and value[-2:] in ("']", '"]'):
        import ast

        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return str(value)
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    return _text(value)


def _number(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: expected a number, got {value!r}") from None
    return found if found == found else None


def _usage(read: Any, written: Any, where: str) -> Usage:
    return Usage(int(_number(read, where) or 0), int(_number(written, where) or 0))
