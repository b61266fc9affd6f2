# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A corpus and its tasks
#
# What `make repro` (or `dvc repro episodes`, which takes a few minutes less) left in `data/`: recordings with speaker
# and text, features of them, and tasks. Open it as a notebook with `jupytext --to ipynb notebooks/corpus_and_tasks.py`.

# %%
import json
from pathlib import Path

import pandas as pd
from IPython.display import Audio, display
from matplotlib import pyplot as plt

from metaspeech.data.episodes import read_episodes, read_pool
from metaspeech.data.store import Store

# %matplotlib inline

ROOT = next((folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "dvc.yaml").is_file()), Path.cwd())
PREPARED, EPISODES = ROOT / "data/prepared", ROOT / "data/episodes"
prepared, split = (PREPARED / "store.json").is_file(), (EPISODES / "test.parquet").is_file()
if not prepared:
    print(f"There is no corpus in {PREPARED} yet: run 'dvc repro episodes' in {ROOT}. The rest has nothing to show.")

# %% [markdown]
# ## Who speaks
# `manifest.parquet` has a row for each recording that can be used. What could not is in `rejected.csv`, with the
# reason.

# %%
if prepared:
    store = Store(PREPARED)
    described = json.loads((ROOT / "data/corpus/corpus.json").read_text(encoding="utf-8"))
    print(f"{described['source']}: {len(store)} recordings of {store.manifest['speaker'].nunique()} speakers. "
          f"{described['note']}")  # fmt: skip
    of_speakers = store.manifest.groupby("speaker")["seconds"].agg(recordings="count", seconds="sum", mean="mean")
    display(of_speakers.round(2).head(12))

# %%
if prepared:
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axes.hist(store.manifest["seconds"], bins=30, color="#0072b2")
    axes.set(xlabel="length of a recording (seconds)", ylabel="recordings", title="How long the recordings are")

# %% [markdown]
# ## Who is held out
# Speakers of `val` and `test` were never heard in training; nor, unless `episodes.text_split` is `none`, were their
# texts. A stored task is a speaker with recordings to adapt on (support) and others to be judged on (query).

# %%
if prepared and split:
    tasks = [task for name in ("val", "test") for task in read_episodes(EPISODES / f"{name}.parquet")]
    table = pd.DataFrame(
        [(task.episode_id, task.split, task.speaker, len(task.support), len(task.query)) for task in tasks],
        columns=["task", "split", "speaker", "support", "query"],
    )
    display(table.groupby("split").agg(tasks=("task", "count"), speakers=("speaker", "nunique")))
    display(table.head(8))
    train = read_pool(EPISODES / "train.parquet") if (EPISODES / "train.parquet").is_file() else {}
    shared = set(train) & set(table["speaker"])
    print(f"{len(train)} training speakers; {len(shared)} of them are in a task that is evaluated.")
elif prepared:
    print("There are no tasks yet: run 'dvc repro episodes'.")

# %% [markdown]
# ## One task
# Its texts. None is on both sides.

# %%
if prepared and split:
    task = next(task for task in tasks if task.split == "test")
    sides = [("support", utt_id) for utt_id in task.support] + [("query", utt_id) for utt_id in task.query]
    display(pd.DataFrame([(side, store.manifest.loc[utt_id, "text"]) for side, utt_id in sides],
                         columns=["side", f"what {task.speaker} says"]))  # fmt: skip

# %% [markdown]
# ## One recording, seen and heard
# The log-mel spectrogram is what an acoustic model learns to predict, and what a vocoder makes a waveform of.

# %%
if prepared:
    utt_id = task.support[0] if split else store.manifest.index[0]
    mel, audio, rate = store.mel(utt_id), store.audio(utt_id), store.settings["sample_rate"]
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
    above.plot([place / rate for place in range(len(audio))], audio, linewidth=0.4, color="#0072b2")
    above.set(ylabel="amplitude", title="A recording")
    extent = (0, len(audio) / rate, 0, mel.shape[1])
    image = below.imshow(mel.T, origin="lower", aspect="auto", cmap="magma", extent=extent)
    below.set(xlabel="seconds", ylabel="mel band")
    figure.colorbar(image, ax=below, label="log energy")

# %%
if prepared:
    print(store.manifest.loc[utt_id, "text"])
    display(Audio(audio, rate=rate))
