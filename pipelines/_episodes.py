"""Where the stages keep tasks."""

from pathlib import Path

from metaspeech.tasks.files import TaskFiles

EPISODES = Path("data/episodes")


def task_files(model: str) -> TaskFiles:
    """The tasks of a model."""
    return TaskFiles(
        Path("data/prepared"), EPISODES / "train.parquet", Path("data/representation") / f"{model}.parquet"
    )
