"""The file that says what a sweep varies, and by what its trials are judged.

    target: adapt
    objectives:
      - {model: tacotron, metric: validation_loss, direction: minimise}
    fixed:
      models: [tacotron]
    search:
      inner.rate: {low: 0.02, high: 1.0, log: true}
      inner.steps: {low: 1, high: 5}
      algorithms: {values: [[reptile], [fomaml]]}

Every key is one of params.yaml; every value, and both ends of every range, must be one that params.yaml may have.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from metaspeech import config
from metaspeech.errors import UserError
from metaspeech.registry import MODELS

TARGETS = ("meta_train", "adapt", "evaluate")  # stages that leave figures of models with algorithms
KEYS = ("target", "objectives", "prune", "fixed", "search")
DIRECTIONS = {"minimise": "minimize", "minimize": "minimize", "maximise": "maximize", "maximize": "maximize"}
NEW = "per_model."  # keys that params.yaml need not have yet, so that DVC is told to add them

YAML_WORDS = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")  # mean something else without quotes
# text in YAML 1.2, which DVC writes; true, false and numbers of base 60 in 1.1, which OmegaConf reads
READ_OTHERWISE = re.compile(r"yes|no|on|off|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+([.][0-9_]*)?", re.IGNORECASE)

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def extremes(self) -> list[float]:
        return [self.low, self.high]

    def describe(self) -> str:
        unit = "whole " if self.whole else ""
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{unit}{self.low:g} to {self.high:g}{step}{', logarithmic' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def extremes(self) -> list[Any]:
        return list(self.values)

    def labels(self) -> list[Scalar]:
        """As Optuna takes them: lists as their JSON."""
        return [label(value) for value in self.values]

    def value(self, chosen: Scalar) -> Any:
        return self.values[self.labels().index(chosen)]

    def describe(self) -> str:
        return " | ".join(text(value) for value in self.values)


@dataclass(frozen=True)
class Objective:
    """A figure of the target stage's metrics: of one model, the mean over the trial's algorithms and seeds."""

    metric: str
    model: str
    direction: str  # minimize or maximize, as Optuna has it
    algorithm: str = ""  # only of this one

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.model, self.algorithm, self.metric) if part)

    @property
    def sign(self) -> int:
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class Space:
    """A search space that has been checked against params.yaml."""

    source: str
    target: str
    objectives: tuple[Objective, ...]
    search: dict[str, Range | Choice]
    fixed: dict[str, Any] = field(default_factory=dict)
    prune: bool = False

    def values(self, chosen: Mapping[str, Scalar]) -> dict[str, Any]:
        """Of the searched keys, from what Optuna has chosen: numbers with six digits, which a person can copy."""
        found = {}
        for key, domain in self.search.items():
            value = chosen[key]
            rounded = float(f"{value:.6g}") if isinstance(value, float) else value
            found[key] = domain.value(value) if isinstance(domain, Choice) else rounded
        return found

    def described(self) -> dict[str, Any]:
        """For comparison with another: everything but the name of the file."""
        return {
            "target": self.target,
            "prune": self.prune,
            **{f"objective {number}": f"{one.direction} {one.name}" for number, one in enumerate(self.objectives, 1)},
            **{f"fixed.{key}": value for key, value in self.fixed.items()},
            **{f"search.{key}": domain.describe() for key, domain in self.search.items()},
        }


def load(path: Path, base: Mapping[str, Any]) -> Space:
    """Reads a file.

    Args:
        base: what params.yaml says, nested.

    Raises:
        UserError: no such file, no YAML, or something in it that params.yaml may not have: names file, key and what was
            expected.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. An example is sweeps/inner.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from None
    return parse(raw, base, str(path))


def parse(raw: Any, base: Mapping[str, Any], source: str) -> Space:
    """The same from what the YAML holds. Raises like :func:`load`."""
    _mapping(raw, source, f"the keys {', '.join(KEYS)}")
    for key in raw:
        if key not in KEYS:
            raise UserError(f"{source}: unknown key '{key}'. Known here: {', '.join(KEYS)}")
    target = raw.get("target", "adapt")
    if target not in TARGETS:
        raise UserError(f"{source}: target: {target!r} is not one of {', '.join(TARGETS)}")
    fixed = raw.get("fixed") or {}
    _mapping(fixed, f"{source}: fixed", "keys of params.yaml with a value each, such as 'models: [tacotron]'")
    searched = raw.get("search")
    _mapping(searched, f"{source}: search", "keys of params.yaml with a range or values each")
    if not searched:
        raise UserError(f"{source}: search: nothing to search. Expected at least one key with a range or values")
    for key in searched:
        if key in fixed:
            raise UserError(f"{source}: {key}: stands under fixed and under search. Remove one of them")
    start = with_values(base, fixed, f"{source}: fixed")
    search = {str(key): _domain(str(key), one, start, source) for key, one in searched.items()}
    objectives = _objectives(raw.get("objectives"), config.from_mapping(start), search, source)
    prune = raw.get("prune", False)
    if not isinstance(prune, bool):
        raise UserError(f"{source}: prune: expected true or false, found {prune!r}")
    if prune and len(objectives) > 1:
        raise UserError(
            f"{source}: prune: Optuna can stop trials early by one objective only, and there are {len(objectives)}. "
            "Set prune to false, or keep one objective"
        )
    for key in ("algorithms", "seeds") if prune else ():
        lists: list[Any] = search[key].extremes() if key in search else [start.get(key, getattr(config.Params(), key))]
        if any(len(one) > 1 for one in lists):
            raise UserError(
                f"{source}: prune: a trial is stopped by its one meta-training, and {key} names several: "
                f"{' or '.join(map(text, lists))}. Set prune to false, or name one under fixed"
            )
    return Space(source, target, objectives, search, fixed, prune)


