"""Measure how much memory a picture takes to decode, in each format that the server can read.

    python -m benchmarks.decode_memory

prints bytes a pixel for a picture of 20 million pixels: the peak of the resident memory of a process that decodes it,
less what it had before, so without the file. docs/serving.md has the numbers. Needs Linux.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnx_release.core.command import run_tool
from onnx_release.core.errors import BenchmarkError
from onnx_release.data.images import decode_image
from onnx_release.report.text import number, table

WIDTH, HEIGHT = 5000, 4000
# Format, mode and what Pillow's save() is told.
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "I;16", {}),
    ("WEBP", "RGB", {"method": 0}),
    ("WEBP", "RGB", {"method": 0, "lossless": True}),
    ("WEBP", "RGBA", {"method": 0}),
    ("AVIF", "RGB", {"speed": 10}),
    ("AVIF", "RGBA", {"speed": 10}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
    ("TIFF", "CMYK", {}),
    ("BMP", "RGB", {}),
    ("GIF", "P", {}),
    ("PPM", "RGB", {}),
    ("PPM", "I", {}),
]


def main(arguments: argparse.Namespace) -> None:
    if not Path("/proc/self/status").is_file():
        raise BenchmarkError("it reads /proc, which only Linux has: run it there")
    if arguments.decode:
        print(bytes_a_pixel(arguments.decode))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, mode, options in KINDS:
            path = Path(folder) / "picture"
            picture(mode).save(path, kind, **options)
            command = [sys.executable, "-m", "benchmarks.decode_memory", "--decode", str(path)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append([kind, mode, ", ".join(map(str, options)), number(float(printed))])
    print(table(["format", "mode", "options", "bytes a pixel"], rows))


def picture(mode: str) -> Image.Image:
    """Return soft noise: it has detail, and files of an ordinary size."""
    small = np.random.default_rng(7).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    image = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    if mode in ("I;16", "I"):
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16 if mode == "I;16" else np.int32) * 200)
    return image.convert(mode)


def bytes_a_pixel(path: Path) -> float:
    """Decode the file in this process, and return what that took at its peak."""
    content, before = path.read_bytes(), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    height, width, _ = decode_image(content).shape
    return (resident("VmHWM") - before) / (height * width)


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decode", type=Path, help="only this file, for which the benchmark starts itself")
    run_tool(main, parser)
