"""What judges say of real speech: ``python -m benchmarks.judge_floors --corpus DIR [--corpus DIR:5] [--write]``.

DIR is a folder of recordings with metadata.csv (docs/corpora.md); a number after it takes so many utterances a speaker.
Similarity is that to centroids of three recordings: utterances from a speaker's fourth on against the first three, the
first three against the last three. The wrong text is the one with the fewest words in common; sentences are told from
39 others of the corpus. Prints a table and one JSON line; ``--write`` keeps them in assets/judge_floors.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from metaspeech.audio.features import resample
from metaspeech.audio.io import read
from metaspeech.evaluation.floors import FLOORS
from metaspeech.evaluation.judges.base import RATE, Candidate, Judge, Query, Setting
from metaspeech.evaluation.selfcheck import wrong_text
from metaspeech.evaluation.statistics import Interval, cluster_bootstrap
from metaspeech.evaluation.verification import similarities, verification
from metaspeech.files import replacing
from metaspeech.registry import JUDGES, resolve

ASSET = Path("assets/judge_floors.json")
ENROLLED = 3  # recordings of a centroid
RESAMPLES, SEED = 2000, 1
MEASURED = [  # judge, metric, of what, column of the table of utterances
    ("similarity", "similarity", "own speaker", "similarity"),
    ("similarity", "similarity", "other speakers", "impostor_similarity"),
    ("similarity", "eer", "recordings", ""),
    ("phonemes", "phoneme_error", "own text", "phoneme_error"),
    ("phonemes", "phoneme_error", "wrong text", "phoneme_error_wrong"),
    ("sentences", "sentence_accuracy", "own text", "sentence_accuracy"),
    ("sentences", "sentence_accuracy", "wrong text", "sentence_accuracy_wrong"),
    ("mos", "mos", "recordings", "mos"),
]


@dataclass(frozen=True)
class Corpus:
    folder: Path
    per_speaker: int | None = None

    @classmethod
    def parse(cls, text: str) -> Corpus:
        folder, _, number = text.rpartition(":")
        return cls(Path(folder), int(number)) if folder and number.isdigit() else cls(Path(text))

    def queries(self) -> list[Query]:
        table = pd.read_csv(self.folder / "metadata.csv", dtype={"speaker": str, "utt_id": str})
        if self.per_speaker:
            table = table.groupby("speaker").head(self.per_speaker)
        return [Query(row.utt_id, row.speaker, row.text, heard(self.folder / row.path)) for row in table.itertuples()]


def heard(path: Path) -> np.ndarray:
    audio, rate = read(path)
    return resample(torch.from_numpy(audio), rate, RATE).numpy()


def measure(queries: list[Query], judges: tuple[str, ...]) -> pd.DataFrame:
    """A row an utterance: speaker and what each of the judges says of it."""
    rows: list[dict[str, Any]] = [{"utt_id": query.utt_id, "speaker": query.speaker} for query in queries]
    texts = [query.text for query in queries]
    if "similarity" in judges:
        for index, scores in verified(queries):
            rows[index].update(scores)
    for name in judges:
        if name == "similarity":
            continue
        judge: Judge = resolve(JUDGES, name)(Setting({}, texts))
        for row, query in zip(rows, tqdm(queries, name, mininterval=5.0), strict=True):
            row.update(judge(query, [Candidate(query.audio)])[0])
            if name in ("phonemes", "sentences"):
                misled = replace(query, text=wrong_text(query.text, texts) or "")
                row.update({f"{key}_wrong": value for key, value in judge(misled, [Candidate(query.audio)])[0].items()})
    return pd.DataFrame(rows)


def verified(queries: list[Query]) -> Iterator[tuple[int, Any]]:
    """Index and scores of each query, against centroids that it is not part of."""
    of: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        of.setdefault(query.speaker, []).append(index)
    for enrolled, tested in ((slice(ENROLLED), slice(ENROLLED, None)), (slice(-ENROLLED, None), slice(ENROLLED))):
        enrolment = {speaker: [queries[index].audio for index in own[enrolled]] for speaker, own in of.items()}
        judge: Judge = resolve(JUDGES, "similarity")(Setting(enrolment, ()))
        for own in tqdm(of.values(), "similarity", mininterval=5.0):
            for index in set(own[tested]) - set(own[enrolled]):
                yield index, judge(queries[index], [Candidate(queries[index].audio)])[0]


def figures(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for judge, metric, of, column in MEASURED:
        if metric == "eer" and "similarity" in table:
            known = table.dropna(subset=["similarity"])
            scores = similarities(known, sorted(set(table["speaker"])))
            found = verification(list(known["speaker"]), scores, resamples=RESAMPLES, seed=SEED)
        elif column in table:
            known = table.dropna(subset=[column])
            means = known.groupby("speaker")[column].mean()
            found = cluster_bootstrap(means, resamples=RESAMPLES, seed=SEED)
        else:
            continue
        rows.append({"judge": judge, "metric": metric, "of": of, **bounds(found), "utterances": len(known)})
    return rows


def bounds(found: Interval) -> dict[str, Any]:
    numbers = {"value": found.mean, "low": found.low, "high": found.high}
    return {**{name: round(number, 4) for name, number in numbers.items()}, "speakers": found.speakers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", required=True, type=Corpus.parse)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    judges = tuple(dict.fromkeys(judge for judge, *_ in MEASURED))
    rows = [
        {"corpus": corpus.folder.name, **row}
        for corpus in given.corpus
        for row in figures(measure(corpus.queries(), judges))
    ]
    packages = sorted({package for name in judges for package in resolve(JUDGES, name).packages})
    result = {"floors": rows, "packages": {package: version(package) for package in packages}}
    print(pd.DataFrame(rows)[FLOORS].to_string(index=False))
    print(json.dumps(result))
    if given.write:
        with replacing(ASSET) as path:
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