def with_values(base: Mapping[str, Any], values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Nested params with other values under dotted keys. Raises UserError for what params.yaml may not have."""
    nested = copy.deepcopy(dict(base))
    for key, value in values.items():
        place: Any = nested
        *sections, last = str(key).split(".")
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict) or isinstance(place.get(last), dict):
            raise UserError(f"{source}: {key}: expected a key with a value, not a section or what lies under a value")
        place[last] = value
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and READ_OTHERWISE.fullmatch(one):
                raise UserError(f"{source}: {key}: '{one}' cannot be handed on: YAML takes it for another value")
    config.from_mapping(nested, source=source)
    return nested


def _domain(key: str, raw: Any, base: Mapping[str, Any], source: str) -> Range | Choice:
    here = f"{source}: search.{key}"
    expected = "{low: ..., high: ...} (also log: true or step: ...) or {values: [...]}"
    _mapping(raw, here, expected)
    if set(raw) == {"values"}:
        domain: Range | Choice = _choice(raw["values"], here)
        for value in domain.extremes():
            with_values(base, {key: value}, here)
        return domain
    if not {"low", "high"} <= set(raw) <= {"low", "high", "log", "step"}:
        raise UserError(f"{here}: expected {expected}, found the keys {', '.join(map(str, raw)) or 'none'}")
    kinds = set()
    for end in (raw["low"], raw["high"]):
        kinds |= {type(config.flat(config.from_mapping(with_values(base, {key: end}, here)))[key])}
    if not kinds <= {int, float}:
        raise UserError(
            f"{here}: only numbers have a range, this is text, a list or true/false. Expected values: [...]"
        )
    return _range(raw, kinds == {int}, here)


def _range(raw: Mapping[str, Any], whole: bool, here: str) -> Range:
    low, high, log, step = raw["low"], raw["high"], raw.get("log", False), raw.get("step")
    for name, end in (("low", low), ("high", high)) + ((("step", step),) if step is not None else ()):
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise UserError(f"{here}: {name}: expected a number, found {end!r}")
    if low >= high:
        raise UserError(f"{here}: empty range: low {low:g} is not below high {high:g}")
    if not isinstance(log, bool):
        raise UserError(f"{here}: log: expected true or false, found {log!r}")
    if log and low <= 0:
        raise UserError(f"{here}: log: a logarithmic range must begin above 0, low is {low:g}")
    if step is not None and (log or step <= 0 or step > high - low or (whole and not isinstance(step, int))):
        kind = "a whole number" if whole else "a number"
        raise UserError(f"{here}: step: expected {kind} between 0 and {high - low:g} and no log, found {step!r}")
    return Range(low, high, log, step, whole)


def _choice(values: Any, here: str) -> Choice:
    if not isinstance(values, list) or len({label(value) for value in values}) < 2:
        raise UserError(f"{here}: values: expected a list of at least two different values; a single one goes to fixed")
    if len({label(value) for value in values}) < len(values):
        raise UserError(f"{here}: values: one stands there twice: {', '.join(map(text, values))}")
    return Choice(tuple(values))


def _objectives(
    raw: Any, params: config.Params, search: Mapping[str, Range | Choice], source: str
) -> tuple[Objective, ...]:
    example = "{model: tacotron, metric: similarity_5, direction: maximise}"
    if not isinstance(raw, list) or not raw:
        raise UserError(f"{source}: objectives: expected a list of at least one, such as {example}")
    found = []
    for number, one in enumerate(raw, 1):
        here = f"{source}: objectives {number}"
        _mapping(one, here, example)
        if not {"model", "metric", "direction"} <= set(one) <= {"model", "metric", "direction", "algorithm"}:
            raise UserError(f"{here}: expected {example}, and algorithm where only one counts; found {one}")
        if one["direction"] not in DIRECTIONS:
            raise UserError(f"{here}: direction: {one['direction']!r} is not one of minimise, maximise")
        for part in str(one["model"]).split("+"):
            if part not in MODELS:
                raise UserError(f"{here}: model: '{part}' is not known. Known: {', '.join(MODELS)}")
            if part not in params.models and "models" not in search:
                raise UserError(f"{here}: model: '{part}' is not among the models of the trials, {params.models}")
        if not re.fullmatch(r"[\w/]+", str(one["metric"])):
            raise UserError(f"{here}: metric: expected a name such as loss_5, found {one['metric']!r}")
        found.append(
            Objective(one["metric"], one["model"], DIRECTIONS[one["direction"]], str(one.get("algorithm", "")))
        )
    if len(set(found)) < len(found):
        raise UserError(f"{source}: objectives: one stands there twice")
    return tuple(found)


def label(value: Any) -> Scalar:
    """A scalar for Optuna: lists as their JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value, ensure_ascii=False)


def text(value: Any) -> str:
    """As DVC's ``-S key=value`` takes it: words without quotes, of which a shell would be the second reader."""
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[a-z_]\w*", value, re.ASCII) and value not in YAML_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def assignment(key: str, value: Any) -> str:
    """For ``dvc exp run -S``."""
    return f"{'++' if key.startswith(NEW) else ''}{key}={text(value)}"


def _mapping(raw: Any, here: str, expected: str) -> None:
    if not isinstance(raw, Mapping):
        raise UserError(f"{here}: expected {expected}, found {raw!r}")
