"""Voices for eSpeak NG that nobody has designed: formants, pitch and breath drawn from a number.

The variants that come with eSpeak NG are a few dozen timbres. A synthesiser that is to be steered to a new voice wants
to have heard hundreds. ``drawn-17`` in the list of voices is the voice of the number 17, the same on any machine.

    python -m metaspeech.corpora.espeak_variants 300 > assets/espeak_drawn.csv
"""

from __future__ import annotations

import random
import re
import sys

NAME = re.compile(r"drawn-(\d{1,6})")
HIGHEST = 8  # formants 1 to 3 make vowels, 4 and 5 colour them, 6 to 8 are weak; 0 is a low component


def is_drawn(variant: str) -> bool:
    return NAME.fullmatch(variant) is not None


def gender(variant: str) -> str:
    """``f`` of even numbers, ``m`` of odd ones."""
    return "m" if _number(variant) % 2 else "f"


def variant_file(variant: str) -> str:
    """What eSpeak NG reads of a drawn voice (docs/voices.md of eSpeak NG): percent of the usual values, and hertz.

    Formants move together, as with the length of a vocal tract, and a little each by itself.
    """
    draw = random.Random(f"voice {_number(variant)}")
    female = gender(variant) == "f"
    tract = draw.uniform(0.98, 1.22) if female else draw.uniform(0.84, 1.06)
    base = draw.uniform(125, 215) if female else draw.uniform(68, 118)
    lines = [
        "language variant",
        f"name {variant}",
        f"gender {'female' if female else 'male'}",
        f"pitch {base:.0f} {base * draw.uniform(1.2, 1.6):.0f}",
        f"roughness {draw.randint(0, 3)}",
        f"flutter {draw.randint(0, 6)}",
        f"voicing {draw.randint(50, 130)}",
        f"consonants {draw.randint(70, 120)} {draw.randint(70, 120)}",
        f"formant 0 {draw.randint(85, 110)} {draw.randint(60, 150)} {draw.randint(80, 140)}",
    ]
    for formant in range(1, HIGHEST + 1):
        frequency = 100 * tract * draw.uniform(0.94, 1.06)
        strength = (
            draw.randint(70, 135) if formant <= 3 else draw.randint(40, 120) if formant <= 5 else draw.randint(0, 120)
        )
        lines.append(f"formant {formant} {frequency:.0f} {strength} {draw.randint(75, 150)}")
    heights = " ".join(
        f"{hertz} {draw.randint(low, 255)}" for hertz, low in ((600, 140), (1200, 110), (2000, 80), (3200, 50))
    )
    lines.append(f"tone {heights}")
    if draw.random() < 0.25:
        lines.append(f"breath {' '.join(str(draw.randint(0, 4)) for _ in range(8))}")
    return "\n".join(lines) + "\n"


def listed(count: int) -> str:
    """A list of voices (CSV) of the numbers 0 to ``count - 1``, with rates and pitches that are drawn too."""
    rows = ["speaker,variant,rate,pitch,gender"]
    for number in range(count):
        variant, draw = f"drawn-{number}", random.Random(f"speaks {number}")
        rows.append(f"{variant},{variant},{draw.randrange(140, 191)},{draw.randrange(35, 66)},{gender(variant)}")
    return "\n".join(rows) + "\n"


def _number(variant: str) -> int:
    found = NAME.fullmatch(variant)
    if not found:
        raise ValueError(f"{variant!r} is no drawn voice")
    return int(found[1])


if __name__ == "__main__":
    sys.stdout.write(listed(int(sys.argv[1])))
