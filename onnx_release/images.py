"""Read photographs the way that both the pipeline and the server do."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from onnx_release.errors import DataError

# What Pillow raises on broken files, and on ones that would fill the memory.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path) -> np.ndarray:
    """The image as uint8 RGB [height, width, 3], turned as its EXIF orientation says.

    Raises DataError if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip these at 255, so keep the upper eight of 16 bits
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except BROKEN as cause:
        raise DataError(f"{path} cannot be read as an image ({cause}): replace or remove it") from cause
