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
from IPython.display import display

from metaspeech.evaluation import plots
from metaspeech.evaluation.breakdown import METRICS, breakdowns
from metaspeech.evaluation.comparisons import BASELINE, START
from metaspeech.evaluation.style import in_sentence, label
from metaspeech.evaluation.summary import Summary
from metaspeech.report.findings import best_algorithm, findings

# %matplotlib inline

ROOT = next((folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "dvc.yaml").is_file()), Path.cwd())
EVALUATED = ROOT / "results" / "evaluate"
if not (EVALUATED / "summary.json").is_file():
    raise SystemExit(f"No results in {EVALUATED} yet. Run 'make repro' in {ROOT}, then this notebook again.")

summary = Summary.read(EVALUATED / "summary.json")
utterances = pd.read_parquet(EVALUATED / "utterances.parquet")
speakers = pd.read_parquet(EVALUATED / "speakers.parquet")
SYSTEM = summary.systems[0]  # the whole way from text to sound; summary.systems has its parts, the models, as well
MODEL, STEP = SYSTEM.name, SYSTEM.headline_step
MEASURED = set(summary.conditions[summary.conditions["model"] == MODEL]["metric"])

# %% [markdown]
# ## In words
# The same sentences as on the page, computed from the tables below.

# %%
for system in summary.systems:
    found = findings(summary, system.name)
    print(system.title, found.headline, *found.details, sep="\n- ")

# %% [markdown]
# ## Means over unseen speakers
# `utterances.parquet` has a row for each synthesised utterance. The speaker is the unit: its utterances are averaged
# first, and intervals are bootstrapped over speakers.

# %%
shown = [name for name in ("loss", "similarity", "phoneme_error", "mcd") if name in MEASURED]
rows = speakers[speakers["model"].isin(["", MODEL])]
rows.groupby(["algorithm", "step"])[shown].mean().rename(index=label, level="algorithm").round(3)

# %% [markdown]
# ## Adaptation curves
# Bands are 95 % intervals; level lines are the real recordings and copy synthesis. The loss of a vocoder is bits per
# sample; a chain of two models has none.

# %%
for model in (system.name for system in summary.systems if system.loss_label):
    display(plots.adaptation_curve(summary, model, "loss"))

# %%
plots.adaptation_curve(summary, MODEL, "similarity") if "similarity" in MEASURED else None

# %%
plots.adaptation_curve(summary, MODEL, "phoneme_error") if "phoneme_error" in MEASURED else None

# %% [markdown]
# ## What adaptation changes
# Differences to step 0 of the same algorithm, speaker by speaker, with the p of an exact test, adjusted over the
# algorithms.

# %%
tests = summary.comparisons
tests = tests[(tests["against"] == START) & (tests["step"] == STEP)]
tests.set_index(["model", "algorithm", "metric"])[["difference", "low", "high", "p_holm", "speakers"]].round(3)

# %% [markdown]
# ## Where the damage comes from
# With a vocoder among the models: from the recording to the end, over the same texts.

# %%
labels = summary.columns.set_index("name")["label"]
chosen = {name: labels[name] for name in METRICS if name in labels}
for one in breakdowns(summary):
    display(plots.breakdown_plot(one, chosen, summary.settings["algorithms"]))
    for name, text in chosen.items():
        print(one.sentence(name, in_sentence(text), best_algorithm(summary, one.system.name)) or "")

# %% [markdown]
# ## Speaker by speaker
# How each speaker's voice compares with the one from transfer after the steps that the page's headline is about.

# %%
here = speakers[(speakers["model"] == MODEL) & (speakers["step"] == STEP)]
metric = next(name for name in ("similarity", "loss", "mcd") if name in MEASURED)
wide = here.pivot_table(index="speaker", columns="algorithm", values=metric)
wide.sub(wide[BASELINE], axis=0).round(3) if BASELINE in wide else wide.round(3)

# %% [markdown]
# ## The hardest texts
# Where the recogniser hears least of the text after adaptation.

# %%
adapted = utterances[(utterances["model"] == MODEL) & (utterances["step"] == STEP)]
order = "phoneme_error" if "phoneme_error" in adapted else "seconds"
adapted.sort_values(order, ascending=False)[["algorithm", "speaker", "text", "stopped", order]].head(8)
