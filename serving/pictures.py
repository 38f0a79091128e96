"""Limit the pictures that Pillow opens in this process: their formats, and what a small file can make it do.

The limits are set on Pillow itself, as `limit_pixels` sets its own, so they hold for any decode() of a data.py. They
refuse at once what is known to take long or much. What they do not know is ended by the limits of the process, see
decoder.py.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

from PIL import AvifImagePlugin, Image

from onnx_release.core.errors import DataError
from onnx_release.data.images import FORMATS
from onnx_release.data.pixel_limit import TooManyPixelsError, limit_pixels

SIDE = 65_535  # pixels, as in JPEG. Pillow and libpng also need memory for each row, and for the longest one.
EXIF_BYTES = 65_536  # as in one segment of JPEG. The entries of larger ones may each claim all of the rest.
# Encoders of photographs write 1 scan, or 10 if they are progressive, and 18 for CMYK. A scan takes time for each pixel
# of the picture, so the largest pictures may have LARGE_JPEG_SCANS, and smaller ones up to JPEG_SCANS.
JPEG_SCANS, LARGE_JPEG_SCANS = 100, 20
JPEG_SEGMENTS = 1_000
JPEG_PADDING = 65_536  # bytes that belong to no segment; Pillow reads each by itself
PNG_CHUNKS = 20_000  # 10 MB in the smallest chunks of common encoders, with 1,024 bytes, are half as many
# libwebp holds the canvas twice and the picture, and Pillow has copies: a WebP takes 20 bytes a pixel,
# where decoders.py counts with 14.
WEBP_SHARE = 0.7
TIFF_PIECES = 65_535  # strips or tiles: one strip a row of the highest picture

Factory = Callable[[Any, Any], Any]

Image.init()  # Pillow has all formats now, and looks for no others. All processes are forks of one that has done this.


class FormatError(DataError):
    """A picture in a format that this server was not told to read; it was not decoded."""


def limit_pictures(formats: tuple[str, ...], pixels: int) -> None:
    """Let Pillow open only these formats in this process from now on, and only pictures within the limits."""
    limit_pixels(pixels)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there is a process for each core
    for name, (factory, accept) in list(Image.OPEN.items()):
        if name in formats:
            Image.OPEN[name] = (checked(CHECKS.get(name), factory, pixels), accept)
        elif name in FORMATS:
            Image.OPEN[name] = (refusing(name, formats), accept)
        else:
            del Image.OPEN[name]
            Image.ID.remove(name)


def refusing(name: str, formats: tuple[str, ...]) -> Factory:
    def refuse(*_: Any) -> Any:
        raise FormatError(
            f"it is a picture in the format {name}, and this server reads {', '.join(formats)}: save it in one of "
            f"these, or start the server with --formats {','.join((*formats, name))}"
        )

    return refuse


def checked(check: Callable[[bytes, int], None] | None, factory: Factory, pixels: int) -> Factory:
    """Return the factory of a format with these checks of the file's bytes and of the picture's size and EXIF."""

    def open_checked(file: io.BytesIO, filename: Any) -> Any:
        if check is not None:
            check(file.getvalue() if isinstance(file, io.BytesIO) else file.read(), pixels)
            file.seek(0)
        image = factory(file, filename)
        if max(image.size) > SIDE:
            raise TooManyPixelsError(
                f"it is {image.width:,} pixels wide and {image.height:,} high, and a side may have {SIDE:,}: crop it"
            )
        check_exif(len(image.info.get("exif", b"")))
        return image

    return open_checked


def check_exif(size: int) -> None:
    if size > EXIF_BYTES:
        raise DataError(f"its EXIF has {size:,} bytes, more than {EXIF_BYTES:,}: save it without")


# A marker is FF and another byte; FF 00 is a value, and FF D0 to FF D7 are marks inside a scan.
JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
JPEG_WITHOUT_LENGTH = b"\x01\xd8"
START_OF_SCAN, END_OF_IMAGE = b"\xda", b"\xd9"
FRAMES = tuple(bytes([marker]) for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC))
SEQUENTIAL_FRAMES = (b"\xc0", b"\xc1")


def check_jpeg(content: bytes, pixels: int) -> None:
    """Raise DataError for more scans, segments or padding than any encoder writes (ITU-T T.81, annex B).

    Each scan of a progressive file goes over the whole picture, however short it is.
    """
    most_scans = JPEG_SCANS
    scans = segments = padding = place = components = 0
    in_scan = False
    while found := JPEG_MARKER.search(content, place):
        marker, segment = found[1], found.end()
        if not in_scan:
            padding += found.start() - place
        if marker == END_OF_IMAGE:
            break
        segments += 1
        scans += marker == START_OF_SCAN
        in_scan = marker == START_OF_SCAN
        refuse_more(scans, most_scans, "scans")
        refuse_more(segments, JPEG_SEGMENTS, "segments")
        refuse_more(padding, JPEG_PADDING, "bytes of padding")
        if marker in FRAMES and segment + 7 <= len(content):
            height, width = struct.unpack_from(">HH", content, segment + 3)
            most_scans = min(most_scans, LARGE_JPEG_SCANS * pixels // max(1, height * width))
        if marker in SEQUENTIAL_FRAMES:
            components = int.from_bytes(content[segment + 7 : segment + 8])
        if in_scan and content[segment + 2 : segment + 3] == bytes([components]):
            return  # all components in one pass: the decoder ends there
        place = segment
        if marker not in JPEG_WITHOUT_LENGTH:
            place += int.from_bytes(content[place : place + 2])
    if not in_scan:
        refuse_more(padding + len(content) - place, JPEG_PADDING, "bytes of padding")


def refuse_more(found: int, limit: int, of: str) -> None:
    if found > limit:
        raise DataError(f"it has more than {limit:,} {of}, which takes long to read: save it anew")


def check_png(content: bytes, _: int) -> None:
    """Raise DataError for more chunks than any encoder writes, or a large EXIF (PNG specification, 5.3)."""
    chunks, place = 0, 8
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        chunks += 1
        refuse_more(chunks, PNG_CHUNKS, "chunks")
        if kind == b"eXIf":  # Pillow may find it only after the pixels
            check_exif(size)
        place += 12 + size


def check_webp(content: bytes, pixels: int) -> None:
    """Raise TooManyPixelsError for a canvas over the limit (RFC 9649): the decoder allocates it before Pillow asks."""
    width = height = 0
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[place : place + 3], "little") + 1 for place in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(content[place : place + 2], "little") & 0x3FFF for place in (26, 28))
    limit = int(pixels * WEBP_SHARE)
    if width * height > limit:
        raise TooManyPixelsError(
            f"it has more than {limit:,} pixels, the most for WebP: make it smaller, or save it as JPEG"
        )


def check_ppm(content: bytes, _: int) -> None:
    if content[:2] in (b"P1", b"P2", b"P3"):
        raise DataError("it is a PPM with its numbers as text, which take long to read: save it in binary")


# Tags of TIFF: one that gives the places of strips or tiles, and the two sides of a tile.
STRIPS, TILE_WIDTH, TILE_HEIGHT, TILES = 273, 322, 323, 324
TIFF_TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


def check_tiff(content: bytes, pixels: int) -> None:
    """Raise DataError for too many strips or tiles, or tags that overlap, and TooManyPixelsError for a large tile.

    libtiff reads a tile as a whole, however little of it the picture has.
    """
    tile = {TILE_WIDTH: 1, TILE_HEIGHT: 1}
    claimed = 0
    for tag, kind, count, value in tiff_tags(content):
        claimed += TIFF_TYPE_SIZES.get(kind, 0) * count
        if claimed > len(content):
            raise DataError("its tags have more bytes than the file, so it is damaged: save it anew")
        if tag in (STRIPS, TILES):
            refuse_more(count, TIFF_PIECES, "strips or tiles")
        if tag in tile:
            tile[tag] = value
    if tile[TILE_WIDTH] * tile[TILE_HEIGHT] > pixels:
        raise TooManyPixelsError(
            f"it has a tile of {tile[TILE_WIDTH]:,} by {tile[TILE_HEIGHT]:,}, more than {pixels:,} pixels: "
            "save it with smaller tiles"
        )


def tiff_tags(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count and first value of each entry of the first directory (TIFF 6.0, section 2, and BigTIFF).

    The value is a place in the file where it does not fit into the entry.
    """
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    entry, size = struct.Struct(order + ("HHQ" if big else "HHI")), 20 if big else 12
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
        (entries,) = struct.unpack_from(order + ("Q" if big else "H"), content, place)
        place += 8 if big else 2
        for start in range(place, place + entries * size, size):
            tag, kind, count = entry.unpack_from(content, start)
            short = "H" if kind == 3 else "Q" if kind in (16, 17, 18) else "I"
            yield tag, kind, count, struct.unpack_from(order + short, content, start + entry.size)[0]
    except (struct.error, OverflowError):
        return  # Pillow says what is wrong with it


CHECKS: dict[str, Callable[[bytes, int], None]] = {
    "JPEG": check_jpeg,
    "PNG": check_png,
    "WEBP": check_webp,
    "TIFF": check_tiff,
    "PPM": check_ppm,
}
