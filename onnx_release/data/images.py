"""Read photographs the way that both the pipeline and the server do."""

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from onnx_release.core.errors import DataError

# What is taken for a photograph: Pillow knows many more formats, and would run a PostScript file. MPO, which telephones
# write, opens as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")
# Of these more than one picture is a film; in the others it is a preview or a page.
FILMS = ("GIF", "PNG", "WEBP", "AVIF")
# What Pillow raises on broken files, those with broken EXIF among them.
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError),
    *(struct.error, TypeError, KeyError, IndexError, AttributeError),
)
# How a picture is turned upright, by the orientation of the Exif standard.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class TooManyPixelsError(DataError):
    """A picture that is larger than is allowed, by its header; it has not been decoded."""


def limit_pixels(pixels: int) -> None:
    """Refuse pictures of more pixels in this process from now on. Pillow's own limit is 179 million."""
    Image.MAX_IMAGE_PIXELS = pixels
    # Its warnings have a client's numbers in them, and Python keeps each that it has shown.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Up to twice as many, Pillow only warns.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def read_image(path: Path) -> np.ndarray:
    """The image as `decode_image` gives it. Raises DataError if the file is missing, truncated or no image."""
    try:
        return decode_image(path.read_bytes())
    except (OSError, DataError) as cause:
        raise DataError(f"{path} cannot be read as an image ({cause}): replace or remove it") from cause


def decode_image(content: bytes) -> np.ndarray:
    """The image in a file's bytes as uint8 RGB [height, width, 3], turned as its EXIF orientation says.

    Raises DataError if they are truncated, a film, or no image of FORMATS, and TooManyPixelsError beyond Pillow's limit
    or that of `limit_pixels`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format in FILMS and getattr(image, "is_animated", False):
                raise DataError("it is a film of several pictures: send the one that is meant")
            image.load()
            turn = TURNS.get(orientation(image))
            upright: Image.Image = image if turn is None else image.transpose(turn)
            # Pillow would clip these at 255, so keep the upper eight of 16 bits. PPM calls them 32.
            if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            elif image.mode in ("I", "F"):
                raise DataError("its pixels have 32 bits, of which nobody says what is black and white: save it with 8")
            return np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise TooManyPixelsError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller") from cause
    except UnidentifiedImageError as cause:  # which names the object in memory
        raise DataError(f"it is no picture in one of the formats {', '.join(FORMATS)}") from cause
    except BROKEN as cause:
        raise DataError(str(cause) or type(cause).__name__) from cause


def orientation(image: Image.Image) -> int:
    """By the Exif standard; 1, upright, where there is none that can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except BROKEN:
        return 1


def resized_crop(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """`image` resized to `size` [width, height], and of that the box left, upper, right, lower.

    Pillow widens its filters where the picture gets smaller, which is called antialiasing elsewhere. Only what is in
    the box is computed, so that a picture ten pixels high and 50,000 wide costs no more than another.
    """
    x, y = image.width / size[0], image.height / size[1]
    left, upper, right, lower = box
    inside = (left * x, upper * y, right * x, lower * y)
    return image.resize((right - left, lower - upper), resampling, box=inside)


def normalised(image: Image.Image, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """float32 [channels, height, width]: values 0..255 as 0..1, less `mean`, by `std`, float32 [channels] each."""
    pixels = np.asarray(image).reshape(image.height, image.width, len(mean))
    # In place and channel by channel, which is faster than with channels last.
    values = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    values /= np.float32(255)
    values -= mean[:, np.newaxis, np.newaxis]
    values /= std[:, np.newaxis, np.newaxis]
    return values
