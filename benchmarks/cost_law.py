"""Whether the forecast of cost holds: ``python -m benchmarks.cost_law [--rounds 3] [--out docs/images/cost_law.png]``.

The small Tacotron with the batches of benchmarks.outer_step. Outer gradients with several numbers of inner steps, and
of several tasks, are measured and held against what metaspeech.training.planner says from the cost of one task with one
to four inner steps. Prints a table, then one JSON line, and draws one figure.

Time is processor time in units of U (forward and backward over support and query once), the median over rounds. Memory
is that of tensors, counted, and beside it what the process grows by beyond its highest before (VmHWM, Linux), which is
more where the C library keeps what is freed, and less where memory that was freed before is used again. It is measured
in a process of its own that has taken one gradient of a toy task before. Errors are relative and only of what was
predicted from other measurements: more than three inner steps, or several tasks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

from benchmarks import outer_step
from benchmarks.outer_step import INNER, outer, problem, timed, unit
from metaspeech.evaluation.plots import bare
from metaspeech.evaluation.style import INK, MUTED, PALETTE, colours, label, markers
from metaspeech.training.memory import LiveTensors
from metaspeech.training.planner import COUNTED, MOST, TIMED, gradient_bytes, gradient_seconds, on_line

STEPS, TASKS, SOLVER = (1, 2, 3, 5, 8), (1, 2, 4, 8), 5
CASES: dict[str, tuple[str, bool]] = {  # name -> algorithm, recomputed
    "maml": ("maml", False),
    "maml, recomputed": ("maml", True),
    "imaml": ("imaml", False),
    "fomaml": ("fomaml", False),
    "reptile": ("reptile", False),
    "anil": ("anil", False),
}
# operations of a task in units of U, by inner steps (docs/algorithms.md)
LAW: dict[str, Callable[[int], float]] = {
    "maml": lambda n: (9 * n + 3) / 6,
    "maml, recomputed": lambda n: (9 * n + 3) / 6 + n / 2,
    "imaml": lambda n: (n + 1) / 2 + SOLVER,
    "fomaml": lambda n: (n + 1) / 2,
    "reptile": lambda n: n / 2,
}
MIB = 2**20
Point = tuple[str, int, int]  # case, inner steps, tasks
POINTS: list[Point] = [(case, n, 1) for case in CASES for n in STEPS] + [
    (case, INNER, tasks) for case in CASES for tasks in TASKS[1:]
]


@dataclass(frozen=True)
class Figures:
    """By point: time in U, tensors and what the process grew by in MiB; ``predicted``: (time, tensors)."""

    time: dict[Point, float]
    tensors: dict[Point, float]
    process: dict[Point, float]
    predicted: dict[Point, tuple[float, float]]


def values(case: str) -> dict[str, Any]:
    kind, recompute = CASES[case]
    return {"kind": kind, "recompute": recompute}


def run(rounds: int) -> Figures:
    steps = {point: outer(**values(point[0]), steps=point[1], tasks=point[2]) for point in POINTS}
    one = unit(outer_step.model())
    for warm in (one, *(steps[case, 1, 1] for case in CASES)):
        warm()
    times = [
        {point: _in_units(one, lambda step=step: timed(step)) for point, step in steps.items()} for _ in range(rounds)
    ]
    probes = [
        {(case, number): _in_units(one, _probe(case, number)) for case in CASES for number in TIMED}
        for _ in range(rounds)
    ]
    memory = {point: _in_a_process(point) for point in POINTS}
    predicted = {}
    for case, steps_, tasks in POINTS:
        seconds = {number: median(one[case, number] for one in probes) for number in TIMED}
        tensors = {number: _counted(case, number) for number in COUNTED}
        predicted[case, steps_, tasks] = (
            tasks * on_line(seconds, steps_),
            on_line(tensors, steps_) + (tasks > 1) * _parameters(),
        )
    return Figures(
        {point: median(one[point] for one in times) for point in POINTS},
        {point: tensors for point, (tensors, _) in memory.items()},
        {point: process for point, (_, process) in memory.items()},
        predicted,
    )


def _in_units(one: Callable[[], None], measure: Callable[[], float]) -> float:
    """A time over U, which is measured just before and after: other work on the machine slows both."""
    before, found, after = timed(one), measure(), timed(one)
    return 2 * found / (before + after)


def _probe(case: str, number: int) -> Callable[[], float]:
    """What the planner measures of the time of one task."""
    algorithm, loss_fn, start, episodes = problem(**values(case), steps=number)
    return lambda: gradient_seconds(algorithm, loss_fn, start, episodes[0], clock=thread_time)


@cache
def _counted(case: str, number: int) -> float:
    """What the planner counts of the memory of one task, MiB."""
    algorithm, loss_fn, start, episodes = problem(**values(case), steps=number)
    return gradient_bytes(algorithm, loss_fn, start, episodes[0]) / MIB


@cache
def _parameters() -> float:
    """MiB: a second task holds the gradient of the first meanwhile."""
    return sum(value.nbytes for value in problem("fomaml")[2].values()) / MIB


def _in_a_process(point: Point) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.cost_law", "--peak", *map(str, point)]
    tensors, process = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(tensors), float(process)


def peak(point: Point) -> tuple[float, float]:
    """MiB of tensors, and by which this process grows."""
    case, steps, tasks = point
    toy = problem(**values(case), steps=1)
    small = outer_step.task(0)
    small = type(small)("toy", _first(small.support), _first(small.query), 0)
    toy[0].outer_gradient(toy[1], toy[2], [small])
    step = outer(**values(case), steps=steps, tasks=tasks)
    before = outer_step.highest()
    step()
    grown = outer_step.highest() - before
    live = LiveTensors()
    with live:
        step()
    return live.peak / MIB, grown


def _first(batch: Any) -> Any:
    """The first characters and frames of a batch's first utterance."""
    lengths = {"token_lengths": 4, "mel_lengths": 8, "audio_lengths": 8 * outer_step.FEATURES.hop}
    cuts = {"tokens": 4, "mels": 8, "audio": 8 * outer_step.FEATURES.hop}
    cut = {name: getattr(batch, name)[:1, :length] for name, length in cuts.items()}
    return type(batch)(**cut, **{name: torch.tensor([length]) for name, length in lengths.items()})


