"""Photographs for MobileNetV2: 20 labelled ones of ImageNet for evaluation, seven others for calibration."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.data.images import decode_image, normalised, read_image, resized_crop
from onnx_release.types import Prediction, Sample, softmax_prediction

SIZE = 224
SHORTER_SIDE = 256
# ImageNet's mean and standard deviation by channel, as torchvision's weights were trained with.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

# The two motorcycle pictures are one scene, so only one is here.
CALIBRATION_SAMPLES = [
    "astronaut.png",
    "chelsea.png",
    "china.jpg",
    "coffee.png",
    "flower.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
]
CROPS_PER_PHOTOGRAPH = 300
SEED = 20


def samples(raw: Path, split: str) -> Iterator[Sample]:
    """Yield for evaluation the labelled photographs and then random crops of them, for calibration crops of the others.

    Crops go through the photographs in turn, so that the first samples are of all photographs.
    """
    paths = evaluation_paths(raw) if split == "evaluation" else [raw / name for name in CALIBRATION_SAMPLES]
    images = [read_image(path) for path in paths]
    if split == "evaluation":
        for path, image in zip(paths, images, strict=True):
            yield Sample(preprocess(image), label=int(path.stem.rpartition("_")[2]), group=path.stem)
    for crop in range(CROPS_PER_PHOTOGRAPH):
        for index, (path, image) in enumerate(zip(paths, images, strict=True)):
            random = np.random.default_rng([SEED, index, crop])
            yield Sample({"input": random_crop(image, random)}, group=path.stem)


def encoded(raw: Path) -> Iterator[bytes]:
    """Yield the evaluation photographs as a client would send them."""
    for path in evaluation_paths(raw):
        yield path.read_bytes()


def decode(content: bytes) -> np.ndarray:
    """Decode the bytes from a client to a uint8 RGB image [height, width, 3], the input of `preprocess`."""
    return decode_image(content)


def preprocess(item: np.ndarray) -> dict[str, np.ndarray]:
    """Resize a uint8 RGB image [height, width, 3] to a shorter side of 256, and normalise the middle 224 by 224."""
    image = Image.fromarray(item)
    scale = SHORTER_SIDE / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    middle = resized_crop(image, (width, height), (left, top, left + SIZE, top + SIZE))
    return {"input": normalised(middle, MEAN, STD)}


def postprocess(outputs: dict[str, np.ndarray]) -> Prediction:
    """Return the five likeliest ImageNet classes."""
    return softmax_prediction(outputs["logits"], top=5)


def evaluation_paths(raw: Path) -> list[Path]:
    return sorted(raw.glob("imagenet_*.jpg"))


def random_crop(item: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a random crop, normalised: a quarter to all of the area, 3:4 to 4:3, mirrored half of the time."""
    image = Image.fromarray(item)
    area = image.width * image.height * random.uniform(0.25, 1.0)
    ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(image.width, round(np.sqrt(area * ratio)))
    height = min(image.height, round(np.sqrt(area / ratio)))
    left = int(random.integers(image.width - width + 1))
    top = int(random.integers(image.height - height + 1))
    box = (left, top, left + width, top + height)
    crop = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return normalised(crop, MEAN, STD)
