"""Episodes with what an algorithm needs to be told of them."""

from pathlib import Path

from metaspeech.config import Params
from metaspeech.data.episodes import read_pool
from metaspeech.data.store import Store
from metaspeech.data.tensors import EpisodeMaker
from metaspeech.meta.base import MetaAlgorithm
from metaspeech.tasks.context import TaskContext
from metaspeech.tasks.representation import read_representation

EPISODES = Path("data/episodes")


def episode_maker(store: Store, params: Params, algorithm: MetaAlgorithm) -> EpisodeMaker:
    """Vectors and neighbours of tasks are looked up only for an algorithm that asks for them."""
    if not algorithm.needs:
        return EpisodeMaker(store, params.seed)
    table, pool = read_representation(EPISODES / "representation.parquet"), read_pool(EPISODES / "train.parquet")
    return EpisodeMaker(store, params.seed, TaskContext(store, table, pool, algorithm.needs, params.episodes.shots).add)