def errors(figures: Figures, of: str) -> list[float]:
    """Relative, of "time" or "tensors", where the planner had not measured."""
    place, found = (0 if of == "time" else 1), getattr(figures, of)
    ahead = [point for point in POINTS if point[1] > MOST or point[2] > 1]
    return [abs(figures.predicted[point][place] / found[point] - 1) for point in ahead]


def draw(figures: Figures) -> Figure:
    kinds = [case for case in CASES if case != "maml, recomputed"]
    colour = colours(kinds) | {"maml, recomputed": PALETTE[5]}
    marker = markers(kinds) | {"maml, recomputed": "P"}
    figure = Figure(figsize=(10.6, 8.6), layout="constrained", facecolor="white")
    grid = figure.subplots(2, 2, sharex="col")
    axis = {  # panel column -> (points of a case, its place in a point, label)
        0: (lambda case: [(case, n, 1) for n in STEPS], 1, "inner steps N, of one task"),
        1: (lambda case: [(case, INNER, tasks) for tasks in TASKS], 2, f"tasks, of {INNER} inner steps each"),
    }
    for column, (points_of, place, name) in axis.items():
        top, bottom = grid[0, column], grid[1, column]
        for case in CASES:
            points = points_of(case)
            x, look = [point[place] for point in points], {"color": colour[case], "linewidth": 1.6}
            dots = {"color": colour[case], "marker": marker[case], "linestyle": "", "markersize": 6}
            top.plot(x, [figures.predicted[point][0] for point in points], **look)
            if case in LAW:
                law = [point[2] * LAW[case](point[1]) for point in points]
                top.plot(x, law, color=colour[case], linewidth=1.1, linestyle=(0, (1, 2.2)))
            top.plot(x, [figures.time[point] for point in points], **dots)
            bottom.plot(x, [figures.predicted[point][1] for point in points], **look)
            bottom.plot(x, [figures.tensors[point] for point in points], **dots)
            bottom.plot(x, [figures.process[point] for point in points], **dots | {"markerfacecolor": "none"})
        for axes in (top, bottom):
            bare(axes)
            axes.set_xticks([point[place] for point in points_of("maml")])
        bottom.set_yscale("log", base=2)
        bottom.yaxis.set_major_formatter(ScalarFormatter())
        bottom.set_xlabel(name)
        top.set_ylim(bottom=0)
    highest = max(axes.get_ylim()[1] for axes in grid[1])
    lowest = min(axes.get_ylim()[0] for axes in grid[1])
    for axes in grid[1]:
        axes.set_ylim(lowest, highest)
    grid[0, 0].set_ylabel("time of an outer gradient, in U")
    grid[1, 0].set_ylabel("memory at the highest, MiB (log scale)")
    names = {case: label(case) if case in kinds else "MAML, recomputed" for case in CASES}
    legend = [
        Line2D([], [], color=colour[case], marker=marker[case], linewidth=1.6, label=names[case]) for case in CASES
    ]
    grey: Mapping[str, Any] = {"color": MUTED, "markersize": 6}
    legend += [
        Line2D([], [], **grey, marker="o", linestyle="", label="measured (memory: of tensors)"),
        Line2D([], [], **grey, linewidth=1.6, label="predicted from one task, N up to 4"),
        Line2D([], [], **grey, linewidth=1.1, linestyle=(0, (1, 2.2)), label="counted operations (time)"),
        Line2D([], [], **grey, marker="o", linestyle="", markerfacecolor="none", label="process growth (memory)"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=5, frameon=False, fontsize=9, labelcolor=INK)
    return figure


def table(figures: Figures) -> str:
    heads = ("N", "tasks", "time / U", "predicted", "counted", "MiB", "predicted", "process")
    row = "{:18}{:>3}{:>6}{:>10}{:>10}{:>9}{:>8}{:>10}{:>9}"
    lines = [row.format("", *heads)]
    for point in POINTS:
        case, steps, tasks = point
        law = f"{tasks * LAW[case](steps):.2f}" if case in LAW else ""
        time, tensors = figures.predicted[point]
        memory = [f"{value:.1f}" for value in (figures.tensors[point], tensors, figures.process[point])]
        lines.append(row.format(case, steps, tasks, f"{figures.time[point]:.2f}", f"{time:.2f}", law, *memory))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/images/cost_law.png"))
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak:
        print(*peak((given.peak[0], int(given.peak[1]), int(given.peak[2]))))
        return
    figures = run(given.rounds)
    print(table(figures))
    draw(figures).savefig(given.out, dpi=150)
    found = {of: errors(figures, of) for of in ("time", "tensors")}
    held = [figures.process[point] / figures.tensors[point] for point in POINTS]
    print(json.dumps({
        "time_error_median": round(median(found["time"]), 3),
        "time_error_largest": round(max(found["time"]), 3),
        "memory_error_median": round(median(found["tensors"]), 3),
        "memory_error_largest": round(max(found["tensors"]), 3),
        "process_of_tensors_median": round(median(held), 2),
        "process_of_tensors_largest": round(max(held), 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
