"""The making of a voice: which recordings are used, every model adapted, all of it saved at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from metaspeech.errors import UserError
from metaspeech.tracking.execution import current
from metaspeech.voices.adaptation import Report, Settings, adapt_model, divided
from metaspeech.voices.card import FORMAT, GRIFFIN_LIM, Card, Part, Recording
from metaspeech.voices.checks import Checked
from metaspeech.voices.meta_model import MetaModel, same_features
from metaspeech.voices.names import shown
from metaspeech.voices.store import CARD, VoiceStore, write_delta

LEAST_CONSENT = 8  # characters: a statement, not a "y"


def usable(checked: Sequence[Checked], keep_doubtful: bool) -> list[Checked]:
    """The recordings that a voice is made from.

    Raises:
        UserError: none is left.
    """
    states = ("good", "doubtful") if keep_doubtful else ("good",)
    used = [one for one in checked if one.state in states and one.utterance is not None]
    if used:
        return used
    lines = [f"  {shown(one.path)}: {one.reason}. {one.advice}" for one in checked[:10]]
    more = f"\n  and {len(checked) - 10} more" if len(checked) > 10 else ""
    doubtful = any(one.state == "doubtful" for one in checked)
    raise UserError(
        "none of the recordings can be used:\n"
        + "\n".join(lines)
        + more
        + ("\nTo use the doubtful ones all the same: --keep-doubtful" if doubtful else "")
    )


def check_consent(statement: str) -> str:
    """The statement. Raises UserError where it says nothing."""
    if len(statement.strip()) < LEAST_CONSENT:
        raise UserError(
            "consent: a voice is somebody's. Say in a sentence whose it is and that they agree, such as --consent "
            '"My own voice. Anna Example"; it is kept with the voice'
        )
    return statement.strip()


def make_voice(
    store: VoiceStore,
    name: str,
    checked: Sequence[Checked],
    metas: Sequence[MetaModel],
    consent: str,
    settings: Settings,
    keep_doubtful: bool = False,
    overwrite: bool = False,
    report: Report | None = None,
) -> Card:
    """Adapts each of ``metas``, a Tacotron and perhaps a vocoder of the same features, and saves the voice.

    Raises:
        UserError: no consent, no usable recording, models that do not go together, or the name is taken.
    """
    consent = check_consent(consent)
    if metas[0].name != "tacotron" or any(not same_features(metas[0], other) for other in metas[1:]):
        raise UserError(
            f"{metas[-1].folder}: its features are not those of {metas[0].folder}: the two cannot speak as one voice"
        )
    used = usable(checked, keep_doubtful)
    utterances = [one.utterance for one in used if one.utterance is not None]
    with store.saving(name, overwrite) as folder:
        parts = {}
        for meta in metas:
            kept = store.keep(meta)
            adapted = adapt_model(kept, utterances, settings, report)
            parts[meta.name] = Part(
                meta_model=meta.id,
                algorithm=meta.algorithm,
                origin=meta.origin,
                step=adapted.step,
                rate=adapted.rate,
                stopped=adapted.stopped,
                losses=[float(f"{loss:.6g}") for loss in adapted.losses],
                seconds=round(adapted.seconds, 2),
                **write_delta(folder, meta.name, adapted.step, adapted.base, adapted.params, adapted.band_map),  # type: ignore[arg-type]
            )
        card = Card(
            format=FORMAT,
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            consent=consent,
            vocoder=metas[1].name if len(metas) > 1 else GRIFFIN_LIM,
            seed=settings.seed,
            parts=parts,
            recordings=_recordings(used, settings.shots),
            refused=dict(Counter(one.reason.partition(":")[0] for one in checked if one not in used)),
            commit=_commit(),
            version=package_version(),
        )
        for meta in metas:  # again: the deletion of another voice meanwhile may have taken them for unused
            store.keep(meta)
        (folder / CARD).write_text(card.text(), encoding="utf-8")
    return card


def package_version() -> str:
    """Of this package; "unknown" where it runs from its sources and was never installed."""
    try:
        return version("metaspeech")
    except PackageNotFoundError:
        return "unknown"


def _recordings(used: Sequence[Checked], shots: int) -> list[Recording]:
    support, held = divided(len(used), shots)
    roles = {**dict.fromkeys(support, "adapted"), **dict.fromkeys(held, "held back")}
    return [
        Recording(
            sha256=one.sha256,
            seconds=round(one.seconds, 3),
            snr_db=round(one.snr_db, 1),
            phoneme_error=round(one.phoneme_error, 3) if one.phoneme_error == one.phoneme_error else None,
            role=roles.get(index, "not used"),
        )
        for index, one in enumerate(used)
    ]


def _commit() -> str:
    execution = current(Path.cwd(), {})
    return execution.commit + (" with changes" if execution.dirty else "")
