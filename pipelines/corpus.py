"""params -> data/corpus: speech with speaker and text, generated or listed, and a list of what was left out."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from metaspeech import registry
from metaspeech.corpora.base import Corpus
from pipelines._stage import Stage, run_stage

CORPUS = Path("data/corpus")


def corpus(stage: Stage) -> None:
    config = stage.params.corpus
    source: Corpus = registry.resolve(registry.CORPORA, config.source)()
    started = perf_counter()
    info = source.build(config, CORPUS, stage.params.data_seed, workers=0)
    stage.track.log_metrics({"seconds": perf_counter() - started})
    stage.track.log_artifact(CORPUS / "corpus.json")
    stage.track.log_artifact(CORPUS / "rejected.csv")
    stage.metrics(
        {"speakers": info.speakers, "utterances": info.utterances, "rejected": info.rejected, "hours": info.hours}
    )
    print(f"{info.source}: {info.speakers} speakers, {info.utterances} utterances, {info.hours:.2f} h. {info.note}")
    if info.rejected:
        print(f"{info.rejected} left out, see {CORPUS / 'rejected.csv'}")


if __name__ == "__main__":
    run_stage("corpus", corpus)
