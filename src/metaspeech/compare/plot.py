"""A comparison as a figure: differences with their intervals, a panel a system and metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from metaspeech.compare.differences import HIGHER, Difference
from metaspeech.evaluation.style import INK, MARKERS, MUTED, PALETTE, RULE, label, number
from metaspeech.files import replacing
from metaspeech.report.view import NAMES


def differences_plot(first: str, found: Sequence[Difference]) -> Figure:
    """Systems down, metrics across; a filled marker is a significant difference, a hollow one is not."""
    found = [one for one in found if not one.identical] or found
    systems = list(dict.fromkeys(one.model for one in found))
    metrics = list(dict.fromkeys(one.metric for one in found))
    others = list(dict.fromkeys(one.other for one in found))
    algorithms = list(dict.fromkeys(one.algorithm for one in found))
    height = 0.9 + 0.2 * len(algorithms) * max(1.0, 0.7 * len(others))
    figure = Figure(
        figsize=(max(6.4, 1.8 + 2.9 * len(metrics)), 0.8 + height * len(systems)), layout="constrained", dpi=120
    )
    axes = figure.subplots(len(systems), len(metrics), squeeze=False)
    for row, system in enumerate(systems):
        named = False
        for column, metric in enumerate(metrics):
            panel = axes[row][column]
            shown = [one for one in found if one.model == system and one.metric == metric]
            if not shown:
                panel.set_axis_off()
                continue
            panel.axvline(0, color=MUTED, linewidth=0.8)
            for one in shown:
                colour, marker = _look(others.index(one.other))
                place = algorithms.index(one.algorithm) + 0.22 * (others.index(one.other) - (len(others) - 1) / 2)
                panel.plot([one.low, one.high], [place, place], color=colour, linewidth=1.6, alpha=0.9)
                panel.plot(
                    one.difference, place, marker, color=colour, markersize=6, markeredgewidth=1.4,
                    markerfacecolor=colour if one.significant else "white",
                )  # fmt: skip
            _dress(panel, algorithms, "" if named else system, metric)
            named = True
    handles = [
        figure.axes[0].plot([], [], _look(index)[1], color=_look(index)[0], label=f"{name} − {first}")[0]
        for index, name in enumerate(others)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(others)), frameon=False, fontsize=8)
    step = ", ".join(str(one) for one in sorted({one.step for one in found}))
    speakers = number(min(one.speakers for one in found)).split(".")[0]
    figure.suptitle(
        f"After {step} adaptation steps, {speakers} speakers, 95 % intervals; filled: significant (Holm)",
        fontsize=9, color=MUTED, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def save(figure: Figure, path: Path) -> None:
    """As png, svg or pdf, by the suffix."""
    with replacing(path) as temporary:
        figure.savefig(temporary)


def _dress(panel: object, algorithms: Sequence[str], system: str, metric: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(panel, Axes)
    panel.set_yticks(range(len(algorithms)), [label(name) for name in algorithms], fontsize=8)
    panel.set_ylim(len(algorithms) - 0.4, -0.6)
    panel.tick_params(axis="x", labelsize=8, colors=INK)
    better = "→ better" if metric in HIGHER else "← better"
    panel.set_title(f"{NAMES.get(metric, metric)}  {better}", fontsize=9, loc="left", color=INK)
    if system:
        panel.set_ylabel(system, fontsize=9, color=INK)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(RULE)


def _look(index: int) -> tuple[str, str]:
    return PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
