"""Limit the pixels of a picture, so that a small file cannot fill the memory."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from onnx_release.core.errors import DataError


def limit_pixels(pixels: int) -> None:
    """Refuse pictures with more pixels in this process from now on. Pillow's own limit is 179 million."""
    Image.MAX_IMAGE_PIXELS = pixels
    # Pillow's warnings contain numbers from the client, and Python would keep each of them.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Up to twice the limit, Pillow only warns.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@contextmanager
def refusing_too_many_pixels() -> Iterator[None]:
    """Raise TooManyPixelsError where Pillow refuses a picture because of the limit."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise TooManyPixelsError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller") from cause


class TooManyPixelsError(DataError):
    """A picture whose header gives more pixels than are allowed; it was not decoded."""
