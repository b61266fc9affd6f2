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
# # MAML and Reptile on sinusoids
#
# The smallest problem that shows what meta-learning is (Finn et al. 2017, section 5.1). A task is a sine wave of
# unknown amplitude and phase; a few of its points are given, the rest is to be predicted. A network trained on all
# waves at once can only learn their mean. One that was meta-trained starts where a few gradient steps lead far.
#
# The algorithms are those of this project (`metaspeech.meta`), given an MLP instead of a synthesiser by
# `benchmarks/sinusoid.py`. Trained here for a few hundred outer steps, so that it takes less than a minute;
# `python -m benchmarks.sinusoid` trains as long as published and prints every algorithm.

# %%
import sys
from pathlib import Path

import torch
from matplotlib import pyplot as plt

ROOT = next((folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "dvc.yaml").is_file()), Path.cwd())
sys.path.insert(0, str(ROOT))

from benchmarks.sinusoid import Recipe, Sinusoid, expanded, together, train  # noqa: E402
from metaspeech.evaluation.style import colours, label  # noqa: E402
from metaspeech.models.base import with_parameters  # noqa: E402
from metaspeech.training.adaptation import adaptation_curve  # noqa: E402

# %matplotlib inline

SEED, SHOTS, STEPS, TASKS = 0, 10, (0, 1, 2, 3, 5, 10), 200
RECIPES = {
    "transfer": Recipe("transfer", 500, 1),
    "reptile": Recipe("reptile", 1000, 5, 0.02, tasks=1, reptile_rate=0.1),
    "maml": Recipe("maml", 500, 1),
}
COLOURS = colours(list(RECIPES))
torch.set_num_threads(1)

# %% [markdown]
# ## Meta-training
# Transfer: the gradient of the mean loss over tasks. MAML: the gradient of the loss *after* a step of adaptation,
# through that step. Reptile: a little of the way to where five steps of adaptation lead.

# %%
trained = {name: train(recipe, SEED) for name, recipe in RECIPES.items()}

# %% [markdown]
# ## Adaptation to new tasks
# Mean squared error over 200 waves that none was trained on, each given 10 points, after so many gradient steps of rate
# 0.02 (MAML: the rate of its training, 0.01). All start about as badly, since one network cannot be every wave. They
# differ in how far the first steps lead.

# %%
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
errors = {}
for name, (algorithm, loss_fn, params) in trained.items():
    rate = 0.02 if name == "transfer" else None
    curve = adaptation_curve(
        loss_fn, algorithm, expanded(params, TASKS), together(range(TASKS), SHOTS, 100), STEPS, rate
    )
    errors[name] = [losses["loss"] / TASKS for _, losses, _ in curve]
    axes.plot(STEPS, errors[name], marker="o", color=COLOURS[name], label=label(name))
axes.set(xlabel="adaptation steps", ylabel="mean squared error on new waves", title="Ten points of a new wave", ylim=0)
axes.legend(frameon=False)
for name, values in errors.items():
    print(f"{label(name):10} {' '.join(f'{value:5.2f}' for value in values)}   after {STEPS} steps")

# %% [markdown]
# ## Seen
# One wave (grey), the ten points that are given (black), and the network before, after one and after ten steps.


# %%
def predicted(params, x):
    model = with_parameters(Sinusoid(), {key: value[0] for key, value in params.items()})
    with torch.no_grad():
        return model.last(model.body((x, x))[0])


x = torch.linspace(-5, 5, 200)[:, None]
task = together([7], SHOTS, 200)
figure, panels = plt.subplots(1, len(trained), figsize=(10.5, 3.2), sharey=True, layout="constrained")
given, wave = ([part[0, :, 0] for part in points] for points in (task.support, task.query))
for axes, (name, (algorithm, loss_fn, params)) in zip(panels, trained.items(), strict=True):
    order = wave[0].argsort()
    axes.plot(wave[0][order], wave[1][order], color="#bbbbbb", linewidth=4)
    rate = 0.02 if name == "transfer" else None
    for (step, _, adapted), style in zip(
        adaptation_curve(loss_fn, algorithm, expanded(params, 1), task, (0, 1, 10), rate), (":", "--", "-"), strict=True
    ):
        network = {key: value for key, value in adapted.items() if key in dict(Sinusoid().named_parameters())}
        axes.plot(x[:, 0], predicted(network, x)[:, 0], style, color=COLOURS[name], label=f"step {step}")
    axes.plot(*given, "k.", markersize=7)
    axes.set(title=label(name), xlabel="x")
    axes.legend(frameon=False, fontsize=8)
panels[0].set_ylabel("y")
