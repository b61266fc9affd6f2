"""Dataclasses as the schema of nested values: which keys there are, and what each may hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from metaspeech.errors import UserError

_NONE: Mapping[str, Any] = {}


def ranged(
    default: Any,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    of_weights: bool = False,
) -> Any:
    """A dataclass field with its inclusive range or its allowed values. A list field is checked item by item.

    ``of_weights``: it decides the shapes or the meaning of a model's weights, so that weights trained with one value
    are of no use with another.
    """
    metadata = {"low": low, "high": high, "choices": choices, "of_weights": of_weights}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def some_of(section: type, *, not_these: tuple[str, ...] = ()) -> Any:
    """A dataclass field that may hold any keys of another section, except ``not_these``; by default none."""
    return field(default_factory=dict, metadata={"section": section, "not_these": not_these})


def check_keys(values: Mapping[str, Any], schema: Any, prefix: str, source: str) -> None:
    """Raises UserError for a key that the dataclass ``schema`` has not, or a section that is no mapping."""
    known = {item.name: item for item in fields(schema)}
    for key, value in values.items():
        full = f"{prefix}{key}"
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean '{prefix}{close[0]}'?" if close else f"Known here: {', '.join(known)}."
            raise UserError(f"{source}: unknown key '{full}'. {hint}")
        inner = known[key].metadata.get("section") or _default(known[key])
        if is_dataclass(inner):
            if not isinstance(value, Mapping):
                raise UserError(f"{source}: {full}: expected a section of keys, found {value!r}")
            for name in known[key].metadata.get("not_these", ()):
                if name in value:
                    raise UserError(f"{source}: {full}.{name}: is the same for all models. Set {key}.{name} instead")
            check_keys(value, inner, f"{full}.", source)


def typed(section: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of some keys of a section, converted to their types. Raises OmegaConf's errors."""
    merged = OmegaConf.merge(OmegaConf.structured(section), OmegaConf.create(dict(values)))
    whole = OmegaConf.to_object(merged)
    return {key: getattr(whole, key) for key in values}


def leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Dotted key, value and the field's metadata of everything in a dataclass of dataclasses.

    A field of :func:`some_of` gives a leaf for each key that it holds, and one of its own, ``{}``, when it holds none;
    so does a section without fields.
    """
    for item in fields(values):
        key, value = f"{prefix}{item.name}", getattr(values, item.name)
        if is_dataclass(value) and not fields(value):
            yield key, {}, _NONE
        elif is_dataclass(value):
            yield from leaves(value, f"{key}.")
        elif "section" in item.metadata and value:
            metadata = {one.name: one.metadata for one in fields(item.metadata["section"])}
            for name, one in value.items():
                yield f"{key}.{name}", one, metadata[name]
        else:
            yield key, value, _NONE if value == {} else item.metadata


def check_range(key: str, value: Any, metadata: Mapping[str, Any], source: str) -> None:
    """Raises UserError for what lies outside a field's range or choices, and for lists empty or with repeats."""
    low, high, choices = metadata.get("low"), metadata.get("high"), metadata.get("choices")
    if isinstance(value, list) and not value:
        raise UserError(f"{source}: {key}: expected at least one value, found an empty list")
    if isinstance(value, list) and (twice := [one for one in value if value.count(one) > 1]):
        raise UserError(f"{source}: {key}: {twice[0]!r} is there more than once; name each value once")
    for one in value if isinstance(value, list) else [value]:
        if choices and one not in choices:
            raise UserError(f"{source}: {key}: {one!r} is not one of {', '.join(choices)}")
        if isinstance(one, (str, dict)):
            continue
        if one != one or (low is not None and one < low) or (high is not None and one > high):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise UserError(f"{source}: {key}: {one} is out of range, expected {bounds}")


def _default(item: Any) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()
