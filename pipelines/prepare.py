"""data/corpus -> data/prepared: recordings and texts to features, and a list of what was left out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from time import perf_counter

from metaspeech import parallel
from metaspeech.data.prepare import corpus_root, prepare_corpus
from metaspeech.ray_pool import ray_pool
from pipelines._stage import Stage, run_stage

CORPUS = Path("data/corpus")
PREPARED = Path("data/prepared")


def prepare(stage: Stage) -> None:
    on_ray = stage.params.engine == "ray"
    with ray_pool([PREPARED], [corpus_root(CORPUS)]) if on_ray else nullcontext(parallel) as pool:
        started = perf_counter()
        summary = prepare_corpus(CORPUS, PREPARED, stage.params.prepare, pool=pool)
    seconds = perf_counter() - started
    stage.metrics(
        {
            "utterances": summary.utterances,
            "speakers": summary.speakers,
            "hours": summary.hours,
            "aligned": summary.aligned,
            "limited": summary.limited,
            "left_out": sum(summary.rejected.values()),
            **({"left_out_by_reason": summary.rejected} if summary.rejected else {}),
        }
    )
    stage.track.log_metrics({"seconds": seconds, "utterances_per_second": summary.utterances / seconds})
    stage.track.log_artifact(PREPARED / "rejected.csv")
    print(f"{summary.utterances} utterances of {summary.speakers} speakers, {summary.hours:.2f} h", end="")
    print(f"; {summary.aligned} aligned" if stage.params.prepare.align != "none" else "", end="")
    print(f"; left out: {summary.rejected}, see {PREPARED / 'rejected.csv'}" if summary.rejected else "")


if __name__ == "__main__":
    run_stage("prepare", prepare)
