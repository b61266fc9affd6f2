"""What happened in each stage, in MLflow.

A stage is given a :class:`StageRun` by its frame (``pipelines/_stage.py``) as ``stage.track``::

    stage.track.log_metrics({"loss": 0.7}, step=10)   # buffered, sent in batches
    stage.track.log_figure(figure, "curves")          # figures/curves.png
    stage.track.log_table(frame, "speakers")          # tables/speakers.json
    stage.track.log_artifact("a.wav", "audio")        # audio/a.wav
    stage.track.set_tags({"judge": "resemblyzer"})

The last stage calls ``stage.mirror_cached()`` once: stages that DVC took from its cache then show in MLflow too.
``tracking/server.py`` is the only module that imports mlflow, and only when a run starts.
"""

from metaspeech.tracking.execution import Execution, current
from metaspeech.tracking.record import Record
from metaspeech.tracking.run import StageRun, mirror_cached, stage_run
from metaspeech.tracking.server import tracking_uri

__all__ = ["Execution", "Record", "StageRun", "current", "mirror_cached", "stage_run", "tracking_uri"]
