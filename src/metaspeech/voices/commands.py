"""``metaspeech adapt``, ``metaspeech say`` and ``metaspeech voices``."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaspeech.errors import UserError

if TYPE_CHECKING:
    from metaspeech.voices.adaptation import Progress
    from metaspeech.voices.card import Card
    from metaspeech.voices.checks import Checked
    from metaspeech.voices.meta_model import MetaModel, Places
    from metaspeech.voices.store import VoiceStore

STATEMENT = (
    "A voice can be made to say anything. Use recordings only of yourself, or of somebody who has agreed to this. "
    "Whose voice is it, and do they agree? One sentence, which is kept with the voice"
)
voices = typer.Typer(no_args_is_help=True, help="What voices there are, and what becomes of them.")

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="The folder of voices. By default $METASPEECH_VOICES, else voices/ in the project."),
]
VoiceArgument = Annotated[str, typer.Argument(help="Name of the voice.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Take the place of a voice of the same name.")]


def adapt(
    recordings: Annotated[
        Path, typer.Option(help="Folder: metadata.csv (path, text), or audio files each with a .txt.")
    ],
    name: Annotated[str, typer.Option(help="Of the voice.")],
    consent: Annotated[str, typer.Option(help="Whose voice it is and that they agree. Asked for when absent.")] = "",
    speaker: Annotated[str, typer.Option(help="Whose recordings, where metadata.csv has several speakers.")] = "",
    vocoder: Annotated[
        str, typer.Option(help="griffin-lim, or wavenet: slower, and today it sounds worse.")
    ] = "griffin-lim",
    model_from: Annotated[
        Path | None, typer.Option(help="Folder of the Tacotron to adapt. By default it is chosen.")
    ] = None,
    vocoder_from: Annotated[
        Path | None, typer.Option(help="Folder of the WaveNet to adapt. By default it is chosen.")
    ] = None,
    algorithm: Annotated[str, typer.Option(help="Choose among the models of this algorithm only.")] = "",
    steps: Annotated[int, typer.Option(min=0, max=10_000, help="At most so many.")] = 60,
    rate: Annotated[
        float | None, typer.Option(min=1e-6, max=100, help="Of a step. By default the meta-model's own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of dropout.")] = 1,
    keep_doubtful: Annotated[bool, typer.Option("--keep-doubtful", help="Use doubtful recordings too.")] = False,
    check_texts: Annotated[bool, typer.Option(help="Listen whether recordings say their texts (English).")] = True,
    overwrite: OverwriteOption = False,
    store: StoreOption = None,
) -> None:
    """Make a voice from a handful of recordings."""
    from metaspeech.voices.adaptation import Settings
    from metaspeech.voices.card import VOCODERS
    from metaspeech.voices.checks import check_recordings, phoneme_listener
    from metaspeech.voices.making import make_voice, usable
    from metaspeech.voices.meta_model import choose
    from metaspeech.voices.names import checked_name
    from metaspeech.voices.recordings import read_folder

    if vocoder not in VOCODERS:
        raise UserError(f"--vocoder: '{vocoder}', expected one of {', '.join(VOCODERS)}")
    made, name = voice_store(store), checked_name(name)
    made.check_free(name, overwrite)
    entries = read_folder(recordings, speaker)
    wanted = [("tacotron", model_from), *([("wavenet", vocoder_from)] if vocoder == "wavenet" else [])]
    bar = _Bar()
    with tempfile.TemporaryDirectory() as fetched:
        metas = []
        for model, given in wanted:
            champion = champion_folder(model, Path(fetched)) if given is None and not algorithm else None
            meta, why = choose(model, places(), champion, algorithm, given)
            typer.echo(f"{model}: {meta.origin} ({meta.algorithm}, {meta.id[:12]}): {why}")
            metas.append(meta)
        _say_what_a_start_knows(metas[0])
        checked = check_recordings(recordings, entries, metas[0].features, phoneme_listener() if check_texts else None)
        _print_checks(checked, keep_doubtful)
        usable(checked, keep_doubtful)  # before anybody is asked for a statement that leads nowhere
        statement = _consent(consent)
        settings = Settings(steps=steps, rate=rate, seed=seed)
        try:
            card = make_voice(made, name, checked, metas, statement, settings, keep_doubtful, overwrite, bar.show)
        finally:
            bar.close()
    _print_made(made, card)


def say(
    text: Annotated[str | None, typer.Argument(help="What to say. Read from standard input when absent.")] = None,
    voice: Annotated[str, typer.Option(help="Name of the voice.")] = "",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .wav, .flac or .ogg file; - streams to standard output.")
    ] = Path("speech.wav"),
    speed: Annotated[float, typer.Option(help="0.5 to 2; the pitch stays.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed says it the same way again.")] = 1,
    vocoder: Annotated[str | None, typer.Option(help="griffin-lim or wavenet. By default the voice's own.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="With -o -: samples alone (16 bit, little endian, mono).")] = False,
    store: StoreOption = None,
) -> None:
    """Let a voice speak a text of any length."""
    import numpy as np

    from metaspeech.files import AUDIO_SUFFIXES
    from metaspeech.voices import load, wav
    from metaspeech.voices.sentences import left_out

    made = voice_store(store)
    if not voice:
        raise UserError(f"--voice: which one? There: {', '.join(made.names()) or 'none yet: metaspeech adapt'}")
    streaming = str(output) == "-"
    if streaming and sys.stdout.isatty():
        raise UserError("-o -: sound on a terminal. Send it on, such as: metaspeech say ... -o - | aplay")
    if not streaming and output.suffix.lower() not in AUDIO_SUFFIXES:
        raise UserError(f"{output}: expected a name that ends in {', '.join(AUDIO_SUFFIXES)}, or - for standard output")
    text = _standard_input() if text is None else text
    speaker = load(voice, made.folder)
    spoken = speaker.stream(text, speed=speed, seed=seed, vocoder=vocoder)
    if silent := left_out(text):
        typer.echo(f"warning: cannot be heard and left out: {', '.join(silent[:8])}", err=True)
    note = speaker.note(text, seed=seed, speed=speed)
    if not streaming:
        samples = np.concatenate([one.samples for one in spoken])
        wav.write(output, samples, speaker.rate, note)
        typer.echo(f"{output}: {len(samples) / speaker.rate:.1f} s")
        return
    try:
        if not raw:
            sys.stdout.buffer.write(wav.stream_header(speaker.rate, note))
        for one in spoken:
            sys.stdout.buffer.write(wav.as_pcm(one.samples))
            sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing can be flushed when the process ends
        if not isinstance(error, BrokenPipeError):  # then who listens has gone
            raise UserError(f"standard output: cannot be written: {error.strerror}") from None


@voices.command("list")
def list_voices(store: StoreOption = None) -> None:
    """All voices, a line each."""
    made = voice_store(store)
    names = made.names()
    if not names:
        typer.echo(f"no voices in {made.folder}. Make one: metaspeech adapt --recordings FOLDER --name NAME")
    for name in names:
        try:
            card = made.card(name)
        except UserError as error:
            typer.echo(f"{name}  damaged: {error}")
            continue
        part = card.parts["tacotron"]
        typer.echo(
            f"{name}  {card.created[:10]}  {len(card.recordings)} recordings, {part.step} steps of {part.algorithm} "
            f"({part.meta_model[:12]}), {card.vocoder}, {made.bytes(name) / 1e6:.1f} MB"
        )


@voices.command()
def show(name: VoiceArgument, store: StoreOption = None) -> None:
    """Where a voice comes from: its voice.json."""
    typer.echo(voice_store(store).card(name).text(), nl=False)


@voices.command()
def compare(one: VoiceArgument, other: VoiceArgument, store: StoreOption = None) -> None:
    """How alike two voices are, by the speaker encoder."""
    from metaspeech.voices import load
    from metaspeech.voices.compare import SENTENCES, compare

    folder = voice_store(store).folder
    found = compare(load(one, folder), load(other, folder))
    typer.echo(
        f"{one} and {other}: {found.similarity:.3f}\n"
        f"{one} to itself: {found.within[0]:.3f}, {other} to itself: {found.within[1]:.3f}\n"
        f"(cosine of Resemblyzer's vectors of {len(SENTENCES)} sentences that both say; to itself: one half of them "
        "against the other)"
    )


@voices.command()
def delete(
    name: VoiceArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove a voice for good."""
    made = voice_store(store)
    folder = made.path(name)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"delete: {folder} would be gone for good. Say so: --yes")
        typer.confirm(f"Remove {folder} for good?", abort=True)
    made.delete(name)
    typer.echo(f"{folder}: removed")


