"""data/corpus -> data/prepared: recordings and texts to features, and a list of what was left out."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from metaspeech.data.prepare import prepare_corpus
from pipelines._stage import Stage, run_stage

CORPUS = Path("data/corpus")
PREPARED = Path("data/prepared")


def prepare(stage: Stage) -> None:
    started = perf_counter()
    summary = prepare_corpus(CORPUS, PREPARED, stage.params.prepare)
    seconds = perf_counter() - started
    stage.metrics(
        {
            "utterances": summary.utterances,
            "speakers": summary.speakers,
            "hours": summary.hours,
            "limited": summary.limited,
            "left_out": sum(summary.rejected.values()),
            **({"left_out_by_reason": summary.rejected} if summary.rejected else {}),
        }
    )
    stage.track.log_metrics({"seconds": seconds, "utterances_per_second": summary.utterances / seconds})
    stage.track.log_artifact(PREPARED / "rejected.csv")
    print(f"{summary.utterances} utterances of {summary.speakers} speakers, {summary.hours:.2f} h", end="")
    print(f"; left out: {summary.rejected}, see {PREPARED / 'rejected.csv'}" if summary.rejected else "")


if __name__ == "__main__":
    run_stage("prepare", prepare)
