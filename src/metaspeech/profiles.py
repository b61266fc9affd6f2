"""Profiles: small YAML files of settings that replace a whole params file, keeping its comments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tokens import CommentToken

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.files import replacing

Change = tuple[str, Any, Any]  # key, value before, value after; None: absent


def names(folder: Path) -> list[str]:
    """The profiles in a folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def settings(profile: Path, assignments: Iterable[str] = ()) -> config.Params:
    """The defaults, changed by a profile, changed by assignments ``section.key=value``.

    Raises:
        UserError: there is no such profile, or a key or value that params may not have.
    """
    known = names(profile.parent)
    if profile.stem not in known:
        raise UserError(f"{profile}: no such profile. There are: {', '.join(known)}")
    assignments = list(assignments)
    for one in assignments:
        if "=" not in one:
            raise UserError(f"'{one}': expected section.key=value, for example inner.rate=0.1")
    source = " with ".join([str(profile), *assignments])
    try:
        # a profile of comments only loads as an empty mapping
        merged = OmegaConf.merge(OmegaConf.load(profile) or {}, OmegaConf.from_dotlist(assignments))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: {error}") from None
    assert isinstance(merged, DictConfig)
    return config.from_mapping(values, source=source)  # type: ignore[arg-type]


def apply(params_path: Path, wanted: config.Params) -> list[Change]:
    """Makes a params file say ``wanted``, touching only the values that differ. Returns what changed.

    Raises:
        UserError: the file is no YAML.
    """
    round_trip = YAML()
    round_trip.preserve_quotes = True
    round_trip.width = 1000
    try:
        document = round_trip.load(params_path.read_text(encoding="utf-8")) or CommentedMap()
    except FileNotFoundError:
        document = CommentedMap()
    except YAMLError as error:
        raise UserError(f"{params_path}: no YAML, so it cannot be changed: {error}") from None
    values = config.flat(wanted)
    changes = [*_remove_unknown(document, values, ""), *_set(document, values)]
    _close_up_comments(document)
    with replacing(params_path) as temporary:
        with temporary.open("w", encoding="utf-8") as file:
            round_trip.dump(document, file)
        if config.load(temporary) != wanted:
            raise UserError(f"{params_path}: could not be rewritten. Restore it: git checkout {params_path}")
    return changes


def _set(document: CommentedMap, values: dict[str, Any]) -> list[Change]:
    changes: list[Change] = []
    for key, value in values.items():
        *sections, last = key.split(".")
        place = document
        for section in sections:
            if not isinstance(place.get(section), CommentedMap):
                place[section] = CommentedMap()
            place = place[section]
        before = place.get(last)
        if before == value and type(before is True) is type(value is True):
            continue
        place[last] = None  # else a new text takes the quotes of the one before
        place[last] = _in_one_line(value) if isinstance(value, list) else value
        changes.append((key, before, value))
    return changes


def _remove_unknown(place: CommentedMap, values: dict[str, Any], prefix: str) -> list[Change]:
    changes: list[Change] = []
    for key in list(place):
        full = f"{prefix}{key}"
        if full in values:
            continue
        if any(known.startswith(f"{full}.") for known in values):
            if isinstance(place[key], CommentedMap):
                changes += _remove_unknown(place[key], values, f"{full}.")
        else:
            changes.append((full, place.pop(key), None))
    return changes


def _in_one_line(values: list[Any]) -> CommentedSeq:
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def _close_up_comments(place: CommentedMap) -> None:
    """One space before each comment. Otherwise it stays in its column and a value's length shows in the diff."""
    for tokens in place.ca.items.values():
        for token in tokens:
            if isinstance(token, CommentToken):
                token.column = 0
    for value in place.values():
        if isinstance(value, CommentedMap):
            _close_up_comments(value)
