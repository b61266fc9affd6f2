"""The write-up of a study: a Markdown template whose tables, figures and verdicts are made from the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd

from metaspeech.errors import UserError
from metaspeech.evaluation import plots
from metaspeech.evaluation.comparisons import BASELINE
from metaspeech.evaluation.style import label, number
from metaspeech.evaluation.summary import Summary
from metaspeech.evaluation.systems import System
from metaspeech.files import replacing
from metaspeech.report.markdown import aligned, escaped, main_table
from metaspeech.study import targets
from metaspeech.study.runs import StudyRun
from metaspeech.study.targets import Answer, Found
from metaspeech.study.workplace import Done, finished
from metaspeech.training.planner import duration

QUESTIONS = ("steps", "similarity", "hidden cost", "intelligibility")
OF_ALL = ("similarity", "intelligibility")  # those that the baseline is asked too


@dataclass(frozen=True)
class Writer:
    """What a template may call. ``name`` is that of a run, ``system`` as in its tables, such as "tacotron".

    Attributes:
        runs: of the study, by name.
        results: folder with a folder for each finished run.
        images: folder that figures are written to, beside the page.
    """

    runs: Mapping[str, StudyRun]
    results: Path
    images: Path

    def has(self, name: str) -> bool:
        """Whether the run has come to its end."""
        return self._done(name) is not None

    def command(self, name: str) -> str:
        """That makes this run alone."""
        corpus = self.runs[name].corpus
        return f"make study RUNS={name}{f' CORPORA={corpus}=/full/path' if corpus else ''}"

    def took(self, name: str) -> str:
        """The time of a finished run."""
        done = self._done(name)
        if done is None:
            raise UserError(f"run '{name}' of the study is not finished: {self.command(name)}")
        return f"{duration(done.seconds)}, {done.code}"

    def table(self, name: str, system: str, steps: Sequence[int] | None = None, shots: int | None = None) -> str:
        """Every main measure with its interval."""
        summary = self._found(name).summary
        return "\n".join(main_table(summary, _system(summary, system, name), steps, shots))

    def curves(self, name: str, system: str, metric: str) -> str:
        """The means of one measure at all steps: a row an algorithm, a column a number of shots."""
        summary = self._found(name).summary
        of = _system(summary, system, name)
        table = summary.conditions
        table = table[(table["model"] == system) & (table["metric"] == metric)]
        means = table.set_index(["algorithm", "shots", "step"])["mean"]
        shots = sorted(set(table["shots"]))
        steps = sorted(set(table["step"]))
        rows = [[summary.label(metric, of), *(f"{one} recording{'s' * (one > 1)}" for one in shots)]]
        for algorithm in summary.settings["algorithms"]:
            cells = [" / ".join(number(means.get((algorithm, one, step))) for step in steps) for one in shots]
            rows.append([label(algorithm), *cells])
        return "\n".join(aligned(rows)) + f"\n\nAfter {' / '.join(map(str, steps))} steps."

    def figure(self, name: str, system: str, metric: str, shots: int | None = None) -> str:
        """Curves over the steps, with their intervals."""
        summary = self._found(name).summary
        drawn = plots.adaptation_curve(summary, _system(summary, system, name).name, metric, shots)
        drawn.axes[0].legend(frameon=False, fontsize=8)
        title = f"{name}-{system.replace('+', '-')}-{metric}{f'-{shots}' if shots else ''}"
        self.images.mkdir(parents=True, exist_ok=True)
        with replacing(self.images / f"{title}.png") as path:
            drawn.savefig(path, dpi=150, bbox_inches="tight", format="png")
        return f"![{summary.label(metric, summary.system(system))}, {name}]({self.images.name}/{title}.png)"

    def answers(self, name: str, system: str, allowed: float) -> str:
        """Met or missed, a line an algorithm and question. ``allowed``: phoneme error above the recordings'."""
        lines = [
            f"- **{label(algorithm)}, {question}: {'met' if answer.met else 'missed'}.** {escaped(answer.figure)}."
            for algorithm, answers in self._answers(name, system, allowed).items()
            for question, answer in answers.items()
        ]
        return "\n".join(lines)

    def glance(self, system: str, allowed: Mapping[str, float]) -> str:
        """Met or missed in the finished runs of ``allowed`` that have the system: a row an algorithm, a column a
        question."""
        rows = []
        for name, error in allowed.items():
            if self.has(name) and system in self.systems(name):
                answered = self._answers(name, system, error)
                rows += [(name, label(algorithm), answers) for algorithm, answers in answered.items()]
        table = [["Run", "Start", *QUESTIONS]]
        for name, algorithm, answers in rows:
            told = [("met" if answers[one].met else "missed") if one in answers else "" for one in QUESTIONS]
            table.append([name, algorithm, *told])
        return "\n".join(aligned(table))

    def systems(self, name: str) -> list[str]:
        """What the run evaluated."""
        return [one.name for one in self._found(name).summary.systems]

    def page(self, name: str) -> str:
        """Where the run's own page lies: every figure, and sound to compare."""
        return (self.results / name / "index.html").as_posix()

    def _answers(self, name: str, system: str, allowed: float) -> dict[str, dict[str, Answer]]:
        """Algorithm -> question -> answer."""
        found = self._found(name)
        of = _system(found.summary, system, name)
        answers: dict[str, dict[str, Answer]] = {}
        for one in found.summary.settings["algorithms"]:
            told = {
                "steps": targets.steps(found, of, one),
                "similarity": targets.similarity(found, of, one),
                "hidden cost": targets.hidden_cost(found, of, one),
                "intelligibility": targets.intelligibility(found, of, one, allowed),
            }
            answers[one] = {key: answer for key, answer in told.items() if one != BASELINE or key in OF_ALL}
        return answers

    def _done(self, name: str) -> Done | None:
        if name not in self.runs:
            raise UserError(f"the study has no run '{name}'. It has: {', '.join(self.runs)}")
        return finished(self.results / name)

    def _found(self, name: str) -> Found:
        if self._done(name) is None:
            raise UserError(f"run '{name}' of the study is not finished: {self.command(name)}")
        return _read(self.results / name)


def write(template: Path, runs: Sequence[StudyRun], results: Path, page: Path) -> None:
    """Fills the template.

    Raises:
        UserError: no such template, or it asks for what there is not.
    """
    writer = Writer({run.name: run for run in runs}, results, page.with_suffix(""))
    environment = jinja2.Environment(  # the page is Markdown: what comes from files is escaped where it is written
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    try:
        text = environment.get_template(template.name).render(study=writer, runs=runs)
    except jinja2.TemplateNotFound:
        raise UserError(f"{template}: no such file. It is what the study's page is made from") from None
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        raise UserError(f"{template}{f', line {line}' if line else ''}: {error}") from None
    page.parent.mkdir(parents=True, exist_ok=True)
    with replacing(page) as path:
        path.write_text(text, encoding="utf-8")


@cache
def _read(folder: Path) -> Found:
    return Found(Summary.read(folder / "summary.json"), pd.read_parquet(folder / "speakers.parquet"))


def _system(summary: Summary, name: str, run: str) -> System:
    try:
        return summary.system(name)
    except StopIteration:
        known = ", ".join(one.name for one in summary.systems)
        raise UserError(f"run '{run}' of the study has no system '{name}'. It has: {known}") from None
