"""Read photographs, for the pipeline and the server alike."""

import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from onnx_release.core.errors import DataError
from onnx_release.data.pixel_limit import refusing_too_many_pixels

# The formats of photographs that are read. Pillow knows many more, and would run a PostScript file. MPO, which phones
# write, opens as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
# In these formats several pictures are an animation; in the others they are previews or pages.
FILMS = ("GIF", "PNG", "WEBP", "AVIF")
# The exceptions of Pillow on broken files, broken EXIF included.
BROKEN_EXIF = (
    *(OSError, SyntaxError, ValueError, EOFError, OverflowError),
    *(struct.error, TypeError, KeyError, IndexError, AttributeError),
)
BROKEN = (*BROKEN_EXIF, RuntimeError, MemoryError)  # RuntimeError: AVIF


def read_image(path: Path) -> np.ndarray:
    """Read a file as `decode_image` does. Raises DataError if it is missing, truncated or not an image."""
    try:
        return decode_image(path.read_bytes())
    except (OSError, DataError) as cause:
        raise DataError(f"{path} cannot be read as an image ({cause}): replace or remove it") from cause


def decode_image(content: bytes) -> np.ndarray:
    """Decode a file's bytes to uint8 RGB [height, width, 3], turned upright by its EXIF orientation.

    Raises DataError for a truncated image, an animation, or another format than FORMATS, and TooManyPixelsError beyond
    Pillow's limit or that of `limit_pixels`.
    """
    try:
        with refusing_too_many_pixels(), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format in FILMS and getattr(image, "is_animated", False):
                raise DataError("it is an animation of several pictures: send one of them")
            image.load()
            with suppress(*BROKEN_EXIF):  # it turns the pixels first, so what fails after that is the EXIF
                ImageOps.exif_transpose(image, in_place=True)
            upright: Image.Image = image
            # Pillow would clip 16-bit values at 255, so keep the upper eight bits. PPM's have the mode of 32 bits.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise DataError("its pixels have 32 bits, and black and white are not defined for them: save it with 8")
            return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
    except UnidentifiedImageError as cause:  # its text names an object in memory
        raise DataError(f"it is not a picture in one of the formats {', '.join(FORMATS)}") from cause
    except BROKEN as cause:
        raise DataError(str(cause) or type(cause).__name__) from cause


def resized_crop(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Resize `image` to `size` [width, height], and return the box left, upper, right, lower of the result.

    Pillow widens its filters when it makes a picture smaller, as with antialiasing in other libraries. Only the box is
    computed, so that a picture ten pixels high and 50,000 wide takes no longer than others.
    """
    x, y = image.width / size[0], image.height / size[1]
    left, upper, right, lower = box
    inside = (left * x, upper * y, right * x, lower * y)
    return image.resize((right - left, lower - upper), resampling, box=inside)


def normalised(image: Image.Image, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return float32 [channels, height, width]: 0..255 as 0..1, less `mean` and divided by `std`, both [channels]."""
    pixels = np.asarray(image).reshape(image.height, image.width, len(mean))
    # In place and channel by channel, which is faster than with channels last.
    values = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    values /= np.float32(255)
    values -= mean[:, np.newaxis, np.newaxis]
    values /= std[:, np.newaxis, np.newaxis]
    return values
