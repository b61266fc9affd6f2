"""data/prepared -> data/episodes: who and what is unseen, and the tasks to be measured on."""

from __future__ import annotations

from pathlib import Path

from metaspeech.data.episodes import split_corpus, stored_episodes, write_episodes, write_pool
from metaspeech.data.store import Store
from metaspeech.data.texts import read_texts
from pipelines._stage import Stage, run_stage

PREPARED = Path("data/prepared")
EPISODES = Path("data/episodes")


def episodes(stage: Stage) -> None:
    config, seed = stage.params.episodes, stage.params.data_seed
    store = Store(PREPARED)
    texts = read_texts(Path(config.held_out_texts)) if config.held_out_texts else ()
    splits = split_corpus(store.manifest, config, seed, texts)
    held_out = {split: stored_episodes(splits, split, config, seed) for split in ("val", "test")}

    write_pool(EPISODES / "train.parquet", splits.pools["train"])
    for split, specs in held_out.items():
        write_episodes(EPISODES / f"{split}.parquet", specs)

    used = {f"{split}_utterances": sum(map(len, pool.values())) for split, pool in splits.pools.items()}
    stage.metrics(
        {
            **{f"{split}_speakers": len(pool) for split, pool in splits.pools.items()},
            **used,
            "utterances_without_split": len(store) - sum(used.values()),
            "speakers_left_out": len(splits.dropped),
            "val_tasks": len(held_out["val"]),
            "test_tasks": len(held_out["test"]),
        }
    )
    if splits.dropped:
        print(f"left out for too few recordings: {', '.join(sorted(splits.dropped))}")


if __name__ == "__main__":
    run_stage("episodes", episodes)
