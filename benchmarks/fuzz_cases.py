"""Hostile manifests, params, audio headers and texts for :mod:`benchmarks.faults`."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import yaml

from metaspeech.corpora.espeak import say

CLI = (sys.executable, "-m", "metaspeech.cli")
CONSENT = "A machine's voice; it has nothing against it."
ADAPT = (
    *CLI,
    "adapt",
    "--recordings",
    "recordings",
    "--name",
    "bea",
    "--consent",
    CONSENT,
    "--steps",
    "1",
    "--no-check-texts",
    "--model-from",
    "assets/starts/tacotron",
    "--keep-doubtful",
)
SAY = (*CLI, "say", "--voice", "anna", "-o", "out.wav")
SAID = ("boy watched now", "king pushed house", "goat found house")


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch hacked",)


PICKLE = pickle.dumps(_Runs())


@dataclass(frozen=True)
class Case:
    """What is put into a project, and what a user then types."""

    name: str
    prepare: Callable[[Path], object]
    command: tuple[str, ...]
    stdin: bytes = b""


def add_voice(folder: Path, run: Callable[..., tuple[int, str, float]]) -> None:
    """Recordings, and a voice made from them."""
    if (folder / "voices" / "anna").is_dir():
        return
    recordings = folder / "recordings"
    recordings.mkdir(exist_ok=True)
    waveforms, rate = say("f1", 160, 40, list(SAID))
    for number, (samples, text) in enumerate(zip(waveforms, SAID, strict=True)):
        soundfile.write(recordings / f"{number}.wav", samples, rate)
        (recordings / f"{number}.txt").write_text(text, encoding="utf-8")
    status, said, _ = run(folder, tuple("anna" if word == "bea" else word for word in ADAPT))
    assert status == 0, said


def all_cases(seed: int) -> dict[str, list[Case]]:
    dice = random.Random(seed)
    return {"text": texts(dice), "manifest": manifests(dice), "audio": audio(dice), "params": params(dice)}


def texts(dice: random.Random) -> list[Case]:
    found = {
        "emoji": "😀🙏👩‍👩‍👧‍👦",
        "emoji between words": "young 😀 dog ran home",
        "Hebrew": "שלום עולם",
        "Arabic": "مرحبا",
        "Chinese": "你好世界",
        "Cyrillic": "привет",
        "Hindi": "नमस्ते",
        "direction reversed": "\u202eyoung dog\u202c ran home",
        "control characters": "young\x00dog\x07\x1b[31mran\x7fhome",
        "accents": "Zoë’s naïve café — “déjà vu”…",
        "empty": "",
        "white space": " \n\t\u00a0\u2028 ",
        "marks alone": "...!?---",
        "numbers": "0 -1 3.14159 1,234,567,890 1e309 £12.50 50% 2026-11-23 23:59 XIV 1st",
        "a number of ten thousand digits": "9" * 10_000,
        "100 kB of words": "young dog ran home. " * 5000,
        "100 kB without a space": "a" * 100_000,
        "combining marks": "a" + "\u0301" * 5000,
        "HTML": "<script>alert(1)</script> dog",
        "formula": "=cmd|'/c calc'!A0",
        "shell": "$(touch hacked); `touch hacked` dog",
        "options": "--output /etc/passwd",
    }
    noise = "".join(chr(code) for code in (dice.randrange(1, 0x2FFF) for _ in range(300)))
    cases = [
        Case(name, lambda _: None, SAY, text.encode()) for name, text in (found | {"random characters": noise}).items()
    ]
    return [*cases, Case("no UTF-8", lambda _: None, SAY, bytes(dice.randrange(256) for _ in range(300)))]


def manifests(dice: random.Random) -> list[Case]:
    good = b"path,text\n0.wav,boy watched now\n1.wav,king pushed house\n2.wav,goat found house\n"
    contents = {
        "empty": b"",
        "a header alone": b"path,text\n",
        "no header": good.split(b"\n", 1)[1],
        "random bytes": dice.randbytes(2000),
        "zeros": b"\0" * 5000,
        "UTF-16": good.decode().encode("utf-16"),
        "Latin-1": good + b"0.wav,caf\xe9\n",
        "with a mark": b"\xef\xbb\xbf" + good,
        "a quote that does not end": b'path,text\n0.wav,"boy watched\n' * 3,
        "too many columns": good + b"0.wav,a,b,c,d,e,f\n",
        "too few columns": good + b"0.wav\n",
        "a field of 1 MB": b"path,text\n0.wav," + b"a" * 1_000_000 + b"\n",
        "100,000 lines": b"path,text\n" + b"0.wav,boy watched now\n" * 100_000,
        "paths that lead outside": good
        + b"../../../etc/passwd,out\n/etc/passwd,out\n0.wav/../../x.wav,out\n~/x.wav,out\n|ls.wav,out\n",
        "HTML and formulas": good + b'<img src=x onerror=alert(1)>.wav,<script>\n=cmd.wav,"=1+1"\n',
        "a column twice": b"path,text,path\n0.wav,boy,../1.wav\n",
        "only emoji as texts": "path,text\n0.wav,😀\n1.wav,שלום\n2.wav,\n".encode(),
    }

    def put(content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / "recordings" / "metadata.csv").write_bytes(content)

    return [Case(name, put(content), ADAPT) for name, content in contents.items()]


def audio(dice: random.Random) -> list[Case]:
    """One of three recordings is replaced."""
    waveform = (0.3 * np.sin(np.arange(24_000) / 20)).astype(np.float32)

    def encoded(rate: int = 16_000, **how: str) -> bytearray:
        buffer = io.BytesIO()
        soundfile.write(buffer, waveform, rate, **({"format": "WAV", "subtype": "PCM_16"} | how))
        return bytearray(buffer.getvalue())

    def header(offset: int, form: str, value: float) -> bytes:
        content = encoded()
        struct.pack_into(form, content, offset, value)
        return bytes(content)

    contents = {
        "empty": b"",
        "four bytes": b"RIFF",
        "text": b"not audio at all " * 100,
        "random bytes": dice.randbytes(5000),
        "pickle": PICKLE,
        "rate 0": header(24, "<I", 0),
        "rate 1": header(24, "<I", 1),
        "rate 2^31-1": header(24, "<I", 2**31 - 1),
        "rate 15,991 (prime)": header(24, "<I", 15_991),
        "no channel": header(22, "<H", 0),
        "65,535 channels": header(22, "<H", 65_535),
        "bits 0": header(34, "<H", 0),
        "bits 7": header(34, "<H", 7),
        "says it holds hours": header(40, "<I", 0xFFFFFFF0),
        "says it holds nothing": header(40, "<I", 0),
        "RIFF size 0": header(4, "<I", 0),
        "format unknown": header(20, "<H", 0xFFFE),
        "cut off": bytes(encoded()[:5000]),
        "NaN as samples": bytes(encoded(subtype="FLOAT")[:80]) + b"\xff\xff\xff\x7f" * 20_000,
        "flac cut off": bytes(encoded(format="FLAC", subtype="PCM_16")[:3000]),
        "ogg cut off": bytes(encoded(format="OGG", subtype="VORBIS")[:3000]),
    }
    for number, how in enumerate(({"format": "WAV"}, {"format": "FLAC"}, {"format": "OGG", "subtype": "VORBIS"})):
        content = encoded(**how)
        for _ in range(20):
            content[dice.randrange(min(200, len(content)))] = dice.randrange(256)
        contents[f"20 bytes of the header drawn anew ({number + 1})"] = bytes(content)

    def put(content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / "recordings" / "1.wav").write_bytes(content)

    return [Case(name, put(content), ADAPT) for name, content in contents.items()]


def params(dice: random.Random) -> list[Case]:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
    )
    whole = {
        "empty": b"",
        "random bytes": dice.randbytes(1000),
        "a list": b"- 1\n- 2\n",
        "a number": b"7\n",
        "no YAML": b"seed: [1, 2\n  x: }{\n",
        "tabs": b"seed:\t1\n\tx: 2\n",
        "zeros": b"\0" * 500,
        "entities that multiply": bomb.encode(),
        "an object of Python": b"seed: !!python/object/apply:os.system ['touch hacked']\n",
        "a key twice": b"seed: 1\nseed: 2\n",
        "an anchor in itself": b"corpus: &a\n  path: *a\n",
        "nested 5,000 deep": b"seed: " + b"[" * 5000,
    }
    values = {
        "seed": ["x", -1, 1.5, None, [], {}, 2**70, True],
        "models": ["tacotron", [], ["tacotron", "tacotron"], ["../x"], [1]],
        "algorithms": [["maml; touch hacked"], ["nobody"]],
        "corpus.path": ["", "/nowhere", "\0", "../" * 50, 7],
        "inner.rate": [float("nan"), float("inf"), 0, -1, "fast"],
        "inner.stepz": [1],
        "prepare.sample_rate": [0, 10**9],
        "evaluate.shots": [[0], [10**9], "all"],
        "meta_train.gradient_evaluations": [0, 10**18],
    }
    check = (sys.executable, "-m", "pipelines.check")

    def put(content: bytes) -> Callable[[Path], object]:
        return lambda folder: (folder / "params.yaml").write_bytes(content)

    def change(key: str, value: object) -> Callable[[Path], object]:
        def prepare(folder: Path) -> None:
            path = folder / "params.yaml"
            loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
            *sections, name = key.split(".")
            place = loaded
            for section in sections:
                place = place[section]
            place[name] = value
            path.write_text(yaml.safe_dump(loaded, allow_unicode=True), encoding="utf-8")

        return prepare

    cases = [Case(name, put(content), check) for name, content in whole.items()]
    return cases + [
        Case(f"{key}: {str(value)[:40]}", change(key, value), check) for key, found in values.items() for value in found
    ]
