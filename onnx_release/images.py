"""Read photographs the way that both the pipeline and the server do."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from onnx_release.errors import DataError

# What Pillow raises on broken files, and on ones that would fill the memory.
BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path) -> np.ndarray:
    """The image as `decode_image` gives it. Raises DataError if the file is missing, truncated or no image."""
    try:
        return decode_image(path.read_bytes())
    except (OSError, DataError) as cause:
        raise DataError(f"{path} cannot be read as an image ({cause}): replace or remove it") from cause


def decode_image(content: bytes) -> np.ndarray:
    """The image in a file's bytes as uint8 RGB [height, width, 3], turned as its EXIF orientation says.

    Raises DataError if they are truncated or no image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip these at 255, so keep the upper eight of 16 bits
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except BROKEN as cause:
        raise DataError(str(cause)) from cause
