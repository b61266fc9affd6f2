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
# # What came out
#
# Reads what `make repro` left in `results/evaluate` and shows it with pandas. Open it as a notebook with
# `jupytext --to ipynb notebooks/results.py`, or run it as it is. It needs the project's environment (`make setup`).

# %%
from pathlib import Path

import pandas as pd

from metaspeech.evaluation import plots
from metaspeech.evaluation.style import label
from metaspeech.evaluation.summary import BASELINE, Summary
from metaspeech.report.findings import findings

# %matplotlib inline

ROOT = next((folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "dvc.yaml").is_file()), Path.cwd())
EVALUATED = ROOT / "results" / "evaluate"
if not (EVALUATED / "summary.json").is_file():
    raise SystemExit(f"No results in {EVALUATED} yet. Run 'make repro' in {ROOT}, then this notebook again.")

summary = Summary.read(EVALUATED / "summary.json")
utterances = pd.read_parquet(EVALUATED / "utterances.parquet")
speakers = pd.read_parquet(EVALUATED / "speakers.parquet")
MODEL = summary.settings["models"][0]
STEP = summary.settings["headline_step"]

# %% [markdown]
# ## In words
# The same sentences as on the page, computed from the tables below.

# %%
found = findings(summary, MODEL)
print(found.headline, *found.details, sep="\n- ")

# %% [markdown]
# ## Means over unseen speakers
# `utterances.parquet` has a row for each synthesised utterance. The speaker is the unit: its utterances are averaged
# first, and intervals are bootstrapped over speakers.

# %%
shown = [name for name in ("loss", "similarity", "phoneme_error", "mcd") if name in speakers]
rows = speakers[speakers["model"].isin(["", MODEL])]
rows.groupby(["algorithm", "step"])[shown].mean().rename(index=label, level="algorithm").round(3)

# %% [markdown]
# ## Adaptation curves
# Bands are 95 % intervals; level lines are the real recordings and copy synthesis.

# %%
plots.adaptation_curve(summary, MODEL, "loss")

# %%
plots.adaptation_curve(summary, MODEL, "similarity") if "similarity" in speakers else None

# %%
plots.adaptation_curve(summary, MODEL, "phoneme_error") if "phoneme_error" in speakers else None

# %% [markdown]
# ## Speaker by speaker
# How each speaker's voice compares with the one from transfer after the steps that the page's headline is about.

# %%
here = speakers[(speakers["model"] == MODEL) & (speakers["step"] == STEP)]
metric = "similarity" if "similarity" in speakers else "loss"
wide = here.pivot_table(index="speaker", columns="algorithm", values=metric)
wide.sub(wide[BASELINE], axis=0).round(3) if BASELINE in wide else wide.round(3)

# %% [markdown]
# ## The hardest texts
# Where the recogniser hears least of the text after adaptation.

# %%
adapted = utterances[(utterances["model"] == MODEL) & (utterances["step"] == STEP)]
order = "phoneme_error" if "phoneme_error" in adapted else "seconds"
adapted.sort_values(order, ascending=False)[["algorithm", "speaker", "text", "stopped", order]].head(8)
