"""Pictures for P-Net: photographs with people at many sizes, and labelled crops of faces and of other things.

P-Net finds faces of about 12 pixels. For faces of any size the caller runs it on an image pyramid, so each level of a
photograph's pyramid is a sample.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.data.boxes import suppress
from onnx_release.data.images import decode_image, read_image
from onnx_release.types import Detections, Sample

SMALLEST, LARGEST = 48, 640  # of height and width, as spec.yaml declares
EVALUATION_SAMPLES = ["t1.jpg", "bus.jpg", "camera.png"]
CALIBRATION_SAMPLES = ["zidane.jpg", "astronaut.png", "Tom_Hanks_54745.png"]
SHRINK = 0.9  # from one level of a pyramid to the next; half of the sizes are odd

CROPS = "lfw_subset.npy"
FACES = 100  # the first 100 crops are faces; 100 others follow
# A crop is the square around a face, so at the size of P-Net's square the face has the size that P-Net looks for.
CROP_SIZE = 12

# From the authors' own code: the squares that P-Net looks at, its threshold, and the overlap of two boxes of one level.
CELL, STRIDE = 12, 2
THRESHOLD = 0.6
OVERLAP = 0.5
FACE = 1


def samples(raw: Path, split: str) -> Iterator[Sample]:
    """Yield for evaluation levels of photographs, faces and other crops in turn, for calibration levels of others.

    Levels go through the photographs in turn, the largest of each first, and for calibration also mirrored. They have
    no labels, since nobody has counted their faces. A crop is a group of its own.
    """
    if split == "calibration":
        yield from levels(raw, CALIBRATION_SAMPLES, mirrored=False)
        yield from levels(raw, CALIBRATION_SAMPLES, mirrored=True)
        return
    crops = np.load(raw / CROPS)
    faces = (crop_sample(crop, 1, f"face {index}") for index, crop in enumerate(crops[:FACES]))
    others = (crop_sample(crop, 0, f"other {index}") for index, crop in enumerate(crops[FACES:]))
    for turn in itertools.zip_longest(levels(raw, EVALUATION_SAMPLES, mirrored=False), faces, others):
        yield from (sample for sample in turn if sample is not None)


def levels(raw: Path, names: list[str], mirrored: bool) -> Iterator[Sample]:
    """Yield the levels of each photograph's pyramid: the first level of all, the second of all, and so on."""
    images = [read_image(raw / name) for name in names]
    pyramids = [pyramid(image[:, ::-1] if mirrored else image) for image in images]
    for turn in itertools.zip_longest(*pyramids):
        for name, level in zip(names, turn, strict=True):
            if level is not None:
                yield Sample({"input": normalise(level)}, group=name)


def pyramid(item: np.ndarray) -> Iterator[Image.Image]:
    """Yield a uint8 RGB image [height, width, 3] at falling sizes from LARGEST to SMALLEST, never enlarged."""
    image = Image.fromarray(item)
    scale = min(1.0, LARGEST / max(image.size))
    while round(scale * min(image.size)) >= SMALLEST:
        yield resized(image, scale)
        scale *= SHRINK


def resized(image: Image.Image, scale: float) -> Image.Image:
    """Resize an image by a factor."""
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)


def crop_sample(crop: np.ndarray, label: int, group: str) -> Sample:
    """Return a grey crop [25, 25] in 0..1 as a sample: at CROP_SIZE, with its edges extended to the smallest input.

    A border of one colour would be a frame, and P-Net sometimes takes a frame for a face.
    """
    grey = Image.fromarray(np.round(crop * 255).astype(np.uint8))
    small = np.asarray(grey.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BILINEAR))
    padded = np.pad(small, (SMALLEST - CROP_SIZE) // 2, mode="edge")
    return Sample({"input": normalise(Image.fromarray(padded).convert("RGB"))}, label, group)


def encoded(raw: Path) -> Iterator[bytes]:
    """Yield the evaluation photographs as a client would send them."""
    for name in EVALUATION_SAMPLES:
        yield (raw / name).read_bytes()


def decode(content: bytes) -> np.ndarray:
    """Decode the bytes from a client to a uint8 RGB image [height, width, 3], the input of `preprocess`."""
    return decode_image(content)


def preprocess(item: np.ndarray) -> dict[str, np.ndarray]:
    """Normalise a uint8 RGB image [height, width, 3] at its own size, as one level of a pyramid.

    It is scaled down to at most 640 pixels and up to at least 48. If both are impossible, for an image more than 13
    times as long as wide, it is squeezed.
    """
    image = Image.fromarray(item)
    scale = max(min(1.0, LARGEST / max(image.size)), SMALLEST / min(image.size))
    width, height = (min(round(side * scale), LARGEST) for side in image.size)
    return {"input": normalise(image.resize((width, height), Image.Resampling.BILINEAR))}


def normalise(image: Image.Image) -> np.ndarray:
    """Return float32 [3, height, width], with 0..255 as -0.996..0.996."""
    pixels = (np.asarray(image, np.float32) - np.float32(127.5)) / np.float32(128)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def postprocess(outputs: dict[str, np.ndarray]) -> Detections:
    """Return the faces of one level: squares above the threshold, the best of overlapping ones, moved by regression.

    Boxes may reach beyond the picture's right and lower edge, whose position is not in the outputs.
    """
    face = outputs["probability"][FACE]
    rows, columns = np.nonzero(face >= THRESHOLD)
    scores = face[rows, columns]
    starts = np.stack([columns, rows], 1) * STRIDE
    squares = np.concatenate([starts, starts + CELL], 1).astype(np.float32)
    kept = suppress(squares, scores, OVERLAP)
    moves = outputs["regression"][:, rows[kept], columns[kept]].T
    boxes = np.maximum(squares[kept] + moves * CELL, 0).astype(np.float32)
    return Detections(boxes, scores[kept].astype(np.float32), np.full(len(kept), FACE, np.int64))
