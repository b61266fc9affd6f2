"""Sound and figures that live inside the page."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import soundfile
import torch
from markupsafe import escape
from matplotlib.figure import Figure

from metaspeech.audio.features import resample
from metaspeech.audio.io import read

PIXELS_PER_INCH = 105  # at most, so that letters of all figures are about as large as those of the text
BROAD = 6.5  # inches, above which a figure is not made as narrow as a telephone
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz


def mp3(path: Path) -> str:
    """A recording as MP3, which every browser plays, in base64."""
    samples, rate = read(path)
    if rate not in MP3_RATES:
        samples, rate = resample(torch.from_numpy(samples), rate, 16000).numpy(), 16000
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="MP3", subtype="MPEG_LAYER_III")
    return base64.b64encode(buffer.getvalue()).decode()


def inline_svg(figure: Figure, title: str, variables: Mapping[str, str]) -> str:
    """A figure as an ``<svg>`` element whose colours follow the page.

    Args:
        figure: what to draw.
        title: read out by screen readers.
        variables: colour in the figure (``#rrggbb``) -> name of the CSS variable that takes its place.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text: the browser has the letters
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, name in variables.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1, flags=re.DOTALL)
    width = figure.get_figwidth() * PIXELS_PER_INCH
    broad = ' class="broad"' if figure.get_figwidth() > BROAD else ""
    marks = f'role="img" aria-label="{escape(title)}"{broad} style="max-width: {width:.0f}px"'
    return svg.replace("<svg", f"<svg {marks}", 1)
