"""Make uploads that cost a decoder far more time or memory than their bytes suggest.

Each function gives the bytes of one file, most of them by hand from the format's specification. `ATTACKS` has them all,
by what they do. tests/serving/test_decoders.py and benchmarks/serving_attacks.py send them to a server.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

SIDE = 7071  # its square is just under 50 million pixels
FILE_BYTES = 9_900_000  # just under the server's limit for one file


@dataclass(frozen=True)
class Attack:
    """A file that attacks a server: what it is, how to make it, and the statuses that are right for it."""

    name: str
    make: Callable[[], bytes]
    statuses: tuple[int, ...]


def attacks() -> list[Attack]:
    """List the files; those that are honest pictures of the largest size may be answered 200."""
    refused, answered = (413, 422), (200, 413)
    return [
        Attack("JPEG, progressive, 1,000 empty scans", lambda: progressive_jpeg(1000), refused),
        Attack("JPEG, progressive, 100 empty scans", lambda: progressive_jpeg(100), refused),
        Attack("JPEG, progressive, 20 empty scans", lambda: progressive_jpeg(20), answered),
        Attack("JPEG of padding", padded_jpeg, refused),
        Attack("JPEG of junk", lambda: padded_jpeg(b"\0"), refused),
        Attack("JPEG of empty segments", segmented_jpeg, refused),
        Attack("JPEG, EXIF whose entries overlap", lambda: exif_jpeg(1), (200, 413, 422)),
        Attack("JPEG, 9.9 MB of EXIF", lambda: exif_jpeg(150), refused),
        Attack("JPEG, CMYK, 50 million pixels", lambda: plain("JPEG", "CMYK"), answered),
        Attack("PNG, 1 x 50 million", lambda: png(1, 50_000_000), refused),
        Attack("PNG, 50 million x 1", lambda: png(50_000_000, 1), refused),
        Attack("PNG, RGBA of 16 bits, 50 million pixels", lambda: png(SIDE, SIDE, RGBA_16), answered),
        Attack("PNG, interlaced, 50 million pixels", lambda: png(SIDE, SIDE, RGBA, interlaced=True), answered),
        Attack("PNG of empty chunks", chunked_png, refused),
        Attack("PNG, EXIF whose entries overlap", exif_png, refused),
        Attack("PNG, texts that inflate", inflating_png, (200, 413, 422)),
        Attack("WebP of 28 bytes, 268 million pixels", lambda: webp(16_383, 16_383), refused),
        Attack("WebP of 28 bytes, 50 million pixels", lambda: webp(SIDE, SIDE), answered),
        Attack("WebP of 28 bytes, 35 million pixels", lambda: webp(5000, 6990), answered),
        Attack("WebP, a canvas that is not the picture's", lying_webp, refused),
        Attack("AVIF, 50 million pixels", lambda: plain("AVIF", "RGB", speed=10), answered),
        Attack("AVIF, 16 x 16 outside, 50 million pixels inside", lying_avif, (200, 413, 422)),
        Attack("AVIF, corrupt", corrupt_avif, (422,)),
        Attack("TIFF of a million strips", lambda: tiff_of_strips(1_000_000), refused),
        Attack("TIFF, 16 x 16, one tile of 46,336 x 46,336", tiff_of_a_large_tile, refused),
        Attack("TIFF, tags that overlap", overlapping_tiff, refused),
        Attack("TIFF with a JPEG of 1,000 empty scans", lambda: tiff_of_jpeg(progressive_jpeg(1000)), refused),
        Attack("PPM as text", lambda: b"P3 1000 1000 255 " + b"1 " * (FILE_BYTES // 2 - 20), refused),
        Attack("PPM as text, one number", lambda: b"P2 1 1 255 " + b"0" * FILE_BYTES, refused),
        Attack("PPM, 1 x 50 million", lambda: b"P5 1 50000000 255 " + bytes(FILE_BYTES), refused),
        Attack("GIF of extensions", extended_gif, refused),
        Attack("GIF, 50 million pixels", lambda: plain("GIF", "P"), answered),
        Attack("BMP, runs of one pixel", run_length_bmp, (200, 413, 422)),
    ]


def plain(kind: str, mode: str, **options: Any) -> bytes:
    """Return an honest picture of one colour and of the largest size."""
    content = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(content, kind, **options)
    return content.getvalue()


# JPEG (ITU-T T.81).


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def progressive_jpeg(scans: int, side: int = SIDE) -> bytes:
    """Each scan of ten bytes goes over all coefficients; the bits that are missing count as zeros."""
    tables = segment(0xDB, bytes([0, *[1] * 64])) + segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0]))
    frame = segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0))
    scan = segment(0xDA, bytes([1, 1, 0, 1, 63, 0]))
    return b"\xff\xd8" + tables + frame + scan * scans + b"\xff\xd9"


def small_jpeg(exif: bytes = b"") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "JPEG", exif=exif)
    return content.getvalue()


def padded_jpeg(filling: bytes = b"\xff") -> bytes:
    return b"\xff\xd8" + filling * FILE_BYTES + small_jpeg()[2:]


def segmented_jpeg() -> bytes:
    return b"\xff\xd8" + segment(0xFE, b"") * (FILE_BYTES // 4) + small_jpeg()[2:]


def overlapping_exif(size: int) -> bytes:
    """A directory of TIFF with as many entries as half of `size` holds, each of which claims the whole rest."""
    count = min(size // 24, 65_535)
    rest = size - 14 - 12 * count
    entries = b"".join(struct.pack("<HHII", tag, 7, rest, 10 + 12 * count) for tag in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(rest + 4)


def exif_jpeg(segments: int) -> bytes:
    """The standard allows one segment; Pillow joins several."""
    content = overlapping_exif(65_500 * segments)
    parts = [b"Exif\0\0" + content[at : at + 65_500] for at in range(0, len(content), 65_500)]
    return b"\xff\xd8" + b"".join(segment(0xE1, part) for part in parts) + small_jpeg()[2:]


# PNG.


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# Bits of a value, the colour type, and the bytes of a pixel.
RGB, RGBA, RGBA_16 = (8, 2, 3), (8, 6, 4), (16, 6, 8)


def png(
    width: int, height: int, kind: tuple[int, int, int] = RGB, interlaced: bool = False, more: bytes = b""
) -> bytes:
    """Return a black PNG; `more` are chunks before its data."""
    bits, colour, pixel = kind
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    rows = height * (2 if interlaced else 1)  # the seven passes have nearly twice as many
    deflate = zlib.compressobj(1)
    data = deflate.compress(bytes(height * width * pixel + rows)) + deflate.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND")


def chunked_png() -> bytes:
    return png(16, 16, more=chunk(b"vpAg") * (FILE_BYTES // 12))


def exif_png() -> bytes:
    return png(16, 16, more=chunk(b"eXIf", overlapping_exif(1_600_000)))


def inflating_png() -> bytes:
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    return png(16, 16, more=text * (FILE_BYTES // len(text)))


# WebP (RFC 9649) and AVIF.


def webp(width: int, height: int) -> bytes:
    """A lossless picture of one colour: each of its five codes has one symbol, so a pixel takes no bits."""
    bits, place = 0, 0
    for value, length in [(width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1), *[(1, 4)] * 5]:
        bits |= value << place
        place += length
    data = b"\x2f" + bits.to_bytes(-(-place // 8), "little")
    data += bytes(-len(data) % 2)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def lying_webp() -> bytes:
    """Say 16 x 16 for a picture of 268 million pixels."""
    inside = webp(16_383, 16_383)[12:]
    outside = b"VP8X" + struct.pack("<IB", 10, 0) + bytes(3) + bytes([15, 0, 0, 15, 0, 0])
    return b"RIFF" + struct.pack("<I", 4 + len(outside) + len(inside)) + b"WEBP" + outside + inside


def lying_avif() -> bytes:
    honest = plain("AVIF", "RGB", speed=10)
    return honest.replace(
        b"ispe\0\0\0\0" + struct.pack(">II", SIDE, SIDE), b"ispe\0\0\0\0" + struct.pack(">II", 16, 16)
    )


def corrupt_avif() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(content, "AVIF")
    found = bytearray(content.getvalue())
    start = found.index(b"mdat") + 8
    found[start : start + 50] = bytes(byte ^ 0xFF for byte in found[start : start + 50])
    return bytes(found)


# TIFF, and the rest.


def tiff(tags: list[tuple[int, int, int, int]], content: bytes = b"") -> bytes:
    """Return a TIFF with these tags, each (tag, type, count, value), and `content` at byte 4,096."""
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return (b"II*\0\x08\0\0\0" + directory).ljust(4096, b"\0") + content


def grey_tiff(width: int, height: int, compression: int, *tags: tuple[int, int, int, int], content: bytes) -> bytes:
    basic = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    return tiff([*basic, (277, 3, 1, 1), *tags], content)


def tiff_of_strips(strips: int) -> bytes:
    """Every strip is one row, and all are the same empty one."""
    strip = zlib.compress(bytes(8))
    places = np.full(strips, 4096 + 8 * strips, "<u4").tobytes()
    sizes = np.full(strips, len(strip), "<u4").tobytes()
    tags = [(273, 4, strips, 4096), (278, 4, 1, 1), (279, 4, strips, 4096 + 4 * strips)]
    return grey_tiff(8, strips, 8, *tags, content=places + sizes + strip)


def tiff_of_a_large_tile(side: int = 46_336) -> bytes:
    tile = zlib.compress(bytes(1000))
    tags = [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 4096), (325, 4, 1, len(tile))]
    return grey_tiff(16, 16, 8, *tags, content=tile)


def overlapping_tiff() -> bytes:
    claims = [(40_000 + number, 7, FILE_BYTES - 4096, 4096) for number in range(300)]
    return grey_tiff(1, 1, 1, (273, 4, 1, 4096), (279, 4, 1, 1), *claims, content=bytes(FILE_BYTES - 4096))


def tiff_of_jpeg(content: bytes, side: int = SIDE) -> bytes:
    tags = [(273, 4, 1, 4096), (278, 4, 1, side), (279, 4, 1, len(content))]
    return grey_tiff(side, side, 7, *tags, content=content)


def extended_gif() -> bytes:
    return b"GIF89a\x10\0\x10\0\0\0\0" + b"!\xff\1a\0" * (FILE_BYTES // 5) + b";"


def run_length_bmp() -> bytes:
    """Pillow reads runs in Python; these have one pixel each."""
    width, height = 5_000, 990
    runs = (b"\1\0" * width + b"\0\0") * height
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + bytes(1024) + runs
