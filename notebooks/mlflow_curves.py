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
# # Adaptation curves from MLflow
#
# Everything that a stage measures is in MLflow as well: one parent run for an execution of the pipeline, a child for
# each stage. Here the adaptation curves are drawn from there alone, so that executions (of other params, on other
# machines) can be compared. The store is that of `MLFLOW_TRACKING_URI`, else `mlflow.db` in the project.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt

from metaspeech.evaluation.style import colours, label
from metaspeech.tracking import tracking_uri
from metaspeech.tracking.server import connect

# %matplotlib inline

EXPERIMENT = "metaspeech"  # tracking.experiment of params.yaml
ROOT = next((folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "dvc.yaml").is_file()), Path.cwd())
URI = tracking_uri(ROOT)
present = not URI.startswith("sqlite:///") or Path(URI.removeprefix("sqlite:///")).is_file()
client = connect(URI) if present else None
experiment = client.get_experiment_by_name(EXPERIMENT) if client else None
if experiment is None:
    print(
        f"There are no runs in {URI.rpartition('@')[2]} yet: run 'make repro' in {ROOT}. The rest has nothing to show."
    )


def search(condition, order="attributes.start_time DESC"):
    """All runs of the experiment with which it holds."""
    return list(client.search_runs([experiment.experiment_id], condition, order_by=[order], max_results=1000))


# %% [markdown]
# ## Executions
# Parent runs, the last first. A child knows its parent by a tag.

# %%
adapted = {}
if experiment is not None:
    for run in search("tags.stage = 'adapt' and attributes.status = 'FINISHED'"):
        adapted.setdefault(run.data.tags.get("mlflow.parentRunId", ""), []).append(run)
    parents = [client.get_run(run_id) for run_id in adapted if run_id]
    about = [
        (run.info.run_name, run.info.start_time, run.info.status, len(adapted[run.info.run_id])) for run in parents
    ]
    executions = pd.DataFrame(about, columns=["execution", "started (UTC)", "status", "adaptations"])
    display(executions.assign(**{"started (UTC)": pd.to_datetime(executions["started (UTC)"], unit="ms")}))

# %% [markdown]
# ## Curves of the last one
# Metrics with steps: the query loss of unseen speakers after so many steps of adaptation. A stage that DVC took from
# its cache has no history in its run, only the last values (`loss_0`, `loss_5` ...): these are the same figures.


# %%
def curve(run):
    """Adaptation step -> query loss, of a run of the stage adapt."""
    history = {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, "query_loss")}
    kept = {int(key.removeprefix("loss_")): value for key, value in run.data.metrics.items()
            if key.startswith("loss_") and key.removeprefix("loss_").isdigit()}  # fmt: skip
    return pd.Series(history if len(history) > 1 else kept, dtype=float).sort_index()


def named(run):
    """Model, algorithm and seed, of the item ``tacotron-maml-1``."""
    return (*run.data.tags["item"].split("-"), "1")[:3]


if adapted:
    runs = next(iter(adapted.values()))
    table = pd.DataFrame({named(run): curve(run) for run in runs})
    table.columns.names = ["model", "algorithm", "seed"]
    models = sorted(set(table.columns.get_level_values("model")))
    figure, panels = plt.subplots(1, len(models), figsize=(5 * len(models), 3.4), squeeze=False, layout="constrained")
    for axes, model in zip(panels[0], models, strict=True):
        own = table[model]
        shown = colours(sorted(set(own.columns.get_level_values("algorithm"))))
        for algorithm, seeds in own.T.groupby(level="algorithm"):
            axes.fill_between(own.index, seeds.min(), seeds.max(), color=shown[algorithm], alpha=0.15, linewidth=0)
            axes.plot(own.index, seeds.mean(), marker="o", color=shown[algorithm], label=label(algorithm))
        axes.set(title=model, xlabel="adaptation steps", ylabel="query loss on unseen speakers", xticks=own.index)
        axes.legend(frameon=False)
    display(table.T.round(3))

# %% [markdown]
# ## Two executions side by side
# How far the last one differs from the one before, where both have the same step.

# %%
if len(adapted) > 1:
    latest, before = ({named(run): curve(run) for run in runs} for runs in list(adapted.values())[:2])
    both = {key: latest[key] - before[key] for key in latest if key in before}
    display(pd.DataFrame(both).T.dropna(axis="columns").round(3) + 0.0 if both else "They have no algorithm in common.")
elif adapted:
    print("Only one execution has adapted so far: try another value, 'dvc exp run -S inner.rate=0.1'.")
