"""Searches params.yaml for better values: ``metaspeech sweep sweeps/inner.yaml``. docs/sweeps.md tells more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.files import replacing
from metaspeech.sweeps import engine, snapshot, study
from metaspeech.sweeps import space as spaces
from metaspeech.sweeps.results import ended, results
from metaspeech.sweeps.stages import affected, needed
from metaspeech.sweeps.trials import TrialRunner, end_leftovers
from metaspeech.tracking import Record, tracking_uri
from metaspeech.tracking.trials import Trials
from metaspeech.training.planner import duration

PARAMS, DVC = Path("params.yaml"), Path("dvc.yaml")
STUDIES = Path(".metaspeech/sweeps")
PAGES = Path("results/sweeps")  # no stage's out: reports/ belongs to the stage report, and is made anew by it
RUNS = Path("results/runs")
DRAWS = 4  # of a space, whose mean cost is the forecast


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    space: Path
    study: str
    trials: int = 20
    jobs: int = 1
    minutes: float | None = None
    storage: str = ""
    sampler: str = "tpe"
    engine: str = "local"
    address: str = ""  # of a cluster
    seed: int = 0


def sweep(options: Options) -> None:
    """Runs trials until the study has as many as wanted. The page is written again after each."""
    space, base, stages = read(options)
    folder = _folder(options)
    where = engine.ENGINES[options.engine](options.address, folder, Path.cwd())
    with study.alone(folder, options.study), where as chosen:
        now = snapshot.state(Path.cwd())
        code = snapshot.begun(folder) or now
        opened = study.open_study(
            options.study, folder, options.storage, space, base, code, options.sampler, options.seed
        )
        if code != now:
            print(f"note: the study goes on with {code}, as it began; here is {now}", flush=True)
        end_leftovers(folder)
        again = study.mend(opened)
        taken = snapshot.take(Path.cwd(), folder, config.from_mapping(base))
        taken.forget_running()
        print(f"study {options.study}: {engine.finished(opened)} of {options.trials} trials are there, {again} will be "
              f"run again. What each says: {folder / 'logs'}", flush=True)  # fmt: skip
        for name in snapshot.untracked(Path.cwd()):
            print(f"warning: {name} is unknown to git, so trials do not have it", flush=True)
        taken.share(shared(stages, space), folder / "shared.log")
        threads = chosen.threads(options.jobs)
        runner = TrialRunner(options.study, folder, taken, space, base, stages, tracking_uri(Path.cwd()), threads)

        wanted = engine.Wanted(options.trials, options.jobs, options.minutes and 60 * options.minutes)
        with at_mlflow(options, base) as logged:

            def tell(line: str) -> None:
                print(line, flush=True)
                write(options, space, opened)
                logged.tell(ended(opened, space, options.study))

            try:
                chosen.run(opened, space, runner.run, wanted, tell)
            except KeyboardInterrupt:
                raise UserError("interrupted. Give the same command to go on") from None
        print(f"the page: {write(options, space, opened)}", flush=True)


def report(options: Options) -> str:
    """Writes the page of a study that is there, also while it runs."""
    space, base, _ = read(options)
    if not options.storage and not (_folder(options) / study.JOURNAL).exists():
        raise UserError(f"study {options.study}: there is none yet in {STUDIES}")
    opened = study.load(options.study, _folder(options), options.storage)
    with at_mlflow(options, base) as logged:
        logged.tell(ended(opened, space, options.study))
    return f"the page: {write(options, space, opened)}"


def plan(options: Options) -> list[str]:
    """What would run, and what it would take."""
    from pipelines.plan import plans

    space, base, stages = read(options)
    again = affected(stages, space.target, space.search)
    lines = [f"study {options.study}: {options.trials} trials, {options.jobs} at a time, by {space.source}"]
    lines += [f"  {key}: {domain.describe()}" for key, domain in space.search.items()]
    lines += [f"  {key}: {spaces.text(value)} (fixed)" for key, value in space.fixed.items()]
    lines += [f"  to {one.direction} {one.name}" for one in space.objectives]
    lines.append(f"made once: {', '.join(shared(stages, space)) or 'nothing'}; by each trial: {', '.join(again)}")
    drawn = study.draws(space, DRAWS, options.seed)
    try:
        costs = [sum(one.seconds for *_, one in plans(_params(base, values))) for values in drawn]
    except UserError as error:
        return [*lines, f"no forecast of the time: {error}"]
    rest = _seconds_before([name for name in again if name != "meta_train"])
    known = f"; {', '.join(rest)} as long as the last time, {duration(sum(rest.values()))}" if rest else ""
    each = fmean(costs) + sum(rest.values())
    lines.append(
        f"forecast: {duration(each)} a trial, {duration(each * options.trials / options.jobs)} in all (meta-training "
        f"{duration(min(costs))} to {duration(max(costs))} in {DRAWS} draws of the space{known})"
    )
    missing = [name for name in again if name not in ("meta_train", *rest)]
    lines.append(
        f"not in it: {', '.join(['start-up of the stages (some 10 s each)', *missing])}, trials stopped early, and "
        "that trials at the same time slow each other down"
    )
    return lines


def read(options: Options) -> tuple[spaces.Space, dict[str, Any], Mapping[str, Any]]:
    """The space, params.yaml with the fixed values, and the stages. Raises UserError."""
    for value, known, name in (
        (options.sampler, study.SAMPLERS, "--sampler"),
        (options.engine, engine.ENGINES, "--engine"),
    ):
        if value not in known:
            raise UserError(f"{name}: {value!r} is not one of {', '.join(known)}")
    study.checked_name(options.study)
    config.load(PARAMS)
    base = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    space = spaces.load(options.space, base)
    fixed = spaces.with_values(base, space.fixed, str(options.space))
    return space, fixed, yaml.safe_load(DVC.read_text(encoding="utf-8"))["stages"]


def shared(stages: Mapping[str, Any], space: spaces.Space) -> list[str]:
    """The stages that are the same for all trials."""
    own = affected(stages, space.target, space.search)
    return [name for name in needed(stages, space.target) if name not in own]


def write(options: Options, space: spaces.Space, opened: Any) -> Path:
    """The pages of a study as it is."""
    from metaspeech.sweeps.page import build_markdown, build_page

    found = results(opened, space, options.study)
    for name, text in (("summary.md", build_markdown(found)), ("index.html", build_page(found))):
        with replacing(PAGES / options.study / name) as path:
            path.write_text(text, encoding="utf-8")
    return PAGES / options.study / "index.html"


@contextmanager
def at_mlflow(options: Options, base: Mapping[str, Any]) -> Iterator[Trials]:
    """Logs trials until the end of the block."""
    logged = Trials(options.study, Path.cwd(), config.from_mapping(base).tracking.experiment)
    logged.start()
    try:
        yield logged
    finally:
        logged.close()


def _folder(options: Options) -> Path:
    return (STUDIES / options.study).resolve()


def _params(base: Mapping[str, Any], values: Mapping[str, Any]) -> config.Params:
    return config.from_mapping(spaces.with_values(base, values, "draw"))


def _seconds_before(names: list[str]) -> dict[str, float]:
    """Stage -> what all its items took the last time, for those that have run here."""
    records = {name: [*RUNS.glob(f"{name}.json"), *RUNS.glob(f"{name}/*.json")] for name in names}
    return {name: sum(Record.read(path).seconds for path in paths) for name, paths in records.items() if paths}
