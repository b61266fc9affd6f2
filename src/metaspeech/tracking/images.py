"""Images that MLflow shows over steps: their names say which key, step and time they are of."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LEAST = 240  # pixels; smaller images are enlarged by whole factors, so that cells stay sharp


def files(pixels: np.ndarray, name: str, step: int) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Names and writers of the two files that make up a logged image: the image, and a small one for previews.

    Args:
        pixels: (height, width) in [0, 1].
    """
    import numpy as np
    from PIL import Image

    factor = max(1, -(-LEAST // max(1, min(pixels.shape))))
    grey = np.kron(np.clip(pixels, 0.0, 1.0), np.ones((factor, factor)))
    image = Image.fromarray((255 * grey).astype(np.uint8))
    preview = image.copy()
    preview.thumbnail((256, 256))
    key = re.sub(r"[^\w\-. ]", "~", name)
    stem = f"{key}+step+{step}+timestamp+{int(time.time() * 1000)}+{uuid.uuid4()}"
    yield f"{stem}.png", partial(image.save, format="PNG")
    yield f"{stem}+compressed.webp", partial(preview.save, format="WEBP")
