"""Mean and deviation of each mel band: what features are normalised by.

They are a corpus's own, or come from a file, so that a model trained on one corpus can read the features of another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metaspeech.audio.features import SETTINGS
from metaspeech.config import Prepare
from metaspeech.errors import UserError
from metaspeech.files import replacing

_WAY_OUT = (
    "To normalise by this corpus's own statistics set prepare.statistics to '' and pretrain.init to none: the starts "
    "that ship were trained on features normalised by the file"
)


@dataclass(frozen=True)
class MelStatistics:
    """Of log-mels.

    Attributes:
        mel_mean, mel_std: one value a band.
    """

    mel_mean: list[float]
    mel_std: list[float]


def read_statistics(path: Path, config: Prepare) -> MelStatistics:
    """The numbers of a file.

    Args:
        path: JSON: ``settings`` (what the log-mels were made with), ``mel_mean``, ``mel_std``, and ``made_from``.
        config: the section ``prepare`` of the params.

    Raises:
        UserError: the file is missing or malformed, or ``config`` makes other log-mels.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = content["settings"]
        numbers = {name: [float(value) for value in content[name]] for name in ("mel_mean", "mel_std")}
        differing = next((name for name in SETTINGS if settings[name] != getattr(config, name)), None)
    except FileNotFoundError:
        raise UserError(f"prepare.statistics: {path}: no such file. {_WAY_OUT}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"prepare.statistics: {path}: cannot be read ({error!r}). {_WAY_OUT}") from None
    if differing:
        raise UserError(
            f"prepare.{differing}: {getattr(config, differing)}, but the mel statistics of {path} are those of "
            f"{differing} {settings[differing]}. {_WAY_OUT}"
        )
    found = MelStatistics(**numbers)
    if not _usable(found, config.n_mels):
        raise UserError(
            f"prepare.statistics: {path}: expected {config.n_mels} finite numbers in mel_mean and as many above 0 in "
            f"mel_std. {_WAY_OUT}"
        )
    return found


def write_statistics(path: Path, statistics: MelStatistics, settings: Mapping[str, Any], made_from: Any) -> None:
    """Writes such a file. ``settings`` are those of a store; ``made_from`` says of which corpus."""
    features = {name: settings[name] for name in SETTINGS}
    content = {"made_from": made_from, "settings": features, **asdict(statistics)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _usable(statistics: MelStatistics, bands: int) -> bool:
    means, deviations = statistics.mel_mean, statistics.mel_std
    return (
        len(means) == len(deviations) == bands
        and all(map(math.isfinite, [*means, *deviations]))
        and min(deviations) > 0
    )
