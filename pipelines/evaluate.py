"""Free-running synthesis of the query texts of unseen speakers, and what the judges make of it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from metaspeech.data.episodes import read_episodes
from metaspeech.data.store import Store
from metaspeech.errors import UserError
from metaspeech.evaluation import bench, selfcheck
from metaspeech.evaluation.leakage import Inputs, check_leakage
from metaspeech.evaluation.summary import compact_metrics, curve_table, summarise
from metaspeech.evaluation.systems import headline_shots
from metaspeech.files import replacing
from metaspeech.parallel import ordered_map, worker_count
from metaspeech.registry import MODELS, resolve
from metaspeech.training.checkpoint import fingerprint
from pipelines._stage import Stage, run_stage

PREPARED = Path("data/prepared")
EPISODES = Path("data/episodes")
REMEMBERED = Path(".metaspeech/judges.sqlite")  # what judges have said; results do not depend on it


def evaluate(stage: Stage) -> None:
    params, settings = stage.params, stage.params.evaluate
    voices = [
        bench.Voice(
            model=model,
            algorithm=algorithm,
            seed=seed,
            checkpoint=Path("models/meta_train") / f"{model}-{algorithm}-{seed}",
            adapted=Path("results/adapt") / f"{model}-{algorithm}-{seed}",
        )
        for model in params.models
        for algorithm in params.algorithms
        for seed in params.seeds
    ]
    leakage = check_leakage(
        inputs(voices), Store(PREPARED).manifest,
        text_split=params.episodes.text_split, source=params.corpus.source, judges=settings.judges,
    )  # fmt: skip
    episodes = read_episodes(EPISODES / "test.parquet")
    setup = bench.Bench(
        params=params,
        store=PREPARED,
        episodes=tuple(episodes),
        systems=tuple(bench.systems({name: resolve(MODELS, name) for name in params.models}, params)),
        voices=tuple(voices),
        audible=bench.audible_episodes(episodes, params.report.speakers),
        audio=stage.folder / "audio",
        remembered=REMEMBERED,
    )
    curves = pd.concat([_curves(voice.adapted / "curves.parquet") for voice in voices])
    jobs = list(bench.jobs(setup))
    done = ordered_map(bench.run, jobs, worker_count(settings.workers))
    outcomes = list(tqdm(done, "judging", total=len(jobs), unit="episode", mininterval=1.0))

    utterances = pd.DataFrame([row for outcome in outcomes for row in outcome.rows])
    described = {
        "algorithms": params.algorithms,
        "shots": headline_shots(settings.shots, params.episodes.shots),
        "all_shots": sorted(set(settings.shots)),
        "queries": settings.queries,
        "vocoder_queries": min(settings.queries, settings.vocoder_queries),
        "seed": params.seed,
        "seeds": params.seeds,
        "audible": sorted(setup.audible),
    }
    probes = [row for outcome in outcomes for row in outcome.probes]
    references = utterances[utterances["model"] == ""]
    checks = selfcheck.verdicts(settings.judges, references, probes, resamples=settings.bootstrap, seed=params.seed)
    summary, speakers = summarise(
        utterances, curves, bench.columns(settings.judges), setup.systems, described,
        bootstrap=settings.bootstrap, seed=params.seed, test=settings.test,
        checks=checks, doubted=bench.doubted(checks), leakage=leakage,
    )  # fmt: skip

    for name, table in (("utterances", utterances), ("speakers", speakers)):
        with replacing(stage.folder / f"{name}.parquet") as path:
            table.to_parquet(path, index=False)
    with replacing(stage.folder / "curves.csv") as path:
        curve_table(summary).to_csv(path, index=False)
    with replacing(setup.audio / "panels.npz") as path:
        np.savez_compressed(path, **{name: array for outcome in outcomes for name, array in outcome.panels.items()})
    summary.write(stage.folder / "summary.json")
    stage.track.set_tags({"tasks": fingerprint([asdict(one) for one in episodes])})  # compared with the same alone
    stage.track.log_artifact(stage.folder / "summary.json", "summary")  # from which metaspeech results reads it
    for name, table in [("speakers", speakers), *summary.tables().items()]:
        stage.track.log_table(table, name)
    stage.metrics(compact_metrics(summary))


def inputs(voices: list[bench.Voice]) -> Inputs:
    """What the models were trained on and by, for the search for leaks."""
    models = list(dict.fromkeys(voice.model for voice in voices))
    return Inputs(
        pool=EPISODES / "train.parquet",
        val=EPISODES / "val.parquet",
        test=EPISODES / "test.parquet",
        trained={f"{model}, pretraining": Path("models/pretrain") / model for model in models}
        | {voice.checkpoint.name: voice.checkpoint for voice in voices},
        starts={model: Path("results/pretrain") / model / "start.json" for model in models},
        vectors={model: Path("data/representation") / f"{model}.parquet" for model in models},
    )


def _curves(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's error is a ValueError
        raise UserError(f"{path}: cannot be read: {str(error)[:120]}. Make it again: dvc repro adapt") from None


if __name__ == "__main__":
    run_stage("evaluate", evaluate)
