"""The tables of utterances and what must hold for them.

pandera takes a second to import, so that happens inside the functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow
import pyarrow.compute as pc

from metaspeech.errors import UserError

if TYPE_CHECKING:
    import pandera.pandas as pa

CORPUS_COLUMNS = ["utt_id", "speaker", "path", "text", "start", "stop"]
MANIFEST_COLUMNS = [
    "utt_id",
    "speaker",
    "text",
    "tokens",
    "starts",
    "seconds",
    "frames",
    "samples",
    "shard",
    "frame_start",
    "sample_start",
]
_ROWS = 10_000  # validated at a time
REJECTED_COLUMNS = ["utt_id", "speaker", "path", "stage", "reason"]


def read_corpus(path: Path) -> pd.DataFrame:
    """The table that the corpus stage wrote: what names an utterance must be there, the rest may be anything.

    Missing texts become empty, so that each is rejected by name and not as a table. ``start`` and ``stop`` are added
    when absent.

    Raises:
        UserError: the file is absent or no parquet, or a column is missing or of the wrong type.
    """
    table = _read_parquet(path, "corpus")
    for name in ("start", "stop"):
        if name not in table:
            table[name] = float("nan")
    if "text" in table:
        table["text"] = table["text"].fillna("")
    return _validated(table, _corpus_schema(), path, "corpus")


def read_manifest(path: Path) -> pd.DataFrame:
    """The table that the prepare stage wrote and checked.

    Raises:
        UserError: the file is absent or no parquet, or lacks a column.
    """
    table = _read_parquet(path, "prepare")
    _demand_columns(table.columns, MANIFEST_COLUMNS, path)
    return table


def check_manifest(table: pyarrow.Table, path: Path) -> None:
    """Raises UserError when the table, which is to be written to ``path``, is not as a manifest must be."""
    _demand_columns(table.column_names, MANIFEST_COLUMNS, path)
    tokens = table["tokens"]
    if not len(table) or pc.min(pc.list_value_length(tokens)).as_py() < 2:
        raise UserError(f"{path}: tokens: an utterance without symbols. Make it again: dvc repro -sf prepare")
    names = table["utt_id"]
    if not pc.all(pc.less(names.slice(0, len(names) - 1), names.slice(1))).as_py():
        raise UserError(f"{path}: utt_id: not sorted, or not unique. Make it again: dvc repro -sf prepare")
    schema = _manifest_schema()
    for start in range(0, len(table), _ROWS):
        part = table.slice(start, _ROWS).drop_columns(["tokens", "starts"]).to_pandas()
        _validated(part, schema, path, "prepare")


def _corpus_schema() -> pa.DataFrameSchema:
    import pandera.pandas as pa

    name = pa.Column(str, pa.Check.str_length(min_value=1))
    sample = pa.Column(float, pa.Check.ge(0), nullable=True, coerce=True)
    return pa.DataFrameSchema(
        {"utt_id": name, "speaker": name, "path": name, "text": pa.Column(str), "start": sample, "stop": sample}
    )


def _manifest_schema() -> pa.DataFrameSchema:
    import pandera.pandas as pa

    name = pa.Column(str, pa.Check.str_length(min_value=1))
    count = pa.Column("int32", pa.Check.gt(0))
    offset = pa.Column("int64", pa.Check.ge(0))
    return pa.DataFrameSchema(
        {
            "utt_id": name,
            "speaker": name,
            "text": name,
            "seconds": pa.Column(float, pa.Check.gt(0)),
            "frames": count,
            "samples": count,
            "shard": pa.Column("int32", pa.Check.ge(0)),
            "frame_start": offset,
            "sample_start": offset,
        }
    )


def _read_parquet(path: Path, stage: str) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path}: no such file. Make it: dvc repro {stage}")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read as parquet ({reason}). Make it again: dvc repro -sf {stage}") from None


def _validated(table: pd.DataFrame, schema: pa.DataFrameSchema, path: Path, stage: str) -> pd.DataFrame:
    from pandera.errors import SchemaError, SchemaErrors

    _demand_columns(table.columns, schema.columns, path)
    try:
        validated: pd.DataFrame = schema.validate(table, lazy=True)
    except (SchemaError, SchemaErrors) as error:
        cases = error.failure_cases
        lines = [f"{row.column}: {row.check}, found {row.failure_case!r}" for row in cases.head(5).itertuples()]
        raise UserError(f"{path}: not as expected ({'; '.join(lines)}). Make it again: dvc repro -sf {stage}") from None
    return validated


def _demand_columns(present: Iterable[str], wanted: Iterable[str], path: Path) -> None:
    present = list(present)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{path}: column {', '.join(missing)} is missing; it has {', '.join(present)}")
