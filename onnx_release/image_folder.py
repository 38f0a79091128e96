"""A model's data out of a folder of photographs, DIR/CLASS/*.jpg, with nothing to write but `images` in its spec.yaml.

The functions of ImageFolder are those that a data.py defines.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.errors import DataError
from onnx_release.images import decode_image, normalised, resized_crop
from onnx_release.spec import Spec
from onnx_release.types import Prediction, Sample, softmax_prediction
from onnx_release.workers import in_order

SUFFIXES = (".jpg", ".jpeg", ".png")
# Photographs that are decoded and waiting at once.
CHUNK = 16
# Items that the benchmark decodes and preprocesses.
ENCODED = 20
TOP = 5


@dataclass(frozen=True)
class Photograph:
    """`name` is its path below the folder, as CLASS/FILE; `label` the index of its class."""

    path: Path
    name: str
    label: int


def class_folders(folder: Path) -> list[str]:
    """The names of the class folders, sorted. Raises DataError if there is none, or a photograph has no class."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: photographs belong into folders named by their classes")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    loose = [path.name for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if loose:
        raise DataError(
            f"{folder} holds {len(loose)} photographs outside of a class ({listed(loose)}): "
            "move each into a folder named by its class"
        )
    classes = [path.name for path in entries if path.is_dir()]
    if not classes:
        raise DataError(
            f"{folder} {'has no class folders' if entries else 'is empty'}: "
            "photographs belong into folders named by their classes, as in roses/one.jpg"
        )
    return classes


def class_photographs(folder: Path, name: str) -> list[Path]:
    """The photographs of a class, sorted. Raises DataError if there is none, and for all that is no photograph."""
    entries = sorted(path for path in (folder / name).iterdir() if not path.name.startswith("."))
    others = [f"{name}/{path.name}" for path in entries if path.suffix.lower() not in SUFFIXES or not path.is_file()]
    if others:
        raise DataError(
            f"{folder} holds what is no photograph by its name ({listed(others)}): "
            f"remove or convert it, for a class's folder may hold {', '.join(SUFFIXES)} and nothing else"
        )
    if not entries:
        raise DataError(f"the class folder {folder / name} holds no photograph: put some there or remove it")
    return entries


def listed(names: list[str]) -> str:
    """The first ten, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def check_readable(photographs: list[Photograph]) -> None:
    """Decode all of them, on all cores. Raises DataError that counts those that cannot be read, and names ten."""

    def problem(photograph: Photograph) -> str | None:
        try:
            decode_image(photograph.path.read_bytes())
        except (OSError, DataError):
            return photograph.name
        return None

    broken = [name for name in in_order(problem, photographs, CHUNK) if name is not None]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(photographs)} photographs cannot be read: {listed(broken)}. Replace or remove "
            "them where the folder came from, and declare its new sha256, which the next run will name"
        )


def split_class(photographs: list[Photograph], share: float, seed: list[int]) -> dict[str, list[Photograph]]:
    """Both splits of one class, drawn by `seed`: `share` of it to evaluate on, and one at least in each.

    A single photograph is evaluated on.
    """
    order = [photographs[index] for index in np.random.default_rng(seed).permutation(len(photographs))]
    count = max(1, min(len(order) - 1, round(share * len(order))))
    return {"evaluation": order[:count], "calibration": order[count:]}


class ImageFolder:
    """What a data.py defines, for the photographs that `spec.images` describes, which must be there."""

    def __init__(self, spec: Spec) -> None:
        assert spec.images is not None
        self.images = spec.images
        self.input = spec.inputs[0].name
        self.output = spec.outputs[0]
        self.splits: dict[Path, dict[str, list[Photograph]]] = {}

    def samples(self, raw: Path, split: str) -> Iterator[Sample]:
        """One sample a photograph, its label the index of its class, its group its path; classes take turns.

        Raises DataError before the first one where a class folder is missing, empty or one too many, or a photograph
        of either split cannot be read.
        """
        photographs = self.photographs(raw, split)

        def sample(photograph: Photograph) -> Sample:
            inputs = self.preprocess(decode_image(photograph.path.read_bytes()))
            return Sample(inputs, photograph.label, photograph.name)

        yield from in_order(sample, photographs, CHUNK)

    def photographs(self, raw: Path, split: str) -> list[Photograph]:
        """Those of a split, checked once for both: the first of every class, the second of every class, and so on."""
        if raw not in self.splits:
            classes = self.classes(raw)
            check_readable([photograph for photographs in classes.values() for photograph in photographs])
            share, seed = self.images.evaluation, self.images.seed
            halves = [split_class(photographs, share, [seed, label]) for label, photographs in classes.items()]
            self.splits[raw] = {
                name: [
                    photograph
                    for turn in itertools.zip_longest(*(half[name] for half in halves))
                    for photograph in turn
                    if photograph is not None
                ]
                for name in ("calibration", "evaluation")
            }
        found = self.splits[raw][split]
        if not found:
            raise DataError(
                f"{raw / self.images.folder} has one photograph a class: {split} would have none. Two are the least"
            )
        return found

    def classes(self, raw: Path) -> dict[int, list[Photograph]]:
        """The photographs of every class that has a folder, by its label. Raises DataError as `samples` does."""
        folder = raw / self.images.folder
        names = class_folders(folder)
        declared = self.images.classes or names
        unknown = [name for name in names if name not in declared]
        if unknown:
            raise DataError(
                f"{folder} has the folders {listed(unknown)}, which are not among `images.classes` in spec.yaml: "
                "add them there at the place of their output, or remove them"
            )
        self.check_count(folder, len(names))
        return {
            label: [Photograph(path, f"{name}/{path.name}", label) for path in class_photographs(folder, name)]
            for label, name in enumerate(declared)
            if name in names
        }

    def check_count(self, folder: Path, count: int) -> None:
        """Raise DataError where folders that are numbered by their names cannot be the network's classes."""
        outputs = self.output.shape[1]
        if self.images.classes is None and isinstance(outputs, int) and outputs != count:
            raise DataError(
                f"{folder} has {count} class folders, {self.output.name} has {outputs} classes: name the classes in "
                "the order of the outputs under `images.classes` in spec.yaml, so that each photograph gets its number"
            )

    def encoded(self, raw: Path) -> Iterator[bytes]:
        """Some evaluation photographs as a client sends them."""
        for photograph in self.photographs(raw, "evaluation")[:ENCODED]:
            yield photograph.path.read_bytes()

    def decode(self, content: bytes) -> np.ndarray:
        """What a client has sent as `preprocess` takes it: a uint8 RGB image [height, width, 3]."""
        return decode_image(content)

    def preprocess(self, item: np.ndarray) -> dict[str, np.ndarray]:
        """A uint8 RGB image [height, width, 3] as float32 [channels, crop, crop], normalised.

        Sizes and places are rounded as in torchvision's Resize and CenterCrop, which most networks were trained with.
        """
        image = Image.fromarray(item).convert("RGB" if len(self.images.mean) == 3 else "L")
        size, crop = resized(image.size, self.images.resize), self.images.crop
        left, top = (round((side - crop) / 2) for side in size)
        middle = resized_crop(image, size, (left, top, left + crop, top + crop))
        mean, std = np.array(self.images.mean, np.float32), np.array(self.images.std, np.float32)
        return {self.input: normalised(middle, mean, std)}

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Prediction:
        """The five likeliest classes, by softmax."""
        return softmax_prediction(outputs[self.output.name], TOP)


def resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height where the shorter side is `shorter` and the longer one is rounded down."""
    width, height = size
    if width <= height:
        return shorter, shorter * height // width
    return shorter * width // height, shorter
