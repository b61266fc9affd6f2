"""A finished run of prepare: what was left out, and the files that take the place of an earlier result."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metaspeech.config import Prepare
from metaspeech.data.chunks import write_table
from metaspeech.data.manifest import MANIFEST_COLUMNS, REJECTED_COLUMNS, check_manifest
from metaspeech.data.shards import Shard, finished_shards, join_tables
from metaspeech.data.statistics import MelStatistics
from metaspeech.data.store import describe
from metaspeech.errors import UserError
from metaspeech.text.frontend import Frontend

_NOT_FEATURES = ("workers", "max_rejected", "shard_mb", "statistics")


@dataclass(frozen=True)
class Summary:
    """What came of a corpus.

    Attributes:
        utterances, speakers, hours: of what was kept.
        aligned: utterances of which it is known when each symbol is spoken.
        limited: utterances less loud than asked for, because a peak would have clipped.
        rejected: left out here, by reason.
    """

    utterances: int
    speakers: int
    hours: float
    aligned: int
    limited: int
    rejected: dict[str, int]


def publish(
    work: Path, out: Path, corpus: Path, refused: pd.DataFrame, config: Prepare, statistics: MelStatistics | None
) -> Summary:
    """Puts what lies finished in ``work`` in place of an earlier result.

    Everything is written before anything is replaced; the replacing itself needs no space, and ends with store.json.

    Args:
        work: the folder with the shards.
        out: where the result belongs.
        corpus: the folder of the corpus stage, for what it left out.
        refused: rows of the corpus that were left out before a recording was looked at, with their ``reason``.
        config: the section ``prepare`` of the params.
        statistics: what features are normalised by. None: those of the corpus.

    Raises:
        UserError: more was left out than ``max_rejected`` allows.
    """
    done = finished_shards(work)
    kept, rejected = _sort_out(done, refused)
    counts = Counter(reason.partition(":")[0] for reason in rejected["reason"])
    _check_share(rejected, len(kept), counts, work, corpus, config)

    extras = [name for name in kept.column_names if name not in {*MANIFEST_COLUMNS, "path", "reason", "limited"}]
    manifest = kept.select(MANIFEST_COLUMNS + extras)
    check_manifest(manifest, out / "manifest.parquet")
    write_table(manifest, work / "manifest.parquet")
    pd.concat([_rejected_before(corpus), rejected]).to_csv(work / "rejected.csv", index=False)
    index = _index(done, config, statistics or _own_statistics(done))
    index["manifest"] = describe(work / "manifest.parquet")
    (work / "store.json").write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    (out / "store.json").unlink(missing_ok=True)
    for stale in [*out.glob("mel-*.npy"), *out.glob("audio-*.npy")]:
        stale.unlink()
    shards = [path.name for shard in done for path in (shard.mel_path, shard.audio_path)]
    for name in [*shards, "manifest.parquet", "rejected.csv", "store.json"]:
        os.replace(work / name, out / name)
    shutil.rmtree(work)
    return Summary(
        utterances=len(kept),
        speakers=len(pc.unique(kept["speaker"])),
        hours=pc.sum(kept["seconds"]).as_py() / 3600,
        aligned=pc.sum(pc.greater(pc.list_value_length(kept["starts"]), 0)).as_py(),
        limited=pc.sum(kept["limited"]).as_py(),
        rejected=dict(sorted(counts.items())),
    )


def _sort_out(done: list[Shard], refused: pd.DataFrame) -> tuple[pa.Table, pd.DataFrame]:
    """The rows kept, in the order of utt_id, and those left out, which include ``refused``."""
    kept, left_out = [], [refused]
    for shard in done:
        table = pq.read_table(shard.table_path)
        is_kept = pc.equal(table["reason"], "")
        kept.append(table.filter(is_kept))
        left_out.append(table.filter(pc.invert(is_kept)).to_pandas())
    rejected = pd.concat(left_out).assign(stage="prepare").sort_values(["utt_id", "path"])[REJECTED_COLUMNS]
    return (join_tables(kept).sort_by("utt_id") if kept else pa.table({})), rejected


def _check_share(
    rejected: pd.DataFrame, kept: int, counts: Counter[str], work: Path, corpus: Path, config: Prepare
) -> None:
    total = len(rejected) + kept
    if kept and len(rejected) <= config.max_rejected * total:
        return
    rejected.to_csv(work / "rejected.csv", index=False)
    lines = []
    for category, count in counts.most_common():
        example = next(row for row in rejected.itertuples() if str(row.reason).startswith(category))
        lines.append(f"  {count} x {category}, for example {example.utt_id} ({example.path}): {example.reason}")
    limit = (
        f"more than the share of {config.max_rejected:g} that prepare.max_rejected allows"
        if kept
        else "nothing is left"
    )
    raise UserError(
        f"{corpus / 'corpus.parquet'}: {len(rejected)} of {total} utterances had to be left out, {limit}\n"
        + "\n".join(lines)
        + f"\nAll of them are listed in {work / 'rejected.csv'}. Put the recordings right, or change the setting."
    )


def _own_statistics(done: list[Shard]) -> MelStatistics:
    infos = [shard.info() for shard in done]
    frames = sum(info["frames"] for info in infos)
    mean = np.sum([info["sum"] for info in infos], axis=0) / frames
    square = np.sum([info["square"] for info in infos], axis=0) / frames
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-6))  # a band without energy has none
    return MelStatistics(mean.tolist(), deviation.tolist())


def _index(done: list[Shard], config: Prepare, statistics: MelStatistics) -> dict[str, Any]:
    """The content of store.json."""
    return {
        "settings": {name: value for name, value in asdict(config).items() if name not in _NOT_FEATURES},
        "symbols": Frontend(config.text).symbols,
        **asdict(statistics),
        "shards": [shard.info()["files"] for shard in done],
    }


def _rejected_before(corpus: Path) -> pd.DataFrame:
    """What the corpus stage left out."""
    path = corpus / "rejected.csv"
    if not path.is_file():
        return pd.DataFrame(columns=REJECTED_COLUMNS, dtype="str")
    return pd.read_csv(path, dtype="str", keep_default_na=False)[REJECTED_COLUMNS]
