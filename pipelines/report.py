"""results/ -> reports/: the page that a person looks at and listens to, and the same in MLflow."""

import json
from pathlib import Path

from metaspeech.files import replacing
from metaspeech.report.markdown import build_markdown
from metaspeech.report.page import Provenance, Results, build_page
from pipelines._stage import Stage, run_stage

REPORTS = Path("reports")
LOGGED_SPEAKERS = 2  # with audio in MLflow


def report(stage: Stage) -> None:
    title = stage.params.report.title
    results = Results(Path("results/evaluate"))
    models = results.summary.settings["models"]
    figures = {model: results.figures(model) for model in models}
    page = build_page(results, figures, provenance(stage), title)
    summary = build_markdown(results.summary, title)

    for name, text in (("index.html", page), ("summary.md", summary)):
        with replacing(REPORTS / name) as path:
            path.write_text(text, encoding="utf-8")
    stage.track.log_artifact(REPORTS)
    stage.track.log_table(results.speakers, "speakers")
    for model, named in figures.items():
        for name, figure in named.items():
            stage.track.log_figure(figure, f"{model}-{name}")
    for episode_id in results.summary.settings["audible"][:LOGGED_SPEAKERS]:
        stage.track.log_artifact(results.audio / episode_id, f"audio/{episode_id}")
    stage.mirror_cached()
    clips = sum(clip is not None for model in models for row in results.clips(model) for clip in row["clips"])
    stage.metrics({"page_megabytes": len(page.encode()) / 1e6, "clips": clips})
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
        stages=[(record.name, record.seconds) for record in records if record.stage != stage.name],
        params=sorted(params.items()),
    )


if __name__ == "__main__":
    run_stage("report", report)