@voices.command()
def export(
    name: VoiceArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file. By default NAME.voice.")] = None,
    store: StoreOption = None,
) -> None:
    """Write a voice to one file, for another project with the same meta-model."""
    from metaspeech.voices.archive import SUFFIX, export_voice

    out = export_voice(voice_store(store), name, output or Path(f"{name}{SUFFIX}"))
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


@voices.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What export wrote.")],
    name: Annotated[str, typer.Option(help="Of the voice here. By default the one that it has.")] = "",
    model_from: Annotated[
        list[Path] | None, typer.Option(help="Folder of a meta-model that the voice may need.")
    ] = None,
    overwrite: OverwriteOption = False,
    store: StoreOption = None,
) -> None:
    """Add a voice from a file, which is checked first."""
    from metaspeech.voices.archive import import_voice
    from metaspeech.voices.meta_model import at_hand

    made = voice_store(store)
    card = import_voice(made, file, at_hand(places(), model_from or []), name, overwrite)
    typer.echo(f"{made.path(card.name)}: {card.consent}")


@voices.command()
def register(
    name: VoiceArgument,
    alias: Annotated[str, typer.Option(help="Of this version in the registry.")] = "champion",
    store: StoreOption = None,
) -> None:
    """Put a voice into MLflow's registry, as a model from text to samples."""
    from metaspeech.tracking import tracking_uri
    from metaspeech.tracking.voices import register_voice

    made = voice_store(store)
    registered = register_voice(made.folder, made.path(name).name, tracking_uri(project()), project(), alias)
    typer.echo(f"{registered}@{alias}: mlflow.pyfunc.load_model('models:/{registered}@{alias}')")


