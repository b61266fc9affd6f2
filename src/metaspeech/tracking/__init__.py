"""What happened in each stage, in MLflow.

A stage is given a :class:`StageRun` by its frame (``pipelines/_stage.py``) as ``stage.track``::

    stage.track.log_metrics({"loss": 0.7}, step=10)   # appended to a file, delivered beside
    stage.track.log_figure(figure, "curves")          # figures/curves.png
    stage.track.log_table(frame, "speakers")          # tables/speakers.json
    stage.track.log_image(alignment, "alignment", 20) # with a slider over steps
    stage.track.log_artifact("a.wav", "audio")        # audio/a.wav
    stage.track.set_tags({"judge": "resemblyzer"})

The last stage calls ``stage.mirror_cached()`` once: stages that DVC took from its cache then show in MLflow too.

| module | what |
|---|---|
| run | what a stage logs, and its record |
| spool | where it waits, on disk |
| delivery, parcel | from there to the server, in a thread of the stage or by ``metaspeech deliver`` |
| server | the calls: the only importer of mlflow besides system |
"""

from metaspeech.tracking.execution import Execution, current
from metaspeech.tracking.record import Record
from metaspeech.tracking.run import StageRun, stage_run
from metaspeech.tracking.server import tracking_uri

__all__ = ["Execution", "Record", "StageRun", "current", "stage_run", "tracking_uri"]
