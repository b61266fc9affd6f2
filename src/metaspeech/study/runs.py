"""What a study consists of: runs of the pipeline, each with a profile and a few values of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metaspeech import config, profiles
from metaspeech.errors import UserError

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
KEYS = {"title", "profile", "corpus", "set"}


@dataclass(frozen=True)
class StudyRun:
    """One run of the pipeline up to the report.

    Attributes:
        name: of its folder, and in tables that the study's page is asked for.
        title: what it asks, for a person.
        profile: in profiles/.
        corpus: name of the folder of recordings that it needs; empty: none.
        settings: ``section.key=value``, over the profile.
    """

    name: str
    title: str
    profile: str
    corpus: str
    settings: tuple[str, ...]

    def params(self, folder: Path, corpora: Mapping[str, Path]) -> config.Params:
        """What its params.yaml says.

        Args:
            folder: of profiles.
            corpora: name -> folder of recordings.

        Raises:
            UserError: no such profile, or a key or value that params may not have.
        """
        where = [f"corpus.path={corpora[self.corpus].absolute()}"] if self.corpus else []
        try:
            return profiles.settings(folder / f"{self.profile}.yaml", [*self.settings, *where])
        except UserError as error:
            raise UserError(f"run '{self.name}' of the study: {error}") from None


def read_runs(path: Path) -> list[StudyRun]:
    """The runs of a study, in order.

    Raises:
        UserError: the file is missing, no YAML, or names a run or key that cannot be.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. It lists the runs of the study, by name") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path}: expected runs by name, each with {', '.join(sorted(KEYS))}")
    return [_run(path, str(name), values) for name, values in content.items()]


def chosen(runs: Sequence[StudyRun], names: Sequence[str]) -> list[StudyRun]:
    """Those of the names, or all. Raises UserError for a name that no run has."""
    known = {run.name: run for run in runs}
    for name in names:
        if name not in known:
            raise UserError(f"the study has no run '{name}'. It has: {', '.join(known)}")
    return [known[name] for name in names] if names else list(runs)


def _run(path: Path, name: str, values: Any) -> StudyRun:
    if not NAME.fullmatch(name):
        raise UserError(f"{path}: '{name}': a run's name has a to z, 0 to 9 and '-' alone, since a folder is called so")
    if not isinstance(values, Mapping) or not {"title", "profile"} <= set(values) <= KEYS:
        raise UserError(f"{path}: {name}: expected title and profile, and perhaps corpus and set")
    settings = values.get("set") or []
    if not isinstance(settings, list) or not all(isinstance(one, str) for one in settings):
        raise UserError(f"{path}: {name}.set: expected a list of section.key=value, for example [inner.rate=0.1]")
    texts = {key: str(values.get(key) or "") for key in ("title", "profile", "corpus")}
    return StudyRun(name, **texts, settings=tuple(settings))