def project() -> Path:
    """The root of the project: the nearest folder upwards with dvc.yaml, else the current one."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), here)


def places() -> Places:
    """Where the pipeline puts its models, and the starts that ship."""
    from metaspeech.voices.meta_model import Places

    root = project()
    return Places(root / "models" / "meta_train", root / "assets" / "starts")


def champion_folder(model: str, into: Path) -> Path | None:
    """The champion of MLflow's registry, fetched to a folder in ``into``; None where there is none."""
    from metaspeech.tracking import tracking_uri
    from metaspeech.tracking.voices import champion

    return champion(model, tracking_uri(project()), into)


def voice_store(given: Path | None) -> VoiceStore:
    """The store that --store names, else $METASPEECH_VOICES, else voices/ of the project."""
    from metaspeech.voices.store import VoiceStore

    return VoiceStore(given or os.environ.get("METASPEECH_VOICES") or project() / "voices")


def _consent(given: str) -> str:
    if given:
        return given
    if not sys.stdin.isatty():
        raise UserError(f'--consent: {STATEMENT}: --consent "My own voice. Anna Example"')
    return str(typer.prompt(STATEMENT))


def _standard_input() -> str:
    if sys.stdin.isatty():
        typer.echo("What to say? End with Ctrl-D on a line of its own.", err=True)
    try:
        return sys.stdin.buffer.read(1 << 20).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: byte {error.start} is not UTF-8. Convert it, e.g. with iconv") from None


def _say_what_a_start_knows(meta: MetaModel) -> None:
    start: Any = meta.card.get("start")
    if start:
        typer.echo(
            f"  trained on {start['hours']:.1f} h of {start['speakers']} speakers of {start['corpus']}: "
            "expect little of voices of another kind"
        )


def _print_checks(checked: Sequence[Checked], keep_doubtful: bool) -> None:
    from metaspeech.voices.names import shown

    counts = {state: sum(one.state == state for one in checked) for state in ("good", "doubtful", "refused")}
    typer.echo(f"{len(checked)} recordings: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    for one in checked:
        if one.state != "good":
            used = " (used all the same)" if one.state == "doubtful" and keep_doubtful else ""
            typer.echo(f"  {shown(one.path)} {one.state}{used}: {one.reason}. {one.advice}")


def _print_made(store: VoiceStore, card: Card) -> None:
    for model, part in card.parts.items():
        steps = f"{part.step} step{'s' * (part.step != 1)} of {part.algorithm} at rate {part.rate:g}"
        if part.losses:
            before, after = part.losses[0], part.losses[part.step]
            steps += f"; loss on what was held back {before:.3f}, then {after:.3f}"
            if part.step == 0:
                steps += ". No step lowered it: the voice is that of the meta-model. Try a lower --rate"
        typer.echo(f"{model}: {steps} ({part.stopped}; {part.seconds:.1f} s)")
    typer.echo(f"{store.path(card.name)}: {store.bytes(card.name) / 1e6:.1f} MB")
    typer.echo(f'hear it: metaspeech say --voice {card.name} "young dog ran home" -o {card.name}.wav')


class _Bar:
    """A bar for each model on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._model = ""

    def show(self, progress: Progress) -> None:
        from tqdm import tqdm

        if progress.model != self._model:
            self.close()
            self._model = progress.model
            self._bar = tqdm(total=progress.steps, desc=progress.model, unit="step", leave=False, disable=None)
        self._bar.n = progress.step
        self._bar.set_postfix_str(f"loss {progress.loss:.3f}, best after {progress.best}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
