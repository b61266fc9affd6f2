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
# # Listening and comparing
#
# The voices that differ most first: two starts speak the same text for the same unseen speaker after the same number of
# adaptation steps. Reads `results/evaluate`, which `make repro` makes. `reports/index.html` has the same sound, and a
# blind comparison.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Audio, display
from matplotlib import pyplot as plt

from metaspeech.audio.io import read
from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.style import colours, label
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import condition
from metaspeech.report.findings import best_algorithm
from metaspeech.report.view import doubted

# %matplotlib inline

ROOT = next((folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "dvc.yaml").is_file()), Path.cwd())
EVALUATED = ROOT / "results/evaluate"
ready = (EVALUATED / "summary.json").is_file()
if not ready:
    print(f"There are no results in {EVALUATED} yet: run 'make repro' in {ROOT}. The rest has nothing to show.")

# %% [markdown]
# ## Which two
# The best start and transfer, by the first measure below that was taken and whose judge passed its self-check. Change
# `SYSTEM`, `ONE`, `OTHER` or `STEP` and run on.

# %%
if ready:
    summary = Summary.read(EVALUATED / "summary.json")
    utterances = pd.read_parquet(EVALUATED / "utterances.parquet")
    SYSTEM = next((system for system in summary.systems if system.role == "acoustic"), summary.systems[0])
    algorithms = summary.settings["algorithms"]
    best = best_algorithm(summary, SYSTEM.name) or algorithms[0]
    ONE, OTHER = (best if best != BASELINE else algorithms[-1]), (BASELINE if BASELINE in algorithms else algorithms[0])
    STEP, SHOTS, SEED = SYSTEM.headline_step, summary.settings["shots"], utterances["seed"].min()
    METRIC = next(name for name in ("similarity", "mcd", "phoneme_error", "seconds")
                  if name in utterances and name not in doubted(summary))  # fmt: skip
    print(f"{SYSTEM.title}. {label(ONE)} and {label(OTHER)} after {STEP} steps on {SHOTS} recordings, by {METRIC}.")

# %% [markdown]
# ## How far they differ, speaker by speaker

# %%
if ready:
    here = utterances[(utterances["model"] == SYSTEM.name) & (utterances["step"] == STEP)]
    here = here[(here["shots"] == SHOTS) & (here["seed"] == SEED)]
    wide = here.pivot_table(index=["episode_id", "speaker", "utt_id", "text"], columns="algorithm", values=METRIC)
    wide = wide.assign(difference=wide[ONE] - wide[OTHER]).reset_index()
    wide = wide.reindex(wide["difference"].abs().sort_values(ascending=False).index)
    display(wide[["speaker", "text", OTHER, ONE, "difference"]].head(10).round(3))

# %%
if ready:
    means = wide.groupby("speaker")["difference"].mean().sort_values()
    figure, axes = plt.subplots(figsize=(6.5, 0.6 + 0.28 * len(means)), layout="constrained")
    axes.barh([name[:24] for name in means.index], means, color=colours(algorithms)[ONE])
    axes.axvline(0, color="#6a6a73", linewidth=1)
    axes.set(xlabel=f"{METRIC}: {label(ONE)} less {label(OTHER)}", ylabel="speaker", title=f"After {STEP} steps")

# %% [markdown]
# ## Heard
# The first text of the speakers whose sound is kept (`report.speakers`), those that differ most first.


# %%
def play(episode_id, name, title):
    """A widget, where there is sound."""
    path = EVALUATED / "audio" / episode_id / f"{name}.flac"
    print(f"{title}:" if path.is_file() else f"{title}: nothing to listen to")
    if path.is_file():
        samples, rate = read(path)
        display(Audio(samples, rate=rate))


if ready:
    from html import escape

    first = utterances[utterances["algorithm"] == "real"].drop_duplicates("episode_id")["utt_id"]
    audible = wide[wide["episode_id"].isin(summary.settings["audible"]) & wide["utt_id"].isin(first)]
    for row in audible.head(4).to_dict("records"):
        heading = f"{row['speaker']}: “{row['text']}”, difference {row['difference']:+.3f}"
        display(HTML(f"<h3>{escape(heading)}</h3>"))
        play(row["episode_id"], "real", "recording")
        for algorithm in (OTHER, ONE):
            for step in (0, STEP):
                value = row[algorithm] if step else None
                title = f"{label(algorithm)}, step {step}" + (f", {METRIC} {value:.3f}" if value is not None else "")
                play(row["episode_id"], condition(SYSTEM.name, algorithm, SHOTS, step), title)
