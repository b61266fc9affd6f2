"""A program of its own that speaks: one job on standard input, samples on standard output.

eSpeak NG is licensed under the GPL and keeps global state that is not thread safe. It is therefore loaded in a separate
process, which imports nothing of this package, and each speaker gets a fresh one, so that what a voice says does not
depend on what other voices said before.

Input, one line of JSON: ``{"voice": "en-us+f2", "rate": 160, "pitch": 50, "texts": ["...", ...]}`` with the rate in
words a minute and the pitch from 0 to 99; perhaps ``variant``, the content of a file that eSpeak NG has not. Output:
one line of JSON, ``{"sample_rate": ..., "samples": [one count a text]}``, then all samples, 16 bit little endian mono.
Failure: a message on standard error and exit status 1.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import espeakng_loader

# Constants of espeak-ng/speak_lib.h
SYNCHRONOUS = 2
DO_NOT_EXIT = 0x8000
POSITION_CHARACTER = 1
CHARACTERS_UTF8 = 1
RATE, VOLUME, PITCH = 1, 2, 3
QUIET = 40  # percent: at the usual 100 several voices clip

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def main() -> int:
    job = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as folder:
        return speak(job, data_with(job, Path(folder)) if "variant" in job else Path(espeakng_loader.get_data_path()))


def data_with(job: dict[str, Any], folder: Path) -> Path:
    """A folder of eSpeak NG's data in which the job's variant is the only one."""
    data = folder / "espeak-ng-data"
    variants = data / "voices" / "!v"
    variants.mkdir(parents=True)
    for path in Path(espeakng_loader.get_data_path()).iterdir():
        if path.name != "voices":
            (data / path.name).symlink_to(path)
    (variants / job["voice"].partition("+")[2]).write_text(job["variant"], encoding="utf-8")
    return data


def speak(job: dict[str, Any], data: Path) -> int:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    sample_rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(data).encode(), DO_NOT_EXIT)
    if sample_rate <= 0:
        print("eSpeak NG did not start: its data is missing", file=sys.stderr)
        return 1
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of breath noise; seeded with the time of day otherwise
    spoken = bytearray()

    def keep(samples: ctypes._Pointer[ctypes.c_short], count: int, events: int) -> int:
        if samples and count > 0:
            spoken.extend(ctypes.string_at(samples, 2 * count))
        return 0

    callback = Callback(keep)  # must live as long as the library calls it
    library.espeak_SetSynthCallback(callback)
    # An unknown variant would be ignored without a word.
    variant = job["voice"].partition("+")[2]
    known = not variant or (data / "voices" / "!v" / variant).is_file()
    if not known or library.espeak_SetVoiceByName(job["voice"].encode()) != 0:
        print(f"eSpeak NG has no voice {job['voice']!r}", file=sys.stderr)
        return 1
    library.espeak_SetParameter(VOLUME, QUIET, 0)
    library.espeak_SetParameter(RATE, int(job["rate"]), 0)
    library.espeak_SetParameter(PITCH, int(job["pitch"]), 0)

    lengths = []
    for text in job["texts"]:
        before = len(spoken)
        utf8 = text.encode()
        size = ctypes.c_size_t(len(utf8) + 1)
        failed = library.espeak_Synth(utf8, size, 0, POSITION_CHARACTER, 0, CHARACTERS_UTF8, None, None)
        if failed:
            print(f"eSpeak NG could not say {text!r} (error {failed})", file=sys.stderr)
            return 1
        lengths.append((len(spoken) - before) // 2)

    header = json.dumps({"sample_rate": sample_rate, "samples": lengths})
    sys.stdout.buffer.write(header.encode() + b"\n" + bytes(spoken))
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
