"""results/ -> reports/: the page that a person looks at and listens to, and the same in MLflow."""

import json
import re
from pathlib import Path
from typing import Any

from metaspeech.files import replacing
from metaspeech.report.learning import Learning
from metaspeech.report.markdown import build_markdown
from metaspeech.report.overview import overview
from metaspeech.report.page import Provenance, build_page
from metaspeech.report.results import Results
from pipelines._stage import Stage, run_stage

REPORTS = Path("reports")
LOGGED_SPEAKERS = 2  # with audio in MLflow


def report(stage: Stage) -> None:
    title = stage.params.report.title
    results = Results(Path("results/evaluate"))
    figures = {system.name: results.figures(system.name) for system in results.summary.systems}
    learning = Learning(
        Path("results"), Path("data/representation"), results.summary, stage.records(),
        stage.params.represent, stage.params.adapt.tune_steps,
    )  # fmt: skip
    learned = [learning.of(model) for model in stage.params.models]
    page = build_page(results, figures, learned, provenance(stage), title)
    summary = build_markdown(results.summary, title)

    for name, text in (("index.html", page), ("summary.md", summary)):
        with replacing(REPORTS / name) as path:
            path.write_text(text, encoding="utf-8")
    stage.track.log_artifact(REPORTS)
    stage.track.log_artifact("results/evaluate/summary.json", "summary")  # evaluate may have come from DVC's cache
    stage.track.log_table(results.speakers, "speakers")
    stage.track.log_table(learning.predictions, "task_predictions")
    of_models = [(one.model, one.figures) for one in learned]
    for system, named in [*figures.items(), ("breakdown", results.breakdown_figures()), *of_models]:
        for name, figure in named.items():
            stage.track.log_figure(figure, f"{system}-{name}")
    for episode_id in results.summary.settings["audible"][:LOGGED_SPEAKERS]:
        stage.track.log_artifact(results.audio / episode_id, f"audio/{episode_id}")
    stage.mirror_cached()
    glance = overview(results.summary, summary)
    stage.track.set_on_parent(glance.figures, {"best": glance.best, "mlflow.note.content": glance.page})
    clips = len(set(re.findall(r'data-clip="(\d+)"', page)))
    stage.track.log_metrics({"page_megabytes": len(page.encode()) / 1e6})  # it tells of durations, which differ
    stage.metrics({"clips": clips})
    print(f"{REPORTS / 'index.html'}: {len(page.encode()) / 1e6:.1f} MB, {clips} clips")
    print(summary)


def provenance(stage: Stage) -> Provenance:
    """The corpus, and what the records of the stages say."""
    execution = stage.track.execution
    records = stage.records()
    params = {key: value for record in records for key, value in record.params.items()}
    return Provenance(
        corpus=json.loads(Path("data/corpus/corpus.json").read_text(encoding="utf-8")),
        commit=execution.commit,
        dirty=execution.dirty,
        command=execution.reproduce("report"),
        starts=starts(stage.params.models),
        stages=[(record.name, record.seconds) for record in records if record.stage != stage.name],
        params=sorted(params.items()),
    )


def starts(models: list[str]) -> dict[str, Any]:
    """What pretraining of each model began with; without those whose pretraining did not say."""
    paths = {model: Path("results/pretrain") / model / "start.json" for model in models}
    return {model: json.loads(path.read_text(encoding="utf-8")) for model, path in paths.items() if path.exists()}


if __name__ == "__main__":
    run_stage("report", report)
