"""Read photographs the way that both the pipeline and the server do."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from onnx_release.errors import DataError


def read_image(path: Path) -> np.ndarray:
    """The image as uint8 RGB [height, width, 3], turned as its EXIF orientation says.

    Raises DataError if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as cause:  # Pillow raises each of these on broken files
        raise DataError(f"{path} cannot be read as an image ({cause}): replace or remove it") from cause
